"""What one stage of a search space may be, and every stage that this makes."""

import collections
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from pydantic import ValidationError

from search_space.decisions import Choice, Decision
from search_space.spec import Stage, explain

Tokens = tuple[int, ...]

# All combinations of a stage are made at once; MnasNet's have 432.
MAX_COMBINATIONS = 100_000


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class StageChoices:
    """What one stage may be: the choices by name, and what is built of their values.

    `build` takes one value of each of `choices` by keyword, and returns the stage, or
    None for no stage there. Different values must give different stages, or an
    architecture would have more than one encoding; unless `needs` says that a choice
    matters only where earlier ones have certain values. Where it does not, its first
    value is built, whatever its token.

    >>> StageChoices(
    ...     choices={"kernel": (3, 5), "layers": (0, 1)},
    ...     build=dict,
    ...     needs={"kernel": {"layers": (1,)}},
    ... )
    Traceback (most recent call last):
    ValueError: kernel must need a choice before it, got layers; name layers first

    Raises:
      ValueError: when it is made, if a need is not of an earlier choice, or a value of
        it is not offered.
    """

    choices: Mapping[str, tuple[Choice, ...]]
    build: Callable[..., Stage | None]
    needs: Mapping[str, Mapping[str, tuple[Choice, ...]]] = dataclasses.field(
        default_factory=dict[str, Mapping[str, tuple[Choice, ...]]]
    )

    def __post_init__(self) -> None:
        order = {name: position for position, name in enumerate(self.choices)}
        for name, needed in self.needs.items():
            for other, values in needed.items():
                if not order.get(other, math.inf) < order.get(name, -1):
                    raise ValueError(
                        f"{name} must need a choice before it, got {other}; name"
                        f" {other} first"
                    )
                if missing := [v for v in values if v not in self.choices[other]]:
                    raise ValueError(
                        f"{name} must need values of {other} that are offered,"
                        f" {self.choices[other]}, got {missing[0]!r}"
                    )

    def restricted(self, choices: Mapping[str, tuple[Choice, ...]]) -> "StageChoices":
        """Returns the stage with those choices alone."""
        return StageChoices(
            choices=choices,
            build=self.build,
            needs={
                name: {
                    other: tuple(value for value in values if value in choices[other])
                    for other, values in needed.items()
                }
                for name, needed in self.needs.items()
            },
        )

    def canonical(self, own: Tokens) -> Tokens:
        """Returns the stage's tokens with 0 for each that does not matter."""
        values = {
            name: choices[token]
            for (name, choices), token in zip(self.choices.items(), own, strict=True)
        }
        found: dict[str, int] = {}
        matters: dict[str, bool] = {}
        for name, token in zip(self.choices, own, strict=True):
            matters[name] = all(
                matters[other] and values[other] in wanted
                for other, wanted in self.needs.get(name, {}).items()
            )
            found[name] = token if matters[name] else 0
        return tuple(found.values())


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageTable:
    """Every combination of one stage's choices, both ways; `tokens` are canonical."""

    canonical: Mapping[Tokens, Tokens]
    stages: Mapping[Tokens, Stage | None]
    tokens: Mapping[Stage | None, Tokens]
    digests: Mapping[Tokens, bytes]

    @property
    def present(self) -> Iterator[Stage]:
        """The stages that there may be."""
        return (stage for stage in self.tokens if stage is not None)

    @property
    def entropy(self) -> float:
        """Nats of drawing every decision that matters uniformly."""
        shares = collections.Counter(self.canonical.values()).values()
        num = len(self.canonical)
        return -sum(share / num * math.log(share / num) for share in shares)


def tabulate(
    where: str, decisions: Sequence[Decision], stage: StageChoices
) -> StageTable:
    """Returns the table of one stage; `where` names it in messages.

    Raises:
      ValueError: if there are too many combinations, one makes no legal stage, or two
        make the same.
    """
    num = math.prod(len(decision.choices) for decision in decisions)
    if num > MAX_COMBINATIONS:
        raise ValueError(
            f"{where} must have at most {MAX_COMBINATIONS} combinations of choices,"
            f" got {num}; divide it into two stages"
        )
    canonical: dict[Tokens, Tokens] = {}
    stages: dict[Tokens, Stage | None] = {}
    tokens: dict[Stage | None, Tokens] = {}
    for own in itertools.product(*(range(len(d.choices)) for d in decisions)):
        canonical[own] = stage.canonical(own)
        if canonical[own] != own:
            continue
        chosen = [d.choices[token] for d, token in zip(decisions, own, strict=True)]
        values = dict(zip(stage.choices, chosen, strict=True))
        try:
            built = stage.build(**values)
        except ValidationError as error:
            raise ValueError(f"{where} with {values}: {explain(error)}") from error
        if built in tokens:
            raise ValueError(
                f"{where} must be a different stage for different choices, got the"
                f" same for tokens {tokens[built]} and {own}: {built}"
            )
        stages[own], tokens[built] = built, own
    return StageTable(
        canonical=canonical,
        stages=stages,
        tokens=tokens,
        digests={own: repr(built).encode() for own, built in stages.items()},
    )
