"""Scaling an architecture in depth, width and resolution.

Rounding follows EfficientNet's TensorFlow code. The published coefficients of B1 to
B7 are not powers of the paper's alpha, beta and gamma (https://arxiv.org/abs/1905.11946,
section 3.3), so they are listed as they were published. What the powers give is in
`search_space.compound`.
"""

import dataclasses
import math

from search_space.spec import (
    ArchSpec,
    BottleneckStage,
    ClassifierHead,
    Head,
    Stage,
    with_dropout,
)

_PRESET_RESOLUTION = 224  # of the baseline that the presets scale


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rounding:
    """To what scaled sizes are rounded.

    Attributes:
      channels: scaled channel counts are multiples of this; 8 in EfficientNet.
      pixels: scaled resolutions are multiples of this. With SAME padding strides
        allow any side that is at least the total stride. Every published resolution
        is a multiple of 4, so that the first two halvings come out even.

    Raises:
      ValueError: when it is made, if one of them is below 1.
    """

    channels: int = 8
    pixels: int = 4

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if (value := getattr(self, field.name)) < 1:
                raise ValueError(
                    f"sizes must be rounded to multiples of 1 or more, got {value} for"
                    f" {field.name}; 1 keeps every whole number"
                )


EFFICIENTNET_ROUNDING = Rounding()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """Published coefficients: multipliers of B0's width and depth, pixels, a rate."""

    width: float
    depth: float
    resolution: int
    dropout: float


def _preset(width: float, depth: float, resolution: int, dropout: float) -> Preset:
    return Preset(width=width, depth=depth, resolution=resolution, dropout=dropout)


EFFICIENTNET = {
    "efficientnet-b0": _preset(1.0, 1.0, 224, 0.2),
    "efficientnet-b1": _preset(1.0, 1.1, 240, 0.2),
    "efficientnet-b2": _preset(1.1, 1.2, 260, 0.3),
    "efficientnet-b3": _preset(1.2, 1.4, 300, 0.3),
    "efficientnet-b4": _preset(1.4, 1.8, 380, 0.4),
    "efficientnet-b5": _preset(1.6, 2.2, 456, 0.4),
    "efficientnet-b6": _preset(1.8, 2.6, 528, 0.5),
    "efficientnet-b7": _preset(2.0, 3.1, 600, 0.5),
}

# Lite4's code has a dropout of 0.3, where B4 has 0.4.
EFFICIENTNET_LITE = {
    "efficientnet-lite0": _preset(1.0, 1.0, 224, 0.2),
    "efficientnet-lite1": _preset(1.0, 1.1, 240, 0.2),
    "efficientnet-lite2": _preset(1.1, 1.2, 260, 0.3),
    "efficientnet-lite3": _preset(1.2, 1.4, 280, 0.3),
    "efficientnet-lite4": _preset(1.4, 1.8, 300, 0.3),
}


def round_channels(channels: int, width: float, multiple: int = 8) -> int:
    """Returns `channels * width` as the nearest multiple that loses under 10 %.

    A width of 1 changes nothing, whatever the channels.

    >>> [round_channels(c, 1.1) for c in (16, 24, 40, 112)], round_channels(12, 1.0)
    ([16, 24, 48, 120], 12)
    """
    if width == 1.0:
        return channels
    exact = channels * width
    rounded = max(multiple, int(exact + multiple / 2) // multiple * multiple)
    return rounded + multiple if rounded < 0.9 * exact else rounded


def round_repeats(repeats: int, depth: float) -> int:
    """Returns `repeats * depth`, rounded up.

    >>> [round_repeats(r, 1.1) for r in (1, 2, 3, 4)]
    [2, 3, 4, 5]
    """
    return math.ceil(depth * repeats)


def round_resolution(resolution: int, factor: float, multiple: int = 4) -> int:
    """Returns `resolution * factor` as the nearest multiple, halves up, at least one.

    A factor of 1 changes nothing, whatever the resolution.

    >>> [round_resolution(224, 1.15**phi) for phi in (1, 2, 3)]
    [256, 296, 340]
    >>> round_resolution(225, 1.0)
    225
    """
    if factor == 1.0:
        return resolution
    return max(multiple, int(resolution * factor / multiple + 0.5) * multiple)


def scale(
    spec: ArchSpec,
    *,
    depth: float = 1.0,
    width: float = 1.0,
    resolution: int | None = None,
    fixed_ends: bool = False,
    rounding: Rounding = EFFICIENTNET_ROUNDING,
) -> ArchSpec:
    """Returns `spec` with deeper stages, wider layers and a larger input.

    Args:
      spec: the baseline. Its name, rates and number of classes are kept.
      depth: multiplies the repeats of every stage.
      width: multiplies every channel count; see `round_channels`.
      resolution: side of the input in pixels; the baseline's if None.
      fixed_ends: EfficientNet-Lite's rule: stem and head keep their width, the first
        and the last stage their depth.
      rounding: of the channels. The resolution is taken as it is.

    Raises:
      ValueError: if a multiplier is not positive and finite, or (as
        `pydantic.ValidationError`) if the result is out of `ArchSpec`'s range.
    """
    for name, multiplier in (("depth", depth), ("width", width)):
        if not 0 < multiplier < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {multiplier}")
    last = len(spec.stages) - 1
    ends_width = 1.0 if fixed_ends else width
    return dataclasses.replace(
        spec,
        resolution=spec.resolution if resolution is None else resolution,
        stem=dataclasses.replace(
            spec.stem,
            channels=round_channels(spec.stem.channels, ends_width, rounding.channels),
        ),
        stages=tuple(
            _scale_stage(
                stage,
                1.0 if fixed_ends and i in (0, last) else depth,
                width,
                rounding.channels,
            )
            for i, stage in enumerate(spec.stages)
        ),
        head=_scale_head(spec.head, ends_width, rounding.channels),
    )


def apply_preset(
    preset: Preset, spec: ArchSpec, *, fixed_ends: bool = False
) -> ArchSpec:
    """Returns `spec` scaled by published coefficients, with their dropout.

    Args:
      preset: the coefficients. Their resolution is for a baseline of 224 pixels;
        another baseline's is scaled in proportion.
      spec: the baseline. Its name is kept.
      fixed_ends: see `scale`.

    Raises:
      ValueError: as `scale`.
    """
    scaled = scale(
        spec,
        depth=preset.depth,
        width=preset.width,
        resolution=round_resolution(
            spec.resolution, preset.resolution / _PRESET_RESOLUTION
        ),
        fixed_ends=fixed_ends,
    )
    return dataclasses.replace(scaled, head=with_dropout(scaled.head, preset.dropout))


def _scale_stage(stage: Stage, depth: float, width: float, multiple: int) -> Stage:
    channels = round_channels(stage.channels, width, multiple)
    repeats = round_repeats(stage.repeats, depth)
    if isinstance(stage, BottleneckStage):
        return dataclasses.replace(
            stage,
            channels=channels,
            repeats=repeats,
            bottleneck=round_channels(stage.bottleneck, width, multiple),
        )
    return dataclasses.replace(stage, channels=channels, repeats=repeats)


def _scale_head(head: Head, width: float, multiple: int) -> Head:
    match head:
        case ClassifierHead():
            if head.channels is None:
                return head
            channels = round_channels(head.channels, width, multiple)
            return dataclasses.replace(head, channels=channels)
