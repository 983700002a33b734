"""Evaluation crops and interpolation, from both kinds of loader."""

import dataclasses

import jax
import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.augment import geometric
from trainers.data import stream
from trainers.data.dataset import ArrayExamples, Dataset
from trainers.data.framing import WHOLE, Framing
from trainers.data.memory import MemoryLoader
from trainers.data.stream import StreamLoader
from trainers.deploy import saved

EFFICIENTNET = Framing(crop=0.875, interpolation="bicubic")


@given(st.integers(64, 2000), st.integers(64, 2000))
def test_the_crop_is_efficientnets_to_within_a_pixel(height, width):
    """Its code at 224: 224 / (224 + 32) of the shorter side, in whole pixels."""
    size = int(224 / (224 + 32) * min(height, width))
    left, upper, right, lower = EFFICIENTNET.box(height, width)
    assert right - left == lower - upper == pytest.approx(size, abs=1)
    assert left == pytest.approx((width - size + 1) // 2, abs=1)
    assert upper == pytest.approx((height - size + 1) // 2, abs=1)


@pytest.mark.parametrize("crop", [0.0, -0.5, 1.01, float("nan")])
def test_a_crop_that_is_none_is_refused(crop):
    with pytest.raises(ValueError, match="crop must be above 0 and at most 1"):
        Framing(crop=crop)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("side", "resolution"), [(32, 75), (96, 20)])
def test_bicubic_is_jaxs_antialiased_one(channels, side, resolution):
    rng = np.random.default_rng(0)
    # No overshoot leaves the range, where Pillow would cut it.
    image = rng.integers(100, 156, (side, side, channels), np.uint8)
    got = EFFICIENTNET.central(image, resolution)
    margin = side // 16  # an eighth is cropped
    want = jax.image.resize(
        image[margin:-margin, margin:-margin].astype(np.float32),
        (resolution, resolution, channels),
        "bicubic",
    )
    # Next to its border a box is resized with what lies outside; jax is not given that.
    inside = np.s_[6:-6, 6:-6]
    # Pillow rounds to whole levels after each of two passes, whose weights' sizes add
    # up to 1.3 at most.
    assert np.abs(got - want)[inside].max() <= 1.2


def ramp(height, width):
    """A picture whose pixels say where they are."""
    columns = np.broadcast_to(np.arange(width), (height, width))
    return columns.astype(np.uint8)[..., np.newaxis]


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)

    def examples(num):
        return ArrayExamples(
            images=rng.integers(0, 256, (num, 16, 24, 3), np.uint8),
            labels=np.arange(num),
        )

    return Dataset(
        name="noise",
        description="noise",
        class_names=[str(i) for i in range(20)],
        channels=3,
        image_size=(16, 24),
        augmentation=geometric.NONE,
        train=examples(20),
        validation=examples(7),
    )


def pillows(image):
    """What the recipe makes of a picture of 16x24, at 8 pixels: 14x14 of it."""
    bicubic, box = PIL.Image.Resampling.BICUBIC, (5, 1, 19, 15)
    return np.asarray(PIL.Image.fromarray(image).resize((8, 8), bicubic, box), float)


@pytest.mark.parametrize("kind", [MemoryLoader, StreamLoader])
def test_both_feeds_evaluate_the_crop_and_standardise_by_it(pictures, kind):
    loader = kind.of(pictures, 8, EFFICIENTNET)
    training = np.stack([pillows(image) for image, _ in pictures.train])
    np.testing.assert_allclose(loader.mean, training.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(loader.std, training.std((0, 1, 2)), rtol=1e-6)
    ((images, labels, mask),) = loader.eval_batches(batch_size=7)
    assert mask.all()
    want = np.stack([pillows(pictures.validation[int(i)][0]) for i in labels])
    np.testing.assert_allclose(images, (want - loader.mean) / loader.std, atol=1e-4)


def test_where_no_random_crop_fits_it_is_that_of_evaluation():
    """A strip has no box of 90 % of its area with an aspect of 3/4 to 4/3."""
    strip = ramp(8, 200)
    got, _ = stream._random_crop(
        (strip, 0),
        np.random.default_rng(0),
        resolution=7,
        min_area=0.9,
        framing=EFFICIENTNET,
    )
    # The middle 7 of 8 rows, and as many columns round the middle of 200.
    assert got[0, :, 0].tolist() == pytest.approx(list(range(96, 103)), abs=1)


def test_random_crops_are_resized_as_the_recipe_says():
    """Enlarged, an edge overshoots if cubic: beyond what is in the picture."""
    flat = np.full((40, 40, 1), 100, np.uint8)
    flat[:, 20:] = 150
    ranges = {}
    for interpolation in ("bilinear", "bicubic"):
        images = [
            stream._random_crop(
                (flat, 0),
                np.random.default_rng(seed),
                resolution=100,
                min_area=0.5,
                framing=Framing(interpolation=interpolation),
            )[0]
            for seed in range(8)
        ]
        ranges[interpolation] = (np.min(images), np.max(images))
    assert ranges["bilinear"] == (100, 150)
    assert ranges["bicubic"][0] < 99
    assert ranges["bicubic"][1] > 151


METADATA = {"mean": (1.0,), "std": (2.0,), "class_names": ("a", "b"), "weights": "none"}


def test_a_model_keeps_its_framing_and_older_ones_have_the_whole_square():
    metadata = saved.ModelMetadata(**METADATA, crop=0.875, interpolation="bicubic")
    assert metadata.framing == EFFICIENTNET
    written = dataclasses.asdict(metadata)
    assert (written["crop"], written["interpolation"]) == (0.875, "bicubic")
    assert saved.ModelMetadata(**METADATA).framing == WHOLE == Framing()
    with pytest.raises(ValueError, match="crop"):
        saved.ModelMetadata(**METADATA, crop=0.0)
    with pytest.raises(ValueError, match="interpolation"):
        saved.ModelMetadata(**METADATA, interpolation="nearest")
