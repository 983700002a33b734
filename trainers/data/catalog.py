"""Data sets by name.

`load` gives what a search may see. The test split has a call of its own, `load_test`,
so that nothing that calls `load` alone can have read it. To measure a final network:

    dataset = catalog.load("digits", seed=0)
    final = dataclasses.replace(dataset, validation=catalog.load_test("digits"))
"""

from trainers import augment
from trainers.data import digits, split
from trainers.data.dataset import ArrayExamples, Dataset, Examples, Subset

NAMES = ("digits",)


def load(name: str, *, seed: int, validation: int | None = None) -> Dataset:
    """Returns the data set called `name`, its validation split carved by `seed`.

    `validation` is how many training examples to hold out; by default
    `split.default_size` of them. Where labels are in memory the classes are held out
    in proportion.

    Raises:
      ValueError: if there is no such data set, or `validation` does not leave both
        splits something.
    """
    if name == "digits":
        train, held_out = _carve(digits.training(), validation, seed)
        return Dataset(
            name=name,
            description="digits: 1,797 handwritten digits of 8x8 grey pixels,"
            " 10 classes, inside scikit-learn",
            class_names=digits.CLASS_NAMES,
            channels=1,
            image_size=(8, 8),
            augmentation=augment.NONE,
            train=train,
            validation=held_out,
        )
    raise ValueError(f"unknown data set {name!r}; there are {', '.join(NAMES)}")


def load_test(name: str) -> Examples:
    """Returns the test split of the data set called `name`.

    Raises:
      ValueError: if there is no such data set.
    """
    if name == "digits":
        return digits.test()
    raise ValueError(f"unknown data set {name!r}; there are {', '.join(NAMES)}")


def _carve(
    examples: ArrayExamples, validation: int | None, seed: int
) -> tuple[Examples, Examples]:
    held_out = split.default_size(len(examples)) if validation is None else validation
    train_rows, held_out_rows = split.stratified(examples.labels, held_out, seed=seed)
    return (
        Subset(whole=examples, indices=train_rows),
        Subset(whole=examples, indices=held_out_rows),
    )
