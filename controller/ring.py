"""A fixed-capacity memory of token sequences with a number each; the oldest goes."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Ring(NamedTuple):
    """`tokens` int32 [capacity, D], `values` float32 [capacity], `size` int64 [].

    The last `size` rows are filled, oldest first.
    """

    tokens: NDArray[np.int32]
    values: NDArray[np.float32]
    size: NDArray[np.int64]


def empty(capacity: int, num_decisions: int) -> Ring:
    """Returns a ring that holds nothing."""
    return Ring(
        tokens=np.zeros((capacity, num_decisions), np.int32),
        values=np.zeros(capacity, np.float32),
        size=np.asarray(0),
    )


def append(ring: Ring, tokens: NDArray[np.int32], values: NDArray[np.float32]) -> Ring:
    """Returns the ring with tokens [n, D] and values [n] as its latest."""
    capacity = len(ring.values)
    return Ring(
        tokens=np.concatenate([ring.tokens, tokens])[-capacity:],
        values=np.concatenate([ring.values, values])[-capacity:],
        size=np.asarray(min(int(ring.size) + len(values), capacity)),
    )


def entries(ring: Ring) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Returns the tokens [size, D] and values [size] held, oldest first."""
    start = len(ring.values) - int(ring.size)
    return ring.tokens[start:], ring.values[start:]


def keys(tokens: NDArray[np.int32]) -> list[bytes]:
    """Returns a name for each of tokens [n, D], in their lexicographic order."""
    # Big-endian: bytes then compare as the tokens do, which are not negative.
    rows = np.ascontiguousarray(tokens, ">i4")
    return rows.view(f"V{4 * tokens.shape[1]}")[:, 0].tolist()


def lookup(ring: Ring, tokens: NDArray[np.int32]) -> NDArray[np.float32]:
    """Returns the latest value of each of tokens [n, D]; NaN where there is none."""
    known, values = entries(ring)
    by_key = dict(zip(keys(known), values, strict=True))
    nan = np.float32(np.nan)
    return np.array([by_key.get(key, nan) for key in keys(tokens)], np.float32)
