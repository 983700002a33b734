"""Handwritten digits from scikit-learn's wheel: 1,797 grey images of 8x8 pixels.

They are the test half of https://archive.ics.uci.edu/dataset/80; scikit-learn has no
split of its own, so a sixth is set aside as the test split, the same one for every
seed.

The file is read without importing scikit-learn, which takes two seconds of CPU in
every process. It is `sklearn.datasets.load_digits` in a test.
"""

import importlib.util
import pathlib

import numpy as np
from jaxtyping import Int

from trainers.augment import geometric
from trainers.data import split
from trainers.data.dataset import ArrayExamples, DataSource

_SIDE = 8
_BRIGHTEST = 16  # pixels count the ink in a 4x4 block of the scan, 0 to 16
_NUM_TEST = 300


def read() -> DataSource:
    """Returns the data set: 1,497 examples for training, 300 set aside for the test.

    Raises:
      ValueError: if scikit-learn does not have the file where it had it.
    """
    table = _table()
    kept, held_out = split.stratified(table[:, -1], _NUM_TEST, seed=0)
    training = _examples(table[kept])
    return DataSource(
        description="digits: 1,797 handwritten digits, 8x8 grey pixels, 10 classes,"
        " from inside scikit-learn",
        class_names=tuple("0123456789"),
        channels=1,
        image_size=(_SIDE, _SIDE),
        # Shifts slow down learning in the few hundred steps that a child gets.
        augmentation=geometric.NONE,
        training=training,
        labels=training.labels,
        validation=None,
        read_test=lambda: _examples(table[held_out]),
    )


def _examples(rows: Int[np.ndarray, "num 65"]) -> ArrayExamples:
    images = rows[:, :-1].reshape(-1, _SIDE, _SIDE, 1)
    return ArrayExamples(
        images=np.round(images * (255 / _BRIGHTEST)).astype(np.uint8),
        labels=rows[:, -1],
    )


def _table() -> Int[np.ndarray, "1797 65"]:
    """Returns a row for each image: 64 pixels, then the class."""
    package = importlib.util.find_spec("sklearn")
    folders = package.submodule_search_locations if package else None
    for folder in folders or ():
        path = pathlib.Path(folder, "datasets", "data", "digits.csv.gz")
        if path.is_file():
            return np.loadtxt(path, delimiter=",", dtype=np.int32)
    raise ValueError(
        "digits must be in scikit-learn's datasets/data/digits.csv.gz, which is not"
        " there; run pip install --force-reinstall scikit-learn"
    )
