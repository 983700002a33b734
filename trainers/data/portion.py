"""Part of a data set: fewer images to train on, fewer to measure on."""

import dataclasses

import numpy as np

from trainers.data import split
from trainers.data.dataset import ArrayExamples, Dataset, Examples, Subset, whole
from trainers.data.folder import FolderExamples


def portion(
    dataset: Dataset, *, share: float = 1.0, validation: int | None = None, seed: int
) -> Dataset:
    """Returns `dataset` with a share of its training images, and so many to measure on.

    Alike in their classes where those are known without decoding, else at random.

    Args:
      dataset: left as it is.
      share: of the training images.
      validation: images of the validation split; all of them where None, or where it
        has no more.
      seed: decides which.

    Raises:
      ValueError: if a share is not in (0, 1], nothing is left, or a class has no
        training image left.
    """
    if not 0 < share <= 1:
        raise ValueError(
            f"a share of the training images must be in (0, 1], got {share}"
        )
    number = max(1, round(share * len(dataset.train)))
    train = _some(dataset.train, number, seed)
    lost = _classes(dataset.train) - _classes(train)
    if lost:
        names = ", ".join(repr(dataset.class_names[i]) for i in sorted(lost)[:3])
        raise ValueError(
            f"every class must have an image to train on, and a share of {share:g}"
            f" leaves none of {names}; take a larger share"
        )
    held = dataset.validation
    if validation is not None:
        held = _some(held, min(validation, len(held)), seed)
    return dataclasses.replace(dataset, train=train, validation=held)


def _some(examples: Examples, number: int, seed: int) -> Examples:
    if number == len(examples):
        return examples
    labels = _labels(examples)
    if labels is None:
        _, rows = split.uniform(len(examples), number, seed=seed)
    else:
        _, rows = split.stratified(labels, number, seed=seed)
    return Subset(whole=examples, indices=rows)


def _labels(examples: Examples) -> np.ndarray | None:
    """The classes, where they are known without decoding images."""
    source, rows = whole(examples)
    if isinstance(source, ArrayExamples | FolderExamples):
        return np.asarray(source.labels)[rows]
    return None


def _classes(examples: Examples) -> set[int]:
    labels = _labels(examples)
    return set() if labels is None else set(np.unique(labels).tolist())
