"""The weights that training starts from."""

import os
from pathlib import Path

from nas import models
from search_space.spec import ArchSpec
from trainers import folding, saved, timm_weights
from trainers.networks import classifier
from trainers.networks.classifier import Classifier


def network(spec: ArchSpec, init: str | None, *, seed: int) -> tuple[Classifier, str]:
    """Returns the network to train, and a line about where its weights are from.

    Args:
      spec: as it will be trained.
      init: None for fresh weights; a model's or a run's folder; or a safetensors or
        PyTorch file with timm's names. The classifier is fresh where the number of
        classes differs.
      seed: of fresh weights.

    Raises:
      ValueError: if the weights cannot be read or are of another architecture.
      OSError: if a file cannot be read.
    """
    saved.check_fits(spec)
    fresh = classifier.build(spec, seed=seed)
    if init is None:
        return fresh, f"weights drawn from seed {seed}"
    path = Path(os.path.expanduser(init))
    if path.is_dir():
        given = saved.arrays(models.model(init, seed=0).network)
    else:
        given = timm_weights.named_as_ours(spec, timm_weights.read(path))
    own, head = saved.arrays(fresh), folding.classifier_of(fresh)
    kernel, bias = (
        name
        for name, variable in saved.variables(fresh).items()
        if variable is head.kernel or variable is head.bias
    )
    if not kernel.endswith("kernel"):
        kernel, bias = bias, kernel
    if kernel in given and given[kernel].shape != own[kernel].shape:
        classes = given[bias].shape[0]
        given = given | {name: own[name] for name in (kernel, bias)}
        note = f"a new classifier for {spec.num_classes} classes instead of {classes}"
    else:
        note = "the classifier included"
    saved.assign(fresh, given)
    return fresh, f"weights from {init}, {note}"
