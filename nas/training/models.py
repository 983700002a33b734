"""What a command takes for an architecture or a model, and how it complains."""

import os
from pathlib import Path

from nas.options import command_line
from search_space import codec, zoo
from search_space.spec import ArchSpec
from trainers.deploy import saved

TRAINED = "model"  # where a training run keeps its network, inside its folder


def architecture(name: str) -> ArchSpec:
    """Returns the architecture in a JSON file or a model's folder, or the zoo's.

    Raises:
      ValueError: if it is none of these, or malformed. One line.
      OSError: if it cannot be read.
    """
    path = Path(os.path.expanduser(name))  # leaves an unknown user's ~name as it is
    if folder := _folder(path):
        return codec.load_file(folder / saved.ARCHITECTURE)
    if path.is_file():
        return codec.load_file(path)
    if zoo.has(name):
        return zoo.load(name)
    raise ValueError(
        "an architecture is a JSON file such as a search's best.json, a model's or a"
        f" training run's folder, or one of {', '.join(zoo.names())}; got"
        f" {name[:200]!r} (those names may have {zoo.PYTORCH} behind them)"
    )


def model(name: str, *, seed: int) -> saved.Model:
    """Returns the model in a folder; of an architecture alone, with fresh weights.

    Args:
      name: as `architecture` takes.
      seed: of the fresh weights.

    Raises:
      ValueError: if it is no model, or damaged. One line.
      OSError: if a file is missing or cannot be read.
    """
    if folder := _folder(Path(os.path.expanduser(name))):
        return saved.load(folder)
    return saved.fresh(architecture(name), seed=seed)


def is_model(name: str) -> bool:
    """Whether `name` is meant as a model, beside the names of pictures."""
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        return any((folder / saved.ARCHITECTURE).is_file() for folder in _places(path))
    return path.suffix == ".json" or name in zoo.names()


def print_error(command: str, error: BaseException, status: int = 2) -> int:
    """Writes the error to stderr on one line; returns the exit status."""
    return command_line.print_error(command, error, status)


def _folder(path: Path) -> Path | None:
    """The folder that holds the model, if `path` is one or a training run's."""
    if not path.is_dir():
        return None
    for folder in _places(path):
        if (folder / saved.ARCHITECTURE).is_file():
            return folder
    raise ValueError(
        f"a model's folder holds {saved.ARCHITECTURE}, or {TRAINED}/ with it, and"
        f" {path} does not; name a folder that nas.train or nas.export wrote"
    )


def _places(path: Path) -> tuple[Path, Path]:
    """Where a model may be, in a training run's folder or in its own."""
    return path / TRAINED, path
