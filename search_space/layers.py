"""From an architecture to its layers, with every shape: the only shape inference.

Padding is SAME throughout: a layer of stride s turns a side of n pixels into
ceil(n / s), whatever its kernel. Maps are square, so a size is one number. Maps of
one pixel are legal, and a stride on one is too: the output is one pixel again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from search_space.spec import ArchSpec, ConvStage, Head, MBConvStage, Stage, Stem

STEM_POOL_KERNEL = 3  # ResNet's max-pooling after the stem (arXiv:1512.03385, table 1)
STEM_POOL_STRIDE = 2

LayerSkip = Literal["none", "identity", "pool", "projection"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One layer of a stage (or the stem, or the head), with nothing left to infer.

    Attributes:
      name: `stem`, `stage0.layer0`, ..., `head`; indices count from 0, as in JSON.
      spec: the part of the architecture it belongs to: kernel, expansion and so on.
        The stage's `stride`, `skip` and `se_ratio` are resolved below.
      in_channels: channels that enter.
      in_size: side in pixels of the map that enters.
      out_channels: channels that leave; the head's are the classes.
      out_size: side in pixels of the map that leaves; the head's is 1. The stem's
        comes after its max-pooling, where it has one.
      stride: of this layer: the stage's in its first layer, 1 in the others. The
        stem's is that of its convolution, without the pooling.
      se_hidden: units between the two squeeze-and-excitation convolutions; 0 for
        none.
      skip: what is added to the output. `identity`: the input. `pool`: the input,
        average-pooled (window = stride) and cut or zero-padded to `out_channels`.
        `projection`: the input through a 1x1 convolution of this stride and BN.
      drop_rate: rate at which the residual branch is dropped in training; 0 where
        `skip` is none, since nothing else would be left.
    """

    name: str
    spec: Stem | Stage | Head
    in_channels: int
    in_size: int
    out_channels: int
    out_size: int
    stride: int
    se_hidden: int
    skip: LayerSkip
    drop_rate: float


def blocks(spec: ArchSpec) -> tuple[Block, ...]:
    """Returns the stem, every repeated layer of every stage in order, and the head."""
    return tuple(_blocks(spec))


def _blocks(spec: ArchSpec) -> Iterator[Block]:
    stem = spec.stem
    size = out_size(spec.resolution, stem.stride)
    if stem.pool:
        size = out_size(size, STEM_POOL_STRIDE)
    channels = stem.channels
    yield Block(
        name="stem",
        spec=stem,
        in_channels=spec.in_channels,
        in_size=spec.resolution,
        out_channels=channels,
        out_size=size,
        stride=stem.stride,
        se_hidden=0,
        skip="none",
        drop_rate=0.0,
    )
    num_layers = sum(stage.repeats for stage in spec.stages)
    done = 0
    for i, stage in enumerate(spec.stages):
        for j in range(stage.repeats):
            block = stage_block(
                stage,
                in_channels=channels,
                in_size=size,
                stride=stage.stride if j == 0 else 1,
                name=f"stage{i}.layer{j}",
                drop_rate=spec.drop_path * done / num_layers,
            )
            yield block
            channels, size, done = block.out_channels, block.out_size, done + 1
    yield Block(
        name="head",
        spec=spec.head,
        in_channels=channels,
        in_size=size,
        out_channels=spec.num_classes,
        out_size=1,
        stride=1,
        se_hidden=0,
        skip="none",
        drop_rate=0.0,
    )


def stage_block(
    stage: Stage,
    *,
    in_channels: int,
    in_size: int,
    stride: int,
    name: str = "layer",
    drop_rate: float = 0.0,
) -> Block:
    """Returns one layer of `stage` as it stands behind `in_channels` x `in_size`^2."""
    skip = _layer_skip(stage, in_channels, stride)
    se_ratio = stage.se_ratio if isinstance(stage, ConvStage | MBConvStage) else 0.0
    return Block(
        name=name,
        spec=stage,
        in_channels=in_channels,
        in_size=in_size,
        out_channels=stage.channels,
        out_size=out_size(in_size, stride),
        stride=stride,
        se_hidden=se_hidden(in_channels, se_ratio),
        skip=skip,
        drop_rate=0.0 if skip == "none" else drop_rate,
    )


def out_size(in_size: int, stride: int) -> int:
    """Side of the output map under SAME padding.

    >>> [out_size(n, 2) for n in (224, 7, 1)]
    [112, 4, 1]
    """
    return -(-in_size // stride)


def se_hidden(in_channels: int, se_ratio: float) -> int:
    """Hidden units of squeeze-and-excitation, from the layer's *input* channels.

    Rounded down, and at least 1, as in EfficientNet's TensorFlow code.

    >>> [se_hidden(c, 0.25) for c in (3, 16, 90)], se_hidden(16, 0.0)
    ([1, 4, 22], 0)
    """
    return max(1, int(in_channels * se_ratio)) if se_ratio > 0 else 0


def _layer_skip(stage: Stage, in_channels: int, stride: int) -> LayerSkip:
    same_shape = stride == 1 and in_channels == stage.channels
    match stage.kind:
        case "sepconv":
            return "none"
        case "bottleneck":
            return "identity" if same_shape else "projection"
        case "conv" | "mbconv":
            if stage.skip == "none":
                return "none"
            if same_shape:
                return "identity"
            return "pool" if stage.skip == "pool" else "none"
