"""Networks folded for inference: batch normalization goes into the convolutions.

With fixed statistics a batch norm multiplies each channel by a factor and adds an
offset. The factor goes into the kernel, the offset becomes a bias: the same function
up to rounding, with one pass over each map less.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from search_space.spec import Activation, Padding
from trainers.networks.backbone import Backbone
from trainers.networks.blocks import NetworkBlock
from trainers.networks.classifier import Classifier, classifier_of
from trainers.networks.depthwise import depthwise_conv, lax_padding
from trainers.networks.normalization import activate
from trainers.networks.units import (
    EVALUATION,
    BatchNorm,
    ConvUnit,
    DepthwiseUnit,
    Maps,
    Mode,
    NewMaps,
    max_pool,
)


class FoldedConv(nnx.Module):
    """Convolution kxk - bias - activation; stands where a `ConvUnit` stood."""

    def __init__(self, unit: ConvUnit) -> None:
        self.stride = unit.stride
        self.padding: Padding = unit.padding
        self.activation: Activation | None = unit.norm.activation
        self.activation_after: Activation | None = unit.activation_after
        self.max_pool = unit.max_pool
        factor, offset = _factor_and_offset(unit.norm)
        self.kernel = nnx.Param(np.asarray(unit.kernel[...]) * factor)
        self.bias = nnx.Param(offset)

    def __call__(self, x: Maps, shortcut: NewMaps | None, mode: Mode) -> NewMaps:
        """Returns this unit's maps, with the shortcut added; only for evaluation."""
        del mode
        y = _conv(x, self.kernel[...], self.stride, self.padding) + self.bias[...]
        y = activate(y, self.activation)
        if self.max_pool is not None:
            y = max_pool(y, self.max_pool, self.padding)
        y = y if shortcut is None else y + shortcut
        return activate(y, self.activation_after)


class FoldedDepthwise(nnx.Module):
    """Depthwise convolution - bias - activation, where a `DepthwiseUnit` stood."""

    def __init__(self, unit: DepthwiseUnit) -> None:
        self.stride = unit.stride
        self.padding: Padding = unit.padding
        self.activation: Activation | None = unit.norm.activation
        factor, offset = _factor_and_offset(unit.norm)
        self.kernel = nnx.Param(np.asarray(unit.kernel[...]) * factor)
        self.bias = nnx.Param(offset)

    def __call__(self, x: Maps, shortcut: NewMaps | None, mode: Mode) -> NewMaps:
        """Returns this unit's maps, with the shortcut added; only for evaluation."""
        del mode
        y = depthwise_conv(x, self.kernel[...], self.stride, self.padding)
        y = activate(y + self.bias[...], self.activation)
        return y if shortcut is None else y + shortcut


def fold(network: Classifier) -> Classifier:
    """Returns a float32 network of the same logits that has no batch norm.

    It shares the arrays that folding leaves alone, and cannot be trained.
    """
    below = network.backbone
    blocks = [fold_block(block) for block in below.blocks]
    folded = Backbone(blocks, below.strides)
    return Classifier(folded, fold_block(network.head), "float32")


def fold_block(block: NetworkBlock) -> NetworkBlock:
    """Returns one block folded."""
    shortcut = None if block.shortcut is None else _fold_unit(block.shortcut)
    units = [_fold_unit(unit) for unit in block.units]
    return NetworkBlock(units, skip=block.skip, shortcut=shortcut)


# A folded unit is called as the one it replaces; `NetworkBlock` asks no more of it.
def _fold_unit(unit: nnx.Module) -> Any:
    match unit:
        case ConvUnit():
            return FoldedConv(unit)
        case DepthwiseUnit():
            return FoldedDepthwise(unit)
        case _:
            return unit


Arrays = nnx.State[str, nnx.Variable[Array]]


def logits_of(
    network: Classifier,
) -> tuple[Callable[..., Float[Array, "batch classes"]], Arrays]:
    """Returns a function of (arrays, images) to be jitted, and the arrays."""
    graphdef, arrays = nnx.split(network)

    def logits(
        arrays: Arrays, images: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch classes"]:
        return nnx.merge(graphdef, arrays)(images)

    return logits, arrays


def activation_maps(
    network: Classifier, images: Float[Array, "batch height width channels"]
) -> Float[Array, "batch rows columns classes"]:
    """Returns how much each place speaks for each class.

    Class activation maps (arXiv:1512.04150): the dense layer's weights applied to the
    maps before they are averaged. A class's mean over all places, plus its bias, is
    its logit.
    """
    maps = network.backbone(images, EVALUATION)
    x = maps[max(maps)]
    for unit in network.head.units[:-1]:
        x = unit(x, None, EVALUATION)
    return x.astype(jnp.float32) @ classifier_of(network).kernel[...]


def _factor_and_offset(norm: BatchNorm) -> tuple[np.ndarray, np.ndarray]:
    scale, bias, mean, variance = (
        np.asarray(value[...], np.float64)
        for value in (norm.scale, norm.bias, norm.mean, norm.variance)
    )
    factor = scale / np.sqrt(variance + norm.epsilon)
    return factor.astype(np.float32), (bias - mean * factor).astype(np.float32)


def _conv(x: Maps, kernel: jax.Array, stride: int, padding: Padding) -> NewMaps:
    if kernel.shape[:2] == (1, 1):
        return x[:, ::stride, ::stride] @ kernel[0, 0]
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        lax_padding(padding, kernel.shape[0]),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
