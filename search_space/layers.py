"""From an architecture to its layers, with every shape: the only shape inference.

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
    STEM_POOL_KERNEL,
    STEM_POOL_STRIDE,
    ArchSpec,
    BottleneckStage,
    ClassifierHead,
    ConvStage,
    FusedMBConvStage,
    GatedStage,
    Head,
    MBConvStage,
    SepConvStage,
    Stage,
    Stem,
)

LayerSkip = Literal["none", "identity", "pool", "projection"]
Op = Literal[
    "conv",
    "depthwise_conv",
    "dense",
    "batch_norm",
    "average_pool",
    "global_average_pool",
    "max_pool",
    "scale",
    "add",
]

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """A primitive operation on one image. Activations and dropout have none of theirs.

    Attributes:
      name: the block's name and its own: `stage0.layer0.expand`.
      op: `scale` multiplies a map by squeeze-and-excitation's gates.
      in_channels: channels of the map it reads.
      in_size: its side in pixels.
      out_channels: channels of the map it writes; `add` cuts or zero-pads its second
        operand to them.
      out_size: its side in pixels.
      kernel: side of the window; the whole map for `global_average_pool`.
      stride: in both directions.
      bias: whether a bias is added.
      held: elements of other maps that must stay in memory meanwhile: the input that
        will be added later, the map that squeeze-and-excitation will scale.
    """

    name: str
    op: Op
    in_channels: int
    in_size: int
    out_channels: int
    out_size: int
    kernel: int = 1
    stride: int = 1
    bias: bool = False
    held: int = 0


def layers(spec: ArchSpec) -> tuple[Layer, ...]:
    """Returns every primitive layer of `spec` in the order of execution."""
    return tuple(layer for block in blocks(spec) for layer in block_layers(block))


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


def block_layers(block: Block) -> tuple[Layer, ...]:
    """Returns the primitive layers of one block in the order of execution."""
    tape = _Tape(block)
    match block.spec:
        case Stem() as stem:
            tape.conv("conv", stem.channels, stem.kernel, block.stride)
            if stem.pool:
                tape.append(
                    "pool",
                    "max_pool",
                    out_size=block.out_size,
                    kernel=STEM_POOL_KERNEL,
                    stride=STEM_POOL_STRIDE,
                )
        case ConvStage() as stage:
            tape.conv("conv", stage.channels, stage.kernel, block.stride)
            tape.squeeze_excite()
        case SepConvStage() as stage:
            tape.depthwise(stage.kernel)
            tape.conv("pointwise", stage.channels)
        case MBConvStage() as stage:
            _mbconv_layers(tape, block, stage)
        case FusedMBConvStage() as stage:
            _fused_layers(tape, block, stage)
        case BottleneckStage() as stage:
            tape.conv("reduce", stage.bottleneck)
            tape.conv("conv", stage.bottleneck, stage.kernel, block.stride)
            tape.conv("expand", stage.channels)
        case ClassifierHead() as head:
            if head.channels is not None:
                tape.conv("conv", head.channels)
            tape.append("pool", "global_average_pool", out_size=1, kernel=block.in_size)
            tape.append("classifier", "dense", channels=block.out_channels, bias=True)
    tape.skip()
    return tuple(tape.layers)


def _mbconv_layers(tape: "_Tape", block: Block, stage: MBConvStage) -> None:
    if stage.expansion > 1:
        tape.conv("expand", inner_channels(block))
    tape.depthwise(stage.kernel)
    tape.squeeze_excite()
    tape.conv("project", stage.channels)


def _fused_layers(tape: "_Tape", block: Block, stage: FusedMBConvStage) -> None:
    if stage.expansion == 1:
        tape.squeeze_excite()
        tape.conv("conv", stage.channels, stage.kernel, block.stride)
        return
    expanding, projecting = fused_strides(stage, block.stride)
    tape.conv("expand", inner_channels(block), stage.kernel, expanding)
    tape.squeeze_excite()
    tape.conv("project", stage.channels, 1, projecting)


class _Tape:
    """Appends layers, each reading the map that the last one wrote."""

    def __init__(self, block: Block) -> None:
        self.layers: list[Layer] = []
        self._block = block
        self._channels = block.in_channels
        self._size = block.in_size
        self._reads_input = True
        self._input_held = block.skip != "none"
        self._held = 0

    def append(
        self,
        name: str,
        op: Op,
        *,
        channels: int | None = None,
        out_size: int | None = None,
        kernel: int = 1,
        stride: int = 1,
        bias: bool = False,
    ) -> None:
        """Appends a layer; channels and size stay as they are unless given."""
        layer = Layer(
            name=f"{self._block.name}.{name}",
            op=op,
            in_channels=self._channels,
            in_size=self._size,
            out_channels=self._channels if channels is None else channels,
            out_size=self._size if out_size is None else out_size,
            kernel=kernel,
            stride=stride,
            bias=bias,
            held=self._held + self._input_beside,
        )
        self.layers.append(layer)
        self._reads_input = False
        self._channels, self._size = layer.out_channels, layer.out_size

    @property
    def _input(self) -> int:
        return self._block.in_channels * self._block.in_size**2

    @property
    def _input_beside(self) -> int:
        """Elements of the block's input that will be added and is not what is read."""
        return self._input if self._input_held and not self._reads_input else 0

    def conv(self, name: str, channels: int, kernel: int = 1, stride: int = 1) -> None:
        """Appends a convolution without a bias, and its batch norm."""
        self.append(
            name,
            "conv",
            channels=channels,
            out_size=out_size(self._size, stride),
            kernel=kernel,
            stride=stride,
        )
        self.append(f"{name}_bn", "batch_norm")

    def depthwise(self, kernel: int) -> None:
        """Appends a depthwise convolution with the block's stride, and batch norm."""
        self.append(
            "depthwise",
            "depthwise_conv",
            out_size=self._block.out_size,
            kernel=kernel,
            stride=self._block.stride,
        )
        self.append("depthwise_bn", "batch_norm")

    def squeeze_excite(self) -> None:
        """Appends the layers of squeeze-and-excitation, if the block has it."""
        if not self._block.se_hidden:
            return
        channels, size, gates_input = self._channels, self._size, self._reads_input
        self.append("se_pool", "global_average_pool", out_size=1, kernel=size)
        held_already = gates_input and self._input_held
        self._held = 0 if held_already else channels * size**2
        self.append("se_reduce", "conv", channels=self._block.se_hidden, bias=True)
        self.append("se_expand", "conv", channels=channels, bias=True)
        self._size, self._held = size, channels  # the gates, while the map is scaled
        self._reads_input = gates_input
        self.append("se_scale", "scale")
        self._held = 0

    def skip(self) -> None:
        """Appends the layers of the skip path, which read the input, and the sum."""
        block = self._block
        if block.skip == "none":
            return
        output = self._channels * self._size**2
        operand = self._input
        self._channels, self._size = block.in_channels, block.in_size
        self._input_held, self._held = False, output
        if block.skip == "pool":
            self.append(
                "skip_pool",
                "average_pool",
                out_size=block.out_size,
                kernel=block.stride,
                stride=block.stride,
            )
            operand = block.in_channels * block.out_size**2
        elif block.skip == "projection":
            self.conv("projection", block.out_channels, 1, block.stride)
            operand = output
        self._channels, self._size = block.out_channels, block.out_size
        self._held = operand
        self.append("add", "add")
