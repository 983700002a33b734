"""Weights of timm's EfficientNets (1, 2, Lite, EdgeTPU) and MnasNets, by its names.

timm keeps `conv_stem`, `blocks.<stage>.<layer>`, `conv_head`, `classifier`; kernels are
`[out, in, k, k]`. Names and shapes do not tell which padding and epsilon weights were
trained with: that is the architecture's to say (`search_space.spec.ArchSpec`).
"""

import dataclasses
import re
from collections.abc import Iterator

import numpy as np

from search_space.spec import (
    MAX_CLASSES,
    ArchSpec,
    FusedMBConvStage,
    GatedStage,
    MBConvStage,
    Stage,
)
from trainers.deploy import saved
from trainers.deploy.saved import WeightsError
from trainers.deploy.weight_files import Weights
from trainers.networks import classifier
from trainers.networks.units import (
    BatchNorm,
    ClassifierUnit,
    ConvUnit,
    DepthwiseUnit,
    PoolShortcut,
    SqueezeExciteUnit,
)

_STEM, _HEAD = "conv_stem.weight", ("classifier.weight", "classifier.bias")
_MAX_CHANNELS = 1_024  # of images, as in ArchSpec


def unwrapped(weights: Weights) -> tuple[Weights, str]:
    """Returns the network's own weights among `weights`, and what they were under.

    Trainers put words in front: `module.`, `_orig_mod.`, `state_dict.`, several of
    them. Whatever is in front of `conv_stem.weight` is taken away, and what is not
    under it, an optimizer's state, is left behind. Averaged weights (`ema`) go before
    others, as timm itself has it.

    Returns:
      The weights, and the words in front: `""` where there are none.

    Raises:
      WeightsError: if there are several networks and no telling which is meant.
    """
    if _STEM in weights:
        return weights, ""
    found = [name.removesuffix(_STEM) for name in weights if name.endswith("." + _STEM)]
    averaged = [name for name in found if re.search(r"(^|[._])ema[._]", name)]
    if len(chosen := averaged or found) > 1:
        names = ", ".join(map(saved.shown, chosen[:3]))
        raise WeightsError(
            f"weights must be of one network, and there are {len(chosen)}: {names};"
            " save one of them alone"
        )
    if not chosen:
        return weights, ""
    (front,) = chosen
    return {
        name.removeprefix(front): array
        for name, array in weights.items()
        if name.startswith(front)
    }, front


def named_as_ours(spec: ArchSpec, weights: Weights) -> dict[str, np.ndarray]:
    """Returns timm's `weights` for `spec`, under the names of `saved.arrays`.

    The classifier is of as many classes, and the stem reads as many channels, as the
    weights have; where they have no classifier, neither has what is returned.

    Raises:
      WeightsError: if they are not of this architecture.
    """
    if _STEM not in weights:
        raise WeightsError(
            f"weights must have timm's names, and there is no {_STEM}; got"
            f" {', '.join(map(saved.shown, list(weights)[:3])) or 'none'} and others;"
            " rename them, or save timm's state_dict()"
        )
    channels = _length(weights, _STEM, 1, _MAX_CHANNELS)
    spec = dataclasses.replace(spec, in_channels=channels)
    if has_head := any(name in weights for name in _HEAD):
        classes = _length(weights, _HEAD[0], 0, MAX_CLASSES)
        spec = dataclasses.replace(spec, num_classes=classes)
    saved.check_fits(spec)
    network = classifier.build(spec, seed=0)
    head = classifier.classifier_of(network)
    if not has_head:
        weights = weights | {
            name: np.zeros_like(np.transpose(variable[...]))
            for name, variable in zip(_HEAD, (head.kernel, head.bias), strict=True)
        }
    copy_weights(spec, network, dict(weights))
    left_out = () if has_head else saved.names_of(network, (head.kernel, head.bias))
    return {
        name: array
        for name, array in saved.arrays(network).items()
        if name not in left_out
    }


def copy_weights(
    spec: ArchSpec, network: classifier.Classifier, weights: Weights
) -> None:
    """Puts timm's `weights` into `network`, and takes them out of `weights`.

    Raises:
      WeightsError: if a name is missing, a shape differs, a number is not finite, some
        are left, or a stage is not of the kind that timm's networks here have.
    """
    blocks = zip(network.blocks, _block_names(spec), strict=True)
    for block, names in blocks:
        for unit, (name, norm_name) in zip(block.units, names, strict=True):
            match unit:
                case ConvUnit():
                    _assign(unit.kernel, weights, f"{name}.weight", (3, 2, 0, 1))
                    _copy_norm(unit.norm, weights, norm_name)
                case DepthwiseUnit():
                    _copy_depthwise(unit.kernel, weights, f"{name}.weight")
                    _copy_norm(unit.norm, weights, norm_name)
                case SqueezeExciteUnit():
                    _copy_squeeze_excite(unit, weights, name)
                case ClassifierUnit():
                    _assign(unit.kernel, weights, f"{name}.weight", (1, 0))
                    _assign(unit.bias, weights, f"{name}.bias")
                case PoolShortcut():
                    pass  # has no weights
    left = [name for name in weights if not name.endswith("num_batches_tracked")]
    if left:
        raise WeightsError(
            f"{spec.name} must use every one of the weights, and has no"
            f" {saved.shown(left[0])} ({len(left)} such); give the architecture that"
            " they belong to"
        )


def _block_names(spec: ArchSpec) -> Iterator[list[tuple[str, str]]]:
    """Yields timm's names of each block's units: of the convolution, of its norm."""
    yield [("conv_stem", "bn1")]
    for i, stage in enumerate(spec.stages):
        convs = _conv_names(i, stage)
        units = [(conv, f"bn{n}") for n, conv in enumerate(convs, 1)]
        if isinstance(stage, GatedStage) and stage.se_ratio:
            units.insert(len(units) - 1, ("se", ""))
        for j in range(stage.repeats):
            prefix = f"blocks.{i}.{j}"
            yield [(f"{prefix}.{conv}", f"{prefix}.{norm}") for conv, norm in units]
    yield [("conv_head", "bn2"), ("classifier", "")]


def _conv_names(index: int, stage: Stage) -> list[str]:
    """Returns timm's names of a layer's convolutions."""
    match stage:
        case MBConvStage(expansion=1):
            return ["conv_dw", "conv_pw"]
        case MBConvStage():
            return ["conv_pw", "conv_dw", "conv_pwl"]
        case FusedMBConvStage(expansion=1, se_ratio=0):
            return ["conv"]
        case FusedMBConvStage() if stage.expansion > 1:
            return ["conv_exp", "conv_pwl"]
        case _:
            raise WeightsError(
                "timm's names are known for mbconv stages, and for fused_mbconv ones"
                " that expand or have no squeeze-and-excitation, got"
                f" {stage.kind} in stage {index}"
            )


def _length(weights: Weights, name: str, axis: int, most: int) -> int:
    """Returns how long an array is along an axis of PyTorch's."""
    if name not in weights:
        raise WeightsError(f"weights must hold {name}, and do not; save it with them")
    shape = weights[name].shape
    if axis >= len(shape) or not 1 <= shape[axis] <= most:
        raise WeightsError(
            f"{name} must have 1 to {most} entries along axis {axis}, got shape"
            f" {shape}; give weights of timm's"
        )
    return shape[axis]


def _take(weights: Weights, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Takes an array out, in float32, checked to be of PyTorch's `shape`."""
    if name not in weights:
        raise WeightsError(
            f"weights must hold {name}, and do not; give the architecture that they"
            " belong to"
        )
    array = weights.pop(name)
    if array.shape != shape:
        raise WeightsError(
            f"{name} must be of shape {shape}, got {array.shape}; give the architecture"
            " that it belongs to"
        )
    return saved.checked(name, array)


def _assign(
    variable: saved.Variable,
    weights: Weights,
    name: str,
    order: tuple[int, ...] = (0,),
) -> None:
    """Puts an array into a variable; `order` takes ours to PyTorch's axes."""
    array = _take(weights, name, tuple(variable.shape[axis] for axis in order))
    variable.set_value(np.ascontiguousarray(array.transpose(np.argsort(order))))


def _copy_depthwise(kernel: saved.Variable, weights: Weights, name: str) -> None:
    height, width, channels = kernel.shape
    array = _take(weights, name, (channels, 1, height, width))
    kernel.set_value(np.ascontiguousarray(array[:, 0].transpose(1, 2, 0)))


def _copy_norm(norm: BatchNorm, weights: Weights, name: str) -> None:
    _assign(norm.scale, weights, f"{name}.weight")
    _assign(norm.bias, weights, f"{name}.bias")
    _assign(norm.mean, weights, f"{name}.running_mean")
    _assign(norm.variance, weights, f"{name}.running_var")


def _copy_squeeze_excite(unit: SqueezeExciteUnit, weights: Weights, name: str) -> None:
    for conv, kernel, bias in (
        ("conv_reduce", unit.reduce, unit.reduce_bias),
        ("conv_expand", unit.expand, unit.expand_bias),
    ):
        entering, leaving = kernel.shape
        array = _take(weights, f"{name}.{conv}.weight", (leaving, entering, 1, 1))
        kernel.set_value(np.ascontiguousarray(array[:, :, 0, 0].T))
        _assign(bias, weights, f"{name}.{conv}.bias")
