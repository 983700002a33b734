"""The files below class folders, and what is passed over on the way.

Links are followed: each file and each folder counts once, where it lies, or else at the
first link to it. Hidden files and folders and those that systems leave behind are no
pictures of the data set.
"""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

_SYSTEM = frozenset(
    {
        "$recycle.bin",
        "#recycle",
        "@eadir",  # Synology's thumbnails
        "@recycle",
        "@tmp",
        "__macosx",  # what macOS adds to archives
        "desktop.ini",
        "ehthumbs.db",
        "icon\r",
        "lost+found",
        "system volume information",
        "thumbs.db",
    }
)

HIDDEN = "hidden or system files"
DANGLING = "links to nothing"
REPEATED = "links to what is read already"

_Identity = tuple[int, int]  # device and inode


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listing:
    """Files to read, and how many were passed over for which reason.

    `files` has those of each class folder, in the order of the folders, sorted.
    """

    files: Sequence[Sequence[pathlib.Path]]
    passed_over: Mapping[str, int]


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is the system's and not the user's.

    >>> [is_hidden(name) for name in (".ipynb_checkpoints", "Thumbs.db", "cat")]
    [True, True, False]
    """
    return name.startswith(".") or name.lower() in _SYSTEM


def folders(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns the folders in `path`, links to folders among them, sorted."""
    return sorted(
        child
        for child in path.iterdir()
        if not is_hidden(child.name) and os.path.isdir(child)
    )


def loose(path: pathlib.Path) -> tuple[list[str], list[str]]:
    """Returns the names of hidden folders in `path`, and of files that are not hidden.

    Neither belongs to a class.
    """
    hidden, files = [], []
    for child in sorted(path.iterdir()):
        if is_hidden(child.name):
            hidden += [child.name] if child.is_dir() else []
        elif not os.path.isdir(child):
            files.append(child.name)
    return hidden, files


def below(class_folders: Sequence[pathlib.Path]) -> Listing:
    """Returns the files below each of `class_folders`, which lie in one folder.

    Raises:
      OSError: if a folder cannot be read.
    """
    walk = _Walk()
    for parent in class_folders[0].absolute().parents:
        walk.seen.add(_identity(str(parent)))
    found = [_Found() for _ in class_folders]
    # What lies here goes before what is linked to, whichever class comes first.
    for folder, files in zip(class_folders, found, strict=True):
        walk.enter(str(folder), files)
    for files in found:
        walk.follow_folders(files)
    if any(files.file_links for files in found):
        for files in found:
            walk.seen.update(map(_identity, files.paths))
        for files in found:
            walk.follow_files(files)
    return Listing(
        files=[sorted(map(pathlib.Path, files.paths)) for files in found],
        passed_over=walk.passed_over,
    )


@dataclasses.dataclass(kw_only=True)
class _Found:
    """Of one class; links are yet to be followed."""

    paths: list[str] = dataclasses.field(default_factory=list)
    file_links: list[str] = dataclasses.field(default_factory=list)
    folder_links: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(kw_only=True)
class _Walk:
    """What has been seen, and what has been passed over."""

    seen: set[_Identity] = dataclasses.field(default_factory=set)
    passed_over: collections.Counter[str] = dataclasses.field(
        default_factory=collections.Counter
    )

    def enter(self, folder: str, found: _Found) -> None:
        """Lists what lies below `folder`, but for folders that have been listed."""
        pending = [folder]
        while pending:
            folder = pending.pop()
            identity = _identity(folder)
            if identity in self.seen:
                self.passed_over[REPEATED] += 1
                continue
            self.seen.add(identity)
            with os.scandir(folder) as entries:
                for entry in entries:
                    if is_hidden(entry.name):
                        self.passed_over[HIDDEN] += _num_files(entry)
                    elif entry.is_symlink():
                        self._note_link(entry.path, found)
                    elif entry.is_dir():
                        pending.append(entry.path)
                    else:
                        found.paths.append(entry.path)

    def follow_folders(self, found: _Found) -> None:
        """Enters the linked folders of a class, and those linked to in them."""
        while found.folder_links:
            links, found.folder_links = sorted(found.folder_links), []
            for link in links:
                self.enter(link, found)

    def follow_files(self, found: _Found) -> None:
        """Adds the linked files of a class that have not been seen."""
        for path in sorted(found.file_links):
            identity = _identity(path)
            if identity in self.seen:
                self.passed_over[REPEATED] += 1
            else:
                self.seen.add(identity)
                found.paths.append(path)

    def _note_link(self, path: str, found: _Found) -> None:
        if os.path.isdir(path):
            found.folder_links.append(path)
        elif os.path.exists(path):
            found.file_links.append(path)
        else:
            self.passed_over[DANGLING] += 1


def _identity(path: str) -> _Identity:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _num_files(entry: "os.DirEntry[str]") -> int:
    """Of a hidden folder the files in it, at least 1: it would be one to a person."""
    if not entry.is_dir(follow_symlinks=False):
        return 1
    return max(1, sum(len(files) for _, _, files in os.walk(entry.path)))
