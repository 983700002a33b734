"""Starts a search, or goes on with the one that is there: what restarted jobs need."""

from collections.abc import Sequence
from pathlib import Path

from nas import search
from nas.run_folder import RunFolder


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
