"""What a training run is made of: phases, each with its resolution and strengths.

A run of one phase trains alike from beginning to end. Progressive learning
(arXiv:2104.00298, section 4) has several, from small images and weak regularization to
large ones and strong.
"""

import dataclasses
from typing import Literal

import jax
from jaxtyping import Array

Growth = Literal["paper", "code"]
"""How resolution grows over n stages: to i / (n - 1) of the way in stage i, from 0 on,
as EfficientNetV2's paper has it; or to (i + 1) / n, rounded down, as its code."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Strengths:
    """How strongly training regularizes: numbers, or scalars on the device.

    A compiled step takes them as arguments, so phases share it.

    Attributes:
      weight_decay: L2 penalty, as `optim.chain` has it.
      label_smoothing: share of each target that is spread over all classes.
      dropout: share of the network's own rate that is applied.
      drop_path: share of its rates of stochastic depth that is applied.
      randaugment: magnitude of RandAugment's operations.
      mixup: alpha; 0 leaves the images as they are.
      cutmix: alpha; 0 leaves the images as they are.
    """

    weight_decay: float | Array = 0.0
    label_smoothing: float | Array = 0.0
    dropout: float | Array = 1.0
    drop_path: float | Array = 1.0
    randaugment: float | Array = 0.0
    mixup: float | Array = 0.0
    cutmix: float | Array = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of a run: steps at one resolution, in pixels, and with one strength."""

    resolution: int
    steps: int
    strengths: Strengths


def growing(
    first: Phase, last: Phase, *, stages: int, growth: Growth = "paper"
) -> tuple[Phase, ...]:
    """Returns the stages of a run that grows from one phase to another.

    Strengths grow linearly, from those of `first` to those of `last`. Each stage has an
    equal share of the steps of both; the last one what is left over.

    >>> none = Strengths()
    >>> first, last = (Phase(resolution=r, steps=5, strengths=none) for r in (128, 300))
    >>> [phase.resolution for phase in growing(first, last, stages=4)]
    [128, 185, 243, 300]
    >>> [phase.resolution for phase in growing(first, last, stages=4, growth="code")]
    [171, 214, 257, 300]
    """
    steps = first.steps + last.steps
    found: list[Phase] = []
    for stage in range(stages):
        share = stage / (stages - 1)
        if growth == "paper":
            resolution = round(_between(first.resolution, last.resolution, share))
        else:
            way = (stage + 1) / stages
            resolution = int(_between(first.resolution, last.resolution, way))
        own = steps // stages + (steps % stages if stage == stages - 1 else 0)
        strengths = Strengths(
            **{
                field.name: _between(
                    getattr(first.strengths, field.name),
                    getattr(last.strengths, field.name),
                    share,
                )
                for field in dataclasses.fields(Strengths)
            }
        )
        found.append(Phase(resolution=resolution, steps=own, strengths=strengths))
    return tuple(found)


def _between(first: float, last: float, share: float) -> float:
    return first + (last - first) * share
