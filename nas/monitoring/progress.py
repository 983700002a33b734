"""How far a search is: counts, best and last child, pace. What screens show."""

import collections
import time
from collections.abc import Callable, Iterable, Sequence

from nas.study.metrics import Metric
from nas.study.trial import (
    CompletedTrial,
    FinishedTrial,
    InfeasibleTrial,
    Key,
    Trial,
)

# Pace is judged over this many last children: the first ones compile for the rest.
_WINDOW = 20


class Progress:
    """A listener that counts; `clock` gives seconds.

    What is measured again, or at a higher fidelity, is counted apart. Children of an
    earlier, interrupted run are counted as done but say nothing about the pace of this
    one.
    """

    def __init__(
        self,
        *,
        num_trials: int,
        objectives: Sequence[Metric],
        earlier: Iterable[FinishedTrial] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts counting now."""
        self.num_trials = num_trials
        self.objectives = tuple(objectives)
        self.num_done = 0
        self.num_infeasible = 0
        self.num_again = 0
        self.num_promoted = 0
        self.last_is_new = False
        self._seen: set[int] = set()
        self.under_way: dict[Key, Trial] = {}
        self.best: CompletedTrial | None = None
        self.last: FinishedTrial | None = None
        self._clock = clock
        for child in earlier:
            self._count(child)
        self._finish_times = collections.deque([clock()], maxlen=_WINDOW + 1)

    def started(self, trial: Trial) -> None:
        """A child was handed out."""
        self.under_way[trial.key] = trial

    def finished(self, child: FinishedTrial) -> None:
        """A child is done."""
        self.under_way.pop(child.key, None)
        self._count(child)
        self._finish_times.append(self._clock())

    @property
    def children_per_hour(self) -> float | None:
        """The pace of late; None before the first child of this run."""
        number = len(self._finish_times) - 1
        if number == 0:
            return None
        # A search that has stopped making progress must not keep showing its pace.
        seconds = max(self._finish_times[-1], self._clock()) - self._finish_times[0]
        return 3600.0 * number / max(seconds, 1e-6)

    @property
    def seconds_left(self) -> float | None:
        """What the rest would take at this pace; None before there is one."""
        pace = self.children_per_hour
        if pace is None:
            return None
        return 3600.0 * max(0, self.num_trials - self.num_done) / pace

    def _count(self, child: FinishedTrial) -> None:
        self.last = child
        self.last_is_new = child.index not in self._seen
        self._seen.add(child.index)
        if child.repeat:
            self.num_again += 1
            return
        self.num_done += self.last_is_new
        self.num_promoted += not self.last_is_new
        if isinstance(child, InfeasibleTrial):
            self.num_infeasible += self.last_is_new
        elif self.best is None or _rank(child) > _rank(self.best):
            self.best = child


def _rank(child: CompletedTrial) -> tuple[int, float]:
    """Children that were trained for longer go before the others."""
    return child.fidelity, child.reward
