"""What comes out of measuring a network: `Measured`, or `Infeasible`."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated

from pydantic import ConfigDict, Field

_MAX_SECONDS = 1e11
Duration = Annotated[float, Field(ge=0.0, le=_MAX_SECONDS, allow_inf_nan=False)]
"""In seconds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seconds:
    """Where the time of a measurement went; `train` excludes `compile`."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # where it is parsed

    compile: Duration = 0.0
    train: Duration = 0.0
    eval: Duration = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return self.compile + self.train + self.eval


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """One measured network.

    Attributes:
      metrics: by name, such as `accuracy`: the share of the validation split classified
        correctly, in [0, 1].
      spread: the standard error of a metric, where it is known.
      repeats: from how many seeds it was trained; the metrics are means over them.
      losses: training losses, one a step; means where it was trained several times.
      seconds: what the measurement took.
    """

    metrics: Mapping[str, float]
    spread: Mapping[str, float] = dataclasses.field(default_factory=dict)
    repeats: int = 1
    losses: tuple[float, ...] = ()
    seconds: Seconds = Seconds()


@dataclasses.dataclass(frozen=True)
class Infeasible:
    """A child that could not be measured, and why."""

    reason: str
