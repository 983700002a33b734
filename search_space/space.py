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

A choice that does not matter under others says so in `needs`, and one may be that
there is no such stage:

>>> def build(layers, kernel):
...     if layers == 0:
...         return None
...     return MBConvStage(
...         channels=96, stride=1, expansion=6, kernel=kernel, repeats=layers
...     )
>>> last = StageChoices(
...     choices={"layers": (0, 1), "kernel": (3, 5)},
...     build=build,
...     needs={"kernel": {"layers": (1,)}},
... )
>>> longer = dataclasses.replace(SPACE, stages=(*SPACE.stages, last))
>>> longer.size == 3 * SPACE.size
True
>>> longer.canonical((0,) * 9 + (0, 1)) == (0,) * 11
True

In a file `my_spaces.py` it goes by the name `my_spaces:SPACE` wherever a space is
asked for (`search_space.spaces.load`).
"""

import dataclasses
import functools
import hashlib
import itertools
import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import SupportsIndex

from pydantic import ValidationError

from search_space.decisions import Choice, Decision, restricted
from search_space.spec import ArchSpec, Stage, explain, shorten, with_dropout
from search_space.stage_choices import StageChoices, StageTable, Tokens, tabulate

Conditions = tuple[tuple[tuple[int, Tokens], ...], ...]

_DIGEST_SIZE = 5  # bytes: a million names clash once in two such sets


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SearchSpace:
    """The product of the choices of all its stages.

    Attributes:
      name: begins the names of its architectures.
      base: gives stem, head, activation, resolution and all else but the stages.
      stages: the choices of each stage. The last may be left out by its choices.

    Raises:
      ValueError: when it is made, if any of its architectures would be impossible or
        two of them the same.
    """

    name: str
    base: ArchSpec
    stages: tuple[StageChoices, ...]

    def __post_init__(self) -> None:
        for i, table in enumerate(self._tables):
            if None in table.tokens and not 0 < i == len(self.stages) - 1:
                raise ValueError(
                    f"space {self.name}: stage{i} must never be None; only the last of"
                    " several stages may be left out"
                )
        # The two rules that concern all stages at once hold everywhere if they hold
        # for the largest strides and for the most layers.
        for size in (operator.attrgetter("stride"), operator.attrgetter("repeats")):
            largest = tuple(
                max(table.present, key=size)
                for table in self._tables
                if any(table.present)
            )
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

    @functools.cached_property
    def conditions(self) -> Conditions:
        """What each decision needs in order to matter, as numbers; () for none at all.

        Of each decision, in order: positions of earlier ones, each with the tokens one
        of which it must have.
        """
        found: list[tuple[tuple[int, Tokens], ...]] = []
        for stage in self.stages:
            names, first = list(stage.choices), len(found)
            found += [
                tuple(
                    (
                        first + names.index(other),
                        tuple(map(stage.choices[other].index, values)),
                    )
                    for other, values in stage.needs.get(name, {}).items()
                )
                for name in names
            ]
        return tuple(found) if any(found) else ()

    @property
    def offered(self) -> tuple[tuple[Stage | None, ...], ...]:
        """Every stage that there may be at each place; None where none may."""
        return tuple(tuple(table.tokens) for table in self._tables)

    @functools.cached_property
    def size(self) -> int:
        """Number of architectures, all different."""
        return math.prod(len(table.tokens) for table in self._tables)

    @functools.cached_property
    def entropy(self) -> float:
        """Nats of drawing every decision that matters uniformly."""
        return sum(table.entropy for table in self._tables)

    def canonical(self, tokens: Iterable[SupportsIndex]) -> Tokens:
        """Returns the tokens of the same architecture with 0 where they do not matter.

        Raises:
          ValueError: as `decode`.
        """
        parts = zip(self._tables, self._divided(tokens), strict=True)
        canonical = (table.canonical[own] for table, own in parts)
        return tuple(itertools.chain.from_iterable(canonical))

    def decode(self, tokens: Iterable[SupportsIndex]) -> ArchSpec:
        """Returns the architecture; its name is the space's and a digest of the stages.

        Args:
          tokens: one index for each decision; a row of an integer array will do. Those
            that do not matter may be any.

        Raises:
          ValueError: if the length or any token is out of range.
        """
        stages: list[Stage] = []
        digest = hashlib.blake2s(digest_size=_DIGEST_SIZE)
        for table, own in zip(self._tables, self._divided(tokens), strict=True):
            stage = table.stages[canonical := table.canonical[own]]
            digest.update(table.digests[canonical])
            if stage is not None:
                stages.append(stage)
        return dataclasses.replace(
            self.base, name=f"{self.name}-{digest.hexdigest()}", stages=tuple(stages)
        )

    def encode(self, spec: ArchSpec) -> Tokens:
        """Returns the canonical tokens of `spec`, the inverse of `decode`.

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
        stages: tuple[Stage | None, ...] = spec.stages
        if len(stages) == len(self.stages) - 1 and None in self._tables[-1].tokens:
            stages += (None,)
        if len(stages) != len(self.stages):
            raise ValueError(
                f"space {self.name} has {len(self.stages)} stages,"
                f" got {len(spec.stages)}"
            )
        found: Tokens = ()
        for i, (stage, table) in enumerate(zip(stages, self._tables, strict=True)):
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
                stage.restricted(
                    {name: kept[f"stage{i}.{name}"] for name in stage.choices}
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
    def _tables(self) -> tuple[StageTable, ...]:
        return tuple(
            tabulate(f"stage{i}", decisions, stage)
            for i, (decisions, stage) in enumerate(
                zip(self._decisions_by_stage, self.stages, strict=True)
            )
        )

    def _divided(self, tokens: Iterable[SupportsIndex]) -> Iterator[Tokens]:
        """Yields the tokens of each stage, checked."""
        rest = self._checked(tokens)
        for decisions in self._decisions_by_stage:
            yield rest[: len(decisions)]
            rest = rest[len(decisions) :]

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
