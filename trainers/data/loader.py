"""Batches for training and evaluation, from memory or from a stream.

Both kinds look the same to a training loop: `DataLoader`.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from jaxtyping import Array, Bool, Float, Int

Images = Float[Array, "batch resolution resolution channels"]
Labels = Int[Array, " batch"]
Mask = Bool[Array, " batch"]


class DataLoader(Protocol):
    """A data set at one resolution, standardised, in batches on the device.

    Images are float32 with mean 0 and standard deviation 1 in each channel over the
    training split; labels are int32.
    """

    @property
    def mean(self) -> Float[np.ndarray, " channels"]:
        """Mean of the training pixels, from 0 to 255, that was subtracted."""
        ...

    @property
    def std(self) -> Float[np.ndarray, " channels"]:
        """Their standard deviation, that was divided by."""
        ...

    def train_batches(
        self, *, batch_size: int, steps: int, seed: int, start: int = 0
    ) -> Iterator[tuple[Images, Labels]]:
        """Yields `steps` full batches of augmented training images.

        Every epoch is a fresh permutation by `seed`; a batch may span two epochs, so
        no example is left out. The same arguments give the same batches, and with
        `start` those from that step on. Nothing waits for the device.
        """
        ...

    def eval_batches(self, *, batch_size: int) -> Iterator[tuple[Images, Labels, Mask]]:
        """Yields the validation split once, in order, unaugmented.

        All batches have `batch_size` rows, so one compiled function serves; the last
        is padded, and its mask is False where a row is padding.
        """
        ...


def training_order(
    num: int, *, batch_size: int, steps: int, seed: int
) -> Int[np.ndarray, "steps batch_size"]:
    """Returns the index of each example of each step.

    Every `num` consecutive indices, from the start, are a permutation.
    """
    generator = np.random.default_rng(seed)
    epochs = -(-steps * batch_size // num)
    order = [generator.permutation(num) for _ in range(epochs)]
    flat = np.concatenate(order or [np.empty(0, int)])[: steps * batch_size]
    return flat.astype(np.int32).reshape(steps, batch_size)


def eval_order(
    num: int, *, batch_size: int
) -> tuple[Int[np.ndarray, "steps batch_size"], Bool[np.ndarray, "steps batch_size"]]:
    """Returns indices in order, padded with index 0 to whole batches, and the mask.

    >>> eval_order(3, batch_size=2)[0].tolist()
    [[0, 1], [2, 0]]
    >>> eval_order(3, batch_size=2)[1].tolist()
    [[True, True], [True, False]]
    """
    padded = np.arange(-(-num // batch_size) * batch_size, dtype=np.int32)
    mask = padded < num
    return (
        np.where(mask, padded, 0).reshape(-1, batch_size),
        mask.reshape(-1, batch_size),
    )
