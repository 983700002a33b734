"""Parts of data sets, counted by hand."""

import dataclasses

import numpy as np
import pytest

from trainers.augment.geometric import Augmentation
from trainers.data import dataset as datasets
from trainers.data.dataset import ArrayExamples, Dataset, Joined
from trainers.data.portion import portion


def examples(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    return ArrayExamples(images=images, labels=labels)


DATA = Dataset(
    name="counted",
    description="",
    class_names=("a", "b", "c"),
    channels=1,
    image_size=(1, 1),
    augmentation=Augmentation(max_shift=0, flip=False, min_area=1.0),
    train=examples((20, 60, 120)),
    validation=examples((10, 10, 20)),
)


def seen(split):
    return [(int(image[0, 0, 0]), label) for image, label in datasets.iterate(split)]


def counts(split):
    return np.bincount([label for _, label in seen(split)]).tolist()


def test_parts_are_alike_in_their_classes():
    part = portion(DATA, share=0.1, validation=8, seed=0)
    assert counts(part.train) == [2, 6, 12]
    assert counts(part.validation) == [2, 2, 4]
    assert set(seen(part.train)) <= set(seen(DATA.train))
    assert len(set(seen(part.train))) == 20
    again, other = (portion(DATA, share=0.1, seed=seed) for seed in (0, 1))
    assert seen(again.train) == seen(part.train)
    assert seen(other.train) != seen(part.train)


def test_all_of_it_is_the_same():
    part = portion(DATA, share=1.0, validation=1_000, seed=0)
    assert part.train is DATA.train
    assert part.validation is DATA.validation


def test_where_classes_are_unknown_images_are_drawn_at_random():
    joined = Joined(first=DATA.train, second=DATA.validation)
    part = portion(dataclasses.replace(DATA, train=joined), share=0.5, seed=0)
    assert len(part.train) == 120
    assert len(set(seen(part.train))) > 100


@pytest.mark.parametrize(
    ("share", "told"),
    [
        (0.0, "(0, 1]"),
        (1.01, "(0, 1]"),
        (float("nan"), "(0, 1]"),
        (0.01, "none of 'a'"),
    ],
)
def test_too_little_is_refused(share, told):
    with pytest.raises(ValueError, match="share") as caught:
        portion(DATA, share=share, seed=0)
    assert told in str(caught.value)
