"""The weights that training starts from."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from nas.training import models
from search_space import zoo
from search_space.spec import (
    NORM_EPSILON,
    PYTORCH_NORM_EPSILON,
    ArchSpec,
    shorten,
)
from trainers.deploy import saved, timm_weights, weight_files
from trainers.deploy.saved import WeightsError
from trainers.networks import classifier
from trainers.networks.classifier import Classifier
from trainers.networks.units import ConvUnit

StemRule = Literal["exact", "sum"]

_TENSORFLOW = ("same", NORM_EPSILON)
_PYTORCH = ("symmetric", PYTORCH_NORM_EPSILON)
# What an architecture is, beside what differing shapes of weights would show.
_FUNCTION = ("activation", "stem", "stages", "padding", "norm_epsilon")

_Arrays = Mapping[str, np.ndarray]


def network(
    spec: ArchSpec, init: str | None, *, seed: int, stem: StemRule = "exact"
) -> tuple[Classifier, str]:
    """Returns the network to train, and a line about where its weights are from.

    Args:
      spec: as it will be trained.
      init: None for fresh weights; a model's or a run's folder; or a safetensors or
        PyTorch file with timm's names. The classifier is fresh where the number of
        classes differs, or where the file has none.
      seed: of fresh weights.
      stem: `exact` takes weights for as many input channels as the architecture has;
        `sum` adds up those of colour for grey, and spreads those of grey over colour.

    Raises:
      ValueError: if the weights cannot be read or are of another architecture.
      OSError: if a file cannot be read.
    """
    saved.check_fits(spec)
    fresh = classifier.build(spec, seed=seed)
    if init is None:
        return fresh, f"weights drawn from seed {seed}"
    given, about = _given(spec, init)
    given, about_head = _with_head(fresh, given)
    given, about_stem = _with_stem(fresh, given, stem)
    saved.assign(fresh, given)
    notes = [about_head, *about_stem, *about]
    return fresh, f"weights from {saved.shown(init)}, {'; '.join(notes)}"


def _given(spec: ArchSpec, init: str) -> tuple[_Arrays, list[str]]:
    """Returns the weights by our names, and what to know about them."""
    path = Path(os.path.expanduser(init))
    if path.is_dir():
        model = models.model(init, seed=0)
        return saved.arrays(model.network), _differences(spec, model.spec)
    weights, front = timm_weights.unwrapped(weight_files.read(path))
    about = [f"read under {shorten(front)}"] if front else []
    about.append(_convention(spec))
    return timm_weights.named_as_ours(spec, weights), about


def _differences(spec: ArchSpec, theirs: ArchSpec) -> list[str]:
    differ = [
        name for name in _FUNCTION if getattr(spec, name) != getattr(theirs, name)
    ]
    if not differ:
        return []
    return [
        f"they were trained with another {', '.join(differ)}, and give other outputs"
        f" here; for the same, train the architecture in that folder"
    ]


def _convention(spec: ArchSpec) -> str:
    """Says how the network pads and normalizes: a file does not say how its own did."""
    mine = (spec.padding, spec.norm_epsilon)
    here = f"taken for weights of padding {mine[0]!r} and epsilon {mine[1]:g}"
    plain = spec.name.removesuffix(zoo.PYTORCH)
    if mine == _TENSORFLOW:
        name, other = f"{plain}{zoo.PYTORCH}", _PYTORCH
        here += " (TensorFlow's; timm's tf_ models); for PyTorch's (timm's others)"
    elif mine == _PYTORCH:
        name, other = plain, _TENSORFLOW
        here += " (PyTorch's; timm's without tf_); for TensorFlow's (timm's tf_ models)"
    else:
        return here + ", as the architecture says"
    if zoo.has(plain):
        return f"{here} train {name} instead"
    padding, epsilon = other
    return f'{here} set "padding": "{padding}", "norm_epsilon": {epsilon:g} in its JSON'


def _with_head(fresh: Classifier, given: _Arrays) -> tuple[_Arrays, str]:
    """Returns the weights with a fresh classifier where they have none that fits."""
    own, head = saved.arrays(fresh), classifier.classifier_of(fresh)
    kernel, bias = saved.names_of(fresh, (head.kernel, head.bias))
    classes = own[bias].shape[0]
    anew = dict(given) | {kernel: own[kernel], bias: own[bias]}
    if kernel not in given and bias not in given:
        return anew, f"which have no classifier: a new one for {classes} classes"
    if kernel in given and given[kernel].shape != own[kernel].shape:
        theirs = given[kernel].shape[1]
        return anew, f"a new classifier for {classes} classes instead of {theirs}"
    return given, "the classifier included"


def _with_stem(
    fresh: Classifier, given: _Arrays, rule: StemRule
) -> tuple[_Arrays, list[str]]:
    """Returns the weights with a stem that reads as many channels as `fresh`."""
    unit = fresh.blocks[0].units[0]
    assert isinstance(unit, ConvUnit)  # what `build` makes
    (name,) = saved.names_of(fresh, (unit.kernel,))
    kernel, wanted = given.get(name), unit.kernel[...].shape[2]
    if kernel is None or (found := kernel.shape[2]) == wanted:
        return given, []
    if rule == "exact":
        raise WeightsError(
            f"the weights are for pictures of {_channels(found)}, and these have"
            f" {_channels(wanted)}; give --init-stem sum to"
            f" {'sum' if wanted == 1 else 'spread'} the first kernel over them, or"
            " weights or pictures of the other kind"
        )
    if wanted == 1:
        summed, note = kernel.sum(2, keepdims=True), "summed over the channels"
    elif found == 1:
        summed = kernel.repeat(wanted, 2) / wanted
        note = "spread over the channels"
    else:
        raise WeightsError(
            "--init-stem sum needs 1 channel on one side, got weights for"
            f" {_channels(found)} and pictures of {_channels(wanted)}; give pictures"
            " that the weights are for"
        )
    return dict(given) | {name: summed}, [f"the first kernel {note}"]


def _channels(number: int) -> str:
    kinds = {1: "1 channel (grey)", 3: "3 channels (RGB)"}
    return kinds.get(number, f"{number} channels")
