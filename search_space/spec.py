"""Architectures as data: a backbone, which is a stem and stages, and a head.

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

Impossible values are refused when an object is made, with a
`pydantic.ValidationError` (a `ValueError`); `explain` puts one in a line. With either
padding any map can be strided further, down to one pixel, so nothing breaks at a
resolution that is too low; yet strides that find nothing left to stride over change
what the network is. Hence the rule that `resolution` is at least the total stride.
"""

import dataclasses
import math
import re
import reprlib
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails, PydanticCustomError

Activation = Literal["relu", "relu6", "swish"]
Skip = Literal["none", "identity", "pool"]
Padding = Literal["same", "symmetric"]

NORM_EPSILON = 1e-3  # TensorFlow reference
PYTORCH_NORM_EPSILON = 1e-5  # torch.nn.BatchNorm2d's default

MAX_CHANNELS = 16_384
MAX_RESOLUTION = 4_096
MAX_KERNEL = 15
MAX_REPEATS = 256
MAX_STAGES = 64
MAX_LAYERS = 1_024  # repeats of all stages together
MAX_CLASSES = 1_000_000

STEM_POOL_KERNEL = 3  # ResNet's max-pooling after the stem (arXiv:1512.03385, table 1)
STEM_POOL_STRIDE = 2


def _odd(kernel: int) -> int:
    if kernel % 2 == 0:
        # An even window has no centre: SAME padding would shift the map by half a
        # pixel, to a side on which frameworks differ.
        raise PydanticCustomError("odd", "must be odd")
    return kernel


def _printable(name: str) -> str:
    if not name.isprintable():
        raise PydanticCustomError("printable", "must be printable, on one line")
    return name


Channels = Annotated[int, Field(ge=1, le=MAX_CHANNELS)]
Kernel = Annotated[
    int,
    Field(ge=1, le=MAX_KERNEL, json_schema_extra={"not": {"multipleOf": 2}}),
    AfterValidator(_odd),
]
Stride = Annotated[int, Field(ge=1, le=4)]
Expansion = Annotated[int, Field(ge=1, le=16)]
Repeats = Annotated[int, Field(ge=1, le=MAX_REPEATS)]
Ratio = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0, allow_inf_nan=False)]
# A smaller one makes gains of over a thousand of channels that hardly vary.
Epsilon = Annotated[float, Field(ge=1e-6, le=1.0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]

_MAX_VALUE = 80  # characters of a value in a message

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
    expansion: Expansion
    repeats: Repeats
    se_ratio: Ratio = 0.0
    skip: Skip = "identity"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class FusedMBConvStage:
    """Inverted residuals whose kxk expansion does the depthwise convolution's work.

    Expand kxk - BN - activation, squeeze-and-excite, project 1x1 - BN. When `expansion`
    is 1: squeeze-and-excite, one kxk - BN - activation. So EfficientNetV2's TensorFlow
    code (https://arxiv.org/abs/2104.00298, figure 2).

    `stride_on` and `expansion_of` are for EfficientNet-EdgeTPU, whose TensorFlow code
    strides in the projection, and whose first stage expands the channels that it writes
    instead of those that it reads.
    """

    kind: Literal["fused_mbconv"] = "fused_mbconv"
    channels: Channels
    kernel: Kernel
    stride: Stride
    expansion: Expansion
    repeats: Repeats
    se_ratio: Ratio = 0.0
    skip: Skip = "identity"
    stride_on: Literal["expansion", "projection"] = "expansion"
    expansion_of: Literal["input", "output"] = "input"

    @model_validator(mode="after")
    def _check_single(self) -> Self:
        if self.expansion == 1 and (self.stride_on, self.expansion_of) != (
            "expansion",
            "input",
        ):
            raise PydanticCustomError(
                "one_convolution",
                "must have stride_on and expansion_of at their defaults where expansion"
                " is 1: there is one convolution",
            )
        return self


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
    ConvStage | SepConvStage | MBConvStage | FusedMBConvStage | BottleneckStage,
    Field(discriminator="kind"),
]
GatedStage = ConvStage | MBConvStage | FusedMBConvStage
"""Those that may have squeeze-and-excitation, and choose their skip."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Stem:
    """First convolution - BN - activation; `pool` adds ResNet's 3x3 s2 max-pooling."""

    channels: Channels
    kernel: Kernel = 3
    stride: Stride = 2
    pool: bool = False

    @property
    def total_stride(self) -> int:
        """Of the convolution and the pooling."""
        return self.stride * (STEM_POOL_STRIDE if self.pool else 1)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ClassifierHead:
    """1x1 convolution - BN - activation, global average pool, dropout, classifier.

    `channels` is None where the last stage feeds the pool directly.
    """

    kind: Literal["classifier"] = "classifier"
    channels: Channels | None
    dropout: Rate = 0.0


# One kind so far. With a second it is a union told apart by `kind`, as `Stage` is, and
# a validator before fills in "classifier": files name no kind where that is meant.
Head = ClassifierHead


def with_dropout(head: Head, rate: float) -> Head:
    """Returns the head with another rate of dropout."""
    match head:
        case ClassifierHead():
            return dataclasses.replace(head, dropout=rate)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ArchSpec:
    """A whole network: a backbone of `stem` and `stages`, and what reads its maps.

    `resolution` is the side in pixels of the input it is meant for; costs are
    computed there. `in_channels` and `num_classes` are the data's, whatever the head.
    `drop_path` is the highest stochastic-depth drop rate: layer i of n drops its
    residual branch with rate `drop_path * i / n` (EfficientNet's TensorFlow code, i
    from 0; survival 0.8 is `drop_path=0.2`).

    `padding` is that of every convolution and of the stem's pooling. `same`: as
    TensorFlow has it, no more than the windows need, the odd pixel at the end.
    `symmetric`: `kernel // 2` on every side, as PyTorch's networks have it. They
    differ where a stride is above 1, in which pixels the windows meet; sizes are the
    same. `norm_epsilon` is what batch normalization adds to the variance: 1e-3 in the
    TensorFlow references, 1e-5 in PyTorch. Trained weights fit one of each alone.
    """

    name: Name
    resolution: Annotated[int, Field(ge=1, le=MAX_RESOLUTION)]
    in_channels: Annotated[int, Field(ge=1, le=1_024)] = 3
    num_classes: Annotated[int, Field(ge=1, le=MAX_CLASSES)] = 1000
    activation: Activation
    stem: Stem
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=MAX_STAGES)]
    head: Head
    drop_path: Rate = 0.0
    padding: Padding = "same"
    norm_epsilon: Epsilon = NORM_EPSILON

    @property
    def total_stride(self) -> int:
        """Product of all strides, the stem's pooling included."""
        return self.stem.total_stride * math.prod([s.stride for s in self.stages])

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        if (stride := self.total_stride) > self.resolution:
            raise PydanticCustomError(
                "total_stride",
                "resolution must be at least the total stride {stride}, got {got};"
                " raise the resolution or stride less",
                {"stride": stride, "got": self.resolution},
            )
        if (layers := sum([stage.repeats for stage in self.stages])) > MAX_LAYERS:
            raise PydanticCustomError(
                "max_layers",
                "repeats must sum to at most {most} over all stages, got {got}",
                {"most": MAX_LAYERS, "got": layers},
            )
        return self


def explain(error: ValidationError) -> str:
    """Returns the first fault in `error` on one line: field, rule and value.

    >>> try:
    ...     Stem(channels=32, kernel=4)
    ... except ValidationError as error:
    ...     explain(error)
    'kernel must be odd, got 4'
    """
    first, *others = error.errors(include_url=False)
    text = _fault(first)
    return text + (f" (and {len(others)} more)" if others else "")


def _fault(error: ErrorDetails) -> str:
    kind, message, location = error["type"], error["msg"], error["loc"]
    # Inside `stages` pydantic adds the stage's kind after its index; files do not.
    path = [
        part if isinstance(part, int) or part.isidentifier() else reprlib.repr(part)
        for i, part in enumerate(location)
        if i == 0 or not isinstance(location[i - 1], int)
    ]
    field = ".".join(str(part) for part in path) or "the whole"
    context = error.get("ctx", {})
    match kind:
        case "total_stride" | "max_layers":
            text = message
        case "json_invalid":
            text = f"text must be JSON: {context.get('error')}"
        case "missing":
            text = f"{field} is required"
        case "union_tag_not_found":
            text = f"{field}.kind is required"
        case "union_tag_invalid":
            kinds, tag = context.get("expected_tags"), shorten(context.get("tag"))
            text = f"{field}.kind must be one of {kinds}, got {tag}"
        case "unexpected_keyword_argument":
            text = f"{field} is not a known field, got {shorten(error['input'])}"
        case _:
            rule = re.sub(r"^\w+ should ", "must ", message)
            text = f"{field} {rule}, got {shorten(error['input'])}"
    return text


def shorten(value: object) -> str:
    """Returns `value` as an error message shows it: a line of bounded length."""
    text = reprlib.repr(value)
    return text if len(text) <= _MAX_VALUE else text[:_MAX_VALUE] + "..."
