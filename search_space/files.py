"""Files that may be anybody's: read within bounds, written within their folder.

A folder from elsewhere may hold links that point at the user's own files, and pipes
and devices that no reading ends. What is read is an ordinary file of a bounded size;
what is written replaces a name in its folder, and never follows one.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import BinaryIO


def open_quickly(path: Path) -> BinaryIO:
    """Opens a file for reading; a pipe without waiting for its writer.

    Raises:
      OSError: if it cannot be opened.
    """
    return open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """Returns the bytes of a file that has at most `most_bytes`.

    Raises:
      ValueError: if it is larger, or no ordinary file: a pipe would never end. One
        line.
      OSError: if it cannot be read.
    """
    with open_quickly(path) as file:
        check_ordinary(file.fileno(), path, most_bytes)
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:  # it grew
        raise ValueError(f"{path} must be at most {most_bytes:,} bytes")
    return data


def check_ordinary(descriptor: int, path: Path, most_bytes: int) -> None:
    """Raises ValueError unless the open file is an ordinary one of a bounded size."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path} must be an ordinary file, and is not one")
    if found.st_size > most_bytes:
        raise ValueError(
            f"{path} must be at most {most_bytes:,} bytes, got {found.st_size:,}; it"
            " is not one that this package wrote"
        )


def write_whole(
    path: Path, content: str | bytes, *, within: Path | None = None
) -> None:
    """Replaces `path` by a file of `content`: readers see the old one or the new.

    A link to a file at `path` is replaced, not followed. Anything that is no file, or a
    link to such, stays: who asks for /dev/null means no file of that name.

    Args:
      path: the file.
      content: text is written as UTF-8.
      within: a folder that `path` is in, at any depth: no folder on the way from there
        may be a link. By default the folder of `path` is taken as it is named.

    Raises:
      OSError: if it cannot be written, or something else than a file is there, which
        stays.
    """
    data = content.encode() if isinstance(content, str) else content
    draft = f".{path.name}.{os.getpid()}"
    try:
        with _opened(path.parent, within or path.parent) as folder:
            _check_replaceable(path.name, folder)
            with contextlib.suppress(FileNotFoundError):  # a killed process left it
                os.unlink(draft, dir_fd=folder)
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                with open(os.open(draft, flags, 0o666, dir_fd=folder), "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(draft, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(draft, dir_fd=folder)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _check_replaceable(name: str, folder: int) -> None:
    try:
        there = os.stat(name, dir_fd=folder)
    except FileNotFoundError:
        return  # also a link that leads nowhere
    if not stat.S_ISREG(there.st_mode):
        raise FileExistsError(errno.EEXIST, "something is there that is no file")


def open_in_place(path: Path, *, create: bool = True) -> BinaryIO:
    """Opens a file to be added to where it stands, unbuffered; made if need be.

    Neither a symbolic link nor a name among several of the same file (a hard link) is
    opened: what was written would be in a file elsewhere as well.

    Raises:
      OSError: if it cannot be opened, or is anything but an ordinary file of one name.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags | (os.O_CREAT if create else 0), 0o666)
    file = open(descriptor, "r+b", buffering=0)  # noqa: SIM115  (the caller's)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        file.close()
        raise OSError(
            f"{path} must be an ordinary file of one name, and is not one; copy the"
            " folder, and go on with the copy"
        )
    return file


def make_folder(path: Path) -> None:
    """Makes a folder if need be.

    Raises:
      OSError: if it cannot be made, or something else stands there, a link for one.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir(parents=True)
    if not stat.S_ISDIR(path.lstat().st_mode):
        raise NotADirectoryError(f"{path} must be a folder, and is none; remove it")


def strange(folder: Path) -> Iterator[Path]:
    """Yields what is neither an ordinary file nor a folder, at any depth of `folder`.

    Links, pipes, devices, sockets. `folder` itself may be a link.

    Raises:
      OSError: if a folder cannot be read.
    """
    folders = [folder]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry))
                elif not entry.is_file(follow_symlinks=False):
                    yield Path(entry)


@contextlib.contextmanager
def _opened(path: Path, top: Path) -> Generator[int]:
    """A descriptor of folder `path`, reached from `top` through no link."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    descriptor = os.open(top, flags)
    try:
        for part in path.relative_to(top).parts:
            inner = os.open(part, flags | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)
