"""Search spaces: what there is to decide, and what each decision means.

A space is factorized by stage, as MnasNet's is (https://arxiv.org/abs/1807.11626,
section 4.1): every stage has decisions of its own, which its layers share, and the
stem and the head are given. An architecture is a sequence of tokens, one for each
decision, each the index of a choice. Algorithms see `num_choices` alone.

A space of one's own takes a few lines. The choices of a stage are passed by name to
`build`, any function that returns a stage:

>>> from functools import partial
>>> from search_space import zoo
>>> from search_space.spec import MBConvStage
>>> SPACE = SearchSpace(
...     name="tiny",
...     base=zoo.load("mobilenet-v2"),
...     stages=tuple(
...         StageChoices(
...             choices={"kernel": (3, 5), "expansion": (3, 6), "repeats": (1, 2, 3)},
...             build=partial(MBConvStage, channels=channels, stride=2),
...         )
...         for channels in (24, 48, 96)
...     ),
... )
>>> SPACE.num_choices, SPACE.size
((2, 2, 3, 2, 2, 3, 2, 2, 3), 1728)
>>> small = SPACE.restrict({"*.expansion": (3,), "stage2.repeats": (1, 2)})
>>> small.size
144
>>> [stage.repeats for stage in small.decode((0, 0, 2, 1, 0, 0, 0, 0, 1)).stages]
[3, 1, 2]

In a file `my_spaces.py` it goes by the name `my_spaces:SPACE` wherever a space is
asked for (`search_space.spaces.load`).
"""

import dataclasses
import functools
import hashlib
import itertools
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import SupportsIndex

from pydantic import ValidationError

from search_space.decisions import Choice, Decision, restricted
from search_space.spec import ArchSpec, Stage, explain, shorten, with_dropout

Tokens = tuple[int, ...]

# All combinations of a stage are made at once; MnasNet's have 432.
MAX_COMBINATIONS = 100_000

_DIGEST_SIZE = 5  # bytes: a million names clash once in two such sets


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class StageChoices:
    """What one stage may be: the choices by name, and what is built of their values.

    `build` takes one value of each of `choices` by keyword. Different values must
    give different stages, or an architecture would have more than one encoding.
    """

    choices: Mapping[str, tuple[Choice, ...]]
    build: Callable[..., Stage]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _StageTable:
    """Every combination of one stage's choices, both ways."""

    stages: Mapping[Tokens, Stage]
    tokens: Mapping[Stage, Tokens]
    digests: Mapping[Tokens, bytes]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SearchSpace:
    """The product of the choices of all its stages.

    Attributes:
      name: begins the names of its architectures.
      base: gives stem, head, activation, resolution and all else but the stages.
      stages: the choices of each stage.

    Raises:
      ValueError: when it is made, if any of its architectures would be impossible or
        two of them the same.
    """

    name: str
    base: ArchSpec
    stages: tuple[StageChoices, ...]

    def __post_init__(self) -> None:
        # The two rules that concern all stages at once hold everywhere if they hold
        # for the largest strides and for the most layers.
        for size in (operator.attrgetter("stride"), operator.attrgetter("repeats")):
            largest = tuple(max(table.tokens, key=size) for table in self._tables)
            try:
                name = f"{self.name}-{bytes(_DIGEST_SIZE).hex()}"  # the length of one
                dataclasses.replace(self.base, name=name, stages=largest)
            except ValidationError as error:
                raise ValueError(f"space {self.name}: {explain(error)}") from error

    @functools.cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """All decisions, stage by stage, in the order of the tokens."""
        return tuple(itertools.chain.from_iterable(self._decisions_by_stage))

    @functools.cached_property
    def num_choices(self) -> tuple[int, ...]:
        """Number of values of each token, in order; all a controller needs."""
        return tuple(len(decision.choices) for decision in self.decisions)

    @property
    def size(self) -> int:
        """Number of architectures, all different."""
        return math.prod(self.num_choices)

    def decode(self, tokens: Iterable[SupportsIndex]) -> ArchSpec:
        """Returns the architecture; its name is the space's and a digest of the stages.

        Args:
          tokens: one index for each decision; a row of an integer array will do.

        Raises:
          ValueError: if the length or any token is out of range.
        """
        rest = self._checked(tokens)
        stages: list[Stage] = []
        digest = hashlib.blake2s(digest_size=_DIGEST_SIZE)
        for table, decisions in zip(
            self._tables, self._decisions_by_stage, strict=True
        ):
            own, rest = rest[: len(decisions)], rest[len(decisions) :]
            stages.append(table.stages[own])
            digest.update(table.digests[own])
        return dataclasses.replace(
            self.base, name=f"{self.name}-{digest.hexdigest()}", stages=tuple(stages)
        )

    def encode(self, spec: ArchSpec) -> Tokens:
        """Returns the tokens of `spec`, the inverse of `decode`.

        What does not tell architectures of a space apart is not looked at: name,
        resolution, input channels, classes, dropout and stochastic depth.

        Raises:
          ValueError: if the space does not contain `spec`.
        """
        mine, given = (
            (own.stem, with_dropout(own.head, 0.0), own.activation)
            for own in (self.base, spec)
        )
        if given != mine:
            raise ValueError(
                f"stem, head and activation must be those of space {self.name},"
                f" {mine}; got {given}"
            )
        mine = (self.base.padding, self.base.norm_epsilon)
        if (spec.padding, spec.norm_epsilon) != mine:
            raise ValueError(
                f"padding and norm_epsilon must be those of space {self.name}, {mine};"
                f" got {(spec.padding, spec.norm_epsilon)}"
            )
        if len(spec.stages) != len(self.stages):
            raise ValueError(
                f"space {self.name} has {len(self.stages)} stages,"
                f" got {len(spec.stages)}"
            )
        found: Tokens = ()
        for i, (stage, table) in enumerate(zip(spec.stages, self._tables, strict=True)):
            if stage not in table.tokens:
                raise ValueError(
                    f"stages.{i} must be one of the {len(table.tokens)} that space"
                    f" {self.name} offers there, got {stage}"
                )
            found += table.tokens[stage]
        return found

    def restrict(self, choices: Mapping[str, Sequence[Choice]]) -> "SearchSpace":
        """Returns the space with fewer choices.

        Args:
          choices: from a decision's name, or a pattern over names such as `*.kernel`
            or `stage[0-2].*`, to the values that remain. Where several apply to one
            decision, what all of them name remains. A decision of one choice stays a
            token, always 0.

        Raises:
          ValueError: if a pattern fits no decision, a decision does not offer a
            value, or no choice remains.
        """
        kept = restricted(self.decisions, choices, f"space {self.name}")
        return dataclasses.replace(
            self,
            stages=tuple(
                StageChoices(
                    choices={name: kept[f"stage{i}.{name}"] for name in stage.choices},
                    build=stage.build,
                )
                for i, stage in enumerate(self.stages)
            ),
        )

    @functools.cached_property
    def _decisions_by_stage(self) -> tuple[tuple[Decision, ...], ...]:
        return tuple(
            tuple(
                Decision(name=f"stage{i}.{name}", choices=choices)
                for name, choices in stage.choices.items()
            )
            for i, stage in enumerate(self.stages)
        )

    @functools.cached_property
    def _tables(self) -> tuple[_StageTable, ...]:
        return tuple(
            _tabulate(f"stage{i}", decisions, stage)
            for i, (decisions, stage) in enumerate(
                zip(self._decisions_by_stage, self.stages, strict=True)
            )
        )

    def _checked(self, tokens: Iterable[SupportsIndex]) -> Tokens:
        try:
            found = tuple([operator.index(token) for token in tokens])
        except TypeError as error:
            raise ValueError(
                f"tokens must be integers, got {shorten(tokens)}"
            ) from error
        if len(found) != len(self.num_choices):
            raise ValueError(
                f"space {self.name} has {len(self.num_choices)} decisions,"
                f" got {len(found)} tokens"
            )
        for token, num, decision in zip(
            found, self.num_choices, self.decisions, strict=True
        ):
            if not 0 <= token < num:
                raise ValueError(
                    f"token of {decision.name} must be from 0 to {num - 1}, got {token}"
                )
        return found


def _tabulate(
    where: str, decisions: Sequence[Decision], stage: StageChoices
) -> _StageTable:
    num = math.prod(len(decision.choices) for decision in decisions)
    if num > MAX_COMBINATIONS:
        raise ValueError(
            f"{where} must have at most {MAX_COMBINATIONS} combinations of choices,"
            f" got {num}; divide it into two stages"
        )
    stages: dict[Tokens, Stage] = {}
    tokens: dict[Stage, Tokens] = {}
    for own in itertools.product(*(range(len(d.choices)) for d in decisions)):
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
    return _StageTable(
        stages=stages,
        tokens=tokens,
        digests={own: repr(built).encode() for own, built in stages.items()},
    )
