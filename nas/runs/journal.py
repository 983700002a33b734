"""The append-only record of a study, and its only state.

`journal.jsonl` holds one JSON object a line: a header that says what defines the run,
then one line for each finished trial in the order in which they were recorded, and
for each time that one of them was measured again, with a `repeat` above 0. A line
counts once its newline is on the disk: `Writer.append` returns after the line is
written and synced, so whatever follows (the controller's update, the screen) may be
lost at any moment and made again from here.

This is format 2. Format 1 (`journal_v1`) is read as well, and never written: a resumed
run of that format is converted when it is opened.

A last line without its newline is what a killed writer leaves; `Writer` cuts it off.
Anything else that does not parse is damage, and is refused.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from nas.runs import journal_v1
from nas.study.confirmation import Standing, standings
from nas.study.halving import latest
from nas.study.metrics import COUNTED, Metric, by_name
from nas.study.trial import (
    CompletedTrial,
    Count,
    FinishedTrial,
    InfeasibleTrial,
    Record,
)
from search_space import files
from trainers.data.fingerprint import Fingerprint
from trainers.measurement import Duration

# A trial's line is about 1 KB; the limits keep a hostile file from filling memory.
MAX_LINE_BYTES = 1_000_000
MAX_BYTES = 2**29
_MAX_METRICS = 100

MAX_PENDING = 10_000
"""Trials under way at once, at most: a resumed search may suggest them all again."""

_T = TypeVar("_T")


class JournalError(ValueError):
    """A journal that is missing, damaged or of another format."""


class Header(Record):
    """The first line: what defines the run.

    `kind` says what was run: `search` for an architecture, `grid` of scaling
    coefficients, or another program's word. `definition` is opaque here: the program
    of that kind reads it. `metrics` are what trials are measured by, `objectives` the
    names of those that the front is over, the first of them the quality. `dataset` is
    one line for people, `data` the data's fingerprint, `splits` the number of examples
    of each. `chance` is the accuracy of always naming the largest class. `num_trials`
    is how many were asked for, which a resumed run may exceed. `created` is in seconds
    since the epoch.
    """

    journal: Literal["mbconv-nas"] = "mbconv-nas"
    version: Literal[2] = 2
    kind: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,40}$")]
    created: Duration
    num_trials: Count
    definition: dict[str, JsonValue]
    metrics: Annotated[tuple[Metric, ...], Field(max_length=_MAX_METRICS)]
    objectives: Annotated[tuple[str, ...], Field(max_length=_MAX_METRICS)]
    dataset: Annotated[str, Field(max_length=1_000)]
    data: Fingerprint | None = None
    splits: dict[str, Count] = Field(default_factory=dict)
    chance: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    versions: dict[str, str]

    @model_validator(mode="after")
    def _check_objectives(self) -> Self:
        names = by_name(self.metrics)
        for name in self.objectives:
            if name not in names:
                raise ValueError(f"the objective {name!r} is none of the metrics")
        return self

    @property
    def front(self) -> tuple[Metric, ...]:
        """The metrics that the Pareto front is over."""
        names = by_name(self.metrics)
        return tuple(names[name] for name in self.objectives)


def _kind(value: Any) -> str:
    infeasible = (
        "infeasible" in value
        if isinstance(value, dict)
        else hasattr(value, "infeasible")
    )
    return "infeasible" if infeasible else "completed"


_TRIAL: TypeAdapter[FinishedTrial] = TypeAdapter(
    Annotated[
        Annotated[CompletedTrial, Tag("completed")]
        | Annotated[InfeasibleTrial, Tag("infeasible")],
        Discriminator(_kind),
    ]
)
_HEADER = TypeAdapter(Header)
_OLD_HEADER = TypeAdapter(journal_v1.Header)
_OLD_CHILD: TypeAdapter[journal_v1.Trained | journal_v1.Failed] = TypeAdapter(
    Annotated[
        Annotated[journal_v1.Trained, Tag("completed")]
        | Annotated[journal_v1.Failed, Tag("infeasible")],
        Discriminator(_kind),
    ]
)


class _Version(BaseModel):
    """What tells the formats apart."""

    model_config = ConfigDict(strict=True)

    journal: Literal["mbconv-nas"]
    version: Literal[1, 2]


_VERSION = TypeAdapter(_Version)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """A journal read back.

    `records` are all its lines but the header, in order. `num_bytes` is the length of
    its complete lines, `first_line` and `last_line` are two of them, by which it is
    known again. `format` is the file's.
    """

    header: Header
    records: tuple[FinishedTrial, ...]
    num_bytes: int
    first_line: bytes
    last_line: bytes
    format: int = 2

    @functools.cached_property
    def trials(self) -> tuple[FinishedTrial, ...]:
        """The first measurement of every child, in order."""
        first: dict[int, FinishedTrial] = {}
        for record in self.records:
            first.setdefault(record.index, record)
        return tuple(first.values())

    @functools.cached_property
    def again(self) -> tuple[FinishedTrial, ...]:
        """Later measurements from other seeds, at the highest fidelity."""
        return tuple(record for record in self.records if record.repeat)

    @property
    def standings(self) -> list[Standing]:
        """The trials that were measured, in order, with all that is known of each."""
        return standings(self.completed, self.again)

    @functools.cached_property
    def completed(self) -> tuple[CompletedTrial, ...]:
        """The children that were measured, at the highest fidelity, in order."""
        return tuple(latest(r for r in self.records if not r.repeat))

    @property
    def infeasible(self) -> tuple[InfeasibleTrial, ...]:
        """The trials that were not."""
        return tuple(t for t in self.trials if isinstance(t, InfeasibleTrial))


def create(path: Path, header: Header) -> None:
    """Writes a new journal that holds `header` alone; it appears whole or not at all.

    Raises:
      FileExistsError: if there is one already.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists: a journal is never replaced")
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("xb") as file:
        _write_line(file, header)
    draft.rename(path)


def read(path: Path, before: Contents | None = None) -> Contents:
    """Reads a journal of either format; a torn last line is left out.

    Args:
      path: the file.
      before: what was read of it earlier, to read only what was added since. Where
        the file no longer continues it, as after another took its place, the whole is
        read, and the header is another object than before.

    Raises:
      JournalError: if the file is missing, is damaged anywhere but in its last line,
        or is not a journal of these formats. One line, naming the place.
    """
    try:
        file = files.open_quickly(path)
    except OSError as error:
        raise JournalError(
            f"cannot read the journal {path}: {error.strerror}"
        ) from None
    with file:
        try:
            files.check_ordinary(file.fileno(), path, MAX_BYTES)
        except ValueError as error:
            raise JournalError(str(error)) from None
        if before is None or not _continues(file, before):
            before = _read_header(file, path)
        file.seek(before.num_bytes)
        parse = _parse_line if before.format != 1 else _old_line_parser(before.header)
        num_bytes, last_line = before.num_bytes, before.last_line
        records = list(before.records)
        seen = {trial.index: trial for trial in before.trials}
        known = {record.key for record in records}
        asked = max((trial.asked or 0 for trial in records), default=0)
        for number, line in enumerate(_complete_lines(file, path), len(records) + 2):
            place = f"{path}, line {number}"
            record = parse(line, place)
            if record.key in known:
                raise JournalError(f"{place}: {_name(record)} is there twice")
            first = seen.get(record.index)
            if record.repeat or (first and record.fidelity > first.fidelity):
                _check_later(record, first, place)
            else:
                asked = _check_order(record, asked, seen, place)
                seen[record.index] = record
            _check_metrics(record, before.header, place)
            known.add(record.key)
            records.append(record)
            num_bytes, last_line = num_bytes + len(line), line
    return dataclasses.replace(
        before, records=tuple(records), num_bytes=num_bytes, last_line=last_line
    )


def convert(path: Path) -> Contents:
    """Writes a journal of format 1 anew as format 2; the old one stays beside it.

    Returns the new one's contents. The caller holds the run folder's lock.

    Raises:
      JournalError: as `read`.
      OSError: if it cannot be written.
    """
    contents = read(path)
    if contents.format == 2:  # noqa: PLR2004
        return contents
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("xb") as file:
        for record in (contents.header, *contents.records):
            file.write(record.model_dump_json().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    old = path.with_suffix(".v1.jsonl")
    if not old.exists():
        os.link(path, old)
    draft.rename(path)
    return read(path)


def _read_header(file: BinaryIO, path: Path) -> Contents:
    file.seek(0)
    line = next(_complete_lines(file, path), None)
    if line is None:
        raise JournalError(f"{path} is empty: a journal starts with a header")
    place = f"{path}, line 1"
    version = _parse(_VERSION, line, place).version
    if version == 1:
        old = _parse(_OLD_HEADER, line, place)
        header = Header(
            kind=journal_v1.kind(old.definition),
            created=old.created,
            num_trials=old.num_children,
            definition=old.definition,
            metrics=journal_v1.metrics(old.definition),
            objectives=("accuracy", journal_v1.objective(old.definition).name),
            dataset=old.dataset,
            data=old.data,
            versions=old.versions,
        )
    else:
        header = _parse(_HEADER, line, place)
    return Contents(
        header=header,
        records=(),
        num_bytes=len(line),
        first_line=line,
        last_line=line,
        format=version,
    )


def _parse_line(line: bytes, place: str) -> FinishedTrial:
    return _parse(_TRIAL, line, place)


def _old_line_parser(header: Header) -> Callable[[bytes, str], FinishedTrial]:
    weighed = header.objectives[-1]

    def parse(line: bytes, place: str) -> FinishedTrial:
        return journal_v1.trial(_parse(_OLD_CHILD, line, place), weighed)

    return parse


def _continues(file: BinaryIO, before: Contents) -> bool:
    """Returns whether the first and the last line read are where they were."""
    start = before.num_bytes - len(before.last_line)
    for position, expected in ((0, before.first_line), (start, before.last_line)):
        file.seek(position)
        if file.read(len(expected)) != expected:
            return False
    return True


class Writer:
    """Appends children to an existing journal, each synced before `append` returns.

    Opening cuts off a torn last line. The caller holds the run folder's lock.
    """

    def __init__(self, path: Path, contents: Contents) -> None:
        """Continues the journal at `path`, whose `contents` were just read.

        Raises:
          OSError: if it cannot be opened for writing, or is a link.
        """
        self._path = path
        self._file = files.open_in_place(path, create=False)
        if self._file.seek(0, os.SEEK_END) != contents.num_bytes:
            self._file.truncate(contents.num_bytes)
            os.fsync(self._file.fileno())

    def append(self, trial: FinishedTrial) -> None:
        """Writes one line; it is on the disk when this returns.

        Raises:
          OSError: if the disk does not take it, in one line. Nothing must be appended
            after that: it would join a torn line.
        """
        try:
            _write_line(self._file, trial)
        except OSError as error:
            raise OSError(
                f"cannot write the journal {self._path}: {error.strerror}; every "
                "child before is in it; make room, then go on with --resume"
            ) from error

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the file."""
        self._file.close()


def _write_line(file: Any, record: BaseModel) -> None:
    data = (record.model_dump_json() + "\n").encode()
    while data:  # an unbuffered write may be partial, on a full disk for one
        data = data[file.write(data) :]
    file.flush()
    os.fsync(file.fileno())


def _complete_lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    while line := file.readline(MAX_LINE_BYTES + 1):
        if len(line) > MAX_LINE_BYTES:
            raise JournalError(
                f"{path}: a line is longer than {MAX_LINE_BYTES} bytes, after byte "
                f"{file.tell() - len(line)}; this is no journal of ours"
            )
        if line.endswith(b"\n"):
            yield line


def _parse(adapter: TypeAdapter[_T], line: bytes, place: str) -> _T:
    try:
        return adapter.validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "line"
        shown = json.dumps(first["input"], default=str)[:80]
        raise JournalError(
            f"{place}: {field}: {first['msg']}, got {shown}; restore the file from "
            "a copy, or cut it before this line to lose what follows"
        ) from None


def _check_metrics(trial: FinishedTrial, header: Header, place: str) -> None:
    """Refuses a trial without the metrics that pages and fronts are made of."""
    wanted = {metric.name for metric in COUNTED if metric in header.metrics}
    if isinstance(trial, CompletedTrial):
        wanted |= set(header.objectives)
    if missing := sorted(wanted - trial.metrics.keys()):
        raise JournalError(
            f"{place}: metrics must have {', '.join(missing)}, as the header says, got"
            f" {', '.join(trial.metrics) or 'none'}; restore the file from a copy, or"
            " cut it before this line to lose what follows"
        )


def _check_later(
    record: FinishedTrial, first: FinishedTrial | None, place: str
) -> None:
    """Refuses later measurements of what was not measured before."""
    if not isinstance(first, CompletedTrial) or first.tokens != record.tokens:
        raise JournalError(
            f"{place}: {_name(record)} is a later measurement, and no line before "
            "measures it; restore the file from a copy, or cut it before this line to "
            "lose what follows"
        )


def _name(record: FinishedTrial) -> str:
    text = f"trial {record.index}"
    if record.fidelity:
        text += f" at fidelity {record.fidelity}"
    return text + (f", repeat {record.repeat}" if record.repeat else "")


def _check_order(
    trial: FinishedTrial,
    asked: int,
    seen: Mapping[int, FinishedTrial],
    place: str,
) -> int:
    """Returns how many suggestions had been made when `trial` was recorded."""
    if trial.index in seen:
        raise JournalError(f"{place}: trial {trial.index} is there twice")
    if trial.asked is None:
        return asked
    least, most = max(trial.index + 1, asked), len(seen) + MAX_PENDING
    if not least <= trial.asked <= most:
        raise JournalError(
            f"{place}: asked must be from {least} to {most}, got {trial.asked}; restore"
            " the file from a copy, or cut it before this line to lose what follows"
        )
    return trial.asked
