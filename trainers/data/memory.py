"""Small data sets: prepared once, kept on the device, gathered there by index."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num, PRNGKeyArray

from trainers.augment import geometric
from trainers.data import dataset as datasets
from trainers.data import loader
from trainers.data.dataset import Dataset, Examples
from trainers.data.framing import WHOLE, Framing

_LEVELS = 256
_CHUNK = 1_000  # images; `np.bincount` needs eight bytes for each of their pixels


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A split as arrays: standardised images and their classes.

    `mean` and `std` are what standardised them, of pixels from 0 to 255.
    """

    images: Float[Array, "num resolution resolution channels"]
    labels: Int[Array, " num"]
    mean: Float[np.ndarray, " channels"]
    std: Float[np.ndarray, " channels"]


def prepare(
    dataset: Dataset, resolution: int, framing: Framing = WHOLE
) -> dict[str, Prepared]:
    """Returns `train` and `validation`, resized to `resolution` and standardised.

    Both splits lose what `framing` cuts off: of images that are not square, the longer
    ends at least. Mean and standard deviation
    are those of the training split's channels after resizing; a channel that is
    constant there is only centred.

    Raises:
      ValueError: if an image cannot be decoded, or all training pixels are alike.
    """
    train, labels = _resized(dataset.train, resolution, dataset.channels, framing)
    mean, std = moments(train)
    validation, validation_labels = _resized(
        dataset.validation, resolution, dataset.channels, framing
    )
    return {
        "train": _standardised(train, labels, mean, std),
        "validation": _standardised(validation, validation_labels, mean, std),
    }


def moments(
    images: Num[np.ndarray, "num height width channels"],
) -> tuple[Float[np.ndarray, " channels"], Float[np.ndarray, " channels"]]:
    """Returns mean and standard deviation of each channel of uint8 or float32 images.

    A channel that is constant has 1 in place of 0, so that it is only centred.

    Raises:
      ValueError: if every channel is constant: there is nothing to learn from.
    """
    exact = _moments_of_levels if images.dtype == np.uint8 else _moments_of_floats
    mean, variance = exact(images)
    if not variance.any():
        values = ", ".join(f"{value:g}" for value in mean)
        raise ValueError(
            "training images must differ in some pixel, and all pixels of"
            f" {len(images):,} are {values}; look at the files, which may hold values"
            " in another range than their format's"
        )
    return mean, np.sqrt(np.where(variance > 0, variance, 1.0))


def _moments_of_levels(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From histograms: exact, and without a copy of all images as floats."""
    levels = np.arange(_LEVELS)
    counts = np.zeros((images.shape[-1], _LEVELS), np.int64)
    for start in range(0, len(images), _CHUNK):
        chunk = images[start : start + _CHUNK]
        for channel, count in enumerate(counts):
            count += np.bincount(chunk[..., channel].ravel(), minlength=_LEVELS)
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ levels
    return mean, np.sum(shares * (levels - mean[:, np.newaxis]) ** 2, axis=1)


def _moments_of_floats(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In two passes, in float64, a chunk at a time."""
    chunks = [images[i : i + _CHUNK] for i in range(0, len(images), _CHUNK)]
    num, axes = images[..., 0].size, (0, 1, 2)
    # The first pixel is taken off, so that equal ones have a variance of exactly 0.
    base = images[0, 0, 0].astype(np.float64)
    mean = sum((chunk - base).sum(axes) for chunk in chunks) / num
    variance = sum(np.square(chunk - base - mean).sum(axes) for chunk in chunks) / num
    return base + mean, np.asarray(variance)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class MemoryLoader:
    """The `DataLoader` of prepared arrays. A step costs one call that does not wait."""

    train: Prepared
    validation: Prepared
    augmentation: geometric.Augmentation

    @classmethod
    def of(cls, dataset: Dataset, resolution: int, framing: Framing = WHOLE) -> Self:
        """Returns the loader of `dataset` at `resolution`; raises as `prepare`."""
        prepared = prepare(dataset, resolution, framing)
        return cls(**prepared, augmentation=dataset.augmentation)

    @property
    def mean(self) -> Float[np.ndarray, " channels"]:
        """As `DataLoader.mean`."""
        return self.train.mean

    @property
    def std(self) -> Float[np.ndarray, " channels"]:
        """As `DataLoader.std`."""
        return self.train.std

    def train_batches(
        self, *, batch_size: int, steps: int, seed: int, start: int = 0
    ) -> Iterator[tuple[loader.Images, loader.Labels]]:
        """As `DataLoader.train_batches`."""
        order = jnp.asarray(
            loader.training_order(
                len(self.train.labels), batch_size=batch_size, steps=steps, seed=seed
            )
        )
        key = jax.random.key(seed)
        for step in range(start, steps):
            yield _train_batch(
                self.train.images,
                self.train.labels,
                order,
                step,
                key,
                self.augmentation,
            )

    def eval_batches(
        self, *, batch_size: int
    ) -> Iterator[tuple[loader.Images, loader.Labels, loader.Mask]]:
        """As `DataLoader.eval_batches`."""
        order, mask = map(
            jnp.asarray,
            loader.eval_order(len(self.validation.labels), batch_size=batch_size),
        )
        for step in range(len(order)):
            yield _eval_batch(
                self.validation.images, self.validation.labels, order, mask, step
            )


def _resized(
    examples: Examples, resolution: int, channels: int, framing: Framing
) -> tuple[np.ndarray, np.ndarray]:
    images = np.empty((len(examples), resolution, resolution, channels), np.uint8)
    labels = np.empty(len(examples), np.int32)
    for i, (image, label) in enumerate(datasets.iterate(examples)):
        resized = framing.central(image, resolution)
        if resized.dtype != images.dtype:  # the first of more than 8 bits
            images = images.astype(np.float32, copy=False)
        images[i] = resized
        labels[i] = label
    return images, labels


def _standardised(
    images: np.ndarray, labels: np.ndarray, mean: np.ndarray, std: np.ndarray
) -> Prepared:
    scale, offset = np.float32(1 / std), np.float32(-mean / std)
    standardised = images * scale  # float32, of uint8 as well
    standardised += offset  # in place: this is most of the memory there is
    return Prepared(
        images=jnp.asarray(standardised),
        labels=jnp.asarray(labels),
        mean=mean,
        std=std,
    )


@functools.partial(jax.jit, static_argnames="augmentation")
def _train_batch(
    images: Array,
    labels: Array,
    order: Array,
    step: int,
    key: PRNGKeyArray,
    augmentation: geometric.Augmentation,
) -> tuple[Array, Array]:
    rows = order[step]
    batch = geometric.apply(
        jax.random.fold_in(key, step), _rows(images, rows), augmentation
    )
    return batch, _rows(labels, rows)


@jax.jit
def _eval_batch(
    images: Array, labels: Array, order: Array, mask: Array, step: int
) -> tuple[Array, Array, Array]:
    rows = order[step]
    return _rows(images, rows), _rows(labels, rows), mask[step]


def _rows(values: Array, rows: Array) -> Array:
    # "clip" saves the comparison with the bounds; the order is within them.
    return jnp.take(values, rows, axis=0, mode="clip")
