"""The stream against the arrays in memory, and the laws of random crops."""

import dataclasses
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.augment import geometric
from trainers.data import placement, stream
from trainers.data.dataset import ArrayExamples, Dataset
from trainers.data.memory import MemoryLoader
from trainers.data.stream import StreamLoader


@pytest.fixture
def noise():
    rng = np.random.default_rng(0)

    def examples(num):
        return ArrayExamples(
            images=rng.integers(0, 256, (num, 6, 6, 3), np.uint8), labels=np.arange(num)
        )

    return Dataset(
        name="noise",
        description="noise",
        class_names=[str(i) for i in range(20)],
        channels=3,
        image_size=(6, 6),
        augmentation=geometric.NONE,
        train=examples(20),
        validation=examples(7),
    )


def test_a_batch_of_coarse_and_fine_pictures_has_both(noise):
    """Grain stacks what it gets, whatever the first picture's type."""
    fine = [(np.full((6, 6, 3), 10.5, np.float32), 0)]
    mixed = [*noise.validation, *fine, *fine]
    data = dataclasses.replace(noise, train=mixed, validation=mixed)
    loaders = (MemoryLoader.of(data, 4), StreamLoader.of(data, 4))
    want, got = (
        np.concatenate([images for images, _, _ in f.eval_batches(batch_size=3)])
        for f in loaders
    )
    np.testing.assert_allclose(got, want, atol=1e-4)
    shade = (10.5 - loaders[1].mean) / loaders[1].std
    np.testing.assert_allclose(got[8, 0, 0], shade, atol=1e-4)


def test_evaluation_is_the_same_from_memory_and_from_the_stream(noise):
    loaders = (MemoryLoader.of(noise, 4), StreamLoader.of(noise, 4))
    batches = [list(loader.eval_batches(batch_size=3)) for loader in loaders]
    for in_memory, streamed in zip(*batches, strict=True):
        for want, got in zip(in_memory, streamed, strict=True):
            assert (got.dtype, got.shape) == (want.dtype, want.shape)
        mask = np.asarray(in_memory[2])
        np.testing.assert_array_equal(streamed[2], mask)
        np.testing.assert_array_equal(streamed[1][mask], in_memory[1][mask])
        np.testing.assert_allclose(streamed[0][mask], in_memory[0][mask], atol=1e-5)


def test_training_shows_each_example_once_an_epoch_in_a_new_order(noise):
    loader = StreamLoader.of(noise, 6)
    raw = np.stack([image for image, _ in noise.train]).astype(float)
    normal = (raw - raw.mean((0, 1, 2))) / raw.std((0, 1, 2))
    order = []
    for images, labels in loader.train_batches(batch_size=8, steps=5, seed=3):
        np.testing.assert_allclose(images, normal[labels], atol=1e-5)
        order += labels.tolist()
    first, second = order[:20], order[20:]
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second  # equal by chance with odds 1/20!


def test_seed_decides_the_order(noise):
    loader = StreamLoader.of(noise, 4)

    def run(seed):
        batches = loader.train_batches(batch_size=10, steps=2, seed=seed)
        return [label for _, labels in batches for label in labels.tolist()]

    assert run(0) == run(0) != run(1)  # equal by chance with odds 1/20!


def test_seed_decides_crops_and_flips(noise):
    loader = StreamLoader.of(
        dataclasses.replace(noise, augmentation=geometric.LIGHT), 4
    )

    def run(seed):
        batches = loader.train_batches(batch_size=10, steps=4, seed=seed)
        return np.concatenate([np.asarray(images).ravel() for images, _ in batches])

    np.testing.assert_array_equal(run(0), run(0))
    assert not np.array_equal(run(0), run(1))


@given(
    st.integers(1, 60), st.integers(1, 60), st.floats(0.01, 1), st.integers(0, 2**32)
)
def test_crops_lie_inside_with_the_area_and_shape_asked_for(height, width, area, seed):
    rng = np.random.default_rng(seed)
    box = stream.random_box(height, width, rng, min_area=area)
    if box is None:
        # Of a square, a try of at least half the area fails with odds of 0.26 at most,
        # and ten of them with odds of one in 700,000.
        assert height != width or area > 0.5
        return
    left, upper, right, lower = box
    assert 0 <= left < right <= width
    assert 0 <= upper < lower <= height
    # Rounding moves a side by up to half a pixel.
    wide, high = right - left, lower - upper
    assert (wide + 0.5) * (high + 0.5) >= area * height * width
    assert (wide + 0.5) / (high - 0.5) >= 3 / 4
    assert (wide - 0.5) / (high + 0.5) <= 4 / 3


def test_reading_ahead_stays_within_its_bytes(noise, monkeypatch):
    """Images that are decoded when one batch has been asked for."""
    decoded = []

    class Counting:
        def __init__(self, whole):
            self.whole = whole

        def __len__(self):
            return len(self.whole)

        def __getitem__(self, index):
            decoded.append(index)
            return self.whole[index]

    counted = dataclasses.replace(noise, train=Counting(noise.train))
    monkeypatch.setattr(stream, "READ_AHEAD_BYTES", 6 * 6 * 3 * 10)
    monkeypatch.setattr(stream, "_num_cores", lambda: 16)
    loader = StreamLoader.of(counted, 6)
    decoded.clear()
    batches = loader.train_batches(batch_size=4, steps=25, seed=0)
    next(batches)
    time.sleep(1.0)  # idle threads go on for as long as they may
    # A batch is given out, and ten images are ahead of it,
    # where two batches for each of 16 threads were all 25.
    assert 4 + 10 <= len(decoded) <= 4 + 10 + 1
    assert stream.images_ahead(4, 6 * 6 * 3) == 10
    assert len(list(batches)) == 24
    assert len(decoded) == 100


def test_what_is_read_ahead_of_the_papers_batch():
    """4,096 images of 224 pixels, three bytes each: 588 MiB a batch."""
    image = 224 * 224 * 3
    ahead = stream.images_ahead(4096, image)
    assert ahead * image <= 2**30 < (ahead + 1) * image
    assert ahead >= 4096
    for batch, side in ((4096, 600), (8192, 224)):  # at least a batch
        assert stream.images_ahead(batch, side * side * 3) == batch


def test_the_limit_decides_where_images_are(noise):
    size = 27 * 4 * 4 * 3 * 4  # images x height x width x channels x float32
    assert placement.prepared_bytes(noise, 4) == size
    assert isinstance(placement.data_loader(noise, 4, limit_bytes=size), MemoryLoader)
    assert isinstance(
        placement.data_loader(noise, 4, limit_bytes=size - 1), StreamLoader
    )
