"""Our networks compute what timm's compute: the same weights give the same logits.

    pip install '.[checks]'
    python -m experiments.checks.timm_logits

Weights are random, and batch normalization has scales, shifts and statistics that are
not its initial ones. The networks are compared in evaluation mode, at their own
resolution and at an odd one: there SAME padding is symmetric, at an even one it is not.
At their own resolution they are compared in each form that they are used in: as
trained, folded, and as nas.export writes them, run by onnxruntime and from StableHLO.
The difference is the largest of all logits', relative to their standard deviation; it
must stay below 1e-4. The spread over images says how much of the logits is the images'
doing and not the shifts'.

With torch 2.13.0 (CPU), timm 1.0.31, onnxruntime 1.32.0 and JAX 0.10.2:

    network                    form       pixels  difference  spread of images
    efficientnet-b0            trained       129     1.4e-05                0.44
    efficientnet-b0            trained       224     2.4e-05                0.45
    efficientnet-b0            folded        224     1.8e-05                0.45
    efficientnet-b0            onnx          224     1.9e-05                0.45
    efficientnet-b0            stablehlo     224     1.7e-05                0.45
    efficientnet-b0-pytorch    trained       129     2.5e-05                0.44
    efficientnet-b0-pytorch    trained       224     3.0e-05                0.37
    efficientnet-b0-pytorch    folded        224     1.6e-05                0.37
    efficientnet-b0-pytorch    onnx          224     1.4e-05                0.37
    efficientnet-b0-pytorch    stablehlo     224     1.7e-05                0.37
    mnasnet-a1-pytorch         trained       129     1.7e-05                0.23
    mnasnet-a1-pytorch         trained       224     1.6e-05                0.32
    mnasnet-a1-pytorch         folded        224     1.6e-05                0.32
    mnasnet-a1-pytorch         onnx          224     1.8e-05                0.32
    mnasnet-a1-pytorch         stablehlo     224     1.7e-05                0.32
    mnasnet-b1-pytorch         trained       129     1.4e-05                0.39
    mnasnet-b1-pytorch         trained       224     1.4e-05                0.29
    mnasnet-b1-pytorch         folded        224     1.7e-05                0.29
    mnasnet-b1-pytorch         onnx          224     1.7e-05                0.29
    mnasnet-b1-pytorch         stablehlo     224     1.6e-05                0.29
    mobilenet-v2-pytorch       trained       129     2.0e-05                0.19
    mobilenet-v2-pytorch       trained       224     1.6e-05                0.15
    mobilenet-v2-pytorch       folded        224     1.5e-05                0.15
    mobilenet-v2-pytorch       onnx          224     1.5e-05                0.15
    mobilenet-v2-pytorch       stablehlo     224     1.5e-05                0.15
    efficientnet-lite0-pytorch trained       129     1.8e-05                0.20
    efficientnet-lite0-pytorch trained       224     1.4e-05                0.15
    efficientnet-lite0-pytorch folded        224     1.5e-05                0.15
    efficientnet-lite0-pytorch onnx          224     1.6e-05                0.15
    efficientnet-lite0-pytorch stablehlo     224     1.5e-05                0.15

Of the networks with Fused-MBConv the graphs for onnxruntime alone have been compared,
at 96 pixels: efficientnetv2-b0 1.5e-05, efficientnetv2-s 2.0e-05 (1.8e-05 at 192) and
efficientnet-edgetpu-s-pytorch 1.9e-05, with spreads of 0.34, 0.57 and 0.24.

The check notices: `mnasnet-a1` at 224 pixels against timm's with PyTorch's padding
differs by 1.2, with an epsilon of 1e-5 by 0.55, with ReLU6 by 4.0.
"""

# torch's types are unknown where it is not installed, as for `make test`.
# pyright: reportUnknownParameterType=false

import dataclasses
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np
import onnxruntime  # pyright: ignore[reportMissingImports]
import timm  # pyright: ignore[reportMissingImports]
import torch  # pyright: ignore[reportMissingImports]
from jaxtyping import Float

from nas import export
from search_space import zoo
from search_space.spec import ArchSpec
from trainers.deploy import folding, saved, timm_weights
from trainers.networks import classifier
from trainers.networks.classifier import Classifier

TOLERANCE = 1e-4
ODD_RESOLUTION = 129
NUM_IMAGES = 4

# timm's MnasNets are PyTorch's in padding and epsilon unless they are told otherwise.
_AS_TENSORFLOW = {"pad_type": "same", "bn_eps": 1e-3}
NETWORKS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "efficientnet-b0": ("tf_efficientnet_b0", {}),
    "efficientnet-lite0": ("tf_efficientnet_lite0", {}),
    "efficientnetv2-b0": ("tf_efficientnetv2_b0", {}),
    "efficientnetv2-s": ("tf_efficientnetv2_s", {}),
    "mnasnet-a1": ("semnasnet_100", _AS_TENSORFLOW),
    "mnasnet-b1": ("mnasnet_100", _AS_TENSORFLOW),
    "efficientnet-b0-pytorch": ("efficientnet_b0", {}),
    "efficientnet-lite0-pytorch": ("efficientnet_lite0", {}),
    "efficientnet-edgetpu-s-pytorch": ("efficientnet_es", {}),
    "mnasnet-a1-pytorch": ("semnasnet_100", {}),
    "mnasnet-b1-pytorch": ("mnasnet_100", {}),
    "mobilenet-v2-pytorch": ("mobilenetv2_100", {}),
}

# Forty blocks that each add a branch as large as their input let rounding grow: with
# branches in full, PyTorch's own logits in float32 and in float64 are 0.02 apart.
_BRANCH_SCALES: Mapping[str, float] = {"efficientnetv2-s": 0.3}

Images = Float[np.ndarray, "batch height width channels"]
Logits = Float[np.ndarray, "batch classes"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """How far two networks' logits are apart, of one form at one resolution.

    `difference` is the largest, and `spread` the mean standard deviation over the
    images; both are relative to the standard deviation of timm's logits.
    """

    form: str
    resolution: int
    difference: float
    spread: float


def main() -> int:
    """Prints a line for each network and resolution; returns 1 if any differs."""
    failed = False
    print("network                    form       pixels  difference  spread of images")
    for name in NETWORKS:
        for found in compare(name):
            failed |= not found.difference < TOLERANCE
            print(
                f"{name:27}{found.form:10}{found.resolution:7}"
                f"{found.difference:12.1e}{found.spread:20.2f}",
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
    rng = np.random.default_rng(seed + 1)
    odd, own = (_images(rng, side) for side in (ODD_RESOLUTION, spec.resolution))
    found = [_comparison("trained", _jitted(network), reference, odd)]
    with tempfile.TemporaryDirectory() as folder:
        for form, forward in _forms(spec, network, Path(folder)).items():
            found.append(_comparison(form, forward, reference, own))
    return found


def _comparison(
    form: str,
    forward: Callable[[Images], Logits],
    reference: torch.nn.Module,
    images: Images,
) -> Comparison:
    ours, theirs = forward(images), _timm_logits(reference, images)
    scale = theirs.std()
    return Comparison(
        form=form,
        resolution=images.shape[1],
        difference=float(np.abs(ours - theirs).max() / scale),
        spread=float(theirs.std(0).mean() / scale),
    )


def _forms(
    spec: ArchSpec, network: Classifier, folder: Path
) -> dict[str, Callable[[Images], Logits]]:
    """Returns the network as it is, folded, and as `nas.export` writes it."""
    as_it_is = saved.ModelMetadata(
        mean=(0.0,) * spec.in_channels,
        std=(1.0,) * spec.in_channels,
        class_names=tuple(map(str, range(spec.num_classes))),
        weights="of timm's network",
    )
    model = saved.Model(spec=spec, network=network, metadata=as_it_is)
    for file_format in ("onnx", "stablehlo"):
        export.write(folder / file_format, model, file_format)
    session = onnxruntime.InferenceSession(folder / "onnx" / "network.onnx")
    blob = (folder / "stablehlo" / "network.stablehlo").read_bytes()
    stablehlo = jax.export.deserialize(bytearray(blob))
    return {
        "trained": _jitted(network),
        "folded": _jitted(folding.fold(network)),
        "onnx": lambda images: np.asarray(session.run(None, {"pixels": images})[0]),
        "stablehlo": lambda images: np.asarray(stablehlo.call(images)),
    }


def _jitted(network: Classifier) -> Callable[[Images], Logits]:
    logits, arrays = folding.logits_of(network)
    forward = jax.jit(logits)
    return lambda images: np.asarray(forward(arrays, images))


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
        if getattr(module, "has_skip", False):
            norms = (getattr(module, norm, None) for norm in ("bn3", "bn2", "bn1"))
            last = next(norm for norm in norms if norm is not None)
            last.weight.data.mul_(_BRANCH_SCALES.get(name, 1.0))
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
