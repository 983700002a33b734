"""Reading files that may be anybody's: of a bounded size, and only real files."""

import os
import stat
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
