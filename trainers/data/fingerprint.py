"""What a data set is, in a few lines: tells whether a run goes on with the same data.

Of each split a SHA-256 digest is made, in the split's order, of

    files    each one's path below the data set's folder, its size in bytes, its class
    arrays   the pixels and the classes themselves
    TFDS     the version's name, the names and sizes of its files, the records chosen
    others   the number of examples, and 256 evenly spaced ones decoded

so a file that is replaced by another of the same name and size goes unnoticed: telling
would mean reading everything. A million files take 4 s of a core where the system has
their sizes in memory, as it has after they were listed (0.75 s for 200,000; listing
them takes many times that); on a network's file system each asks the server once, 32
at a time.
"""

import concurrent.futures
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from trainers.data.dataset import ArrayExamples, Dataset, Examples, whole
from trainers.data.folder import FolderExamples
from trainers.data.tfds import TfdsExamples

_MOST_NAMES = 1_000  # of classes; a line of a journal holds so many
_SHOWN = 3  # names in a message
_LONGEST_NAME = 60
_SAMPLED = 256
_AT_ONCE, _THREADS = 1_000, 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What there was when a run was started.

    Attributes:
      source: a folder's absolute path, or the name of the data set.
      class_names: in the order of the labels; of more than 1,000 the first 1,000.
      num_classes: all of them.
      num_examples: by split.
      digests: by split, hexadecimal.
    """

    source: str
    class_names: tuple[str, ...]
    num_classes: int
    num_examples: dict[str, int]
    digests: dict[str, str]


def of(dataset: Dataset, test: Examples | None = None) -> Fingerprint:
    """Returns the fingerprint of the splits of `dataset`, and of `test` if given.

    Raises:
      OSError: if a file is gone since it was listed.
    """
    splits = {"train": dataset.train, "validation": dataset.validation}
    if test is not None:
        splits["test"] = test
    source = dataset.name
    if isinstance(whole(dataset.train)[0], FolderExamples):
        source = str(pathlib.Path(source).expanduser().resolve())
    root = pathlib.Path(dataset.name).expanduser()
    names = tuple(map(str, dataset.class_names))
    return Fingerprint(
        source=source,
        class_names=names[:_MOST_NAMES],
        num_classes=len(names),
        num_examples={name: len(split) for name, split in splits.items()},
        digests={name: _digest(split, root) for name, split in splits.items()},
    )


def differences(before: Fingerprint, after: Fingerprint) -> list[str]:
    """Returns what is no longer as it was, in words; nothing if all is.

    >>> was = Fingerprint(source="/a", class_names=("cat", "dog"), num_classes=2,
    ...                   num_examples={"train": 9}, digests={"train": "0"})
    >>> differences(was, was)
    []
    >>> differences(was, dataclasses.replace(was, class_names=("cat", "fox")))
    ["class 'dog' is now called 'fox'"]
    """
    found = []
    if before.source != after.source:
        found.append(f"the data were {before.source} and are {after.source}")
    found += _class_differences(before, after)
    if before.num_examples != after.num_examples:
        found.append(_counts(before.num_examples, after.num_examples))
    if not found and before.digests != after.digests:
        splits = sorted(before.digests.keys() | after.digests.keys())
        changed = [s for s in splits if before.digests.get(s) != after.digests.get(s)]
        found.append(
            f"as many images, but not the same ones, in {' and '.join(changed)} (files"
            " were renamed, replaced or moved between classes)"
        )
    return found


def _class_differences(before: Fingerprint, after: Fingerprint) -> list[str]:
    gone = [name for name in before.class_names if name not in after.class_names]
    new = [name for name in after.class_names if name not in before.class_names]
    if len(gone) == len(new) == 1 and before.num_classes == after.num_classes:
        return [f"class {_names(gone)} is now called {_names(new)}"]
    found = []
    if gone:
        found.append(f"{_classes(gone)} {'is' if len(gone) == 1 else 'are'} gone")
    if new:
        found.append(f"{_classes(new)} {'was' if len(new) == 1 else 'were'} added")
    if not found and before.class_names != after.class_names:
        found.append("the classes are in another order")
    if before.num_classes != after.num_classes and not found:
        found.append(f"{before.num_classes} classes became {after.num_classes}")
    return found


def _counts(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    more = sum(after.values()) - sum(before.values())
    was, now = (
        ", ".join(f"{split} {number:,}" for split, number in counts.items())
        for counts in (before, after)
    )
    change = f"{abs(more):,} {'more' if more > 0 else 'fewer'}" if more else "as many"
    return f"{change} images ({was}; now {now})"


def _classes(names: Sequence[str]) -> str:
    return f"{'class' if len(names) == 1 else 'classes'} {_names(names)}"


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:_LONGEST_NAME]) for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _digest(examples: Examples, root: pathlib.Path) -> str:
    examples, rows = whole(examples)
    digest = hashlib.sha256(f"{len(rows)}\n".encode())
    match examples:
        case FolderExamples():
            paths = [str(examples.paths[row]) for row in rows]
            _add_files(digest, paths, str(root), examples.labels[rows].tolist())
        case ArrayExamples():
            digest.update(f"{examples.images.shape[1:]}\n".encode())
            digest.update(examples.labels[rows].astype("<i8").tobytes())
            for start in range(0, len(rows), _AT_ONCE):
                chunk = examples.images[rows[start : start + _AT_ONCE]]
                digest.update(chunk.tobytes())
        case TfdsExamples():
            files = examples.files()
            digest.update(f"{examples.version()}\n".encode())
            _add_files(digest, files, os.path.dirname(files[0]), [0] * len(files))
            digest.update(rows.astype("<i8").tobytes())
        case _:
            for place in np.linspace(
                0, len(rows) - 1, min(_SAMPLED, len(rows)), dtype=int
            ):
                image, label = examples[int(rows[place])]
                digest.update(f"{image.shape} {label}\n".encode())
                digest.update(image.tobytes())
    return digest.hexdigest()


def _add_files(
    digest: Any, paths: Sequence[str], root: str, labels: Iterable[int]
) -> None:
    chunks = [paths[i : i + _AT_ONCE] for i in range(0, len(paths), _AT_ONCE)]
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        sizes = [size for found in pool.map(_sizes, chunks) for size in found]
    for path, size, label in zip(paths, sizes, labels, strict=True):
        below = path.removeprefix(root).lstrip(os.sep)
        line = f"{below}\0{size}\0{label}\n"
        digest.update(line.encode(errors="surrogateescape"))


def _sizes(paths: Sequence[str]) -> list[int]:
    return [os.stat(path).st_size for path in paths]
