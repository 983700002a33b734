"""The accuracies that need no network."""

import math

import numpy as np
import pytest

from trainers import baselines
from trainers.augment import geometric
from trainers.data import catalog
from trainers.data.dataset import ArrayExamples, Dataset


def dataset(train, validation, *, image_size, num_classes=2):
    return Dataset(
        name="made",
        description="made",
        class_names=[str(i) for i in range(num_classes)],
        channels=1,
        image_size=image_size,
        augmentation=geometric.NONE,
        train=train,
        validation=validation,
    )


def sided(labels, *, seed):
    """Class 0 is light on the left, class 1 on the right."""
    labels = np.array(labels)
    images = np.random.default_rng(seed).integers(0, 100, (len(labels), 4, 4, 1))
    images[labels == 0, :, :2] += 120
    images[labels == 1, :, 2:] += 120
    return ArrayExamples(images=images.astype(np.uint8), labels=labels)


def test_by_hand():
    found = baselines.measure(
        dataset(
            sided([0] * 30 + [1] * 20, seed=0),
            sided([0, 1, 1, 1], seed=1),
            image_size=(4, 4),
        )
    )
    assert found.majority.accuracy == 0.25  # class 0, once of four
    assert found.majority.error == pytest.approx(math.sqrt(0.25 * 0.75 / 3))
    assert (found.linear.accuracy, found.linear.error) == (1.0, 0.0)
    assert (found.num_train, found.num_validation, found.resolution) == (50, 4, 4)


def test_digits_against_the_normal_equations():
    """Ridge regression solved by hand; 95 of 100 is what linear models reach there."""
    digits = catalog.load("digits", seed=0)
    train, shown = (
        np.stack([image.ravel() for image, _ in split]).astype(float)
        for split in (digits.train, digits.validation)
    )
    labels, truth = (
        np.array([label for _, label in split])
        for split in (digits.train, digits.validation)
    )
    mean, std = train.mean(0), train.std(0)
    std[std == 0] = 1
    design = (train - mean) / std
    targets = np.where(labels[:, None] == np.arange(10), 1.0, -1.0)
    gram = design.T @ design + 0.1 * len(train) * np.eye(64)
    weights = np.linalg.solve(gram, design.T @ (targets - targets.mean(0)))
    scores = (shown - mean) / std @ weights + targets.mean(0)

    found = baselines.measure(digits)
    # Single precision may tip one image that lies between two classes.
    want = np.mean(scores.argmax(1) == truth)
    assert found.linear.accuracy == pytest.approx(want, abs=1.1 / len(truth))
    assert 0.92 < found.linear.accuracy < 0.98
    assert found.majority.accuracy < 0.11


class Counted:
    """Photographs of different sizes, in memory only one at a time."""

    def __init__(self, num):
        self.num = num
        self.read = []

    def __len__(self):
        return self.num

    def __getitem__(self, index):
        self.read.append(index)
        image = np.full((40 + index % 5, 50, 1), 10 + index % 3, np.uint8)
        image[:, : 25 * (1 + index % 2)] += 100
        return image, index % 2


def test_of_much_data_a_part_is_read_evenly():
    train, validation = Counted(4_001), Counted(30)
    found = baselines.measure(dataset(train, validation, image_size=None))
    assert found.num_train == len(train.read) == 2_000
    assert train.read[0] == 0
    assert train.read[-1] == 4_000
    assert set(np.diff(train.read)) == {2, 3}
    assert (found.num_validation, found.resolution) == (30, 32)
    assert found.linear.accuracy == 1.0


def test_a_single_class():
    alike = sided([1] * 5, seed=0)
    found = baselines.measure(dataset(alike, alike, image_size=(4, 4)))
    assert found.linear.accuracy == found.majority.accuracy == 1.0
