"""A folder of class folders: one image a file, the class is the folder's name.

`layout.py` says which folders are splits and which classes. A `val` split validates;
without one, or where the number of images to validate on is given, they are carved from
`train`. Nothing but `test` is the test split. Images may lie deeper than the class
folder, and behind links. Hidden files and folders are passed over (`listing.py`); any
other file must be an image.
"""

import collections
import concurrent.futures
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from trainers.augment import geometric
from trainers.data import layout, listing, pixels
from trainers.data.dataset import DataSource, Examples, Image

# Up to here every file is decoded at load, so that a bad one is found at once; of
# more, this many evenly spaced ones are, and a bad one is found when it is read.
_CHECKED = 10_000

_GREY, _RGB = 1, 3


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FolderExamples:
    """Image files and their classes; grey files among RGB ones become RGB.

    `paths` are by class and name, and begin with the data set's folder as it was named.
    """

    paths: Sequence[pathlib.Path]
    labels: Int[np.ndarray, " num"]
    channels: int

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Image, int]:
        image = pixels.decode(self.paths[index])
        return pixels.to_channels(image, self.channels), int(self.labels[index])


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Split:
    """The files of a split, by class and name, and what was passed over."""

    paths: Sequence[pathlib.Path]
    labels: Int[np.ndarray, " num"]
    passed_over: Mapping[str, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Looked:
    """What the files looked at have in common; `size` is None where they differ."""

    num: int
    size: tuple[int, int] | None
    is_grey: bool
    is_constant: bool


def read(root: pathlib.Path, *, carve: bool = False) -> DataSource:
    """Returns the data set in the folder `root`; the test split is left unread.

    Args:
      root: the folder.
      carve: whether to validate on training images although there may be a split for
        that.

    Raises:
      ValueError: if there are no two class folders, a class has no image, a file is not
        an image, or all pixels are alike; and as `layout.find`.
      OSError: if a folder cannot be read.
    """
    found = layout.find(root)
    names, val = found.class_names, None if carve else found.val
    train = _list_images(found.train, names)
    looked = _look_at_training(found.train, train.paths)
    channels = _GREY if looked.is_grey else _RGB

    def examples(split: _Split) -> FolderExamples:
        return FolderExamples(paths=split.paths, labels=split.labels, channels=channels)

    def read_test() -> Examples:
        if found.test is None:
            raise ValueError(
                f"{root} has no test split; put images in {root}/test/<class>, beside"
                f" {root}/train"
            )
        return examples(_checked(found.test, names))

    validation = None if val is None else _checked(val, names)
    return DataSource(
        description=_describe(root, found, looked, train, validation),
        class_names=names,
        channels=channels,
        image_size=looked.size if looked.num == len(train.paths) else None,
        augmentation=geometric.LIGHT,
        training=examples(train),
        labels=train.labels,
        validation=examples(validation) if validation else None,
        read_test=read_test,
    )


def _describe(
    root: pathlib.Path,
    found: layout.Layout,
    looked: _Looked,
    train: _Split,
    validation: _Split | None,
) -> str:
    """Returns what was found, and what was taken for which split, in one line."""
    parts = (
        f"{root.resolve().name}: {len(train.paths):,} training images",
        _size_in_words(looked, len(train.paths)),
        "grey" if looked.is_grey else "RGB",
        f"{len(found.class_names)} classes",
        f"from {root}",
    )
    remarks = [_splits_in_words(found, is_carved=validation is None), *found.remarks]
    passed_over = collections.Counter(train.passed_over)
    passed_over.update(validation.passed_over if validation else {})
    if passed_over:
        remarks.append(f"passed over: {_counts_in_words(passed_over)}")
    return "; ".join([", ".join(parts), *remarks])


def _counts_in_words(passed_over: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} ({num:,})" for kind, num in passed_over.items())


def _size_in_words(looked: _Looked, num: int) -> str:
    size = "various sizes" if looked.size is None else "{}x{}".format(*looked.size)
    if looked.num < num:
        return f"{size} ({looked.num:,} evenly spaced ones were looked at)"
    return size


def _splits_in_words(found: layout.Layout, *, is_carved: bool) -> str:
    if found.val is None:
        validates = "validated on a share of them"
    elif is_carved:
        validates = f"validated on a share of them instead of {found.val.name}/"
    else:
        validates = f"validated on {found.val.name}/"
    tests = f"tested on {found.test.name}/" if found.test else "no test split"
    return f"{validates}, {tests}"


def _checked(level: pathlib.Path, names: Sequence[str]) -> _Split:
    """Returns the files of a split that must have the classes that are trained on."""
    layout.check_classes(level, names)
    split = _list_images(level, names)
    _look(split.paths)
    return split


def _list_images(level: pathlib.Path, names: Sequence[str]) -> _Split:
    for name in names:
        if not (level / name).is_dir():
            raise ValueError(
                f"every class must be in every split, and {level} has no {name!r}; add"
                " images of it or remove the class everywhere"
            )
    found = listing.below([level / name for name in names])
    reasons = _counts_in_words(found.passed_over)
    for name, files in zip(names, found.files, strict=True):
        if not files:
            raise ValueError(
                f"every class must have an image, {level / name} has none"
                f"{f', passed over: {reasons}' if reasons else ''}; add some or remove"
                " the class everywhere"
            )
    counts = [len(files) for files in found.files]
    return _Split(
        paths=[path for files in found.files for path in files],
        labels=np.repeat(np.arange(len(names), dtype=np.int32), counts),
        passed_over=found.passed_over,
    )


def _look_at_training(level: pathlib.Path, paths: Sequence[pathlib.Path]) -> _Looked:
    looked = _look(paths)
    if looked.is_constant:
        raise ValueError(
            f"training images must differ in some pixel, and all of {looked.num:,} in"
            f" {level} show one colour; look at the files, which may hold values in"
            " another range than their format's"
        )
    return looked


def _look(paths: Sequence[pathlib.Path]) -> _Looked:
    """Decodes the images at `paths`, or _CHECKED of them; a bad one is an error."""
    spaced = np.linspace(0, len(paths) - 1, min(_CHECKED, len(paths)), dtype=int)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        seen = list(pool.map(_facts, [paths[i] for i in spaced]))
    sizes = {size for size, _, _ in seen}
    return _Looked(
        num=len(seen),
        size=sizes.pop() if len(sizes) == 1 else None,
        is_grey=all(num == _GREY for _, num, _ in seen),
        is_constant=len({colour for _, _, colour in seen}) == 1 and seen[0][2] != (),
    )


def _facts(path: pathlib.Path) -> tuple[tuple[int, int], int, tuple[float, ...]]:
    """Returns size, number of channels, and the colour of an image that has one."""
    image = pixels.decode(path)
    height, width, channels = image.shape
    first = image[0, 0]
    colour = tuple(first.tolist()) if (image == first).all() else ()
    return (height, width), channels, colour
