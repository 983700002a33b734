"""The trainings of a calibration: a list where a search has its space."""

import dataclasses
import operator
from collections.abc import Iterable
from typing import Self, SupportsIndex

import numpy as np

from nas.options.calibration import Budget, CalibrationDefinition
from nas.scaling.network_list import Enumeration
from search_space import cost
from search_space.space import SearchSpace
from search_space.spec import ArchSpec

KIND = "calibration"
"""What a journal's header calls it."""

_SAMPLES = 400


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trainings:
    """Every architecture at every budget, and all of it again with other seeds.

    Tokens are (seed, budget, architecture), and come in that order: a worker changes
    its data for a budget rarely.
    """

    architectures: tuple[ArchSpec, ...]
    budgets: tuple[Budget, ...]
    seeds: int

    @classmethod
    def of(cls, definition: CalibrationDefinition) -> Self:
        """Returns what `definition` asks for.

        Raises:
          ValueError: as its `budgets`.
        """
        return cls(
            architectures=definition.architectures.specs,
            budgets=definition.budgets(),
            seeds=definition.calibration.trainings,
        )

    @property
    def num_choices(self) -> tuple[int, int, int]:
        """As a search space's."""
        return self.seeds, len(self.budgets), len(self.architectures)

    @property
    def size(self) -> int:
        """Number of trainings."""
        return int(np.prod(self.num_choices))

    def controller(self) -> Enumeration:
        """Returns what proposes each of them."""
        return Enumeration(num_choices=self.num_choices)

    def decode(self, tokens: Iterable[SupportsIndex]) -> ArchSpec:
        """Returns the architecture that tokens stand for.

        Raises:
          ValueError: if they stand for none.
        """
        return self.architectures[self.place(tokens)[2]]

    def fidelity(self, tokens: Iterable[SupportsIndex]) -> int:
        """Returns the position of their budget; raises as `decode`."""
        return self.place(tokens)[1]

    def place(self, tokens: Iterable[SupportsIndex]) -> tuple[int, int, int]:
        """Returns the positions of seed, budget and architecture.

        Raises:
          ValueError: if there are none such.
        """
        found = tuple(map(operator.index, tokens))
        if len(found) != 3 or not all(  # noqa: PLR2004
            0 <= token < count
            for token, count in zip(found, self.num_choices, strict=True)
        ):
            raise ValueError(
                "a training's tokens are a seed, a budget and an architecture, each"
                f" below {', '.join(map(str, self.num_choices))}, got {found}"
            )
        return found


def spread_out(space: SearchSpace, number: int, seed: int) -> tuple[ArchSpec, ...]:
    """Returns architectures at even quantiles of the multiply-adds of random ones.

    Raises:
      ValueError: if there are not so many different ones among them.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.integers(
        space.num_choices, size=(max(_SAMPLES, 4 * number), len(space.num_choices))
    )
    different = {space.decode(row): None for row in dict.fromkeys(map(tuple, drawn))}
    specs = sorted(different, key=cost.num_macs)
    if len(specs) < number:
        raise ValueError(
            f"--architectures must be at most what the space {space.name} offers, and"
            f" {len(specs)} different ones were found, got {number}; lower it"
        )
    middles = (np.arange(number) + 0.5) * len(specs) / number
    return tuple(specs[position] for position in middles.astype(int).tolist())
