"""Folders that this user alone can write to: what is kept in them is believed."""

import contextlib
import os
import stat
from pathlib import Path

_FOREIGN_WRITERS = stat.S_IWGRP | stat.S_IWOTH


def prepare(folder: Path) -> None:
    """Makes `folder`, and what is missing above it, with mode 0700; or checks it.

    Raises:
      PermissionError: if the folder is there and is somebody else's, is a link, or can
        be written by others. One line.
      OSError: if it cannot be made.
    """
    _make(folder)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise PermissionError(f"{folder} must be a folder, and is not one; remove it")
    if status.st_uid != os.getuid():
        raise PermissionError(
            f"{folder} must be this user's own folder, and belongs to user "
            f"{status.st_uid}; have it removed"
        )
    if status.st_mode & _FOREIGN_WRITERS:
        raise PermissionError(
            f"{folder} must be writable by this user alone, and has mode "
            f"{stat.S_IMODE(status.st_mode):04o}; remove it with all that is in it"
        )


def check_above(folder: Path) -> None:
    """Refuses a folder that others could replace by one of theirs.

    Raises:
      PermissionError: if everybody can rename what is in a folder above it. One line.
    """
    for parent in folder.absolute().parents:
        mode = parent.stat().st_mode
        # In a sticky folder, such as /tmp, others cannot rename what is not theirs.
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise PermissionError(
                f"{folder} must be where nobody else can replace it, and {parent} has "
                f"mode {stat.S_IMODE(mode):04o}; chmod o-w {parent}"
            )


def _make(folder: Path) -> None:
    if not folder.parent.exists():
        _make(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
