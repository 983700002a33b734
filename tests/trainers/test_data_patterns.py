"""The generated patterns."""

import hashlib
import math

import numpy as np
import pytest

from trainers import baselines
from trainers.data import catalog, patterns

# The light part of a tile, by hand.
AREAS = {
    "stripes": 1 / 2,
    "checks": 1 / 2,
    "dots": math.pi * 0.38**2,
    "rings": math.pi * (0.47**2 - 0.24**2),
    "crosses": 2 * 0.84 * 0.28 - 0.28**2,
    "bricks": (1 - 2 * 0.13) * (1 - 0.13),
    "zigzags": 1 / 2,
    "triangles": 1 / 2,
    "grids": 1 - 0.75**2,
    "scales": math.pi * (0.48**2 - 0.24**2),
}


@pytest.fixture(scope="module")
def source():
    return patterns.read()


def test_every_class_shows_its_figure(source):
    """The light share of the images is the area of the figure."""
    images = source.training.images[..., 0].astype(float)
    middle = (images.max((1, 2)) + images.min((1, 2))) / 2
    light = (images > middle[:, None, None]).mean((1, 2))
    assert tuple(source.class_names) == tuple(AREAS)
    for label, area in enumerate(AREAS.values()):
        assert light[source.labels == label].mean() == pytest.approx(area, abs=0.02)


def test_balanced_and_apart(source):
    test = catalog.load_test("patterns")
    assert np.bincount(source.labels).tolist() == [800] * 10
    assert np.bincount(test.labels).tolist() == [200] * 10
    images = [*source.training.images, *test.images]
    assert len({image.tobytes() for image in images}) == 10_000


def test_neither_grey_nor_place_tells_the_class(source):
    """Per class, the mean of 800 images: within 6 standard errors of all images'.

    The odds that one of 10 classes is off by chance are below 1e-7; of 10,240 means of
    a pixel, below 1e-4.
    """
    images = source.training.images[..., 0].astype(float)
    values = np.column_stack([images.mean((1, 2)), images.reshape(8_000, -1)])
    for label in range(10):
        drawn = values[source.labels == label]
        errors = drawn.std(0) / math.sqrt(len(drawn))
        assert (abs(drawn.mean(0) - values.mean(0)) < 6 * errors).all()


def test_a_linear_model_is_of_little_use():
    found = baselines.measure(catalog.load("patterns", seed=0))
    assert found.majority.accuracy == pytest.approx(0.1, abs=0.001)
    assert 0.1 < found.linear.accuracy < 0.25
    assert (found.num_train, found.num_validation) == (6_667, 1_333)


def test_the_same_everywhere(source):
    """Other pixels would be other data: runs could not be compared or resumed."""
    digest = hashlib.sha256(source.training.images.tobytes())
    digest.update(source.labels.astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == "5ac80dd431fc31bc"
