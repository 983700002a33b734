"""Data sets by name.

`load` gives what a search may see. The test split has a call of its own, `load_test`,
so that nothing that calls `load` alone can have read it. To measure a final network:

    dataset = catalog.load("digits", seed=0)
    final = dataclasses.replace(dataset, validation=catalog.load_test("digits"))
"""

import difflib
import os
import pathlib

from trainers import optional
from trainers.data import digits, folder, idx, split, tfds
from trainers.data.dataset import Dataset, Examples, Origin, Subset

_KINDS = (
    "digits, fashion_mnist, an image classification set of TFDS"
    " (https://www.tensorflow.org/datasets/catalog), or the path of a folder of class"
    " folders"
)


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
      name: `digits`; `fashion_mnist`; a set of TFDS, such as `cifar10` or
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
    origin = _open(name, data_dir=data_dir, download=download)
    train, held_out = _carve(origin, validation, seed)
    return Dataset(
        name=name,
        description=origin.description,
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
    return _open(name, data_dir=data_dir, download=download).read_test()


def _open(
    name: str, *, data_dir: str | os.PathLike[str] | None, download: bool
) -> Origin:
    if name == "digits":
        return digits.read()
    path = pathlib.Path(name).expanduser()
    if os.sep in name and path.is_dir():
        return folder.read(path)
    given = None if data_dir is None else pathlib.Path(data_dir).expanduser()
    if name == "fashion_mnist" and idx.has_files(files := given or idx.DEBIAN_DIR):
        return idx.fashion_mnist(files)
    prepared = given or tfds.default_dir()
    if not tfds.is_prepared(name, prepared):
        # A name of TFDS wins over a folder of the same name, like digits does.
        if not tfds.is_stock(name):
            if name and path.is_dir():
                return folder.read(path)
            raise ValueError(_unknown(name))
        if not download:
            raise ValueError(_missing(name, prepared))
        tfds.prepare(name, data_dir=prepared)
    return tfds.read(name, data_dir=prepared)


def _carve(
    origin: Origin, validation: int | None, seed: int
) -> tuple[Examples, Examples]:
    if origin.validation is not None and validation is None:
        return origin.training, origin.validation
    num = len(origin.training)
    held_out = split.default_size(num) if validation is None else validation
    if origin.labels is None:
        train_rows, held_out_rows = split.uniform(num, held_out, seed=seed)
    else:
        train_rows, held_out_rows = split.stratified(origin.labels, held_out, seed=seed)
    return (
        Subset(whole=origin.training, indices=train_rows),
        Subset(whole=origin.training, indices=held_out_rows),
    )


def _unknown(name: str) -> str:
    known = {"digits", *tfds.names()}
    close = difflib.get_close_matches(name.lower(), known)
    hint = f"did you mean {' or '.join(close)}? There " if close else "there "
    return f"unknown data set {name!r}; {hint}are {_KINDS}"


def _missing(name: str, prepared: pathlib.Path) -> str:
    debian = (
        f"apt-get install {idx.DEBIAN_PACKAGE}, or " if name == "fashion_mnist" else ""
    )
    return (
        f"{name!r} has not been prepared in {prepared}; {debian}give the data_dir where"
        " it has, or set download (needs the network and"
        f" {optional.advice('tensorflow')})"
    )
