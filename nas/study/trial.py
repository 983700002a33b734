"""A trial, from its suggestion to its record.

Records are parsed strictly (exact types, no unknown fields, no NaN), because they are
read from files that may be anybody's.
"""

import dataclasses
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from search_space.spec import ArchSpec
from trainers.measurement import Duration, Seconds

# Beyond these, sums, dates and their display overflow.
_MAX_COUNT = 2**53
MAX_METRICS = 100

Key = tuple[int, int, int]
"""Index, fidelity and repeat of a measurement."""
Count = Annotated[int, Field(ge=0, le=_MAX_COUNT)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
_Name = Annotated[str, Field(max_length=64)]
_Whole = Annotated[int, Field(ge=-_MAX_COUNT, le=_MAX_COUNT)]
_Metrics = Annotated[dict[_Name, _Whole | Finite], Field(max_length=MAX_METRICS)]
_Spread = Annotated[dict[_Name, Duration], Field(max_length=MAX_METRICS)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """An architecture to measure.

    `repeat` is above 0 where it was measured before, to be sure of it. `seed` depends
    on the run's seed, the index and the repeat.
    `fidelity` is which of its evaluator's budgets it is measured at. `weights` are what
    it goes on from, of the fidelity below; None where it starts anew.
    """

    index: int
    tokens: tuple[int, ...]
    spec: ArchSpec
    seed: int
    repeat: int = 0
    fidelity: int = 0
    weights: bytes | None = dataclasses.field(default=None, repr=False)

    @property
    def key(self) -> Key:
        """What no other measurement of the study has."""
        return self.index, self.fidelity, self.repeat


class Record(BaseModel):
    """Parsed strictly: exact types, no unknown fields, no NaN."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Worker(Record):
    """Where a trial was measured."""

    host: Annotated[str, Field(max_length=300)]
    pid: Count


class _Finished(Record):
    """What every finished trial has.

    `metrics` has what was measured, and what follows from the architecture:
    multiply-adds and parameters of the full network at its deployment resolution.
    `repeat` is above 0 where the trial of that index was measured again, from another
    seed. `asked` is how many suggestions had been made when the trial was recorded;
    None of a trial that another study brought. `finished` is in seconds since the
    epoch.
    `fidelity` is which of its evaluator's budgets it was measured at.
    """

    index: Count
    repeat: Count = 0
    tokens: tuple[Count, ...]
    fidelity: Count = 0
    metrics: _Metrics
    asked: Count | None = None
    finished: Duration
    worker: Worker | None = None

    @property
    def key(self) -> Key:
        """What no other record of the study has."""
        return self.index, self.fidelity, self.repeat


class CompletedTrial(_Finished):
    """A trial that was measured.

    `spread` is the standard error of a metric, where it is known. The metrics are means
    over `repeats` trainings. `losses` are training losses at evenly spaced steps, the
    first and the last among them, `num_steps` steps in all.
    """

    reward: Finite
    spread: _Spread = {}
    repeats: Annotated[int, Field(ge=1, le=_MAX_COUNT)] = 1
    losses: tuple[Finite, ...] = ()
    num_steps: Count = 0
    seconds: Seconds = Seconds()


class InfeasibleTrial(_Finished):
    """A trial that could not be measured; `infeasible` is the reason."""

    infeasible: Annotated[str, Field(max_length=10_000)]


FinishedTrial = CompletedTrial | InfeasibleTrial
