"""Utilities of ranks: what a result counts for, whatever the scale of rewards."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def utilities(rewards: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Returns the utilities [n] of rewards [n]; they sum to 0, the worst half's equal.

    `max(0, log(n / 2 + 1) - log(rank))`, scaled so that the mean is 1, less 1
    (arXiv:1106.4487, section 3.1, times n). Equal rewards share their utilities' mean.

    >>> found = utilities(np.array([3.0, 9.0, 5.0, 1.0], np.float32))
    >>> [round(float(utility), 2) for utility in found]
    [-1.0, 1.92, 0.08, -1.0]
    """
    num = len(rewards)
    raw = np.maximum(0.0, np.log(num / 2 + 1) - np.log(np.arange(1, num + 1)))
    by_rank = raw * (num / raw.sum()) - 1.0
    _, group, sizes = np.unique(-rewards, return_inverse=True, return_counts=True)
    order = np.argsort(-rewards, kind="stable")
    totals = np.bincount(group[order], weights=by_rank)
    return (totals / sizes)[group].astype(np.float32)
