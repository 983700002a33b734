"""A folder of class folders: one image a file, the class is the folder's name.

Either `path/<class>/<image>`, or with levels: `path/train/<class>/<image>` and beside
`train` one or both of `val` and `test`. With both, `val` validates. With one, it is
the test split, as ImageNet's `val` is in the papers, and a validation split is carved
from `train`. Images may lie deeper than the class folder. Files whose names start with
a dot are passed over; any other file must be an image.
"""

import concurrent.futures
import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from trainers import augment
from trainers.data import pixels
from trainers.data.dataset import Examples, Image, Origin

# Up to here every file is decoded at load, so that a bad one is found at once; of
# more, this many evenly spaced ones are, and a bad one is found when it is read.
_CHECKED = 10_000

_MIN_CLASSES = 2
_GREY, _RGB = 1, 3


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FolderExamples:
    """Image files and their classes; grey files among RGB ones become RGB."""

    paths: Sequence[pathlib.Path]
    labels: Int[np.ndarray, " num"]
    channels: int

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Image, int]:
        image = pixels.decode(self.paths[index])
        if image.shape[2] != self.channels:
            image = pixels.to_channels(image, self.channels)
        return image, int(self.labels[index])


def read(root: pathlib.Path) -> Origin:
    """Returns the data set in the folder `root`; the test split is left unread.

    Raises:
      ValueError: if there are no two class folders, a class has no image, or a file
        is not an image.
    """
    levels = _levels(root)
    train, names = levels["train"], _class_names(levels["train"])
    paths, labels = _list_images(train, names)
    shapes = _check(paths)
    channels = _GREY if all(shape[2] == _GREY for shape in shapes) else _RGB
    sizes = {shape[:2] for shape in shapes}
    has_all = len(shapes) == len(paths)
    size = sizes.pop() if len(sizes) == 1 and has_all else None
    kind = "grey" if channels == _GREY else "RGB"
    pixel_size = "various sizes" if size is None else f"{size[0]}x{size[1]}"

    def examples(level: str) -> Examples:
        paths, labels = _list_images(levels[level], names)
        _check(paths)
        return FolderExamples(paths=paths, labels=labels, channels=channels)

    def read_test() -> Examples:
        if "test" not in levels:
            raise ValueError(
                f"{root} has no test split; put images in"
                f" {root}/test/<class>, beside {root}/train"
            )
        return examples("test")

    return Origin(
        description=f"{root.resolve().name}: {len(paths):,} training images,"
        f" {pixel_size}, {kind}, {len(names)} classes, from {root}",
        class_names=names,
        channels=channels,
        image_size=size,
        augmentation=augment.LIGHT,
        training=FolderExamples(paths=paths, labels=labels, channels=channels),
        labels=labels,
        validation=examples("val") if "val" in levels else None,
        read_test=read_test,
    )


def _levels(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the folders of `train`, and of `val` and `test` where there are any."""
    train = root / "train"
    # A class may be called "train"; then images, not folders, are inside.
    if not (train.is_dir() and _folders(train)):
        return {"train": root}
    beside = {name: root / name for name in ("val", "test") if (root / name).is_dir()}
    if list(beside) == ["val"]:
        beside = {"test": root / "val"}
    return {"train": train, **beside}


def _class_names(train: pathlib.Path) -> tuple[str, ...]:
    names = tuple(folder.name for folder in _folders(train))
    if len(names) < _MIN_CLASSES:
        raise ValueError(
            f"{train} must hold a folder of images for each of at least {_MIN_CLASSES}"
            f" classes, got {len(names)}; the layout is {train}/<class>/<image>"
        )
    return names


def _list_images(
    level: pathlib.Path, names: Sequence[str]
) -> tuple[list[pathlib.Path], np.ndarray]:
    """Returns the files of every class, by class and name, and their labels."""
    if unknown := {folder.name for folder in _folders(level)} - set(names):
        raise ValueError(
            f"classes must be among those to train on; {level} has"
            f" {sorted(unknown)[0]!r} too: rename or remove it"
        )
    paths: list[pathlib.Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        files = sorted(
            path
            for path in (level / name).rglob("*")
            if path.is_file() and not path.name.startswith(".")
        )
        if not files:
            raise ValueError(
                f"every class must have an image, {level / name} has none;"
                " add some or remove the class everywhere"
            )
        paths += files
        labels += [label] * len(files)
    return paths, np.array(labels, np.int32)


def _check(paths: Sequence[pathlib.Path]) -> list[tuple[int, int, int]]:
    """Returns the shapes of the images at `paths`, or of _CHECKED of them."""
    spaced = np.linspace(0, len(paths) - 1, min(_CHECKED, len(paths)), dtype=int)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        images = pool.map(_shape, [paths[i] for i in spaced])
        return list(images)


def _shape(path: pathlib.Path) -> tuple[int, int, int]:
    height, width, channels = pixels.decode(path).shape
    return height, width, channels


def _folders(path: pathlib.Path) -> list[pathlib.Path]:
    return sorted(
        child
        for child in path.iterdir()
        if child.is_dir() and not child.name.startswith(".")
    )
