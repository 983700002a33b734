"""Weights of timm's EfficientNets, EfficientNet-Lites and MnasNets, by timm's names.

timm keeps `conv_stem`, `blocks.<stage>.<layer>`, `conv_head`, `classifier`; kernels are
`[out, in, k, k]`. Files are read without running anything that is in them.
"""

import dataclasses
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from flax import nnx

from search_space import files
from search_space.spec import ArchSpec, MBConvStage
from trainers import optional, saved
from trainers.networks import classifier
from trainers.networks.units import (
    BatchNorm,
    ClassifierUnit,
    ConvUnit,
    DepthwiseUnit,
    SqueezeExciteUnit,
)
from trainers.saved import WeightsError

Weights = dict[str, np.ndarray]  # timm's names; those that were copied are taken out


def read(path: Path) -> Weights:
    """Returns the arrays in a safetensors file, or in PyTorch's, by name.

    PyTorch's need torch, which is told to read weights only: no code is unpickled.

    Raises:
      WeightsError: if the file is damaged, holds more than arrays, or needs torch.
      OSError: if it cannot be read.
    """
    if path.suffix == ".safetensors":
        return saved.read_safetensors(path)
    if path.suffix not in (".pth", ".pt", ".bin"):
        raise WeightsError(
            f"weights must be a .safetensors, .pth, .pt or .bin file, got {path}"
        )
    with files.open_quickly(path) as file:  # an OSError, before torch makes its own
        files.check_ordinary(file.fileno(), path, psutil.virtual_memory().total)
    if lack := optional.missing("torch"):
        raise WeightsError(f"{path} {lack}, or convert the file to safetensors")
    import torch  # pyright: ignore[reportMissingImports]

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0][:200]
        raise WeightsError(
            f"{path} must be a whole PyTorch file of weights alone: {reason}"
        ) from None
    if not isinstance(found, dict):
        raise WeightsError(f"{path} must hold arrays by name, got {type(found)}")
    arrays = {k: v for k, v in found.items() if isinstance(v, torch.Tensor)}
    if others := sorted(set(map(str, found)) - set(arrays)):
        raise WeightsError(f"{path} must hold arrays by name, got {others[0]!r} too")
    return {name: value.numpy() for name, value in arrays.items()}


def named_as_ours(spec: ArchSpec, weights: Weights) -> dict[str, np.ndarray]:
    """Returns timm's `weights` for `spec`, under the names of `saved.arrays`.

    The classifier is of as many classes as the weights have.

    Raises:
      WeightsError: if they are not of this architecture.
    """
    classes = weights.get("classifier.bias")
    if classes is None:
        raise WeightsError(
            "weights must have timm's names, and there is no classifier.bias; got"
            f" {', '.join(list(weights)[:3])} and others"
        )
    spec = dataclasses.replace(spec, num_classes=len(classes))
    network = classifier.build(spec, seed=0)
    copy_weights(spec, network, dict(weights))
    return saved.arrays(network)


def copy_weights(
    spec: ArchSpec, network: classifier.Classifier, weights: Weights
) -> None:
    """Puts timm's `weights` into `network`, and takes them out of `weights`.

    Raises:
      WeightsError: if a name is missing, a shape differs, some are left, or a stage is
        not of the kind that timm's networks here have.
    """
    blocks = zip(network.blocks, _block_names(spec), strict=True)
    for block, names in blocks:
        for unit, (name, norm_name) in zip(block.units, names, strict=True):
            match unit:
                case ConvUnit():
                    kernel = _take(weights, f"{name}.weight").transpose(2, 3, 1, 0)
                    _assign(unit.kernel, kernel, name)
                    _copy_norm(unit.norm, weights, norm_name)
                case DepthwiseUnit():
                    kernel = _take(weights, f"{name}.weight")[:, 0].transpose(1, 2, 0)
                    _assign(unit.kernel, kernel, name)
                    _copy_norm(unit.norm, weights, norm_name)
                case SqueezeExciteUnit():
                    _copy_squeeze_excite(unit, weights, name)
                case ClassifierUnit():
                    _assign(unit.kernel, _take(weights, f"{name}.weight").T, name)
                    _assign(unit.bias, _take(weights, f"{name}.bias"), name)
    left = [name for name in weights if not name.endswith("num_batches_tracked")]
    if left:
        raise WeightsError(
            f"{spec.name} must use every one of the weights, and has no {left[0]}"
            f" ({len(left)} such); give the architecture that they belong to"
        )


def _block_names(spec: ArchSpec) -> Iterator[list[tuple[str, str]]]:
    """Yields timm's names of each block's units: of the convolution, of its norm."""
    yield [("conv_stem", "bn1")]
    for i, stage in enumerate(spec.stages):
        if not isinstance(stage, MBConvStage):
            raise WeightsError(
                f"timm's names are known for mbconv stages, got {stage.kind} in stage"
                f" {i}"
            )
        expands = stage.expansion > 1
        convs = ["conv_pw", "conv_dw"] if expands else ["conv_dw"]
        project = "conv_pwl" if expands else "conv_pw"
        units = [(conv, f"bn{n}") for n, conv in enumerate(convs, 1)]
        units += [("se", "")] if stage.se_ratio else []
        units += [(project, f"bn{len(convs) + 1}")]
        for j in range(stage.repeats):
            prefix = f"blocks.{i}.{j}"
            yield [(f"{prefix}.{conv}", f"{prefix}.{norm}") for conv, norm in units]
    yield [("conv_head", "bn2"), ("classifier", "")]


def _take(weights: Weights, name: str) -> np.ndarray:
    if name not in weights:
        raise WeightsError(
            f"weights must hold {name}, and do not; give the architecture that they"
            " belong to"
        )
    return weights.pop(name)


def _copy_norm(norm: BatchNorm, weights: Weights, name: str) -> None:
    _assign(norm.scale, _take(weights, f"{name}.weight"), name)
    _assign(norm.bias, _take(weights, f"{name}.bias"), name)
    _assign(norm.mean, _take(weights, f"{name}.running_mean"), name)
    _assign(norm.variance, _take(weights, f"{name}.running_var"), name)


def _copy_squeeze_excite(unit: SqueezeExciteUnit, weights: Weights, name: str) -> None:
    for conv, kernel, bias in (
        ("conv_reduce", unit.reduce, unit.reduce_bias),
        ("conv_expand", unit.expand, unit.expand_bias),
    ):
        dense = _take(weights, f"{name}.{conv}.weight")[:, :, 0, 0].T
        _assign(kernel, dense, f"{name}.{conv}")
        _assign(bias, _take(weights, f"{name}.{conv}.bias"), f"{name}.{conv}")


def _assign(variable: nnx.Variable, array: np.ndarray, name: str) -> None:
    if variable.shape != array.shape:
        raise WeightsError(
            f"weights of {name} must be of shape {variable.shape}, got {array.shape};"
            " give the architecture that they belong to"
        )
    variable.set_value(np.ascontiguousarray(array, np.float32))
