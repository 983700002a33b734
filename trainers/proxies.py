"""Scores of networks that nobody has trained, from their initial weights alone.

    naswot    how differently a network's units switch for different images
              (https://arxiv.org/abs/2006.04647)
    synflow   how much flows through a network from all its weights
              (https://arxiv.org/abs/2006.05467, https://arxiv.org/abs/2101.08134)

Neither compiles anything of its own: NASWOT runs the executables that training shares,
synflow is NumPy.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from numpy.lib.stride_tricks import sliding_window_view

from search_space.spec import Padding
from trainers.networks.blocks import NetworkBlock
from trainers.networks.classifier import Classifier, classifier_of
from trainers.networks.units import (
    EVALUATION,
    ConvUnit,
    DepthwiseUnit,
    PoolShortcut,
    Unit,
)
from trainers.steps.chained import ChainedStep
from trainers.steps.executables import Recipe, split
from trainers.tasks.task import Batch

_Codes = Bool[np.ndarray, "images features"]


def naswot(model: Classifier, recipe: Recipe, batches: Iterable[Batch]) -> float:
    """Returns the score of Mellor et al.: the higher, the better a network should be.

    The log-determinant of `agreements` over the images of all batches. A code has a
    bit for each activation of the network: whether what goes into it is above 0. That
    is ReLU's own linear region; a swish has the sign of what goes into it as well, and
    no regions. Departures: batches are normalized one by one, where the source has one
    of 128 images; activations inside squeeze-and-excitation are not seen.

    Args:
      model: with initial weights.
      recipe: that of training, so that its executables are run.
      batches: training batches, all of one size.
    """
    network, states = split(model, recipe)
    step = ChainedStep(network, recipe)
    switches = [_switches(unit) for unit in _units(model)]
    seen: list[list[_Codes]] = []
    for batch in batches:
        codes: list[_Codes] = []
        for unit, maps, shortcut in step.maps(states, batch):
            if switches[unit] is None:
                continue
            activated = np.asarray(maps)
            if switches[unit] == "before" and shortcut is not None:
                activated = activated - np.asarray(shortcut)
            codes.append(activated.reshape(len(activated), -1) > 0)
        seen.append(codes)
    return log_determinant(np.concatenate(layer) for layer in zip(*seen, strict=True))


def agreements(codes: Iterable[_Codes]) -> Float[np.ndarray, "images images"]:
    """Returns in how many bits the codes of each two images agree.

    Args:
      codes: of the same images, such as a network's layers.
    """
    total: Any = 0
    for bits in codes:
        signs = np.where(bits, np.float32(1), np.float32(-1))
        # Sums of ones: exact in float32 up to 2^24 of them.
        total = total + (bits.shape[1] + (signs @ signs.T).astype(np.float64)) / 2
    return total


def log_determinant(codes: Iterable[_Codes]) -> float:
    """Returns log |K + 1| for the matrix K of agreements.

    The source has log |K|, which is minus infinity as soon as two images have one code.
    """
    kernel = agreements(codes)
    return float(np.linalg.slogdet(kernel + np.eye(len(kernel)))[1])


def synflow(model: Classifier, resolution: int) -> float:
    """Returns the decimal logarithm of synflow: the sum of |w dR/dw| over all weights.

    R is the sum of the logits for an image of ones, in the network of absolute weights
    without batch normalization (as Abdelfattah et al. have it), where everything is
    positive and a ReLU does nothing. A swish is left out like it, and so are the gates
    of squeeze-and-excitation, through which nothing is linear.

    R is linear in each layer's weights, so a layer's share of the sum is how R grows
    with a factor of that layer, and the whole is how it grows with one factor of all
    layers: the derivative is carried along on the way forward, and no gradient is
    needed. float64, and rescaled after every block: the sum itself overflows.
    """
    channels = np.shape(model.blocks[0].units[0].kernel[...])[2]  # pyright: ignore[reportAttributeAccessIssue]  # a stem
    flow = _Flow(np.stack([np.ones((resolution, resolution, channels))] * 2))
    flow.maps[1] = 0.0
    for block in model.blocks:
        flow = _through_block(block, flow)
    dense = np.abs(np.asarray(classifier_of(model).kernel[...], np.float64))
    outputs = flow.maps.mean((1, 2)) @ dense
    return math.log10(outputs.sum()) + flow.exponent


@dataclasses.dataclass(frozen=True)
class _Flow:
    """Maps and how they grow, `[2, height, width, channels]`, over 10^exponent."""

    maps: Float[np.ndarray, "two height width channels"]
    exponent: float = 0.0

    def rescaled(self) -> "_Flow":
        largest = self.maps.max()
        return _Flow(self.maps / largest, self.exponent + math.log10(largest))


def _through_block(block: NetworkBlock, flow: _Flow) -> _Flow:
    maps = flow.maps
    for unit in block.units:
        if isinstance(unit, ConvUnit | DepthwiseUnit):
            maps = _through(unit, maps)
    if block.skip:
        if block.shortcut is None:
            maps = maps + flow.maps
        elif isinstance(block.shortcut, PoolShortcut):
            pooled = block.shortcut(jnp.asarray(flow.maps), None, EVALUATION)
            maps = maps + np.asarray(pooled, np.float64)
        elif isinstance(block.shortcut, ConvUnit):
            maps = maps + _through(block.shortcut, flow.maps)
    return _Flow(maps, flow.exponent).rescaled()


def _through(unit: ConvUnit | DepthwiseUnit, maps: np.ndarray) -> np.ndarray:
    kernel = np.abs(np.asarray(unit.kernel[...], np.float64))
    windows = _windows(maps, kernel.shape[0], unit.stride, unit.padding)
    if isinstance(unit, DepthwiseUnit):
        found = np.einsum("nhwcij,ijc->nhwc", windows, kernel)
    else:
        found = np.tensordot(windows, kernel, axes=((4, 5, 3), (0, 1, 2)))
    found[1] += found[0]  # the layer's own factor
    if isinstance(unit, ConvUnit) and unit.max_pool is not None:
        side, stride = unit.max_pool
        found = _largest(_windows(found, side, stride, unit.padding))
    return found


def _largest(windows: np.ndarray) -> np.ndarray:
    """The largest of each window, and how that one grows."""
    flat = windows.reshape(*windows.shape[:4], -1)
    place = flat[0].argmax(-1)[np.newaxis, ..., np.newaxis]
    return np.take_along_axis(flat, place, axis=-1)[..., 0]


def _windows(maps: np.ndarray, side: int, stride: int, padding: Padding) -> np.ndarray:
    """Returns `[two, height, width, channels, side, side]`, zeros around the maps."""
    before, after = side // 2, side // 2
    if padding == "same":
        size = maps.shape[1]
        missing = max(0, (-(-size // stride) - 1) * stride + side - size)
        before, after = missing // 2, missing - missing // 2
    pads = ((0, 0), (before, after), (before, after), (0, 0))
    found = sliding_window_view(np.pad(maps, pads), (side, side), axis=(1, 2))
    return found[:, ::stride, ::stride]


def _units(model: Classifier) -> Iterator[Unit]:
    """The units in the order of `trainers.steps.executables.split`."""
    for block in model.blocks:
        yield from block.units
        if block.shortcut is not None:
            yield block.shortcut


def _switches(unit: Unit) -> str | None:
    """Whether a unit ends in an activation: before its shortcut is added, or after."""
    if isinstance(unit, ConvUnit) and unit.activation_after is not None:
        return "after"
    if isinstance(unit, ConvUnit | DepthwiseUnit) and unit.norm.activation is not None:
        return "before"
    return None
