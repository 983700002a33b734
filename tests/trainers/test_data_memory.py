"""Prepared arrays and the batches made of them."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import datasets as sklearn_datasets

from trainers.augment import geometric
from trainers.data import catalog, loader, memory, pixels
from trainers.data.dataset import ArrayExamples, Dataset


def small_dataset(*, num_train, num_validation=1, channels=1, seed=0):
    """Noise; the label of an example is its row modulo 256."""
    rng = np.random.default_rng(seed)

    def examples(num):
        return ArrayExamples(
            images=rng.integers(0, 256, (num, 4, 4, channels), np.uint8),
            labels=np.arange(num),
        )

    return Dataset(
        name="noise",
        description="noise",
        class_names=[str(i) for i in range(max(num_train, num_validation))],
        channels=channels,
        image_size=(4, 4),
        augmentation=geometric.NONE,
        train=examples(num_train),
        validation=examples(num_validation),
    )


def everything(examples):
    return [(image.tobytes(), label) for image, label in examples]


def test_digits_splits_are_those_of_scikit_learn_each_example_once():
    bunch = sklearn_datasets.load_digits()
    want = [
        (image.astype(int).tobytes(), label)
        for image, label in zip(bunch.images, bunch.target, strict=True)
    ]
    dataset = catalog.load("digits", seed=1)
    got = [
        (np.round(image[..., 0] * (16 / 255)).astype(int).tobytes(), label)
        for split in (dataset.train, dataset.validation, catalog.load_test("digits"))
        for image, label in split
    ]
    assert sorted(got) == sorted(want)
    assert dataset.num_examples == {"train": 998, "validation": 499}


def test_digits_test_split_is_the_same_for_every_seed_and_never_validation():
    test = set(everything(catalog.load_test("digits")))
    validation = [
        everything(catalog.load("digits", seed=s).validation) for s in (0, 1, 0)
    ]
    assert validation[0] == validation[2] != validation[1]
    bunch = sklearn_datasets.load_digits()
    assert len({image.tobytes() for image in bunch.images}) == len(bunch.images)
    assert not test & set(itertools.chain(*validation))


def test_standardised_by_the_training_split():
    prepared = memory.prepare(catalog.load("digits", seed=0), 8)
    train = np.asarray(prepared["train"].images, np.float64)
    assert train.mean() == pytest.approx(0, abs=1e-5)
    assert train.std() == pytest.approx(1, abs=1e-5)
    raw = np.stack([image for image, _ in catalog.load("digits", seed=0).train])
    other = np.stack([image for image, _ in catalog.load("digits", seed=0).validation])
    np.testing.assert_allclose(
        prepared["validation"].images,
        (other - raw.mean(dtype=float)) / raw.std(dtype=float),
        atol=1e-5,
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_moments_by_hand(dtype):
    """0, 10, 10, 20 have mean 10 and variance 50; a constant is only centred."""
    images = np.full((4, 1, 1, 2), 7, dtype)
    images[:, 0, 0, 0] = [0, 10, 10, 20]
    mean, std = memory.moments(images)
    np.testing.assert_allclose(mean, [10, 7], rtol=1e-12)
    np.testing.assert_allclose(std, [50**0.5, 1], rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_pixels_that_are_all_alike_are_refused(dtype):
    with pytest.raises(ValueError, match=r"must differ in some pixel.* of 3 are 7"):
        memory.moments(np.full((3, 2, 2, 1), 7.1, dtype))


def test_one_fine_picture_among_coarse_ones_keeps_its_fractions():
    """Eight bits are scaled as sixteen are; standardised, they are told apart."""
    shades = [np.full((4, 4, 1), 10, np.uint8), np.full((4, 4, 1), 10.5, np.float32)]
    data = dataclasses.replace(
        small_dataset(num_train=2),
        train=[(image, 0) for image in shades],
        validation=[(shades[1], 0)],
    )
    prepared = memory.prepare(data, 4)
    got = np.asarray(prepared["train"].images)[:, 0, 0, 0]
    np.testing.assert_allclose(got, [-1, 1], atol=1e-5)
    np.testing.assert_allclose(prepared["validation"].images, 1, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("size", "resolution"), [(8, 19), (23, 9), (8, 8)])
def test_resize_agrees_with_jax(channels, size, resolution):
    image = np.random.default_rng(0).integers(0, 256, (size, size, channels), np.uint8)
    want = jax.image.resize(
        image.astype(np.float32), (resolution, resolution, channels), "bilinear"
    )
    got = pixels.resize(image, resolution, pixels.central_square(size, size))
    # Pillow rounds to whole levels after each of its two passes.
    np.testing.assert_allclose(got, want, atol=1.01)


def test_oblong_images_lose_their_ends():
    image = np.zeros((2, 6, 1), np.uint8)
    image[:, 2:4] = [[[10], [20]], [[30], [40]]]
    got = pixels.resize(image, 2, pixels.central_square(2, 6))
    assert got[..., 0].tolist() == [[10, 20], [30, 40]]


@given(
    num=st.integers(1, 40),
    batch_size=st.integers(1, 50),
    steps=st.integers(0, 12),
    seed=st.integers(0, 2**32),
)
def test_every_epoch_is_a_permutation(num, batch_size, steps, seed):
    order = loader.training_order(num, batch_size=batch_size, steps=steps, seed=seed)
    assert order.shape == (steps, batch_size)
    flat = order.ravel().tolist()
    for start in range(0, len(flat), num):
        epoch = flat[start : start + num]
        assert len(set(epoch)) == len(epoch)
        assert set(epoch) <= set(range(num))


def test_every_epoch_is_in_an_order_of_its_own():
    """Two of three orders of 50 examples are alike once in 10^64 seeds."""
    orders = loader.training_order(50, batch_size=50, steps=3, seed=0)
    assert len({tuple(order) for order in orders.tolist()}) == 3


def test_train_batches_pair_images_with_their_labels():
    dataset = small_dataset(num_train=10, channels=3)
    source = memory.MemoryLoader.of(dataset, 4)
    raw = np.stack([image for image, _ in dataset.train]).astype(float)
    normal = (raw - raw.mean((0, 1, 2))) / raw.std((0, 1, 2))

    seen = []
    for images, labels in source.train_batches(batch_size=4, steps=5, seed=0):
        assert (images.dtype, labels.dtype) == (jnp.float32, jnp.int32)
        np.testing.assert_allclose(images, normal[labels], atol=1e-5)
        seen += labels.tolist()
    assert sorted(seen) == sorted([*range(10)] * 2)


@pytest.mark.parametrize(
    ("num", "batch_size"), [(1, 1), (1, 4), (8, 4), (9, 4), (3, 16)]
)
def test_eval_batches_show_each_example_once_in_order(num, batch_size):
    dataset = small_dataset(num_train=2, num_validation=num)
    batches = list(
        memory.MemoryLoader.of(dataset, 4).eval_batches(batch_size=batch_size)
    )
    assert {images.shape for images, _, _ in batches} == {(batch_size, 4, 4, 1)}
    shown = [label for _, labels, mask in batches for label in labels[mask].tolist()]
    assert shown == list(range(num))


def test_seed_decides_the_batches():
    source = memory.MemoryLoader.of(small_dataset(num_train=50), 4)

    def labels(seed):
        batches = source.train_batches(batch_size=25, steps=2, seed=seed)
        return np.concatenate([labels for _, labels in batches]).tolist()

    assert labels(1) == labels(1) != labels(2)
