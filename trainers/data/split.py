"""Carving a held-out split from training data."""

import numpy as np
from jaxtyping import Int

_SHARE = 6  # a sixth: 10,000 of Fashion-MNIST's 60,000
_FEW = 500  # with fewer, an accuracy of 0.9 has a standard error above 1.3 points
_MANY = 50_000  # what MnasNet holds out of ImageNet (arXiv:1807.11626, section 5)


def default_size(num: int) -> int:
    """Returns how many of `num` training examples to hold out for validation.

    A sixth, but 500 where that is more, yet never over a third; at most 50,000.

    >>> [default_size(num) for num in (90, 1_497, 60_000, 1_281_167)]
    [30, 499, 10000, 50000]
    """
    return min(max(num // _SHARE, _FEW), num // 3, _MANY)


def check_size(num: int, held_out: int) -> None:
    """Refuses to hold out nothing or everything.

    Raises:
      ValueError: unless `held_out` is between 1 and `num - 1`.
    """
    if not 1 <= held_out < num:
        raise ValueError(
            f"validation must be a number of examples from 1 to {num - 1} (there are"
            f" {num} to train on), got {held_out}"
        )


def without(
    labels: Int[np.ndarray, " num"], rows: Int[np.ndarray, " part"]
) -> list[int]:
    """Returns the classes of which there are examples, but none of those at `rows`.

    >>> without(np.array([0, 1, 1, 2]), np.array([0, 1]))
    [2]
    """
    return np.setdiff1d(labels, labels[rows]).tolist()


def uniform(
    num: int, held_out: int, *, seed: int
) -> tuple[Int[np.ndarray, " kept"], Int[np.ndarray, " held_out"]]:
    """Returns sorted indices of the kept and the held-out, drawn at random.

    For data whose labels cannot be had without decoding all of it.

    Raises:
      ValueError: as `check_size`.
    """
    check_size(num, held_out)
    order = np.random.default_rng(seed).permutation(num)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def stratified(
    labels: Int[np.ndarray, " num"], held_out: int, *, seed: int
) -> tuple[Int[np.ndarray, " kept"], Int[np.ndarray, " held_out"]]:
    """Returns sorted indices of the kept and the held-out, alike in their classes.

    A class of n among `num` has floor or ceil of n * held_out / num examples held
    out: the largest remainders are rounded up, ties at random.

    Raises:
      ValueError: as `check_size`.
    """
    check_size(len(labels), held_out)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(labels))
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    # Whole numbers, so that equal remainders are equal.
    quotas, remainders = np.divmod(counts * held_out, len(labels))
    ties = generator.permutation(len(counts))
    most_short = ties[np.argsort(-remainders[ties], kind="stable")]
    quotas[most_short[: held_out - quotas.sum()]] += 1

    grouped = order[np.argsort(classes[order], kind="stable")]
    starts = np.cumsum(counts) - counts
    rank_in_class = np.arange(len(labels)) - np.repeat(starts, counts)
    is_held_out = rank_in_class < np.repeat(quotas, counts)
    return np.sort(grouped[~is_held_out]), np.sort(grouped[is_held_out])
