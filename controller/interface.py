"""What every controller does, and the checks that all of them make.

Tokens are int32 `[num, num_decisions]`; token d of a sequence is in
`[0, num_choices[d])`. Rewards are float `[num]`, higher is better.
"""

import math
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from controller.conditions import Conditions, canonical, check_conditions

State = TypeVar("State")
_State = TypeVar("_State", contravariant=True)

# Beyond this a table of all choices no longer fits a laptop.
_MAX_DECISIONS = 10_000
_MAX_CHOICES = 10_000
_MAX_SEED = 2**32


class Controller(Protocol[State]):
    """Proposes token sequences and learns from their rewards.

    A controller is immutable; what it has learned is in the state, a pytree of
    arrays. Their shapes never change, but for axes that are of length 0 at first: what
    remembers every result grows. The same seed and calls give the same tokens.
    """

    @property
    def num_choices(self) -> tuple[int, ...]:
        """Number of values of each token, in order."""
        ...

    def init(self, seed: int) -> State:
        """Returns the state of a controller that has seen nothing."""
        ...

    def ask(
        self, state: State, num: int, pending: ArrayLike | None = None
    ) -> tuple[State, NDArray[np.int32]]:
        """Returns `num` proposals.

        The same proposal may come more than once, also over several calls. The state
        returned has learned nothing: it differs in its random key and in the memory
        of what was proposed.

        Args:
          state: what the controller knows.
          num: how many.
          pending: tokens int32 [n, num_decisions] that are being evaluated and have
            no reward yet, whoever proposed them.
        """
        ...

    def tell(self, state: State, tokens: ArrayLike, rewards: ArrayLike) -> State:
        """Learns from rewards, of proposals old or new or of anybody's choice.

        Raises:
          ValueError: if tokens are out of range or a reward is not finite.
        """
        ...


class PolicySummary(NamedTuple):
    """What a policy has settled on.

    `probabilities` float32 [num_decisions, most_choices]: how likely each choice is
    in a proposal drawn from the policy, whatever the other decisions are, as long as
    they let it matter; 0 beyond a decision's choices. `entropy` is the policy's, in
    nats.
    """

    probabilities: NDArray[np.float32]
    entropy: float


@runtime_checkable
class HasPolicy(Protocol[_State]):
    """A controller that draws its proposals from a distribution that it learns."""

    def policy_summary(self, state: _State) -> PolicySummary:
        """Returns what the policy would propose, estimated from its own samples.

        The same state gives the same policy_summary.
        """
        ...


class Prediction(NamedTuple):
    """What a controller expects of sequences: float64 [n] each, in units of reward.

    `means` of the rewards, noise apart, and how far off those may be.
    """

    means: NDArray[np.float64]
    deviations: NDArray[np.float64]


@runtime_checkable
class HasPredictor(Protocol[_State]):
    """A controller that can say what a sequence's reward would be."""

    def predict(self, state: _State, tokens: ArrayLike) -> Prediction | None:
        """Returns predictions for tokens [n, D]; None while too little is known."""
        ...


def check_decisions(num_choices: tuple[int, ...], conditions: Conditions) -> None:
    """Raises ValueError unless there are choices, and earlier ones are needed."""
    check_num_choices(num_choices)
    check_conditions(conditions, num_choices)


def check_num_choices(num_choices: tuple[int, ...]) -> None:
    """Raises ValueError unless every decision has at least one choice."""
    if type(num_choices) is not tuple or not 1 <= len(num_choices) <= _MAX_DECISIONS:
        raise ValueError(
            f"num_choices must be a tuple of 1 to {_MAX_DECISIONS} counts, got "
            f"{num_choices!r}"
        )
    for position, count in enumerate(num_choices):
        if type(count) is not int or not 1 <= count <= _MAX_CHOICES:
            raise ValueError(
                f"num_choices[{position}] must be an int from 1 to {_MAX_CHOICES}, "
                f"got {count!r}"
            )


def check_seed(seed: int) -> None:
    """Raises ValueError unless `seed` fits 32 bits."""
    if not 0 <= seed < _MAX_SEED:
        raise ValueError(f"seed must be in [0, 2^32), got {seed}")


def check_num(num: int) -> None:
    """Raises ValueError unless `num` is a number of proposals."""
    if num < 0:
        raise ValueError(f"cannot propose {num} sequences; num must be 0 or more")


def check_pending(
    pending: ArrayLike | None,
    num_choices: tuple[int, ...],
    conditions: Conditions = (),
) -> NDArray[np.int32]:
    """Returns pending tokens int32 [n, num_decisions]; none of them where not given.

    Raises:
      ValueError: if the shape is another, or a token is out of range.
    """
    if pending is None:
        return np.zeros((0, len(num_choices)), np.int32)
    given: NDArray[Any] = np.asarray(pending)
    return check_told(given, np.zeros(len(given)), num_choices, conditions)[0]


def check_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Raises ValueError unless `value` is a finite number in [low, high]."""
    if not (math.isfinite(value) and low <= value <= high):
        raise ValueError(f"{name} must be in [{low}, {high}], got {value}")


def check_told(
    tokens: ArrayLike,
    rewards: ArrayLike,
    num_choices: tuple[int, ...],
    conditions: Conditions = (),
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Returns canonical tokens int32 [num, num_decisions] and rewards float32 [num].

    Raises:
      ValueError: if the shapes disagree, a token is out of range or a reward is not
        finite.
    """
    given: NDArray[Any] = np.asarray(tokens)
    if given.ndim != 2 or given.shape[1] != len(num_choices):  # noqa: PLR2004
        raise ValueError(
            f"tokens must be [num, {len(num_choices)}], got shape {given.shape}"
        )
    if not np.issubdtype(given.dtype, np.integer):
        raise ValueError(f"tokens must be integers, got {given.dtype}")
    wrong = (given < 0) | (given >= np.asarray(num_choices))
    if wrong.any():
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"token {column} must be in [0, {num_choices[column]}), got "
            f"{given[row, column]} in sequence {row}"
        )
    values = np.asarray(rewards, np.float32)
    if values.shape != given.shape[:1]:
        raise ValueError(
            f"rewards must be [{given.shape[0]}], one per sequence, got shape "
            f"{values.shape}"
        )
    if not np.isfinite(values).all():
        position = int(np.argmin(np.isfinite(values)))
        raise ValueError(
            f"rewards must be finite, got {values[position]} for sequence {position}; "
            "give an infeasible one the lowest reward seen"
        )
    return canonical(num_choices, conditions, given.astype(np.int32)), values
