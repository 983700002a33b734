"""Architectures as data: a stem, stages and a head.

Channel counts are final integers, after any rounding. `kernel` and `stride` are
square. A stage is `repeats` identical layers; only its first layer has the stage's
`stride` and changes the width, as in MnasNet (https://arxiv.org/abs/1807.11626,
section 4.1) and EfficientNet (https://arxiv.org/abs/1905.11946, Table 1).

`se_ratio` is relative to the channels that enter the *layer*, not to the expanded
channels; 0 means no squeeze-and-excitation.

`skip` is MnasNet's SkipOp. `none`: no skip path. `identity`: the layer's input is
added to its output wherever stride is 1 and the widths agree. `pool`: as `identity`,
and a layer that changes the shape adds its input too, average-pooled by the stride
(window = stride, SAME) and cut or zero-padded to the new width. The paper names the
operation and no more; this parameter-free reading is ours.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Activation = Literal["relu", "relu6", "swish"]
Skip = Literal["none", "identity", "pool"]

MAX_CHANNELS = 16_384
MAX_RESOLUTION = 4_096
MAX_KERNEL = 15
MAX_REPEATS = 256
MAX_STAGES = 64
MAX_CLASSES = 1_000_000

Channels = Annotated[int, Field(ge=1, le=MAX_CHANNELS)]
Kernel = Annotated[
    int, Field(ge=1, le=MAX_KERNEL, json_schema_extra={"not": {"multipleOf": 2}})
]
Stride = Annotated[int, Field(ge=1, le=4)]
Repeats = Annotated[int, Field(ge=1, le=MAX_REPEATS)]
Ratio = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0, allow_inf_nan=False)]

_STRICT = ConfigDict(strict=True, extra="forbid")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ConvStage:
    """Plain convolutions: conv kxk - BN - activation, then squeeze-and-excitation."""

    kind: Literal["conv"] = "conv"
    channels: Channels
    kernel: Kernel
    stride: Stride
    repeats: Repeats
    se_ratio: Ratio = 0.0
    skip: Skip = "none"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SepConvStage:
    """MobileNetV1's layers: depthwise kxk - BN - act - 1x1 - BN - act, no skip.

    MnasNet's "SepConv" has no activation after the 1x1 convolution: it is an
    `MBConvStage` of expansion 1.
    """

    kind: Literal["sepconv"] = "sepconv"
    channels: Channels
    kernel: Kernel
    stride: Stride
    repeats: Repeats


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class MBConvStage:
    """Inverted residuals: expand 1x1, depthwise kxk, squeeze-and-excite, project 1x1.

    No expanding convolution when `expansion` is 1.
    """

    kind: Literal["mbconv"] = "mbconv"
    channels: Channels
    kernel: Kernel
    stride: Stride
    expansion: Annotated[int, Field(ge=1, le=16)]
    repeats: Repeats
    se_ratio: Ratio = 0.0
    skip: Skip = "identity"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class BottleneckStage:
    """ResNet bottlenecks: 1x1, kxk with the stride, 1x1, added to the shortcut.

    The shortcut is a 1x1 convolution and BN where the shape changes. The stride is
    on the kxk convolution, as in torchvision (the paper puts it on the first 1x1).
    """

    kind: Literal["bottleneck"] = "bottleneck"
    channels: Channels
    bottleneck: Channels
    kernel: Kernel
    stride: Stride
    repeats: Repeats


Stage = Annotated[
    ConvStage | SepConvStage | MBConvStage | BottleneckStage,
    Field(discriminator="kind"),
]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Stem:
    """First convolution - BN - activation; `pool` adds ResNet's 3x3 s2 max-pooling."""

    channels: Channels
    kernel: Kernel = 3
    stride: Stride = 2
    pool: bool = False


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Head:
    """1x1 convolution - BN - activation, global average pool, dropout, classifier.

    `channels` is None where the last stage feeds the pool directly.
    """

    channels: Channels | None
    dropout: Rate = 0.0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ArchSpec:
    """A whole network.

    `resolution` is the side in pixels of the input it is meant for; costs are
    computed there. `drop_path` is the highest stochastic-depth drop rate: layer i of
    n drops its residual branch with rate `drop_path * i / n` (EfficientNet's
    TensorFlow code; survival 0.8 is `drop_path=0.2`).
    """

    name: Annotated[str, Field(min_length=1, max_length=200)]
    resolution: Annotated[int, Field(ge=1, le=MAX_RESOLUTION)]
    in_channels: Annotated[int, Field(ge=1, le=1_024)] = 3
    num_classes: Annotated[int, Field(ge=1, le=MAX_CLASSES)] = 1000
    activation: Activation
    stem: Stem
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=MAX_STAGES)]
    head: Head
    drop_path: Rate = 0.0
