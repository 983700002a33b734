"""What to evaluate next, without repeats, and what the controller is told when.

The bookkeeping between a controller and whoever evaluates its proposals, in one
process (`nas.loop`) or in many (over Ray). It is a deterministic function of the
seed and of the order of `suggest` and `record` calls. To resume a search, make the
same calls again on a new object: for each finished child, in the order in which they
were recorded, call `suggest` until as many suggestions have been made as there were
then, and `record` the child. Suggestions without a record were in flight.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controller.interface import Beliefs, Controller, HasPolicy

# How often the controller is asked anew when it repeats itself.
_MAX_ASKS = 4
# How many random neighbours are tried at each distance when it still does.
_TRIES_PER_DISTANCE = 64

_Tokens = tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proposal:
    """The `index`-th suggestion of a run, from 0; `tokens` int32 [num_decisions]."""

    index: int
    tokens: NDArray[np.int32]


class Proposals:
    """Suggestions of a controller that is told of results `batch_size` at a time.

    `suggest` never waits for a result, and never returns the same tokens twice. The
    controller is asked for `batch_size` proposals at once; those not yet used when
    it learns something are dropped, so that suggestions are as fresh as can be.

    When the controller proposes only what was suggested before, a few times in a
    row, the suggestion is an unseen neighbour of its last proposal: random ones that
    differ in one token, then in two and so on, a fixed number of tries for each; and
    at last the first unseen sequence in lexicographic order.
    """

    def __init__(
        self, controller: Controller[Any], *, seed: int, batch_size: int
    ) -> None:
        """Starts a run.

        Raises:
          ValueError: if the batch size is below 1 or the seed does not fit 32 bits.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self._controller = controller
        self._state = controller.init(seed)
        self._seed = seed
        self._batch_size = batch_size
        self._space_size = math.prod(controller.num_choices)
        self._unseen: Iterator[_Tokens] = itertools.product(
            *map(range, controller.num_choices)
        )
        self._queue: list[_Tokens] = []
        self._seen: set[_Tokens] = set()
        self._in_flight: dict[int, _Tokens] = {}
        self._arrived: list[tuple[_Tokens, float | None]] = []
        self._lowest: float | None = None
        self._num_updates = 0

    @property
    def num_updates(self) -> int:
        """How many times the controller has learned."""
        return self._num_updates

    @property
    def num_choices(self) -> tuple[int, ...]:
        """Number of values of each token."""
        return self._controller.num_choices

    def beliefs(self) -> Beliefs | None:
        """Returns what the controller's policy has settled on; None if it has none."""
        if not isinstance(self._controller, HasPolicy):
            return None
        return self._controller.beliefs(self._state)

    def suggest(self) -> Proposal | None:
        """Returns something to evaluate; None when the whole space was suggested."""
        index = len(self._seen)
        if index == self._space_size:
            return None
        tokens = self._fresh()
        self._seen.add(tokens)
        self._in_flight[index] = tokens
        return Proposal(index=index, tokens=np.array(tokens, np.int32))

    def record(self, index: int, reward: float | None) -> None:
        """Takes the reward of a suggestion; None if it turned out infeasible.

        An infeasible one counts as the lowest reward recorded so far. Before any
        reward there is no lowest, and nothing to learn from: the controller is told
        of it together with the first reward.

        Raises:
          ValueError: if the reward is not finite.
          KeyError: if the suggestion was not made, or has a reward already.
        """
        if reward is not None and not math.isfinite(reward):
            raise ValueError(
                f"the reward of suggestion {index} must be finite, got {reward}; "
                "record None for an infeasible one"
            )
        if index not in self._in_flight:
            raise KeyError(
                f"suggestion {index} is not in flight; it was not made, or was "
                "recorded before"
            )
        self._arrived.append((self._in_flight.pop(index), reward))
        if reward is not None and (self._lowest is None or reward < self._lowest):
            self._lowest = reward
        if self._lowest is None:
            return
        self._arrived = [
            (tokens, self._lowest if reward is None else reward)
            for tokens, reward in self._arrived
        ]
        while len(self._arrived) >= self._batch_size:
            self._learn()

    def _learn(self) -> None:
        batch = self._arrived[: self._batch_size]
        tokens, rewards = zip(*batch, strict=True)
        self._state = self._controller.tell(
            self._state, np.array(tokens, np.int32), np.array(rewards, np.float32)
        )
        self._num_updates += 1
        del self._arrived[: self._batch_size]
        self._queue.clear()

    def _fresh(self) -> _Tokens:
        """Returns unseen tokens; there must be some."""
        last: _Tokens = ()
        for _ in range(_MAX_ASKS):
            while self._queue:
                last = self._queue.pop(0)
                if last not in self._seen:
                    return last
            self._state, asked = self._controller.ask(self._state, self._batch_size)
            self._queue = [tuple(row) for row in asked.tolist()]
        while self._queue:
            last = self._queue.pop(0)
            if last not in self._seen:
                return last
        return self._neighbour(last)

    def _neighbour(self, tokens: _Tokens) -> _Tokens:
        counts = np.asarray(self._controller.num_choices)
        free = np.flatnonzero(counts > 1)
        shape = (_TRIES_PER_DISTANCE, len(free))
        rng = np.random.default_rng([self._seed, len(self._seen)])
        for distance in range(1, len(free) + 1):
            changed = free[rng.random(shape).argsort(axis=1)[:, :distance]]
            steps = rng.integers(1, counts[changed])
            tries = np.tile(tokens, (_TRIES_PER_DISTANCE, 1))
            moved = np.take_along_axis(tries, changed, axis=1) + steps
            np.put_along_axis(tries, changed, moved % counts[changed], axis=1)
            for found in map(tuple, tries.tolist()):
                if found not in self._seen:
                    return found
        # What was seen stays seen, so the walk never has to start over.
        return next(found for found in self._unseen if found not in self._seen)
