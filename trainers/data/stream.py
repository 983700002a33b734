"""Large data sets: decoded, cropped and batched by grain, a little ahead of use."""

import dataclasses
import functools
import math
import os
import sys
from collections.abc import Iterator
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from trainers.augment import geometric
from trainers.data import loader, memory, pixels
from trainers.data.dataset import Dataset, Examples, Image
from trainers.data.framing import WHOLE, Framing

# The mean of so many images is off by at most a few hundredths of a standard
# deviation; decoding all of ImageNet to learn it exactly would take an hour.
_SAMPLED = 2_048

# Random crops as in arXiv:1409.4842, section 6; the number of tries is TensorFlow's.
_ASPECT = (3 / 4, 4 / 3)
_TRIES = 10

# Images that are decoded before they are needed: at least a batch, and otherwise up to
# this size. At 224 pixels in batches of 4,096 that are 7,133 images, whatever the
# number of threads. A batch that is put together comes on top: 0.6 GiB there, and once
# more while it is stacked.
READ_AHEAD_BYTES = 1 << 30
_MOST_BATCHES = 4


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class StreamLoader:
    """The `DataLoader` of a data set that does not fit in memory.

    `mean` and `std` are of 2,048 evenly spaced training images.
    """

    dataset: Dataset
    resolution: int
    mean: Float[np.ndarray, " channels"]
    std: Float[np.ndarray, " channels"]
    framing: Framing = WHOLE

    @classmethod
    def of(cls, dataset: Dataset, resolution: int, framing: Framing = WHOLE) -> Self:
        """Returns the loader of `dataset` at `resolution`.

        Raises:
          ValueError: if an image cannot be decoded.
        """
        num = len(dataset.train)
        rows = np.linspace(0, num - 1, min(num, _SAMPLED), dtype=int)
        sample = [framing.central(dataset.train[int(i)][0], resolution) for i in rows]
        mean, std = memory.moments(np.stack(sample))
        return cls(
            dataset=dataset,
            resolution=resolution,
            mean=mean,
            std=std,
            framing=framing,
        )

    def train_batches(
        self, *, batch_size: int, steps: int, seed: int, start: int = 0
    ) -> Iterator[tuple[loader.Images, loader.Labels]]:
        """As `DataLoader.train_batches`; crops take the place of shifts."""
        augmentation = self.dataset.augmentation
        crop = functools.partial(
            _random_crop,
            resolution=self.resolution,
            min_area=augmentation.min_area,
            framing=self.framing,
        )
        examples = (
            _source(self.dataset.train).seed(seed).shuffle().repeat().random_map(crop)
        )
        on_device = dataclasses.replace(augmentation, max_shift=0.0)
        key = jax.random.key(seed)
        wanted = examples[start * batch_size : steps * batch_size]
        batches = self._ahead(wanted, batch_size)
        for step, (images, labels) in enumerate(batches, start):
            images = _train_images(
                images, *self._standardisation(), step, key, on_device
            )
            yield images, jnp.asarray(labels)

    def eval_batches(
        self, *, batch_size: int
    ) -> Iterator[tuple[loader.Images, loader.Labels, loader.Mask]]:
        """As `DataLoader.eval_batches`: the central square of each image."""
        examples = _source(self.dataset.validation).map(
            functools.partial(
                _central, resolution=self.resolution, framing=self.framing
            )
        )
        for images, labels in self._ahead(examples, batch_size):
            padding = batch_size - len(labels)
            padded = np.pad(images, ((0, padding), (0, 0), (0, 0), (0, 0)))
            yield (
                _standardise(padded, *self._standardisation()),
                jnp.asarray(np.pad(labels, (0, padding))),
                jnp.arange(batch_size) < len(labels),
            )

    def _ahead(
        self, examples: Any, batch_size: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields batches of images that threads decode one by one, in order."""
        import grain.python as grain

        image_bytes = self.resolution**2 * self.dataset.channels
        options = grain.ReadOptions(
            num_threads=_num_cores(),
            prefetch_buffer_size=images_ahead(batch_size, image_bytes),
        )
        return iter(examples.to_iter_dataset(options).batch(batch_size))

    def _standardisation(self) -> tuple[np.ndarray, np.ndarray]:
        return self.mean.astype(np.float32), self.std.astype(np.float32)


def _source(examples: Examples) -> Any:
    import grain.python as grain  # half a second, and only for large data

    return grain.MapDataset.source(examples)


def images_ahead(batch_size: int, image_bytes: int) -> int:
    """Returns how many images of `image_bytes` to decode before they are needed.

    >>> images_ahead(4096, 224 * 224 * 3)  # 1 GiB
    7133
    >>> images_ahead(4096, 528 * 528 * 3)  # a batch, which is 3.2 GiB
    4096
    >>> images_ahead(128, 32 * 32 * 3)  # four batches are enough
    512
    """
    most = min(READ_AHEAD_BYTES // image_bytes, _MOST_BATCHES * batch_size)
    return max(batch_size, most)


def _num_cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))  # a worker is pinned to some
    return os.cpu_count() or 1


def _central(
    example: tuple[Image, int], resolution: int, framing: Framing
) -> tuple[np.ndarray, np.int32]:
    image, label = example
    return framing.central(image, resolution), np.int32(label)


def _random_crop(
    example: tuple[Image, int],
    rng: np.random.Generator,
    *,
    resolution: int,
    min_area: float,
    framing: Framing,
) -> tuple[np.ndarray, np.int32]:
    if min_area == 1:
        return _central(example, resolution, framing)
    image, label = example
    height, width, _ = image.shape
    box = random_box(height, width, rng, min_area=min_area)
    box = framing.box(height, width) if box is None else box
    return framing.resize(image, resolution, box), np.int32(label)


def random_box(
    height: int, width: int, rng: np.random.Generator, *, min_area: float
) -> pixels.Box | None:
    """Returns a random box inside an image, of `min_area` to all of its area.

    Its area is uniform, its aspect ratio is 3/4 to 4/3, uniform in the logarithm.
    None where ten tries find none that fits.
    """
    for _ in range(_TRIES):
        area = height * width * rng.uniform(min_area, 1)
        aspect = math.exp(rng.uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1])))
        box_width = max(1, round(math.sqrt(area * aspect)))
        box_height = max(1, round(math.sqrt(area / aspect)))
        if box_width <= width and box_height <= height:
            left = int(rng.integers(width - box_width + 1))
            upper = int(rng.integers(height - box_height + 1))
            return left, upper, left + box_width, upper + box_height
    return None


@jax.jit
def _standardise(images: Array, mean: Array, std: Array) -> Array:
    return (images.astype(jnp.float32) - mean) / std


@functools.partial(jax.jit, static_argnames="augmentation")
def _train_images(
    images: Array,
    mean: Array,
    std: Array,
    step: int,
    key: PRNGKeyArray,
    augmentation: geometric.Augmentation,
) -> Array:
    standardised = _standardise(images, mean, std)
    return geometric.apply(jax.random.fold_in(key, step), standardised, augmentation)
