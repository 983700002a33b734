"""Sequences near good ones, their changed tokens drawn from the policy."""

import numpy as np
from numpy.typing import NDArray

# A neighbour differs from its parent in one to this many tokens.
_MAX_CHANGES = 4
# So often a changed token is drawn uniformly: a policy that has become sure of its
# choices would otherwise never leave a local optimum of the rewards.
_UNIFORM_SHARE = 0.25


def draw(
    rng: np.random.Generator,
    parents: NDArray[np.int32],
    log_probs: NDArray[np.float32],
    num: int,
) -> NDArray[np.int32]:
    """Returns `num` neighbours [num, D] of random ones among parents [k, D].

    `log_probs` [k, D, C] are the policy's of each decision's choices, given the
    parent's tokens before it; -inf is no choice. A changed token is drawn from them,
    mixed with a uniform choice, the parent's own token excluded.
    """
    count, decisions = parents.shape
    chosen = rng.integers(count, size=num)
    changeable = np.isfinite(log_probs).sum(axis=-1) > 1  # [k, D]
    # The decisions of lowest priority change: random ones among the changeable.
    priority = rng.random((num, decisions)) + 2.0 * ~changeable[chosen]
    rank = priority.argsort(axis=1).argsort(axis=1)
    changes = rng.integers(1, _MAX_CHANGES + 1, size=num)
    changed = (rank < changes[:, None]) & changeable[chosen]

    row, decision = np.nonzero(changed)
    parent = chosen[row]
    probs = np.exp(log_probs[parent, decision])
    choices = np.isfinite(log_probs[parent, decision])
    uniform = choices / choices.sum(axis=-1, keepdims=True)
    mixed = (1.0 - _UNIFORM_SHARE) * probs + _UNIFORM_SHARE * uniform
    with np.errstate(divide="ignore"):
        scores: NDArray[np.float64] = np.log(mixed)
    scores += rng.gumbel(size=scores.shape)  # the largest is a draw
    scores[np.arange(len(row)), parents[parent, decision]] = -np.inf
    neighbours = parents[chosen]
    neighbours[row, decision] = scores.argmax(axis=-1)
    return neighbours
