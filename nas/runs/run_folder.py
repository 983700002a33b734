"""A run's folder: its files, its lock, and writing them whole or not at all."""

import contextlib
import dataclasses
import datetime
import fcntl
import os
from collections.abc import Generator
from pathlib import Path

from search_space import files

_LOCK = ".lock"


class RunFolderError(ValueError):
    """A folder that cannot be used for a run. One line, with the remedy."""


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """Paths inside a run's folder."""

    path: Path

    @property
    def journal(self) -> Path:
        """Every finished child: the state of the search."""
        return self.path / "journal.jsonl"

    @property
    def config(self) -> Path:
        """How the search was started: command, versions, seed, hardware."""
        return self.path / "config.json"

    @property
    def policy(self) -> Path:
        """What the controller's policy had settled on after each update, if it has one.

        For people to look at: a search is resumed without it.
        """
        return self.path / "policy.jsonl"

    @property
    def controller(self) -> Path:
        """What the controller knew of late, to go on exactly where it stopped."""
        return self.path / "controller.npz"

    @property
    def best(self) -> Path:
        """The child with the highest reward, confirmed, as an architecture file."""
        return self.path / "best.json"

    @property
    def at_target(self) -> Path:
        """The most accurate child within the target, as an architecture file."""
        return self.path / "at_target.json"

    @property
    def baselines(self) -> Path:
        """What takes no network reaches on the same data."""
        return self.path / "baselines.json"

    @property
    def weights(self) -> Path:
        """Folder of the weights that children may go on from, while a search runs."""
        return self.path / "weights"

    @property
    def pareto(self) -> Path:
        """The children that no other beats in accuracy and the objective."""
        return self.path / "pareto.json"

    @property
    def report(self) -> Path:
        """The report, one self-contained page."""
        return self.path / "report.html"

    @property
    def family(self) -> Path:
        """The members of a family, with their costs."""
        return self.path / "family.json"

    @property
    def family_page(self) -> Path:
        """The family on one self-contained page."""
        return self.path / "family.html"

    @property
    def calibration(self) -> Path:
        """What a calibration found, and the budget that it recommends."""
        return self.path / "calibration.json"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files of the run as a whole."""
        return self.path / "tensorboard"

    @contextlib.contextmanager
    def locked(self) -> Generator[None]:
        """Holds the folder for one search; the system lets go when the process dies.

        Raises:
          RunFolderError: if another search holds it, it cannot be written, or it
            holds anything but files and folders, at any depth.
        """
        check_contents(self.path)
        try:
            file = files.open_in_place(self.path / _LOCK)
        except OSError as error:
            raise RunFolderError(
                f"a run folder must be writable, got {self.path}:"
                f" {error.strerror or error}; choose another with --output"
            ) from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise RunFolderError(
                    f"a run folder serves one search at a time, and {self.path} is in "
                    f"use by process {_holder(file.read(20))}; wait for "
                    "it, stop it, or choose another folder"
                ) from None
            file.truncate(0)
            file.write(f"{os.getpid()}\n".encode())
            yield


def create(output: Path | None) -> RunFolder:
    """Makes an empty run folder: `output`, or a new one under runs/.

    Raises:
      RunFolderError: if `output` holds something already, or cannot be made.
    """
    if output is None:
        output = _new_name(Path("runs"))
    try:
        output.mkdir(parents=True, exist_ok=True)
        entries = {entry.name for entry in output.iterdir()} - {_LOCK}
    except OSError as error:
        raise RunFolderError(
            f"cannot use {output} as output folder: {error.strerror}; "
            "name another with --output"
        ) from None
    if "journal.jsonl" in entries:
        raise RunFolderError(
            f"the output folder must be new or empty, and {output} holds a search; "
            f"continue that with --resume {output}, or name another folder"
        )
    if entries:
        raise RunFolderError(
            f"the output folder must be new or empty, and {output} holds "
            f"{min(entries)!r}{' and more' if len(entries) > 1 else ''}; "
            "name another folder"
        )
    return RunFolder(output)


def open_existing(path: Path) -> RunFolder:
    """Returns the folder of an earlier search.

    Raises:
      RunFolderError: if it is not one, or what is read of it are symbolic links.
    """
    folder = RunFolder(path)
    _refuse_links(folder.journal, folder.policy)
    if not path.is_dir():
        raise RunFolderError(
            f"a run is a folder made by a search, and {path} is not one"
        )
    if not folder.journal.is_file():
        raise RunFolderError(
            f"a run folder holds journal.jsonl, and {path} does not; name the folder "
            "that a search printed"
        )
    return folder


def check_contents(path: Path) -> None:
    """Refuses a folder with anything but files and folders in it, at any depth.

    A run reads and writes in its folder, and so do libraries on its behalf. In a folder
    from elsewhere a link could point at any file or folder of the user's, and a pipe
    could hold the reading up for ever.

    Raises:
      RunFolderError: if there is a link, a pipe, a device or a socket.
      OSError: if a folder cannot be read.
    """
    for entry in files.strange(path):
        _refuse_links(entry)
        raise RunFolderError(
            f"a run folder must hold files and folders alone, and {entry} is neither;"
            " remove it"
        )


def _refuse_links(*entries: Path) -> None:
    """Raises RunFolderError if one of a run folder's entries is a symbolic link."""
    for entry in entries:
        if entry.is_symlink():
            raise RunFolderError(
                f"a run folder must hold no symbolic links, and {entry} is one; remove "
                "it, or put what it points at in its place"
            )


def _holder(written: bytes) -> str:
    """The process that a lock names: a number, whatever the file holds."""
    digits = written.strip()
    return digits.decode() if digits.isdigit() else "unknown"


def _new_name(parent: Path) -> Path:
    name = datetime.datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    path = parent / name
    number = 1
    while path.exists():
        number += 1
        path = parent / f"{name}-{number}"
    return path
