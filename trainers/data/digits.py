"""Handwritten digits from scikit-learn's wheel: 1,797 grey images of 8x8 pixels.

They are the test half of https://archive.ics.uci.edu/dataset/80; scikit-learn has no
split of its own, so a sixth is set aside as the test split, the same one for every
seed.
"""

from typing import Any

import numpy as np

from trainers.data import split
from trainers.data.dataset import ArrayExamples

CLASS_NAMES = tuple("0123456789")

_BRIGHTEST = 16  # pixels count the ink in a 4x4 block of the scan, 0 to 16
_NUM_TEST = 300


def training() -> ArrayExamples:
    """Returns the 1,497 examples that are not the test split's."""
    kept, _ = _partition()
    return _read(kept)


def test() -> ArrayExamples:
    """Returns the 300 examples set aside."""
    _, held_out = _partition()
    return _read(held_out)


def _partition() -> tuple[np.ndarray, np.ndarray]:
    return split.stratified(_bunch().target, _NUM_TEST, seed=0)


def _read(indices: np.ndarray) -> ArrayExamples:
    bunch = _bunch()
    scaled = np.round(bunch.images[indices] * (255 / _BRIGHTEST))
    return ArrayExamples(
        images=scaled.astype(np.uint8)[..., np.newaxis],
        labels=bunch.target[indices].astype(np.int32),
    )


def _bunch() -> Any:
    from sklearn import datasets  # half a second

    return datasets.load_digits()
