"""What defines a calibration: architectures, and the budgets that they are trained at.

The options are flags on the command line and the header of the journal.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Annotated, TypeVar

import tyro

from nas.options.definition import EvaluationOptions
from search_space.spec import ArchSpec
from trainers.child import ChildConfig

_NAME = tyro.conf.arg(metavar="NAME")
_COUNT = tyro.conf.arg(metavar="N")
_COUNTS = tyro.conf.arg(metavar="N N ...")
_NUMBER = tyro.conf.arg(metavar="X")

_Number = TypeVar("_Number", int, float)

LEAST_ARCHITECTURES = 4

_MOST_ARCHITECTURES = 200  # a line of the journal has them all
_MOST_TRAININGS = 1_000
_MAX_SEED = 2**32


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrationOptions:
    """Which architectures are trained, and at which cheaper budgets."""

    space: Annotated[str, _NAME] = "mbconv"
    """The space to be searched: as of nas.search."""
    restrict: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]],
        tyro.conf.arg(metavar="DECISION=CHOICES"),
    ] = ()
    """Keep only these choices of a decision, as in the search. Repeatable."""
    architectures: Annotated[int, _COUNT] = 12
    """How many, spread evenly over the multiply-adds of random ones. More of them make
    the intervals narrower."""
    trainings: Annotated[int, _COUNT] = 2
    """Times that each is trained at each budget, each with another seed."""
    try_steps: Annotated[tuple[int, ...], _COUNTS] = (20, 60, 200)
    """Fewer training steps than --steps."""
    try_resolution: Annotated[tuple[int, ...], _COUNTS] = ()
    """Smaller images than --resolution."""
    try_share: Annotated[tuple[float, ...], tyro.conf.arg(metavar="X X ...")] = ()
    """Smaller shares of the training images than --share."""
    try_validation: Annotated[tuple[int, ...], _COUNTS] = ()
    """Fewer images to measure on: with few steps, measuring takes most of the time."""
    bar: Annotated[float, _NUMBER] = 0.6
    """Rank correlation with the longest budget (Kendall's tau) that will do."""
    seed: Annotated[int, _COUNT] = 0
    """Seed of the architectures, the trainings and the validation split."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """What one training of a child may cost.

    Attributes:
      steps: of training.
      resolution: side in pixels.
      share: of the training images.
      validation: images that measure; None for the whole validation split.
    """

    steps: int
    resolution: int
    share: float
    validation: int | None

    def config(self, child: ChildConfig) -> ChildConfig:
        """Returns `child` at this budget."""
        return dataclasses.replace(child, steps=self.steps, resolution=self.resolution)


def describe(budget: Budget, repeats: int = 1) -> str:
    """Returns a budget in words.

    >>> describe(Budget(steps=60, resolution=32, share=0.5, validation=500), 2)
    '60 steps, 32 pixels, 0.5 of the data, 500 to measure, twice'
    """
    parts = [f"{budget.steps} steps", f"{budget.resolution} pixels"]
    if budget.share != 1:
        parts.append(f"{budget.share:g} of the data")
    if budget.validation is not None:
        parts.append(f"{budget.validation} to measure")
    if repeats > 1:
        parts.append("twice" if repeats == 2 else f"{repeats} times")  # noqa: PLR2004
    return ", ".join(parts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architectures:
    """What is trained, in order of multiply-adds."""

    specs: tuple[ArchSpec, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrationDefinition:
    """Everything that defines a calibration.

    `evaluation` and `child` are of the longest budget, which stands for the truth.
    """

    calibration: CalibrationOptions
    evaluation: EvaluationOptions
    child: ChildConfig
    architectures: Architectures

    def budgets(self) -> tuple[Budget, ...]:
        """Returns every combination of what is tried, the longest budget last.

        Raises:
          ValueError: if what is tried is no less than the longest budget's.
        """
        tried, child = self.calibration, self.child
        measured = self.evaluation.validation
        validations = _below(
            "--try-validation", tried.try_validation, "--validation", measured
        )
        found = itertools.product(
            _up_to("steps", tried.try_steps, child.steps),
            _up_to("resolution", tried.try_resolution, child.resolution),
            _up_to("share", tried.try_share, self.evaluation.share),
            [*validations, None],
        )
        return tuple(
            Budget(steps=steps, resolution=resolution, share=share, validation=number)
            for steps, resolution, share, number in found
        )


def check(options: CalibrationOptions, evaluation: EvaluationOptions) -> None:
    """Refuses options that calibrate nothing.

    Raises:
      ValueError: if they do not. One line, with the remedy.
    """
    if evaluation.evaluator != EvaluationOptions().evaluator:
        raise ValueError(
            "a calibration trains its children, got --evaluator"
            f" {evaluation.evaluator}; drop the flag"
        )
    if not LEAST_ARCHITECTURES <= options.architectures <= _MOST_ARCHITECTURES:
        raise ValueError(
            f"--architectures must be at least {LEAST_ARCHITECTURES} and at most"
            f" {_MOST_ARCHITECTURES}, got {options.architectures}"
        )
    if not 2 <= options.trainings <= _MOST_TRAININGS:  # noqa: PLR2004
        raise ValueError(
            "--trainings must be at least 2, since two seeds tell what is chance, and"
            f" at most {_MOST_TRAININGS}, got {options.trainings}"
        )
    if not 0 < options.bar < 1:
        raise ValueError(f"--bar must be above 0 and below 1, got {options.bar}")
    if not 0 <= options.seed < _MAX_SEED:
        raise ValueError(f"--seed must be in [0, 2^32), got {options.seed}")


def _up_to(name: str, tried: Sequence[_Number], longest: _Number) -> list[_Number]:
    return [*_below(f"--try-{name}", tried, f"--{name}", longest), longest]


def _below(
    flag: str, tried: Sequence[_Number], of: str, longest: _Number | None
) -> list[_Number]:
    """What is tried, in order.

    Raises:
      ValueError: if something is not above 0, or not below the longest budget's.
    """
    for value in tried:
        if not (value > 0 and (longest is None or value < longest)):  # NaN neither
            limit = "" if longest is None else f" and below {of} {longest:g}"
            raise ValueError(
                f"{flag} must be above 0{limit}, got {value:g}; the longest budget"
                f" stands for the truth, and its {of} is to be the largest"
            )
    return sorted(set(tried))
