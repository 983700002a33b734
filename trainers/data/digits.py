"""Handwritten digits from scikit-learn's wheel: 1,797 grey images of 8x8 pixels.

They are the test half of https://archive.ics.uci.edu/dataset/80; scikit-learn has no
split of its own, so a sixth is set aside as the test split, the same one for every
seed.
"""

from typing import Any

import numpy as np

from trainers import augment
from trainers.data import split
from trainers.data.dataset import ArrayExamples, Origin

_BRIGHTEST = 16  # pixels count the ink in a 4x4 block of the scan, 0 to 16
_NUM_TEST = 300


def read() -> Origin:
    """Returns the data set: 1,497 examples for training, 300 set aside for the test."""
    kept, held_out = split.stratified(_bunch().target, _NUM_TEST, seed=0)
    training = _examples(kept)
    return Origin(
        description="digits: 1,797 handwritten digits, 8x8 grey pixels, 10 classes,"
        " from inside scikit-learn",
        class_names=tuple("0123456789"),
        channels=1,
        image_size=(8, 8),
        augmentation=augment.NONE,
        training=training,
        labels=training.labels,
        validation=None,
        read_test=lambda: _examples(held_out),
    )


def _examples(indices: np.ndarray) -> ArrayExamples:
    bunch = _bunch()
    scaled = np.round(bunch.images[indices] * (255 / _BRIGHTEST))
    return ArrayExamples(
        images=scaled.astype(np.uint8)[..., np.newaxis],
        labels=bunch.target[indices].astype(np.int32),
    )


def _bunch() -> Any:
    from sklearn import datasets  # half a second

    return datasets.load_digits()
