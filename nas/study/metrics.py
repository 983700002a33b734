"""What a trial is measured by: named numbers, each with a unit and a goal."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
# Of more points than this, fronts of three metrics and more are found in pieces.
_CHUNK = 1_024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """A named number.

    Attributes:
      name: lower-case letters, digits, `_` and `-`, such as `latency_ms`.
      unit: what one of it is, for people: `ms`, `multiply-adds`; `share` for a number
        in [0, 1] that is shown in percent; empty for a plain number.
      goal: whether more of it is better.

    Raises:
      ValueError: when it is made, if the name or the goal is none.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    name: str
    unit: str = ""
    goal: Literal["max", "min"]

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise ValueError(
                "a metric's name must start with a letter and be of lower-case "
                f"letters, digits, _ and -, got {self.name[:80]!r}"
            )
        if self.goal not in ("max", "min"):
            raise ValueError(f"a metric's goal must be max or min, got {self.goal!r}")

    @property
    def sign(self) -> int:
        """1 where more is better, else -1."""
        return 1 if self.goal == "max" else -1


ACCURACY = Metric(name="accuracy", unit="share", goal="max")
NUM_MACS = Metric(name="num_macs", unit="multiply-adds", goal="min")
NUM_PARAMS = Metric(name="num_params", unit="parameters", goal="min")
LATENCY_MS = Metric(name="latency_ms", unit="ms", goal="min")

COUNTED = (NUM_MACS, NUM_PARAMS)
"""The metrics that follow from an architecture, of every trial alike."""


def by_name(metrics: Sequence[Metric]) -> dict[str, Metric]:
    """Returns the metrics by their names.

    Raises:
      ValueError: if two have the same name.
    """
    found = {metric.name: metric for metric in metrics}
    if len(found) < len(metrics):
        names = [metric.name for metric in metrics]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"metrics must have names of their own, got {twice} twice")
    return found


def pareto_front(
    rows: Sequence[Mapping[str, float]], metrics: Sequence[Metric]
) -> list[int]:
    """Returns the indices of the rows that no other row dominates.

    A row dominates another if it is at least as good in every metric, and better in
    one; equal rows do not dominate each other. Indices are in order of the last
    metric, the best first, then of position. O(n log n) for two metrics, else O(n^2).

    >>> points = [(0.7, 1), (0.6, 2), (0.8, 2)]
    >>> rows = [{"accuracy": a, "num_macs": macs} for a, macs in points]
    >>> pareto_front(rows, (ACCURACY, NUM_MACS))
    [0, 2]

    Raises:
      ValueError: if there are no metrics, or a row lacks one or has no finite number.
    """
    if not metrics:
        raise ValueError("a front needs at least one metric, got none")
    values = np.array([[_value(row, m) for m in metrics] for row in rows])
    if not len(values):
        return []
    order = np.lexsort((*-values.T[:-1][::-1], -values.T[-1]))  # best last metric first
    ranked = values[order]
    kept = _sweep(ranked) if ranked.shape[1] <= 2 else _undominated(ranked)  # noqa: PLR2004
    found = order[kept]
    return found[np.lexsort((found, -values[found, -1]))].tolist()


def _value(row: Mapping[str, float], metric: Metric) -> float:
    value = row.get(metric.name, math.nan)
    if not math.isfinite(value):
        raise ValueError(
            f"every row of a front must have a finite {metric.name}, got {value}; "
            "leave infeasible trials out"
        )
    return metric.sign * value


def _sweep(ranked: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Of rows in order of their last column, the best first: those not dominated."""
    first = ranked[:, 0]
    before = np.concatenate([[-math.inf], np.maximum.accumulate(first)[:-1]])
    new_best = first > before
    # A row equal to the one that set the best so far stands beside it.
    setter = np.maximum.accumulate(np.where(new_best, np.arange(len(first)), 0))
    return new_best | (ranked == ranked[setter]).all(axis=1)


def _undominated(ranked: NDArray[np.float64]) -> NDArray[np.bool_]:
    kept = np.zeros(len(ranked), bool)
    for start in range(0, len(ranked), _CHUNK):
        rows = ranked[start : start + _CHUNK, None]
        at_least = (ranked[None] >= rows).all(axis=2)
        better = (ranked[None] > rows).any(axis=2)
        kept[start : start + _CHUNK] = ~np.any(at_least & better, axis=1)
    return kept
