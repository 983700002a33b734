"""Successive halving without a barrier: which children go on to a longer training.

ASHA (https://arxiv.org/abs/1810.05934, algorithm 2): whoever asks for work gets the
best child of the highest rung that is among its rung's best third and has not gone on
yet; where there is none, a new child at the lowest rung. Nobody waits for a rung.
"""

import dataclasses
import statistics
from collections.abc import Iterable, Iterator

from nas.study.trial import CompletedTrial, FinishedTrial

# Weights are kept of so many times the share that may go on: ranks move.
_KEPT = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Halving:
    """How many rungs there are, and that one in `factor` children of each goes on.

    Raises:
      ValueError: when it is made, if there is nothing to go on to, or all would.
    """

    num_rungs: int
    factor: int = 3

    def __post_init__(self) -> None:
        if self.num_rungs < 2 or self.factor < 2:  # noqa: PLR2004
            raise ValueError(
                "successive halving needs two rungs at least and a factor of 2 at "
                f"least, got {self.num_rungs} and {self.factor}"
            )


class Rungs:
    """The children of a study by the rung they have reached."""

    def __init__(self, halving: Halving) -> None:
        """Starts empty."""
        self._halving = halving
        self._rewards: list[dict[int, float]] = [{} for _ in range(halving.num_rungs)]
        self._begun: list[set[int]] = [set() for _ in range(halving.num_rungs)]

    @property
    def top(self) -> int:
        """The highest rung."""
        return self._halving.num_rungs - 1

    def begin(self, index: int, rung: int) -> None:
        """Notes that a child is being measured at a rung."""
        self._begun[rung].add(index)

    def forget(self, index: int, rung: int) -> None:
        """Takes `begin` back."""
        self._begun[rung].discard(index)

    def add(self, record: FinishedTrial) -> None:
        """Notes what became of it."""
        if record.fidelity > self.top:
            return
        self._begun[record.fidelity].add(record.index)
        if isinstance(record, CompletedTrial):
            self._rewards[record.fidelity][record.index] = record.reward

    def promotable(self) -> Iterator[tuple[int, int]]:
        """Yields children that may go on and the rung that they go on to, in order."""
        for rung in range(self.top - 1, -1, -1):
            for index in self._best(rung, 1):
                if index not in self._begun[rung + 1]:
                    yield index, rung + 1

    def expendable(self) -> Iterator[int]:
        """Yields children that will hardly go on: their weights need not be kept."""
        for rung, rewards in enumerate(self._rewards):
            kept = set(self._best(rung, _KEPT)) if rung < self.top else set()
            above = self._begun[rung + 1] if rung < self.top else set[int]()
            yield from (i for i in rewards if i not in kept and i not in above)

    def comparable(self, index: int) -> float:
        """Returns a child's highest reward, as if it had been measured at rung 0.

        Less what longer training adds on the average: of the children that were
        measured at two rungs, the mean difference. So a controller may compare those
        that went on with those that did not, and the former among themselves by the
        better measurement.
        """
        rung = max(r for r, rewards in enumerate(self._rewards) if index in rewards)
        return self._rewards[rung][index] - sum(map(self._gain, range(1, rung + 1)))

    def _gain(self, rung: int) -> float:
        below, here = self._rewards[rung - 1], self._rewards[rung]
        both = [here[index] - below[index] for index in here if index in below]
        return statistics.fmean(both) if both else 0.0

    def _best(self, rung: int, times: int) -> list[int]:
        rewards = self._rewards[rung]
        ranked = sorted(rewards, key=lambda index: (-rewards[index], index))
        return ranked[: times * len(ranked) // self._halving.factor]


def latest(records: Iterable[FinishedTrial]) -> list[CompletedTrial]:
    """Returns each measured child's record of the highest rung, in order of rung 0."""
    found: dict[int, CompletedTrial] = {}
    for record in records:
        if isinstance(record, CompletedTrial):
            known = found.get(record.index)
            if known is None or record.fidelity > known.fidelity:
                found[record.index] = record
    return list(found.values())
