"""Scaling an architecture in depth, width and resolution.

Rounding follows EfficientNet's TensorFlow code. The published coefficients of B1 to
B7 are not powers of the paper's alpha, beta and gamma (https://arxiv.org/abs/1905.11946,
section 3.3), so they are listed as they were published. What the powers give is in
`search_space.compound`.
"""

import dataclasses
import math
from collections.abc import Mapping

from search_space.spec import (
    ArchSpec,
    BottleneckStage,
    ClassifierHead,
    Head,
    Stage,
    with_dropout,
)

_PRESET_RESOLUTION = 224  # of the baseline that the presets scale
_MAX_LATER_DEPTH = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScalingRules:
    """How scaled sizes follow from factors: to what they are rounded, and how far.

    Attributes:
      channels: scaled channel counts are multiples of this; 8 in EfficientNet.
      pixels: scaled resolutions are multiples of this. With SAME padding strides
        allow any side that is at least the total stride. Every published resolution
        is a multiple of 4, so that the first two halvings come out even.
      least_share: rounding leaves at least this share of the channels, or goes up.
      max_resolution: scaled resolutions are at most this; EfficientNetV2's are 480
        (arXiv:2104.00298, section 3.3).
      later_depth: how much more later stages grow in depth, as they do there. The
        first one's repeats are multiplied by d, the last one's by d^(1 + later_depth),
        those between in even steps of the exponent.

    Raises:
      ValueError: when they are made, if a multiple is below 1, or later_depth out of
        range.
    """

    channels: int = 8
    pixels: int = 4
    least_share: float = 0.9
    max_resolution: int | None = None
    later_depth: float = 0.0

    def __post_init__(self) -> None:
        for name in ("channels", "pixels"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(
                    f"sizes must be rounded to multiples of 1 or more, got {value} for"
                    f" {name}; 1 keeps every whole number"
                )
        if not 0 <= self.later_depth <= _MAX_LATER_DEPTH:
            raise ValueError(
                f"later_depth must be from 0 to {_MAX_LATER_DEPTH:g}, got"
                f" {self.later_depth:g}; 0 deepens all stages alike"
            )

    def resolution(self, base: int, factor: float) -> int:
        """Returns the resolution `base` multiplied by `factor`.

        >>> ScalingRules(max_resolution=480).resolution(384, 1.15)
        440
        >>> ScalingRules(max_resolution=480).resolution(384, 1.15**2)
        480

        Raises:
          ValueError: if the baseline's is above the highest allowed.
        """
        found = round_resolution(base, factor, self.pixels)
        if self.max_resolution is None:
            return found
        if base > self.max_resolution:
            raise ValueError(
                f"max_resolution must be at least the baseline's {base}, got"
                f" {self.max_resolution}; raise it, or scale a smaller baseline"
            )
        return min(found, self.max_resolution)

    def depths(self, depth: float, num_stages: int) -> list[float]:
        """Returns what the repeats of each stage are multiplied by.

        >>> ScalingRules(later_depth=1.0).depths(2.0, 3)
        [2.0, 2.8284271247461903, 4.0]
        """
        last = max(1, num_stages - 1)
        return [
            depth ** (1 + self.later_depth * stage / last)
            for stage in range(num_stages)
        ]


EFFICIENTNET_RULES = ScalingRules()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """Published coefficients: multipliers of B0's width and depth, pixels, a rate."""

    width: float
    depth: float
    resolution: int
    dropout: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Presets:
    """A published family: its rows by name, and how its code scales by them.

    `fixed_ends` and `rules` are as `scale` takes them.
    """

    rows: Mapping[str, Preset]
    fixed_ends: bool = False
    rules: ScalingRules = EFFICIENTNET_RULES


def _rows(
    table: Mapping[str, tuple[float, float, int, float]],
) -> dict[str, Preset]:
    return {
        name: Preset(width=width, depth=depth, resolution=resolution, dropout=dropout)
        for name, (width, depth, resolution, dropout) in table.items()
    }


PRESETS: Mapping[str, Presets] = {
    "efficientnet": Presets(
        rows=_rows(
            {
                "efficientnet-b0": (1.0, 1.0, 224, 0.2),
                "efficientnet-b1": (1.0, 1.1, 240, 0.2),
                "efficientnet-b2": (1.1, 1.2, 260, 0.3),
                "efficientnet-b3": (1.2, 1.4, 300, 0.3),
                "efficientnet-b4": (1.4, 1.8, 380, 0.4),
                "efficientnet-b5": (1.6, 2.2, 456, 0.4),
                "efficientnet-b6": (1.8, 2.6, 528, 0.5),
                "efficientnet-b7": (2.0, 3.1, 600, 0.5),
            }
        )
    ),
    # Lite4's code has a dropout of 0.3, where B4 has 0.4.
    "efficientnet-lite": Presets(
        rows=_rows(
            {
                "efficientnet-lite0": (1.0, 1.0, 224, 0.2),
                "efficientnet-lite1": (1.0, 1.1, 240, 0.2),
                "efficientnet-lite2": (1.1, 1.2, 260, 0.3),
                "efficientnet-lite3": (1.2, 1.4, 280, 0.3),
                "efficientnet-lite4": (1.4, 1.8, 300, 0.3),
            }
        ),
        fixed_ends=True,
    ),
    "efficientnet-edgetpu": Presets(
        rows=_rows(
            {
                "efficientnet-edgetpu-s": (1.0, 1.0, 224, 0.2),
                "efficientnet-edgetpu-m": (1.0, 1.1, 240, 0.2),
                "efficientnet-edgetpu-l": (1.2, 1.4, 300, 0.3),
            }
        )
    ),
    # S to XL are no multiples of B0. The code rounds without EfficientNet's 0.9.
    "efficientnetv2": Presets(
        rows=_rows(
            {
                "efficientnetv2-b0": (1.0, 1.0, 224, 0.2),
                "efficientnetv2-b1": (1.0, 1.1, 240, 0.2),
                "efficientnetv2-b2": (1.1, 1.2, 260, 0.3),
                "efficientnetv2-b3": (1.2, 1.4, 300, 0.3),
            }
        ),
        rules=ScalingRules(least_share=0.0),
    ),
}


def round_channels(
    channels: int, width: float, rules: ScalingRules = EFFICIENTNET_RULES
) -> int:
    """Returns `channels * width` as the nearest multiple that `rules` allows.

    A width of 1 changes nothing, whatever the channels.

    >>> [round_channels(c, 1.1) for c in (16, 24, 40, 112)], round_channels(12, 1.0)
    ([16, 24, 48, 120], 12)
    >>> [round_channels(16, 1.2, ScalingRules(least_share=s)) for s in (0.9, 0.8)]
    [24, 16]
    """
    if width == 1.0:
        return channels
    exact, multiple = channels * width, rules.channels
    rounded = max(multiple, int(exact + multiple / 2) // multiple * multiple)
    return rounded + multiple if rounded < rules.least_share * exact else rounded


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
    rules: ScalingRules = EFFICIENTNET_RULES,
) -> ArchSpec:
    """Returns `spec` with deeper stages, wider layers and a larger input.

    Args:
      spec: the baseline. Its name, rates and number of classes are kept.
      depth: multiplies the repeats of every stage; `rules` may deepen later ones
        more.
      width: multiplies every channel count; see `round_channels`.
      resolution: side of the input in pixels; the baseline's if None.
      fixed_ends: EfficientNet-Lite's rule: stem and head keep their width, the first
        and the last stage their depth.
      rules: of the channels. The resolution is taken as it is.

    Raises:
      ValueError: if a multiplier is not positive and finite, or (as
        `pydantic.ValidationError`) if the result is out of `ArchSpec`'s range.
    """
    for name, multiplier in (("depth", depth), ("width", width)):
        if not 0 < multiplier < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {multiplier}")
    last = len(spec.stages) - 1
    depths = rules.depths(depth, len(spec.stages))
    ends_width = 1.0 if fixed_ends else width
    return dataclasses.replace(
        spec,
        resolution=spec.resolution if resolution is None else resolution,
        stem=dataclasses.replace(
            spec.stem,
            channels=round_channels(spec.stem.channels, ends_width, rules),
        ),
        stages=tuple(
            _scale_stage(
                stage,
                1.0 if fixed_ends and i in (0, last) else depths[i],
                width,
                rules,
            )
            for i, stage in enumerate(spec.stages)
        ),
        head=_scale_head(spec.head, ends_width, rules),
    )


def apply_preset(presets: Presets, name: str, spec: ArchSpec) -> ArchSpec:
    """Returns `spec` scaled by published coefficients, with their dropout.

    Args:
      presets: the family.
      name: of its row. Resolutions of rows are for a baseline of 224 pixels; another
        baseline's is scaled in proportion.
      spec: the baseline. Its name is kept.

    Raises:
      ValueError: as `scale`.
    """
    preset = presets.rows[name]
    scaled = scale(
        spec,
        depth=preset.depth,
        width=preset.width,
        resolution=round_resolution(
            spec.resolution, preset.resolution / _PRESET_RESOLUTION
        ),
        fixed_ends=presets.fixed_ends,
        rules=presets.rules,
    )
    return dataclasses.replace(scaled, head=with_dropout(scaled.head, preset.dropout))


def _scale_stage(
    stage: Stage, depth: float, width: float, rules: ScalingRules
) -> Stage:
    channels = round_channels(stage.channels, width, rules)
    repeats = round_repeats(stage.repeats, depth)
    if isinstance(stage, BottleneckStage):
        return dataclasses.replace(
            stage,
            channels=channels,
            repeats=repeats,
            bottleneck=round_channels(stage.bottleneck, width, rules),
        )
    return dataclasses.replace(stage, channels=channels, repeats=repeats)


def _scale_head(head: Head, width: float, rules: ScalingRules) -> Head:
    match head:
        case ClassifierHead():
            if head.channels is None:
                return head
            channels = round_channels(head.channels, width, rules)
            return dataclasses.replace(head, channels=channels)
