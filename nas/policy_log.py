"""What the controller's policy had settled on after each update: policy.jsonl.

For people to look at. The journal alone is the state of a search: a kill may cost
this log a line, and nothing more.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from controller.interface import Beliefs
from nas import journal
from nas.progress import Progress
from nas.proposals import Proposals
from nas.session import Job
from search_space import files

# An update's line is about 1 KB.
_MAX_BYTES = 2**27

_Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Entry(BaseModel):
    """The policy when `children` had finished.

    `entropy` is in nats; `probabilities` has a row for each decision, an entry for
    each of its choices.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    children: Annotated[int, Field(ge=0, le=2**53)]
    entropy: Annotated[float, Field(ge=0.0, le=1e9)]
    probabilities: tuple[tuple[_Share, ...], ...]


_ENTRY = TypeAdapter(Entry)


class PolicyLog:
    """A listener of a session that writes a line after each update of a policy."""

    def __init__(self, path: Path, progress: Progress, proposals: Proposals) -> None:
        """Adds to the file at `path`; `progress` hears of a child before this.

        Raises:
          OSError: if it cannot be opened for writing, or is a symbolic link.
          ValueError: if it is no file that a search wrote.
        """
        self._progress = progress
        self._proposals = proposals
        self._num_updates = proposals.num_updates
        # As with the journal, a link could point at any file of the user's.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.fdopen(os.open(path, flags, 0o666), "wb", buffering=0)
        whole = files.read_bounded(path, _MAX_BYTES).rfind(b"\n") + 1
        self._file.truncate(whole)  # a killed search may leave a torn line

    def started(self, job: Job) -> None:
        """Nothing to log."""

    def finished(self, child: journal.Child) -> None:
        """Logs the policy if it has learned from this child.

        Raises:
          OSError: if the file cannot be written.
        """
        del child
        if self._num_updates == self._proposals.num_updates:
            return
        self._num_updates = self._proposals.num_updates
        beliefs = self._proposals.beliefs()
        if beliefs is not None:
            entry = _entry(
                self._progress.num_done, beliefs, self._proposals.num_choices
            )
            self._file.write((entry.model_dump_json() + "\n").encode())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _entry(num_done: int, beliefs: Beliefs, num_choices: tuple[int, ...]) -> Entry:
    def rounded(row: Iterable[float]) -> tuple[float, ...]:
        # A sum of float32 may exceed 1 by a little, and an entropy fall short of 0.
        return tuple(min(1.0, round(float(value), 4)) for value in row)

    return Entry(
        children=num_done,
        entropy=max(0.0, round(beliefs.entropy, 4)),
        probabilities=tuple(
            rounded(row[:count])
            for row, count in zip(beliefs.probabilities, num_choices, strict=True)
        ),
    )


def read(path: Path, num_choices: tuple[int, ...]) -> tuple[Entry, ...]:
    """Returns the entries in a file; none if there is no file.

    Raises:
      ValueError: if it is damaged anywhere but in its last line, or of another space.
        One line.
      OSError: if it cannot be read.
    """
    try:
        data = files.read_bounded(path, _MAX_BYTES)
    except FileNotFoundError:
        return ()
    remedy = "remove the file: the journal has all that matters"
    entries = []
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        place = f"{path}, line {number}"
        try:
            entry = _ENTRY.validate_json(line)
        except ValidationError:
            raise ValueError(f"{place} must be what a search wrote; {remedy}") from None
        if tuple(map(len, entry.probabilities)) != num_choices:
            raise ValueError(f"{place} must be of the space searched; {remedy}")
        entries.append(entry)
    return tuple(entries)
