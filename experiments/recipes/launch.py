"""Starts a search, or goes on with the one that is there: what restarted jobs need."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tyro

from nas import search
from nas.runs.run_folder import RunFolder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Start the recipe's search, or go on with it."""

    output: Path
    """Folder of the run."""


def main(
    program: str,
    description: str | None,
    output: Path,
    flags: Sequence[str],
    *,
    workers: Sequence[str] = (),
    arguments: Sequence[str] | None = None,
) -> int:
    """The command line of a recipe of fixed flags; see `search_in`."""
    parsed = tyro.cli(
        Arguments,
        args=arguments,
        prog=f"python -m {program}",
        description=description,
        default=Arguments(output=output),
    )
    return search_in(parsed.output, flags, workers)


def search_in(folder: Path, flags: Sequence[str], workers: Sequence[str] = ()) -> int:
    """Searches in `folder` to the end; returns the exit status of nas.search.

    Args:
      folder: of the run; if it holds a search, that one is resumed.
      flags: what defines the search. A resumed one keeps its own.
      workers: flags that may differ each time.
    """
    if RunFolder(folder).journal.exists():
        return search.main(["--resume", str(folder), *workers])
    return search.main(["--output", str(folder), *flags, *workers])
