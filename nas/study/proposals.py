"""What to evaluate next, without repeats, and what the controller is told when.

The bookkeeping between a controller and whoever evaluates its proposals, in one
process (`nas.loop`) or in many (`nas.study.study`).
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from controller.interface import Controller, HasPolicy, PolicySummary
from search_space.space import SearchSpace

# How often the controller is asked anew when it repeats itself.
_MAX_ASKS = 4
# How many random neighbours are tried at each distance when it still does.
_TRIES_PER_DISTANCE = 64

Tokens = tuple[int, ...]


class SnapshotError(ValueError):
    """A snapshot that is not of this controller."""


class Proposals:
    """Suggestions of a controller that is told of `rewards_per_update` at a time.

    `suggest` never waits for a result, and never returns the same tokens twice, nor
    others that differ only where `space` says that they do not matter. The
    controller is asked for `rewards_per_update` proposals at once; those not yet used
    when it learns something are dropped, so that suggestions are as fresh as can be.
    It is a deterministic function of the seed and of the order of calls.

    When the controller proposes only what was suggested before, a few times in a
    row, the suggestion is an unseen neighbour of its last proposal: random ones that
    differ in one token, then in two and so on, a fixed number of tries for each; and
    at last the first unseen sequence in lexicographic order.
    """

    def __init__(
        self,
        controller: Controller[Any],
        *,
        seed: int,
        rewards_per_update: int,
        space: SearchSpace | None = None,
    ) -> None:
        """Starts a run; without a space every token always matters.

        Raises:
          ValueError: if `rewards_per_update` is below 1 or the seed does not fit 32
            bits.
        """
        if rewards_per_update < 1:
            raise ValueError(
                f"rewards_per_update must be at least 1, got {rewards_per_update}"
            )
        self._controller = controller
        self._state = controller.init(seed)
        self._seed = seed
        self._rewards_per_update = rewards_per_update
        self._space = space
        counts = controller.num_choices
        self._space_size = math.prod(counts) if space is None else space.size
        self._unseen: Iterator[Tokens] = itertools.product(*map(range, counts))
        self._queue: list[Tokens] = []
        self._seen: set[Tokens] = set()
        self._pending: dict[Tokens, None] = {}  # a set in order of insertion
        self._arrived: list[tuple[Tokens, float | None]] = []
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

    def policy_summary(self) -> PolicySummary | None:
        """Returns what the controller's policy has settled on; None if it has none."""
        if not isinstance(self._controller, HasPolicy):
            return None
        return self._controller.policy_summary(self._state)

    def suggest(self) -> Tokens | None:
        """Returns something to evaluate; None when the whole space was suggested."""
        if len(self._seen) == self._space_size:
            return None
        tokens = self._fresh()
        self._seen.add(tokens)
        self._pending[tokens] = None
        return tokens

    def record(self, tokens: Tokens, reward: float | None) -> None:
        """Takes the reward of a suggestion; None if it turned out infeasible.

        An infeasible one counts as the lowest reward recorded so far. Before any
        reward there is no lowest, and nothing to learn from: the controller is told
        of it together with the first reward.

        Raises:
          ValueError: if the reward is not finite.
          KeyError: if the suggestion was not made, or has a reward already.
        """
        _check_reward(tokens, reward)
        if tokens not in self._pending:
            raise KeyError(
                f"{tokens} is not pending; it was not suggested, or was recorded before"
            )
        del self._pending[tokens]
        self._take(tokens, reward)
        self._learn_of_batches()

    def revise(self, tokens: Tokens, reward: float) -> None:
        """Takes another reward of a suggestion that has one, measured better.

        The controller is told of it with the next rewards.

        Raises:
          ValueError: if the reward is not finite.
        """
        _check_reward(tokens, reward)
        self._take(tokens, reward)
        self._learn_of_batches()

    def learn(self, results: Iterable[tuple[Tokens, float | None]]) -> None:
        """Tells the controller at once of results that it did not propose here.

        Their tokens are not suggested any more. Results of an interrupted run, of
        another controller, or measured by somebody else; None of an infeasible one.

        Raises:
          ValueError: if tokens are none of the space, or a reward is not finite.
        """
        given = list(results)
        for told, reward in given:
            _check_reward(told, reward)
            tokens = self._canonical(told)
            self._seen.add(tokens)
            self._pending.pop(tokens, None)
            self._take(tokens, reward)
        if given and self._lowest is not None:
            self._learn(len(self._arrived))

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Returns everything that decides what comes next, but for what was recorded.

        Arrays by name; `restore` is the inverse.
        """
        width = len(self.num_choices)
        leaves = {
            f"state_{index:04d}": np.asarray(leaf)
            for index, leaf in enumerate(jax.tree.leaves(self._state))
        }
        arrived = [tokens for tokens, _ in self._arrived]
        rewards = [math.nan if r is None else r for _, r in self._arrived]
        lowest = math.nan if self._lowest is None else self._lowest
        return leaves | {
            "queue": _rows(self._queue, width),
            "pending": _rows(self._pending, width),
            "arrived": _rows(arrived, width),
            "arrived_rewards": np.array(rewards, np.float64),
            "lowest": np.array(lowest, np.float64),
            "num_updates": np.array(self._num_updates, np.int64),
        }

    def restore(
        self, snapshot: Mapping[str, NDArray[Any]], recorded: Sequence[Tokens]
    ) -> None:
        """Goes on from a snapshot, when the results of `recorded` had been taken.

        Raises:
          SnapshotError: if it is not of a controller like this one. Nothing has
            changed then.
        """
        leaves, structure = jax.tree.flatten(self._controller.init(self._seed))
        found = [snapshot.get(f"state_{index:04d}") for index in range(len(leaves))]
        if not all(map(_alike, leaves, found)):
            raise SnapshotError("the snapshot is of another controller or version")
        rows = {
            name: self._sequences(snapshot, name)
            for name in ("queue", "pending", "arrived")
        }
        rewards = np.asarray(snapshot.get("arrived_rewards"), np.float64)
        if rewards.shape != (len(rows["arrived"]),):
            raise SnapshotError("the snapshot has not one reward for each result")
        lowest = float(_scalar(snapshot, "lowest"))
        self._state = jax.tree.unflatten(structure, found)
        self._queue = rows["queue"]
        self._pending = dict.fromkeys(rows["pending"])
        self._arrived = [
            (tokens, None if math.isnan(reward) else reward)
            for tokens, reward in zip(rows["arrived"], rewards.tolist(), strict=True)
        ]
        self._lowest = None if math.isnan(lowest) else lowest
        self._num_updates = int(_scalar(snapshot, "num_updates"))
        self._seen = set(recorded) | set(rows["pending"])

    @property
    def pending(self) -> tuple[Tokens, ...]:
        """The suggestions that have no result yet, in order."""
        return tuple(self._pending)

    def _sequences(
        self, snapshot: Mapping[str, NDArray[Any]], name: str
    ) -> list[Tokens]:
        counts = np.asarray(self.num_choices)
        rows = np.asarray(snapshot.get(name))
        if rows.dtype != np.int32 or rows.ndim != 2 or rows.shape[1] != len(counts):  # noqa: PLR2004
            raise SnapshotError(f"the snapshot's {name} are no sequences of this space")
        if ((rows < 0) | (rows >= counts)).any():
            raise SnapshotError(f"the snapshot's {name} are out of range")
        return [tuple(row) for row in rows.tolist()]

    def _take(self, tokens: Tokens, reward: float | None) -> None:
        self._arrived.append((tokens, reward))
        if reward is not None and (self._lowest is None or reward < self._lowest):
            self._lowest = reward

    def _learn_of_batches(self) -> None:
        number = self._rewards_per_update
        while self._lowest is not None and len(self._arrived) >= number:
            self._learn(number)

    def _learn(self, number: int) -> None:
        assert self._lowest is not None  # the caller saw to it
        self._arrived = [
            (tokens, self._lowest if reward is None else reward)
            for tokens, reward in self._arrived
        ]
        tokens, rewards = zip(*self._arrived[:number], strict=True)
        self._state = self._controller.tell(
            self._state, np.array(tokens, np.int32), np.array(rewards, np.float32)
        )
        self._num_updates += 1
        del self._arrived[:number]
        self._queue.clear()

    def _fresh(self) -> Tokens:
        """Returns unseen tokens; there must be some."""
        last: Tokens = ()
        for _ in range(_MAX_ASKS):
            while self._queue:
                last = self._queue.pop(0)
                if last not in self._seen:
                    return last
            self._state, asked = self._controller.ask(
                self._state,
                self._rewards_per_update,
                _rows(self._pending, len(self.num_choices)),
            )
            self._queue = [self._canonical(tuple(row)) for row in asked.tolist()]
        while self._queue:
            last = self._queue.pop(0)
            if last not in self._seen:
                return last
        return self._neighbour(last)

    def _neighbour(self, tokens: Tokens) -> Tokens:
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
            for found in map(self._canonical, map(tuple, tries.tolist())):
                if found not in self._seen:
                    return found
        # What was seen stays seen, so the enumeration never has to start over.
        every = map(self._canonical, self._unseen)
        return next(found for found in every if found not in self._seen)

    def _canonical(self, tokens: Tokens) -> Tokens:
        return tokens if self._space is None else self._space.canonical(tokens)


def _check_reward(tokens: Tokens, reward: float | None) -> None:
    if reward is not None and not math.isfinite(reward):
        raise ValueError(
            f"the reward of {tokens} must be finite, got {reward}; record None for an "
            "infeasible one"
        )


def _rows(sequences: Iterable[Tokens], width: int) -> NDArray[np.int32]:
    return np.array(list(sequences), np.int32).reshape(-1, width)


def _alike(leaf: Any, found: NDArray[Any] | None) -> bool:
    """Whether `found` may be the leaf of a new state, whose empty axes may grow."""
    wanted = np.asarray(leaf)
    if found is None or (wanted.dtype, wanted.ndim) != (found.dtype, found.ndim):
        return False
    sizes = zip(wanted.shape, found.shape, strict=True)
    return all(size in {0, given} for size, given in sizes)


def _scalar(snapshot: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    value = np.asarray(snapshot.get(name))
    if value.shape != () or not np.issubdtype(value.dtype, np.number):
        raise SnapshotError(f"the snapshot's {name} is no number")
    return value
