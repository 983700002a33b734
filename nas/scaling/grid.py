"""The search for scaling coefficients: every point of a grid trained at phi = 1.

As in EfficientNet (https://arxiv.org/abs/1905.11946, section 3.3), with one
difference. Rounding gives the points different multiply-adds, so that the most
accurate one may only be the largest. Points are therefore compared as a search
compares its children: by accuracy * (FLOPS / T)^-0.07, T being twice the baseline's.
"""

import dataclasses
import statistics
from collections.abc import Iterator

from nas.options.scaling import FamilyDefinition
from nas.runs import doubts, journal
from nas.scaling import family
from nas.scaling.family import Family
from nas.scaling.network_list import NetworkList, Result
from nas.study import confirmation, reward
from nas.study.confirmation import Standing
from nas.study.reward import Reward
from search_space import compound, cost
from search_space.compound import Coefficients

KIND = "grid"
"""What a journal's header calls it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """A grid whose every network exists. The first is the baseline, then the points."""

    definition: FamilyDefinition
    points: tuple[Coefficients, ...]
    networks: NetworkList
    target: int

    @property
    def reward(self) -> Reward:
        """Soft, around twice the baseline's multiply-adds."""
        return reward.soft("num_macs", self.target)

    def results(self, contents: journal.Contents) -> tuple[Result, ...]:
        """Returns what became of each point."""
        return self.networks.results(contents)[1:]

    def family(self, contents: journal.Contents) -> Family | None:
        """Returns the family of the best point; None where none was measured."""
        baseline, *results = self.networks.results(contents)
        found = [
            (statistics.fmean(result.rewards), point, result)
            for point, result in zip(self.points, results, strict=True)
            if result.rewards
        ]
        if not found:
            return None
        _, best, result = max(found, key=lambda one: one[0])
        repeats = self.definition.coefficients.repeats
        return family.from_coefficients(
            self.definition,
            best,
            found=(
                f"the best mean reward of {len(found)} points of a grid at phi 1, each "
                f"trained {repeats} time{'s' if repeats > 1 else ''} on "
                f"{contents.header.dataset}"
            ),
            accuracies={0.0: baseline.accuracies, 1.0: result.accuracies},
        )

    def doubts(self, contents: journal.Contents) -> list[str]:
        """Returns what the grid's numbers cannot carry, each in a line."""
        return [*doubts.of(contents), *self._leaders(contents)]

    def _leaders(self, contents: journal.Contents) -> Iterator[str]:
        results = [result for result in self.results(contents) if result.children]
        if self.definition.coefficients.repeats == 1 and len(results) > 1:
            yield (
                "each point was trained once, and nothing says how much of its reward"
                " is luck; --repeats 3 does"
            )
        # All trainings of a point count alike, the first like the later ones.
        found = [Standing(trial=r.children[0], again=r.children) for r in results]
        others = list(confirmation.within_noise(found))
        if others:
            yield (
                f"between seeds the best point is not told apart from {len(others)} of"
                f" {len(found) - 1} others; a new grid with more --repeats, --steps or"
                " --validation images decides"
            )


def plan(definition: FamilyDefinition) -> Grid:
    """Returns the grid that the definition asks for.

    Raises:
      ValueError: if there is none, or a network cannot exist. One line.
    """
    base, options = definition.base, definition.coefficients
    points = compound.grid(options.grid_step, options.tolerance)
    for point in points:  # whichever wins, its family can be made
        family.from_coefficients(definition, point, found="")
    rules = definition.family.rules
    members = [compound.member(base, point, 1.0, rules) for point in points]
    return Grid(
        definition=definition,
        points=points,
        networks=NetworkList(networks=(base, *members), repeats=options.repeats),
        target=round(compound.GROWTH * cost.num_macs(base)),
    )
