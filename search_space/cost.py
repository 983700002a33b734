"""What an architecture costs, from its layers alone: no network is built.

Multiply-adds are those of one image. Counted: convolutions, dense layers and the
convolutions of squeeze-and-excitation. Not counted: batch norm, activations,
pooling, scaling, additions, biases. So count the tables of MnasNet and EfficientNet.

Parameters are the trainable ones: weights, biases, batch norm's scale and shift;
not its running mean and variance.

Activation memory is a model of running one image forward in float32: at every layer
the map it reads, the map it writes, and the maps that a later layer still needs (the
input of a residual block, the map that squeeze-and-excitation will scale). No layer
writes in place: what XLA holds on a CPU is within a twentieth of the largest such sum
(`experiments.checks.xla_memory`). A compiler that fuses layers stays below it, and
training holds far more (`search_space.memory`).
"""

import functools
from dataclasses import dataclass

from search_space import layers, primitives
from search_space.layers import Block, MapShape
from search_space.primitives import Layer
from search_space.spec import ArchSpec, Head, Stage, Stem

_BYTES = 4  # float32


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerCost:
    """One layer and its costs; `activation_bytes` is all that is live while it runs."""

    layer: Layer
    num_macs: int
    num_params: int
    activation_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Costs of an architecture: multiply-adds, trainable parameters, bytes."""

    num_macs: int
    num_params: int
    peak_activation_bytes: int
    layers: tuple[LayerCost, ...]


def profile(spec: ArchSpec) -> Cost:
    """Returns the costs of `spec` at its own resolution, layer by layer."""
    found = tuple(_layer_cost(layer) for layer in primitives.layers_of(spec))
    return Cost(
        num_macs=sum(cost.num_macs for cost in found),
        num_params=sum(cost.num_params for cost in found),
        peak_activation_bytes=max(cost.activation_bytes for cost in found),
        layers=found,
    )


def num_macs(spec: ArchSpec) -> int:
    """Returns `profile(spec).num_macs`; counts no stage that it has seen before."""
    return _totals(spec)[0]


def num_params(spec: ArchSpec) -> int:
    """Returns `profile(spec).num_params`; counts no stage that it has seen before."""
    return _totals(spec)[1]


def _layer_cost(layer: Layer) -> LayerCost:
    inputs = layer.in_channels * layer.in_size**2
    outputs = layer.out_channels * layer.out_size**2
    return LayerCost(
        layer=layer,
        num_macs=_macs(layer),
        num_params=_params(layer),
        activation_bytes=_BYTES * (layer.held + inputs + outputs),
    )


def _macs(layer: Layer) -> int:
    # Padding's zeros count as the published tables count them: as pixels.
    return _weights(layer) * layer.out_size**2


def _weights(layer: Layer) -> int:
    match layer.op:
        case "conv" | "dense":
            return layer.kernel**2 * layer.in_channels * layer.out_channels
        case "depthwise_conv":
            return layer.kernel**2 * layer.out_channels
        case _:
            return 0


def _params(layer: Layer) -> int:
    if layer.op == "batch_norm":
        return 2 * layer.out_channels  # scale and shift
    return _weights(layer) + (layer.out_channels if layer.bias else 0)


def _totals(spec: ArchSpec) -> tuple[int, int]:
    """Returns multiply-adds and parameters."""
    stem, stride = spec.stem, spec.stem.total_stride
    macs, params, size = _stem_totals(stem, spec.in_channels, spec.resolution)
    channels, maps = stem.channels, {stride: MapShape(stem.channels, size)}
    for stage in spec.stages:
        stage_macs, stage_params, size = _stage_totals(stage, channels, size)
        macs += stage_macs
        params += stage_params
        channels, stride = stage.channels, stride * stage.stride
        maps[stride] = MapShape(channels, size)
    entering = layers.maps_read(spec.head, maps)
    head_macs, head_params = _head_totals(spec.head, entering, spec.num_classes)
    return macs + head_macs, params + head_params


# Sampled architectures share their parts: all those of the `mbconv` space are made of
# some two thousand. The keys are frozen, so an entry stays right for ever.
_CACHE_SIZE = 2**16


@functools.lru_cache(_CACHE_SIZE)
def _stem_totals(stem: Stem, in_channels: int, in_size: int) -> tuple[int, int, int]:
    block = layers.stem_block(stem, in_channels=in_channels, in_size=in_size)
    return _block_totals(block)


@functools.lru_cache(_CACHE_SIZE)
def _stage_totals(stage: Stage, in_channels: int, in_size: int) -> tuple[int, int, int]:
    first, *others = layers.stage_blocks(
        stage, in_channels=in_channels, in_size=in_size
    )
    macs, params, size = _block_totals(first)
    if others:  # all alike but for their names
        macs_each, params_each, size = _block_totals(others[0])
        macs += len(others) * macs_each
        params += len(others) * params_each
    return macs, params, size


@functools.lru_cache(_CACHE_SIZE)
def _head_totals(
    head: Head, entering: tuple[MapShape, ...], num_classes: int
) -> tuple[int, int]:
    found = layers.head_blocks(head, entering=entering, num_classes=num_classes)
    totals = [_block_totals(block) for block in found]
    return sum(macs for macs, _, _ in totals), sum(params for _, params, _ in totals)


def _block_totals(block: Block) -> tuple[int, int, int]:
    """Returns multiply-adds, parameters, and the size of the map that leaves."""
    macs = params = 0
    for layer in primitives.block_layers(block):
        macs += _macs(layer)
        params += _params(layer)
    return macs, params, block.out_size
