"""From blocks to the primitive operations that are counted, with their shapes."""

from dataclasses import dataclass
from typing import Literal

from search_space import layers
from search_space.layers import out_size
from search_space.spec import (
    STEM_POOL_KERNEL,
    STEM_POOL_STRIDE,
    ArchSpec,
    BottleneckStage,
    ClassifierHead,
    ConvStage,
    FusedMBConvStage,
    MBConvStage,
    SepConvStage,
    Stem,
)

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


def layers_of(spec: ArchSpec) -> tuple[Layer, ...]:
    """Returns every primitive layer of `spec` in the order of execution."""
    return tuple(
        layer for block in layers.blocks(spec) for layer in block_layers(block)
    )


def block_layers(block: layers.Block) -> tuple[Layer, ...]:
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


def _mbconv_layers(tape: "_Tape", block: layers.Block, stage: MBConvStage) -> None:
    if stage.expansion > 1:
        tape.conv("expand", layers.inner_channels(block))
    tape.depthwise(stage.kernel)
    tape.squeeze_excite()
    tape.conv("project", stage.channels)


def _fused_layers(tape: "_Tape", block: layers.Block, stage: FusedMBConvStage) -> None:
    if stage.expansion == 1:
        tape.squeeze_excite()
        tape.conv("conv", stage.channels, stage.kernel, block.stride)
        return
    expanding, projecting = layers.fused_strides(stage, block.stride)
    tape.conv("expand", layers.inner_channels(block), stage.kernel, expanding)
    tape.squeeze_excite()
    tape.conv("project", stage.channels, 1, projecting)


class _Tape:
    """Appends layers, each reading the map that the last one wrote."""

    def __init__(self, block: layers.Block) -> None:
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
