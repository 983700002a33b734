"""Fitting an architecture, a data set and a budget together, for one training run."""

import dataclasses
from typing import Literal

import numpy as np
from pydantic import ValidationError

from search_space.spec import ArchSpec, explain
from trainers.data import catalog
from trainers.data.dataset import Dataset, Examples, Joined, Subset
from trainers.recipes import TrainingConfig

# The total stride of most networks; of a smaller image nothing would be left.
_LEAST_RESOLUTION = 32


def resolution_of(
    spec: ArchSpec, dataset: Dataset, asked: int | Literal["architecture", "data"]
) -> tuple[int, str]:
    """Returns the side in pixels to train at, and why it is that, in words."""
    own = f"the architecture's own are {spec.resolution}"
    if isinstance(asked, int):
        return asked, f"as asked for; {own}"
    if asked == "architecture":
        return spec.resolution, "the architecture's"
    if dataset.image_size is None:
        return spec.resolution, "the architecture's, for images of various sizes"
    height, width = dataset.image_size
    images = f"the images have {height}x{width}"
    if (side := max(min(height, width), _LEAST_RESOLUTION)) >= spec.resolution:
        return spec.resolution, f"the architecture's; {images}"
    return side, f"{images}; {own} (--resolution architecture)"


def as_trained(spec: ArchSpec, dataset: Dataset, resolution: int) -> ArchSpec:
    """Returns `spec` for the data set's images and classes, at `resolution`.

    Raises:
      ValueError: if it strides further than the resolution reaches. One line.
    """
    try:
        return dataclasses.replace(
            spec,
            resolution=resolution,
            in_channels=dataset.channels,
            num_classes=dataset.num_classes,
        )
    except ValidationError as error:
        raise ValueError(f"--resolution: {explain(error)}") from None


def joined(dataset: Dataset) -> Dataset:
    """Returns the data set with its validation images among those to train on."""
    nothing = Subset(whole=dataset.validation, indices=np.empty(0, int))
    whole = Joined(first=dataset.train, second=dataset.validation)
    return dataclasses.replace(dataset, train=whole, validation=nothing)


def test_split(name: str, data_dir: str | None) -> tuple[Examples | None, str | None]:
    """Returns the test split of the data set called `name`, or why there is none."""
    try:
        return catalog.load_test(name, data_dir=data_dir), None
    except ValueError as error:
        return None, str(error)


def about_warmup(config: TrainingConfig) -> str | None:
    """Returns what is odd about the warm-up, after its name; None if nothing is."""
    if config.epochs > config.warmup_epochs:
        return None
    return (
        f"of {config.warmup_epochs:g} epochs takes all {config.epochs:g}, so the"
        " learning rate rises to the end; give --warmup-epochs, or more --epochs"
    )
