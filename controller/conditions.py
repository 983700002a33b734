"""Conditional decisions, as numbers: which tokens matter under which others.

A decision may need earlier ones to have certain tokens, and does not matter where they
have not: sequences that differ there alone mean the same. The canonical one of them
has token 0 there. What does not matter adds nothing to a sequence's log-probability and
to a policy's entropy.
"""

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Conditions = tuple[tuple[tuple[int, tuple[int, ...]], ...], ...]
"""What each decision needs, in order: at each of some positions, all earlier than its
own, one of some tokens. () where no decision needs anything."""


def check_conditions(conditions: Conditions, num_choices: Sequence[int]) -> None:
    """Raises ValueError unless every need is of an earlier decision's tokens."""
    if conditions and len(conditions) != len(num_choices):
        raise ValueError(
            f"conditions must be of all {len(num_choices)} decisions, got "
            f"{len(conditions)}; give () to those that need nothing"
        )
    for decision, needs in enumerate(conditions):
        for position, tokens in needs:
            if not 0 <= position < decision:
                raise ValueError(
                    f"decision {decision} must need decisions before it, got {position}"
                )
            if any(not 0 <= token < num_choices[position] for token in tokens):
                raise ValueError(
                    f"decision {decision} must need tokens of decision {position} in "
                    f"[0, {num_choices[position]}), got {tokens}"
                )


@functools.lru_cache(maxsize=16)
def gates(num_choices: tuple[int, ...], conditions: Conditions) -> NDArray[np.bool_]:
    """Returns [D, C, D]: whether token c of decision d lets each decision matter.

    A decision matters if the tokens of all others let it. What needs a decision needs
    whatever that one needs besides.
    """
    choices = np.arange(max(num_choices))
    found = np.ones((len(num_choices), len(choices), len(num_choices)), np.bool_)
    for decision, needs in enumerate(conditions):
        for position, tokens in needs:
            found[:, :, decision] &= found[:, :, position]
            found[position, :, decision] &= np.isin(choices, tokens)
    return found


def active(
    num_choices: tuple[int, ...], conditions: Conditions, tokens: NDArray[np.int32]
) -> NDArray[np.bool_]:
    """Returns which decisions matter in each of tokens [n, D]: [n, D].

    >>> needs_a_1 = ((), ((0, (1,)),))
    >>> active((2, 3), needs_a_1, np.array([[0, 2], [1, 2]], np.int32)).tolist()
    [[True, False], [True, True]]
    """
    if not conditions:
        return np.ones(tokens.shape, np.bool_)
    table = gates(num_choices, conditions)[np.arange(len(num_choices)), tokens]
    return np.logical_and.reduce(table, axis=1)


def canonical(
    num_choices: tuple[int, ...], conditions: Conditions, tokens: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Returns tokens [n, D] with 0 for each that does not matter."""
    if not conditions:
        return tokens
    return np.where(active(num_choices, conditions, tokens), tokens, np.int32(0))
