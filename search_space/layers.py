"""From an architecture to its blocks, with every shape: the only shape inference.

A layer of stride s turns a side of n pixels into ceil(n / s), whatever its kernel and
whichever the architecture's padding: kernels are odd, and `kernel // 2` on both sides
leaves (n - 1) // s + 1 windows, as SAME does. Maps are square, so a size is one number.
Maps of one pixel are legal, and a stride on one is too: the output is one pixel again.
"""

import dataclasses
import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

from search_space.spec import (
    STEM_POOL_STRIDE,
    ArchSpec,
    BottleneckStage,
    ClassifierHead,
    FusedMBConvStage,
    GatedStage,
    Head,
    MBConvStage,
    Stage,
    Stem,
)

LayerSkip = Literal["none", "identity", "pool", "projection"]
_Map = TypeVar("_Map")


class MapShape(NamedTuple):
    """A square map: its channels, and its side in pixels."""

    channels: int
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One layer of a stage (or the stem, or a head's), with nothing left to infer.

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
    se_hidden: int = 0
    skip: LayerSkip = "none"
    drop_rate: float = 0.0

    @property
    def output(self) -> MapShape:
        """The map that leaves."""
        return MapShape(self.out_channels, self.out_size)


def blocks(spec: ArchSpec) -> tuple[Block, ...]:
    """Returns the backbone's blocks in order, and the head's."""
    backbone = backbone_blocks(spec)
    maps = _by_stride(backbone)
    return *backbone, *head_blocks(
        spec.head,
        entering=tuple(block.output for block in maps_read(spec.head, maps)),
        num_classes=spec.num_classes,
    )


def backbone_blocks(spec: ArchSpec) -> tuple[Block, ...]:
    """Returns the stem, and every repeated layer of every stage in order."""
    return tuple(_backbone_blocks(spec))


def feature_maps(spec: ArchSpec) -> dict[int, Block]:
    """Returns the backbone's maps: by stride, the block that each is the output of.

    That is the last block before the stride grows, as EfficientDet takes them
    (https://arxiv.org/abs/1911.09070, figure 3: P1 to P5 are of strides 2 to 32), so
    the one of the largest stride is the backbone's output. The block says how many
    channels the map has, and its side at the spec's resolution. A stem that pools has
    one map alone, the pooled one.

    >>> from search_space import zoo
    >>> maps = feature_maps(zoo.load("efficientnet-b0"))
    >>> [(stride, *block.output) for stride, block in maps.items()]
    [(2, 16, 112), (4, 24, 56), (8, 40, 28), (16, 112, 14), (32, 320, 7)]
    >>> maps[16].name
    'stage4.layer2'
    """
    return _by_stride(backbone_blocks(spec))


def _by_stride(backbone: tuple[Block, ...]) -> dict[int, Block]:
    # The last block of a stride stays.
    return dict(zip(total_strides(backbone), backbone, strict=True))


def total_strides(backbone: Iterable[Block]) -> tuple[int, ...]:
    """Returns of each block how many pixels of the image one of its output's spans."""
    strides = (
        block.spec.total_stride if isinstance(block.spec, Stem) else block.stride
        for block in backbone
    )
    return tuple(itertools.accumulate(strides, operator.mul))


def maps_read(head: Head, maps: Mapping[int, _Map]) -> tuple[_Map, ...]:
    """Returns those of a backbone's maps by stride that the head reads."""
    match head:
        case ClassifierHead():
            return (maps[max(maps)],)


def _backbone_blocks(spec: ArchSpec) -> Iterator[Block]:
    block = stem_block(spec.stem, in_channels=spec.in_channels, in_size=spec.resolution)
    yield block
    num_layers = sum(stage.repeats for stage in spec.stages)
    index = 0  # of the layer among those of all stages
    for i, stage in enumerate(spec.stages):
        for layer in stage_blocks(
            stage, in_channels=block.out_channels, in_size=block.out_size
        ):
            rate = spec.drop_path * index / num_layers
            block = dataclasses.replace(
                layer,
                name=f"stage{i}.{layer.name}",
                drop_rate=0.0 if layer.skip == "none" else rate,
            )
            yield block
            index += 1


def stem_block(stem: Stem, *, in_channels: int, in_size: int) -> Block:
    """Returns the stem for images of `in_size` x `in_size` x `in_channels`."""
    size = out_size(in_size, stem.stride)
    return Block(
        name="stem",
        spec=stem,
        in_channels=in_channels,
        in_size=in_size,
        out_channels=stem.channels,
        out_size=out_size(size, STEM_POOL_STRIDE) if stem.pool else size,
        stride=stem.stride,
    )


def stage_blocks(stage: Stage, *, in_channels: int, in_size: int) -> tuple[Block, ...]:
    """Returns the layers of one stage alone: `layer0`, `layer1`, ..., none dropped."""
    se_ratio = stage.se_ratio if isinstance(stage, GatedStage) else 0.0
    found: list[Block] = []
    channels, size = in_channels, in_size
    for i in range(stage.repeats):
        stride = stage.stride if i == 0 else 1
        block = Block(
            name=f"layer{i}",
            spec=stage,
            in_channels=channels,
            in_size=size,
            out_channels=stage.channels,
            out_size=out_size(size, stride),
            stride=stride,
            se_hidden=se_hidden(channels, se_ratio),
            skip=_layer_skip(stage, channels, stride),
        )
        found.append(block)
        channels, size = block.out_channels, block.out_size
    return tuple(found)


def head_blocks(
    head: Head, *, entering: tuple[MapShape, ...], num_classes: int
) -> tuple[Block, ...]:
    """Returns the head's blocks behind the maps that it reads (`maps_read`)."""
    match head:
        case ClassifierHead():
            (last,) = entering
            block = Block(
                name="head",
                spec=head,
                in_channels=last.channels,
                in_size=last.size,
                out_channels=num_classes,
                out_size=1,
                stride=1,
            )
            return (block,)


def out_size(in_size: int, stride: int) -> int:
    """Side of the output map under either padding.

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
        case "conv" | "mbconv" | "fused_mbconv":
            if stage.skip == "none":
                return "none"
            if same_shape:
                return "identity"
            return "pool" if stage.skip == "pool" else "none"


def inner_channels(block: Block) -> int:
    """Channels that a layer expands to, or narrows to, before it writes its own.

    Those that it reads, where it does neither.
    """
    match block.spec:
        case FusedMBConvStage(expansion_of="output") as stage:
            return block.out_channels * stage.expansion
        case MBConvStage() | FusedMBConvStage() as stage:
            return block.in_channels * stage.expansion
        case BottleneckStage() as stage:
            return stage.bottleneck
        case _:
            return block.in_channels


def fused_strides(stage: FusedMBConvStage, stride: int) -> tuple[int, int]:
    """Strides of the expansion and of the projection, where the layer's is `stride`."""
    return (stride, 1) if stage.stride_on == "expansion" else (1, stride)
