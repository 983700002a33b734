"""A data set as the rest sees it: labelled images by split, and what they are."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int, UInt8

from trainers.augment.geometric import Augmentation

Image = (
    UInt8[np.ndarray, "height width channels"]
    | Float32[np.ndarray, "height width channels"]
)
"""Pixels from 0 to 255; float32 where a file held finer ones."""


@runtime_checkable
class Examples(Protocol):
    """Labelled images, read and decoded one at a time, by index."""

    def __len__(self) -> int:
        """Returns the number of examples."""
        ...

    def __getitem__(self, index: int) -> tuple[Image, int]:
        """Returns an image and its class.

        Raises:
          ValueError: if the image cannot be decoded.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ArrayExamples:
    """Images of one size, in memory; `labels` are class indices from 0."""

    images: UInt8[np.ndarray, "num height width channels"]
    labels: Int[np.ndarray, " num"]

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise ValueError(
                f"there must be one label per image, got {len(self.images):,} images"
                f" and {len(self.labels):,} labels"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image, int]:
        return self.images[index], int(self.labels[index])


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Subset:
    """The examples of `whole` at `indices`, in that order."""

    whole: Examples
    indices: Int[np.ndarray, " num"]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Image, int]:
        return self.whole[int(self.indices[index])]


def whole(examples: Examples) -> tuple[Examples, Int[np.ndarray, " num"]]:
    """Returns what `examples` are chosen from, and at which indices."""
    rows = np.arange(len(examples))
    while isinstance(examples, Subset):
        examples, rows = examples.whole, examples.indices[rows]
    return examples, rows


def labels_of(examples: Examples) -> Int[np.ndarray, " num"] | None:
    """Returns the classes of all examples; None where only decoding would tell."""
    source, rows = whole(examples)
    labels = getattr(source, "labels", None)
    return None if labels is None else labels[rows]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Joined:
    """The examples of `first`, then those of `second`."""

    first: Examples
    second: Examples

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __getitem__(self, index: int) -> tuple[Image, int]:
        if index < len(self.first):
            return self.first[index]
        return self.second[index - len(self.first)]


def iterate(examples: Examples) -> Iterator[tuple[Image, int]]:
    """Yields the examples in order."""
    for index in range(len(examples)):
        yield examples[index]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class DataSource:
    """Where a data set comes from, before a validation split is carved.

    Attributes:
      description: one line for the screen.
      class_names: in the order of the labels.
      channels: of every image.
      image_size: height and width in pixels, or None.
      augmentation: the light one that suits the data set.
      training: all training examples.
      labels: theirs, or None where only decoding the images would tell.
      validation: a validation split of the data set's own, or None.
      read_test: reads the test split, which nothing has touched before.
    """

    description: str
    class_names: Sequence[str]
    channels: int
    image_size: tuple[int, int] | None
    augmentation: Augmentation
    training: Examples
    labels: Int[np.ndarray, " num"] | None
    validation: Examples | None
    read_test: Callable[[], Examples]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """The splits that a search may see. The test split is not among them.

    Two data sets are equal only if they are the same object.

    Attributes:
      name: what `catalog.load` was asked for.
      description: one line for the screen.
      class_names: in the order of the labels.
      channels: 1 (grey) or 3 (RGB), or what the data has.
      image_size: height and width in pixels; None where images differ in size.
      augmentation: the light one that suits the data set.
    """

    name: str
    description: str
    class_names: Sequence[str]
    channels: int
    image_size: tuple[int, int] | None
    augmentation: Augmentation
    train: Examples
    validation: Examples

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def num_examples(self) -> dict[str, int]:
        """Number of examples of each split."""
        return {"train": len(self.train), "validation": len(self.validation)}

    @property
    def chance(self) -> float:
        """The accuracy of always naming the largest class of the validation split.

        That of equal classes, where only decoding the images would tell.
        """
        labels = labels_of(self.validation)
        if labels is None:
            return 1.0 / self.num_classes
        return float(np.bincount(labels).max() / len(labels))
