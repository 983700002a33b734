"""Our networks compute what timm's compute: the same weights give the same logits.

    pip install '.[checks]'
    python -m experiments.checks.timm_logits

Weights are random, and batch normalization has scales, shifts and statistics that are
not its initial ones. The networks are compared in evaluation mode, at their own
resolution and at an odd one: there SAME padding is symmetric, at an even one it is not.
The difference is the largest of all logits', relative to their standard deviation; it
must stay below 1e-4. The spread over images says how much of the logits is the images'
doing and not the shifts'.

With torch 2.13.0 (CPU), timm 1.0.31 and JAX 0.10.2, in 54 CPU-seconds:

    network             pixels  difference  spread over images
    efficientnet-b0        224     2.2e-05                0.45
    efficientnet-b0        129     1.7e-05                0.51
    efficientnet-lite0     224     1.3e-05                0.16
    efficientnet-lite0     129     1.7e-05                0.18
    mnasnet-a1             224     1.4e-05                0.23
    mnasnet-a1             129     1.8e-05                0.24
    mnasnet-b1             224     9.0e-06                0.42
    mnasnet-b1             129     1.2e-05                0.43

The check notices: `mnasnet-a1` at 224 pixels against timm's with PyTorch's padding
differs by 1.2, with an epsilon of 1e-5 by 0.55, with ReLU6 by 4.0.
"""

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import timm  # pyright: ignore[reportMissingImports]
import torch  # pyright: ignore[reportMissingImports]
from flax import nnx
from jaxtyping import Float

from search_space import zoo
from trainers import timm_weights
from trainers.networks import classifier

TOLERANCE = 1e-4
ODD_RESOLUTION = 129
NUM_IMAGES = 4

# timm's MnasNets are PyTorch's in padding and epsilon unless they are told otherwise.
_AS_TENSORFLOW = {"pad_type": "same", "bn_eps": 1e-3}
NETWORKS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "efficientnet-b0": ("tf_efficientnet_b0", {}),
    "efficientnet-lite0": ("tf_efficientnet_lite0", {}),
    "mnasnet-a1": ("semnasnet_100", _AS_TENSORFLOW),
    "mnasnet-b1": ("mnasnet_100", _AS_TENSORFLOW),
}

Images = Float[np.ndarray, "batch height width channels"]
Logits = Float[np.ndarray, "batch classes"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """How far two networks' logits are apart at one resolution.

    `difference` is the largest, and `spread` the mean standard deviation over the
    images; both are relative to the standard deviation of timm's logits.
    """

    resolution: int
    difference: float
    spread: float


def main() -> int:
    """Prints a line for each network and resolution; returns 1 if any differs."""
    failed = False
    print("network             pixels  difference  spread over images")
    for name in NETWORKS:
        for found in compare(name):
            failed |= not found.difference < TOLERANCE
            print(
                f"{name:20}{found.resolution:6}{found.difference:12.1e}"
                f"{found.spread:20.2f}",
                flush=True,
            )
    return int(failed)


def compare(name: str, *, seed: int = 0) -> list[Comparison]:
    """Compares the logits of the zoo's network with timm's.

    Args:
      name: in the zoo, and one of `NETWORKS`.
      seed: of weights and images.

    Raises:
      ValueError: if timm's weights are not those of the zoo's architecture.
    """
    spec = zoo.load(name)
    reference = _timm_network(name, seed)
    network = classifier.build(spec, seed=seed)
    weights = {key: value.numpy() for key, value in reference.state_dict().items()}
    timm_weights.copy_weights(spec, network, weights)
    graphdef, arrays = nnx.split(network)
    forward = jax.jit(lambda arrays, images: nnx.merge(graphdef, arrays)(images))
    rng = np.random.default_rng(seed + 1)
    found = []
    for resolution in (spec.resolution, ODD_RESOLUTION):
        images = _images(rng, resolution)
        ours, theirs = forward(arrays, images), _timm_logits(reference, images)
        scale = theirs.std()
        found.append(
            Comparison(
                resolution=resolution,
                difference=float(np.abs(ours - theirs).max() / scale),
                spread=float(theirs.std(0).mean() / scale),
            )
        )
    return found


def _timm_network(name: str, seed: int) -> torch.nn.Module:
    """Returns timm's network in evaluation mode, with nothing left at zero or one.

    So a shift that is left out, or an epsilon that differs, shows. Statistics are those
    of a batch of images: drawn at random, they let the images' part of the logits
    dwindle, or grow until rounding is all there is.
    """
    timm_name, options = NETWORKS[name]
    torch.manual_seed(seed)
    network = timm.create_model(timm_name, pretrained=False, **options)
    for key, values in network.state_dict().items():
        if key.endswith(".weight") and values.ndim == 1:
            values.uniform_(0.5, 1.5)
        elif key.endswith(".bias"):
            values.uniform_(-0.5, 0.5)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the average over all batches: over the one below
    network.train()
    _timm_logits(network, _images(np.random.default_rng(seed), ODD_RESOLUTION))
    return network.eval()


def _images(rng: np.random.Generator, resolution: int) -> Images:
    """Coarse and fine noise: fine noise alone would look the same in every image."""
    shape = (NUM_IMAGES, resolution, resolution, 3)
    coarse = rng.normal(size=(NUM_IMAGES, 4, 4, 3))
    index = np.arange(resolution) * 4 // resolution
    images = coarse[:, index][:, :, index] + rng.normal(size=shape)
    return images.astype(np.float32)


def _timm_logits(network: torch.nn.Module, images: Images) -> Logits:
    with torch.inference_mode():
        return network(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()


if __name__ == "__main__":
    sys.exit(main())
