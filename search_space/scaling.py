"""Scaling an architecture in depth, width and resolution.

Rounding follows EfficientNet's TensorFlow code. The published coefficients of B1 to
B7 are not powers of the paper's alpha, beta and gamma (https://arxiv.org/abs/1905.11946,
section 3.3), so they are listed as they were published.
"""

import dataclasses
import math

from search_space.spec import ArchSpec, BottleneckStage, Head, Stage

_DIVISOR = 8


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


def round_channels(channels: int, width: float) -> int:
    """Returns `channels * width` as the nearest multiple of 8 that loses under 10 %.

    A width of 1 changes nothing, whatever the channels.

    >>> [round_channels(c, 1.1) for c in (16, 24, 40, 112)], round_channels(12, 1.0)
    ([16, 24, 48, 120], 12)
    """
    if width == 1.0:
        return channels
    exact = channels * width
    rounded = max(_DIVISOR, int(exact + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return rounded + _DIVISOR if rounded < 0.9 * exact else rounded


def round_repeats(repeats: int, depth: float) -> int:
    """Returns `repeats * depth`, rounded up.

    >>> [round_repeats(r, 1.1) for r in (1, 2, 3, 4)]
    [2, 3, 4, 5]
    """
    return math.ceil(depth * repeats)


def scale(
    spec: ArchSpec,
    *,
    depth: float = 1.0,
    width: float = 1.0,
    resolution: int | None = None,
    fixed_ends: bool = False,
) -> ArchSpec:
    """Returns `spec` with deeper stages, wider layers and a larger input.

    Args:
      spec: the baseline. Its name, rates and number of classes are kept.
      depth: multiplies the repeats of every stage.
      width: multiplies every channel count; see `round_channels`.
      resolution: side of the input in pixels; the baseline's if None.
      fixed_ends: EfficientNet-Lite's rule: stem and head keep their width, the first
        and the last stage their depth.

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
            spec.stem, channels=round_channels(spec.stem.channels, ends_width)
        ),
        stages=tuple(
            _scale_stage(stage, 1.0 if fixed_ends and i in (0, last) else depth, width)
            for i, stage in enumerate(spec.stages)
        ),
        head=_scale_head(spec.head, ends_width),
    )


def _scale_stage(stage: Stage, depth: float, width: float) -> Stage:
    channels = round_channels(stage.channels, width)
    repeats = round_repeats(stage.repeats, depth)
    if isinstance(stage, BottleneckStage):
        return dataclasses.replace(
            stage,
            channels=channels,
            repeats=repeats,
            bottleneck=round_channels(stage.bottleneck, width),
        )
    return dataclasses.replace(stage, channels=channels, repeats=repeats)


def _scale_head(head: Head, width: float) -> Head:
    if head.channels is None:
        return head
    return dataclasses.replace(head, channels=round_channels(head.channels, width))
