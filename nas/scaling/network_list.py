"""A fixed list of networks, each trained several times: a search without a choice.

Tokens are (repeat, network). A list stands where a search has its space, and an
enumeration where a search has its controller, so that journal, resume, display and
workers are those of a search.
"""

import dataclasses
import operator
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from controller.interface import check_num, check_num_choices, check_seed, check_told
from nas.runs import journal
from nas.study.trial import CompletedTrial
from search_space.spec import ArchSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkList:
    """Networks, and how often each is trained, with a seed of its own every time.

    Raises:
      ValueError: when it is made, if there are none, too many, or no repeats.
    """

    networks: tuple[ArchSpec, ...]
    repeats: int

    def __post_init__(self) -> None:
        check_num_choices((self.repeats, len(self.networks)))

    @property
    def size(self) -> int:
        """Number of children."""
        return self.repeats * len(self.networks)

    def controller(self) -> "Enumeration":
        """Returns the controller: every network once, then every one again."""
        return Enumeration(num_choices=(self.repeats, len(self.networks)))

    def decode(self, tokens: Iterable[SupportsIndex]) -> ArchSpec:
        """Returns the network that tokens stand for."""
        _, network = map(operator.index, tokens)
        return self.networks[network]

    def results(self, contents: journal.Contents) -> tuple["Result", ...]:
        """Returns what became of each network, in order, however far a run has come."""
        found: list[list[CompletedTrial]] = [[] for _ in self.networks]
        for child in contents.completed:
            found[child.tokens[1]].append(child)
        failures: list[list[str]] = [[] for _ in self.networks]
        for child in contents.infeasible:
            failures[child.tokens[1]].append(child.infeasible)
        return tuple(
            Result(children=tuple(children), failures=tuple(reasons))
            for children, reasons in zip(found, failures, strict=True)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """One network's children: those that were measured, and why others were not."""

    children: tuple[CompletedTrial, ...]
    failures: tuple[str, ...]

    @property
    def accuracies(self) -> tuple[float, ...]:
        """One for each repeat that was measured."""
        return tuple(float(child.metrics["accuracy"]) for child in self.children)

    @property
    def rewards(self) -> tuple[float, ...]:
        """One for each repeat that was measured."""
        return tuple(child.reward for child in self.children)


def spread(values: Sequence[float]) -> float | None:
    """Returns the sample standard deviation; None of fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else None


class EnumerationState(NamedTuple):
    """How many proposals were made: int64 []."""

    num_asked: NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Enumeration:
    """Proposes every sequence in lexicographic order, and then again; learns nothing.

    >>> walk = Enumeration(num_choices=(2, 3))
    >>> _, tokens = walk.ask(walk.init(0), 4)
    >>> tokens.tolist()
    [[0, 0], [0, 1], [0, 2], [1, 0]]
    """

    num_choices: tuple[int, ...]

    def init(self, seed: int) -> EnumerationState:
        """See `Controller.init`; the seed has nothing to decide."""
        check_seed(seed)
        return EnumerationState(num_asked=np.asarray(0))

    def ask(
        self, state: EnumerationState, num: int, pending: ArrayLike | None = None
    ) -> tuple[EnumerationState, NDArray[np.int32]]:
        """See `Controller.ask`."""
        del pending
        check_num(num)
        start = int(state.num_asked)
        positions = np.arange(start, start + num) % int(np.prod(self.num_choices))
        tokens = np.stack(np.unravel_index(positions, self.num_choices), axis=-1)
        return EnumerationState(num_asked=np.asarray(start + num)), tokens.astype(
            np.int32
        )

    def tell(
        self, state: EnumerationState, tokens: ArrayLike, rewards: ArrayLike
    ) -> EnumerationState:
        """See `Controller.tell`."""
        check_told(tokens, rewards, self.num_choices)
        return state
