"""Uniform random proposals: the baseline that a controller has to beat."""

import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from controller.conditions import Conditions, canonical
from controller.interface import (
    check_decisions,
    check_num,
    check_pending,
    check_seed,
    check_told,
)


class RandomState(NamedTuple):
    """The seed, and how many times `ask` was called: both int64 []."""

    seed: NDArray[np.int64]
    num_asks: NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomSearch:
    """Draws every token that matters independently and uniformly; learns nothing.

    >>> import numpy as np
    >>> random = RandomSearch(num_choices=(3, 2, 4))
    >>> _, tokens = random.ask(random.init(0), 1000)
    >>> tokens.min(axis=0), tokens.max(axis=0)
    (array([0, 0, 0], dtype=int32), array([2, 1, 3], dtype=int32))
    """

    num_choices: tuple[int, ...]
    conditions: Conditions = ()

    def __post_init__(self) -> None:
        """Rejects decisions without choices."""
        check_decisions(self.num_choices, self.conditions)

    def init(self, seed: int) -> RandomState:
        """See `Controller.init`."""
        check_seed(seed)
        return RandomState(seed=np.asarray(seed), num_asks=np.asarray(0))

    def ask(
        self, state: RandomState, num: int, pending: ArrayLike | None = None
    ) -> tuple[RandomState, NDArray[np.int32]]:
        """See `Controller.ask`; what is pending changes nothing."""
        check_num(num)
        check_pending(pending, self.num_choices)
        rng = np.random.default_rng([int(state.seed), int(state.num_asks)])
        drawn = rng.integers(self.num_choices, size=(num, len(self.num_choices)))
        tokens = canonical(self.num_choices, self.conditions, drawn.astype(np.int32))
        return state._replace(num_asks=state.num_asks + 1), tokens

    def tell(
        self, state: RandomState, tokens: ArrayLike, rewards: ArrayLike
    ) -> RandomState:
        """See `Controller.tell`."""
        check_told(tokens, rewards, self.num_choices)
        return state
