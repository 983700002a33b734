"""Data sets by name.

`load` gives what a search may see. The test split has a call of its own, `load_test`,
so that nothing that calls `load` alone can have read it. To measure a final network:

    dataset = catalog.load("digits", seed=0)
    final = dataclasses.replace(dataset, validation=catalog.load_test("digits"))
"""

import difflib
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from search_space import references
from trainers.data import digits, folder, idx, patterns, pixels, split, tfds
from trainers.data.dataset import Dataset, DataSource, Examples, Subset
from trainers.runtime import optional

# Those that come with the package, or inside one that it needs.
_EMBEDDED = {"digits": digits.read, "patterns": patterns.read}

_KINDS = (
    "digits, patterns, fashion_mnist, an image classification set of TFDS"
    " (https://www.tensorflow.org/datasets/catalog), or the path of a folder of class"
    " folders"
)


_LISTED = 3  # classes in a message
_LONGEST = 900  # of a description; a search's journal keeps a line of up to 1,000


def load(
    name: str,
    *,
    seed: int,
    validation: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
) -> Dataset:
    """Returns the data set called `name`, its validation split carved by `seed`.

    Args:
      name: `digits`; `patterns`; `fashion_mnist`; a set of TFDS, such as `cifar10` or
        `name/config:version`; or the path of a folder of class folders (`folder.py`).
      seed: decides which training examples validate.
      validation: how many those are; by default a validation split that a folder
        brings along, else `split.default_size`. In proportion to the classes, except
        from TFDS, where only decoding would tell the classes: there at random.
      data_dir: where TFDS prepared its sets, or where Fashion-MNIST's idx files are;
        by default where TFDS and Debian put them.
      download: whether TFDS may fetch and prepare what is missing.

    Raises:
      ValueError: if there is no such data set, its files are not there or not whole,
        or `validation` does not leave both splits something.
    """
    origin = _open(
        name, data_dir=data_dir, download=download, carve=validation is not None
    )
    train, held_out, remark = _carve(origin, validation, seed)
    return Dataset(
        name=name,
        description=_shortened(origin.description + remark),
        class_names=origin.class_names,
        channels=origin.channels,
        image_size=origin.image_size,
        augmentation=origin.augmentation,
        train=train,
        validation=held_out,
    )


def load_test(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
) -> Examples:
    """Returns the test split of the data set called `name`; arguments as `load`'s.

    Raises:
      ValueError: as `load`, and if the data set has no labelled test split.
    """
    return _open(name, data_dir=data_dir, download=download, carve=True).read_test()


def _open(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None,
    download: bool,
    carve: bool,
) -> DataSource:
    if name in _EMBEDDED:
        return _EMBEDDED[name]()
    if references.is_reference(name):
        return _own(name)
    path = _expanded(name)
    if os.sep in name and path.is_dir():
        return folder.read(path, carve=carve)
    given = None if data_dir is None else _expanded(data_dir)
    if name == "fashion_mnist" and idx.has_files(files := given or idx.DEBIAN_DIR):
        return idx.fashion_mnist(files)
    prepared = given or tfds.default_dir()
    if not tfds.is_prepared(name, prepared):
        # A name of TFDS wins over a folder of the same name, like digits does.
        if not tfds.is_stock(name):
            if name and path.is_dir():
                return folder.read(path, carve=carve)
            raise ValueError(_unknown(name))
        if not download:
            raise ValueError(_missing(name, prepared, is_folder=path.is_dir()))
        tfds.prepare(name, data_dir=prepared)
    return tfds.read(name, data_dir=prepared)


def _own(name: str) -> DataSource:
    """Returns the data set that a user's function makes.

    Raises:
      ValueError: if it is no function, or makes something else.
    """
    make = references.load(name, "data set")
    found = make() if callable(make) else make
    if not isinstance(found, DataSource):
        raise ValueError(
            f"data set {name} must be a function that returns a DataSource, got"
            f" {type(found).__name__}; trainers.data.dataset says what that is"
        )
    return found


def _expanded(path: str | os.PathLike[str]) -> pathlib.Path:
    # pathlib's own raises for ~nosuchuser; this leaves it as it is, to be not there.
    return pathlib.Path(os.path.expanduser(path))


def _carve(
    origin: DataSource, validation: int | None, seed: int
) -> tuple[Examples, Examples, str]:
    """Returns the two splits, and what is to be said of them."""
    if origin.validation is not None and validation is None:
        return origin.training, origin.validation, ""
    num = len(origin.training)
    held_out = split.default_size(num) if validation is None else validation
    if validation is None and held_out == 0:
        raise ValueError(
            "one in three training images at most is held out to validate on, which"
            f" takes at least 3, got {num}; add images"
        )
    if origin.labels is None:
        train_rows, held_out_rows = split.uniform(num, held_out, seed=seed)
        remark = ""
    else:
        train_rows, held_out_rows = split.stratified(origin.labels, held_out, seed=seed)
        remark = _check_classes(origin, origin.labels, train_rows, held_out_rows)
    return (
        Subset(whole=origin.training, indices=train_rows),
        Subset(whole=origin.training, indices=held_out_rows),
        remark,
    )


def _check_classes(
    origin: DataSource, labels: np.ndarray, train: np.ndarray, held_out: np.ndarray
) -> str:
    """Returns a remark about classes that are not validated, if there are any.

    Raises:
      ValueError: if there are classes that are not trained on.
    """
    if untrained := split.without(labels, train):
        raise ValueError(
            "every class must have an image to train on; the validation split took all"
            f" of {_named(origin, untrained)}: add images or remove the class, or hold"
            f" out fewer than {len(held_out)}"
        )
    unvalidated = split.without(labels, held_out)
    if not unvalidated:
        return ""
    return f"; too few images to validate on: {_named(origin, unvalidated)}"


def _named(origin: DataSource, classes: Sequence[int]) -> str:
    names = ", ".join(repr(origin.class_names[i]) for i in classes[:_LISTED])
    more = len(classes) - _LISTED
    return f"{names} and {more:,} more" if more > 0 else names


def _shortened(description: str) -> str:
    description = pixels.printable(description)  # names of folders are in it
    if len(description) <= _LONGEST:
        return description
    return description[: _LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _unknown(name: str) -> str:
    known = {*_EMBEDDED, *tfds.names()}
    close = difflib.get_close_matches(name.lower(), known)
    hint = f"did you mean {' or '.join(close)}? There " if close else "there "
    return f"unknown data set {name!r}; {hint}are {_KINDS}"


def _missing(name: str, prepared: pathlib.Path, *, is_folder: bool) -> str:
    debian = (
        f"apt-get install {idx.DEBIAN_PACKAGE}, or " if name == "fashion_mnist" else ""
    )
    here = f"name the folder .{os.sep}{name} as such, or " if is_folder else ""
    return (
        f"{name!r} has not been prepared in {prepared}; {here}{debian}give the data_dir"
        " where it has, or set download (needs the network and"
        f" {optional.advice('tensorflow')})"
    )
