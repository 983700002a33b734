"""Decisions, each one choice among some, and what restricts them."""

import dataclasses
import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence

Choice = int | float | str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decision:
    """One choice among `choices`; `name` is as in `stage3.kernel`, from stage 0."""

    name: str
    choices: tuple[Choice, ...]

    def __post_init__(self) -> None:
        if not self.choices:
            raise ValueError(f"{self.name} must offer at least one choice")
        for choice in self.choices:
            # A boolean equals 0 or 1, and a NaN not even itself: neither can be found
            # again by its value.
            unfit = isinstance(choice, float) and not math.isfinite(choice)
            if unfit or isinstance(choice, bool):
                raise ValueError(
                    f"choices of {self.name} must be integers, finite numbers or"
                    f" strings, got {choice!r}"
                )
        if len(set(self.choices)) < len(self.choices):
            raise ValueError(f"choices of {self.name} must differ, got {self.choices}")


def restricted(
    decisions: Sequence[Decision], choices: Mapping[str, Sequence[Choice]], of: str
) -> dict[str, tuple[Choice, ...]]:
    """Returns the choices that remain, by decision.

    Args:
      decisions: what there is to restrict.
      choices: as `search_space.space.SearchSpace.restrict` takes them.
      of: what the decisions are of, for messages.

    Raises:
      ValueError: if a pattern fits no decision, a decision does not offer a value, or
        no choice remains.
    """
    kept = {decision.name: decision.choices for decision in decisions}
    for pattern, values in choices.items():
        names = [name for name in kept if fnmatch.fnmatchcase(name, pattern)]
        if not names:
            raise ValueError(
                f"{pattern!r} must fit a decision of {of}: {', '.join(kept)}"
            )
        offered = [
            choice
            for decision in decisions
            if decision.name in names
            for choice in decision.choices
        ]
        for value in values:
            if value not in offered:
                raise ValueError(
                    f"{pattern} must be one of"
                    f" {', '.join(map(str, dict.fromkeys(offered)))}, got {value!r}"
                )
        for name in names:
            kept[name] = _narrowed(name, kept[name], pattern, values)
    return kept


def _narrowed(
    name: str, choices: tuple[Choice, ...], pattern: str, values: Sequence[Choice]
) -> tuple[Choice, ...]:
    found = tuple(choice for choice in choices if choice in values)
    if not found:
        raise ValueError(
            f"{name} must keep one of {', '.join(map(str, choices))},"
            f" and {pattern} leaves {', '.join(map(str, values)) or 'nothing'}"
        )
    return found


def parse_restrictions(texts: Iterable[str]) -> dict[str, tuple[Choice, ...]]:
    """Returns `SearchSpace.restrict`'s argument from `NAME=VALUE,VALUE...` texts.

    What reads as a number is one.

    >>> parse_restrictions(["stage3.kernel=3,5", "*.skip=none", "*.se_ratio=0.25"])
    {'stage3.kernel': (3, 5), '*.skip': ('none',), '*.se_ratio': (0.25,)}

    Raises:
      ValueError: if a text is not of that form, or a name comes twice.
    """
    found: dict[str, tuple[Choice, ...]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        choices = tuple(_parse_choice(value.strip()) for value in values.split(","))
        if not (name.strip() and equals) or "" in choices:
            raise ValueError(
                f"a restriction must read NAME=VALUE,VALUE... as in stage3.kernel=3,5;"
                f" got {text!r}"
            )
        if name.strip() in found:
            raise ValueError(
                f"{name.strip()} must be restricted once, got {text!r} too"
            )
        found[name.strip()] = choices
    return found


def _parse_choice(text: str) -> Choice:
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text
