"""Regularized evolution: tournaments in a population that ages (arXiv:1802.01548)."""

import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from controller.conditions import Conditions, active, canonical
from controller.interface import (
    check_decisions,
    check_num,
    check_pending,
    check_range,
    check_seed,
    check_told,
)


class EvolutionState(NamedTuple):
    """The population, oldest first, and what the random numbers depend on.

    `tokens` int32 [population, D] and `rewards` float32 [population]; the last
    `size` rows count. `seed`, `num_asks` and `size` int64 [].
    """

    seed: NDArray[np.int64]
    num_asks: NDArray[np.int64]
    tokens: NDArray[np.int32]
    rewards: NDArray[np.float32]
    size: NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evolution:
    """The best of a random tournament has a child with one token changed.

    One that matters; decisions that matter only because of it are drawn anew.

    Uniform proposals until `population` rewards were told; from then on each reward
    told displaces the oldest (Real et al., algorithm 1). A tournament is `tournament`
    draws with replacement, as in that paper's published code. The paper's numbers
    are 100 and 25; the defaults suit searches of a few hundred children.
    """

    num_choices: tuple[int, ...]
    conditions: Conditions = ()
    population: int = 20
    tournament: int = 5

    def __post_init__(self) -> None:
        """Rejects empty populations and tournaments."""
        check_decisions(self.num_choices, self.conditions)
        check_range("population", self.population, 1)
        check_range("tournament", self.tournament, 1)

    def init(self, seed: int) -> EvolutionState:
        """See `Controller.init`."""
        check_seed(seed)
        return EvolutionState(
            seed=np.asarray(seed),
            num_asks=np.asarray(0),
            tokens=np.zeros((self.population, len(self.num_choices)), np.int32),
            rewards=np.zeros(self.population, np.float32),
            size=np.asarray(0),
        )

    def ask(
        self, state: EvolutionState, num: int, pending: ArrayLike | None = None
    ) -> tuple[EvolutionState, NDArray[np.int32]]:
        """See `Controller.ask`; what is pending changes nothing."""
        check_num(num)
        check_pending(pending, self.num_choices)
        rng = np.random.default_rng([int(state.seed), int(state.num_asks)])
        if int(state.size) < self.population:
            tokens = rng.integers(self.num_choices, size=(num, len(self.num_choices)))
        else:
            tokens = self._mutate(rng, state.tokens[self._tournaments(rng, state, num)])
        tokens = canonical(self.num_choices, self.conditions, tokens.astype(np.int32))
        return state._replace(num_asks=state.num_asks + 1), tokens

    def tell(
        self, state: EvolutionState, tokens: ArrayLike, rewards: ArrayLike
    ) -> EvolutionState:
        """See `Controller.tell`."""
        born, values = check_told(tokens, rewards, self.num_choices, self.conditions)
        return state._replace(
            tokens=np.concatenate([state.tokens, born])[-self.population :],
            rewards=np.concatenate([state.rewards, values])[-self.population :],
            size=np.minimum(state.size + len(values), self.population),
        )

    def _tournaments(
        self, rng: np.random.Generator, state: EvolutionState, num: int
    ) -> NDArray[np.int64]:
        """Returns the winners' positions in the population, [num]."""
        entrants = rng.integers(self.population, size=(num, self.tournament))
        best = state.rewards[entrants].argmax(axis=1)
        return entrants[np.arange(num), best]

    def _mutate(
        self, rng: np.random.Generator, parents: NDArray[np.int32]
    ) -> NDArray[np.int32]:
        """Returns parents [num, D] with one token of each changed to another value."""
        counts = np.asarray(self.num_choices)
        free = np.flatnonzero(counts > 1)
        if not free.size:
            return parents
        rows, columns = np.arange(len(parents)), rng.choice(free, len(parents))
        before = active(self.num_choices, self.conditions, parents)
        if self.conditions:
            columns = (rng.random(before.shape) * (before & (counts > 1))).argmax(1)
        children = parents.copy()
        steps = rng.integers(1, np.maximum(2, counts[columns]))  # of one, none
        children[rows, columns] = (parents[rows, columns] + steps) % counts[columns]
        after = active(self.num_choices, self.conditions, children)
        drawn = rng.integers(self.num_choices, size=children.shape)
        children = np.where(after & ~before, drawn, children)
        return children
