"""What the controller's policy had settled on after each update: policy.jsonl.

For people to look at. The journal alone is the state of a search: a kill may cost
this log a line, and nothing more.
"""

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from controller.interface import PolicySummary
from nas.monitoring.progress import Progress
from nas.study.proposals import Proposals
from nas.study.trial import FinishedTrial, Trial
from search_space import files

# An update's line is about 1 KB.
_MAX_LINE_BYTES = 2**20
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
    """A listener of a study that writes a line after each update of a policy."""

    def __init__(self, path: Path, progress: Progress, proposals: Proposals) -> None:
        """Adds to the file at `path`; `progress` hears of a child before this.

        Raises:
          OSError: if it cannot be opened for writing, or is a link.
        """
        self._progress = progress
        self._proposals = proposals
        self._num_updates = proposals.num_updates
        self._file = files.open_in_place(path)
        size = self._file.seek(0, os.SEEK_END)
        start = self._file.seek(max(0, size - _MAX_LINE_BYTES))
        torn = len(self._file.read(_MAX_LINE_BYTES).rpartition(b"\n")[2])
        if start > 0 and torn == _MAX_LINE_BYTES:  # no line of ours: left to `read`
            self._file.write(b"\n")
        else:
            self._file.truncate(size - torn)  # a killed search may leave a torn line

    def started(self, trial: Trial) -> None:
        """Nothing to log."""

    def finished(self, child: FinishedTrial) -> None:
        """Logs the policy if it has learned from this child.

        Raises:
          OSError: if the file cannot be written.
        """
        del child
        if self._num_updates == self._proposals.num_updates:
            return
        self._num_updates = self._proposals.num_updates
        policy_summary = self._proposals.policy_summary()
        if policy_summary is not None:
            entry = _entry(
                self._progress.num_done, policy_summary, self._proposals.num_choices
            )
            self._file.write((entry.model_dump_json() + "\n").encode())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _entry(
    num_done: int, policy_summary: PolicySummary, num_choices: tuple[int, ...]
) -> Entry:
    def rounded(row: Iterable[float]) -> tuple[float, ...]:
        # A sum of float32 may exceed 1 by a little, and an entropy fall short of 0.
        return tuple(min(1.0, round(float(value), 4)) for value in row)

    return Entry(
        children=num_done,
        entropy=max(0.0, round(policy_summary.entropy, 4)),
        probabilities=tuple(
            rounded(row[:count])
            for row, count in zip(
                policy_summary.probabilities, num_choices, strict=True
            )
        ),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """The entries in a policy's log, and what of it could not be read, in one line."""

    entries: tuple[Entry, ...] = ()
    damage: str | None = None


def read(path: Path, num_choices: tuple[int, ...]) -> Contents:
    """Returns the entries in a file; none if there is no file.

    A line that is damaged or of another space is left out: all that matters of a search
    is in its journal, and neither its end nor its report must fail for this.
    """
    try:
        data = files.read_bounded(path, _MAX_BYTES)
    except FileNotFoundError:
        return Contents()
    except (ValueError, OSError) as error:
        return Contents(damage=str(error))
    entries, damaged = [], []
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        try:
            entry = _ENTRY.validate_json(line)
        except ValidationError:
            damaged.append(number)
            continue
        if tuple(map(len, entry.probabilities)) == num_choices:
            entries.append(entry)
        else:
            damaged.append(number)
    if not damaged:
        return Contents(entries=tuple(entries))
    others = f" and {len(damaged) - 1} others" if len(damaged) > 1 else ""
    return Contents(
        entries=tuple(entries),
        damage=(
            f"{path}, line {damaged[0]}{others} must be what this search wrote; remove"
            " the file: the journal has all that matters"
        ),
    )
