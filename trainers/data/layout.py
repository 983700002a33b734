"""Which folders of a data set are its splits, and which are its classes.

Either `root/<class>/<image>`, or with splits: `root/train/<class>/<image>` and beside
`train` one or both of `val` and `test`. Splits go by their usual names in any case,
with or without something around them: train, training; val, valid, validation; test,
testing; seg_train, Test, validation_set. A folder called like a split is one if class
folders are in it.
"""

import dataclasses
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Sequence

from trainers.data import listing

TRAIN, VAL, TEST = "train", "val", "test"

_ROLES = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VAL,
    "valid": VAL,
    "validation": VAL,
    "test": TEST,
    "testing": TEST,
}
_SPLIT = re.compile(
    rf"(?:.*[\W_])?({'|'.join(_ROLES)})(?:[\W_]?(?:set|data|images|split))?",
    re.IGNORECASE | re.DOTALL,
)
_MIN_CLASSES = 2
_LISTED = 3  # names in a message


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the splits of a data set are.

    Attributes:
      train: the folder of the class folders to train on.
      val: that of a validation split, or None.
      test: that of a test split, or None.
      class_names: names of the class folders, sorted.
      remarks: what was found beside these, for people.
    """

    train: pathlib.Path
    val: pathlib.Path | None
    test: pathlib.Path | None
    class_names: tuple[str, ...]
    remarks: tuple[str, ...]


def find(root: pathlib.Path) -> Layout:
    """Returns the layout of the folder `root`; only names are read.

    Raises:
      ValueError: if there are no two class folders, if what looks like splits cannot be
        used as such, or if names cannot be stored or told apart. One line.
    """
    check_storable(str(root))
    folders = listing.folders(root)
    candidates = {
        role: [f for f in folders if role_of(f.name) == role and listing.folders(f)]
        for role in (TRAIN, VAL, TEST)
    }
    train = _only(candidates[TRAIN], TRAIN)
    if train is None:
        return _without_splits(root, [*candidates[VAL], *candidates[TEST]])
    val, test = (_only(candidates[role], role) for role in (VAL, TEST))
    class_names = _class_names(train)
    for split in (val, test):
        if split is not None:
            _check_normalisation([*class_names, *_names(split)])
    unread = [folder for folder in folders if folder not in (train, val, test)]
    return Layout(
        train=train,
        val=val,
        test=test,
        class_names=class_names,
        remarks=_not_read(root, train, others=map(_unread, unread)),
    )


def role_of(name: str) -> str | None:
    """Returns the split that a folder's name stands for, or None.

    >>> [role_of(name) for name in ("Training", "seg_test", "validation_set", "bus")]
    ['train', 'test', 'val', None]
    """
    match = _SPLIT.fullmatch(name)
    return _ROLES[match[1].lower()] if match else None


def check_classes(level: pathlib.Path, class_names: Sequence[str]) -> None:
    """Raises ValueError if a split has a class that is not trained on."""
    if unknown := set(_names(level)) - set(class_names):
        raise ValueError(
            f"classes must be among those to train on; {level} has"
            f" {min(unknown)!r} too: rename or remove it"
        )


def check_storable(name: str) -> None:
    """Raises ValueError if a path or name is not UTF-8, as its files would be."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(
            "names of data sets and classes must be UTF-8, to be stored with the"
            f" network; rename {name!r} (convmv does it for whole folders)"
        ) from None


def _without_splits(root: pathlib.Path, lonely: Sequence[pathlib.Path]) -> Layout:
    if lonely:
        raise ValueError(
            f"a split needs a folder called train beside it; {root} has"
            f" {_some(repr(folder.name) for folder in lonely)} with folders inside and"
            " no train: rename the one to train on, or, if it is a class, that class"
        )
    class_names = _class_names(root)
    alike = [name for name in class_names if role_of(name)]
    if len(alike) == len(class_names):
        raise ValueError(
            f"{_some(map(repr, alike))} in {root} are called like splits, and hold no"
            f" class folders; the layout is {root}/train/<class>/<image>"
        )
    remarks = tuple(f"the class {name!r} is called like a split" for name in alike)
    return Layout(
        train=root,
        val=None,
        test=None,
        class_names=class_names,
        remarks=remarks + _not_read(root),
    )


def _only(found: Sequence[pathlib.Path], role: str) -> pathlib.Path | None:
    """Returns the folder for `role`: the one of exactly that name, or the only one."""
    if exact := [folder for folder in found if folder.name == role]:
        return exact[0]
    if len(found) > 1:
        raise ValueError(
            f"one folder may be the {role} split, got"
            f" {_some(repr(folder.name) for folder in found)} in {found[0].parent};"
            f" name the one to use {role}"
        )
    return found[0] if found else None


def _class_names(level: pathlib.Path) -> tuple[str, ...]:
    names = _names(level)
    if len(names) < _MIN_CLASSES:
        inside = [f for name in names for f in listing.folders(level / name)]
        hint = f"; did you mean {level / names[0]}?" if inside else ""
        raise ValueError(
            f"{level} must hold a folder of images for each of at least {_MIN_CLASSES}"
            f" classes, got {len(names)}; the layout is {level}/<class>/<image>{hint}"
        )
    _check_normalisation(names)
    return names


def _names(level: pathlib.Path) -> tuple[str, ...]:
    names = tuple(folder.name for folder in listing.folders(level))
    for name in names:
        check_storable(name)
    return names


def _check_normalisation(names: Iterable[str]) -> None:
    """Raises ValueError if names differ in how Unicode writes them alone."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFC", name), name)
        if other != name:
            raise ValueError(
                "names of classes must differ in more than how Unicode composes"
                f" letters, got {other!a} and {name!a}, which look alike;"
                " rename one (convmv -f utf8 -t utf8 --nfc does it for whole folders)"
            )


def _not_read(*levels: pathlib.Path, others: Iterable[str] = ()) -> tuple[str, ...]:
    """Says what lies beside classes and splits, if anything."""
    names = list(others)
    num_files = 0
    for level in levels:
        hidden, files = listing.loose(level)
        names += map(repr, hidden)
        num_files += len(files)
    if num_files:
        names.append(f"files beside the class folders ({num_files:,})")
    return (f"not read: {_some(names)}",) if names else ()


def _unread(folder: pathlib.Path) -> str:
    without = role_of(folder.name) and not listing.folders(folder)
    return f"{folder.name!r}{' (no class folders in it)' if without else ''}"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
