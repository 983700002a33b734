"""The append-only record of a search, and its only state.

`journal.jsonl` holds one JSON object a line: a header that says what defines the
run, then one line for each finished child in the order in which the controller
learned of them. A line counts once its newline is on the disk: `Writer.append`
returns after the line is written and synced, so whatever follows (the controller's
update, the screen) may be lost at any moment and made again from here.

A last line without its newline is what a killed writer leaves; `Writer` cuts it off.
Anything else that does not parse is damage, and is refused.
"""

import dataclasses
import json
import os
from collections.abc import Iterator
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
)

from search_space import files
from trainers.data.fingerprint import Fingerprint

# A child's line is about 1 KB; the limits keep a hostile file from filling memory.
MAX_LINE_BYTES = 1_000_000
MAX_BYTES = 2**29

# Beyond these, sums, dates and their display overflow.
_MAX_COUNT = 2**53
_MAX_SECONDS = 1e11  # since the epoch: the year 5138

MAX_IN_FLIGHT = 10_000
"""Children under way at once, at most: a resumed search proposes them all again."""

_T = TypeVar("_T")
_Count = Annotated[int, Field(ge=0, le=_MAX_COUNT)]
_Seconds = Annotated[float, Field(ge=0.0, le=_MAX_SECONDS, allow_inf_nan=False)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]


class JournalError(ValueError):
    """A journal that is missing, damaged or of another format."""


class _Record(BaseModel):
    """Parsed strictly: exact types, no unknown fields, no NaN."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Header(_Record):
    """The first line: what defines the run.

    `definition` is opaque here; its program reads it. `dataset` is one line for
    people; `data` is what tells whether it is still the same, None in journals of
    versions that did not record it and where no data are read. `num_children` is how
    many were asked for, which a resumed search may exceed. `created` is in seconds
    since the epoch.
    """

    journal: Literal["mbconv-nas"] = "mbconv-nas"
    version: Literal[1] = 1
    created: _Seconds
    num_children: _Count
    definition: dict[str, JsonValue]
    dataset: Annotated[str, Field(max_length=1_000)]
    data: Fingerprint | None = None
    versions: dict[str, str]


class Worker(_Record):
    """Where a child was evaluated."""

    host: Annotated[str, Field(max_length=300)]
    pid: _Count


class Seconds(_Record):
    """Where a child's time went, in seconds."""

    compile: _Seconds
    train: _Seconds
    eval: _Seconds


class _Child(_Record):
    """What every child has.

    `asked` is the number of suggestions that had been made when the child was
    recorded: with it the search can be replayed. `num_macs` and `num_params` are of
    the full network at its deployment resolution. `finished` is in seconds since the
    epoch.
    """

    index: _Count
    asked: _Count
    tokens: tuple[_Count, ...]
    num_macs: _Count
    num_params: _Count
    finished: _Seconds
    worker: Worker | None


class Trained(_Child):
    """A child that was measured.

    `accuracy` is on the validation split, in [0, 1]. `losses` are training losses at
    evenly spaced steps, the first and the last among them, `num_steps` steps in all.
    `objective` is what the reward weighs, where that is not multiply-adds.
    """

    reward: _Finite
    accuracy: Annotated[float, Field(ge=0.0, le=1.0)]
    losses: tuple[_Finite, ...]
    num_steps: _Count
    images_per_second: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
    seconds: Seconds
    objective: _Finite | None = None


class Failed(_Child):
    """A child that could not be measured; `infeasible` is the reason."""

    infeasible: Annotated[str, Field(max_length=10_000)]


def _kind(value: Any) -> str:
    infeasible = (
        "infeasible" in value
        if isinstance(value, dict)
        else hasattr(value, "infeasible")
    )
    return "failed" if infeasible else "trained"


Child = Trained | Failed
_CHILD: TypeAdapter[Child] = TypeAdapter(
    Annotated[
        Annotated[Trained, Tag("trained")] | Annotated[Failed, Tag("failed")],
        Discriminator(_kind),
    ]
)
_HEADER = TypeAdapter(Header)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """A journal read back.

    `num_bytes` is the length of its complete lines, `num_last_bytes` of the last one.
    """

    header: Header
    children: tuple[Child, ...]
    num_bytes: int
    num_last_bytes: int

    @property
    def trained(self) -> tuple[Trained, ...]:
        """The children that were measured, in order."""
        return tuple(c for c in self.children if isinstance(c, Trained))

    @property
    def failed(self) -> tuple[Failed, ...]:
        """The children that were not."""
        return tuple(c for c in self.children if isinstance(c, Failed))


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
    """Reads a journal; a torn last line is left out.

    Args:
      path: the file.
      before: what was read of it earlier, to read only what was added since. Where
        the file no longer continues it, as after another took its place, the whole is
        read, and the header is another object than before.

    Raises:
      JournalError: if the file is missing, is damaged anywhere but in its last line,
        or is not a journal of this version. One line, naming the place.
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
        if before is not None and not _continues(file, before):
            before = None
        file.seek(0)
        lines = _complete_lines(file, path)
        if before is None:
            first = next(lines, None)
            if first is None:
                raise JournalError(f"{path} is empty: a journal starts with a header")
            header = _parse(_HEADER, first, f"{path}, line 1")
            before = Contents(
                header=header,
                children=(),
                num_bytes=len(first),
                num_last_bytes=len(first),
            )
        file.seek(before.num_bytes)
        header, num_bytes = before.header, before.num_bytes
        num_last_bytes = before.num_last_bytes
        children = list(before.children)
        seen = {child.index for child in children}
        for number, line in enumerate(lines, start=len(children) + 2):
            place = f"{path}, line {number}"
            child = _parse(_CHILD, line, place)
            _check_order(child, children, seen, place)
            seen.add(child.index)
            children.append(child)
            num_bytes += len(line)
            num_last_bytes = len(line)
    return Contents(
        header=header,
        children=tuple(children),
        num_bytes=num_bytes,
        num_last_bytes=num_last_bytes,
    )


def _continues(file: BinaryIO, before: Contents) -> bool:
    """Returns whether the header and the last line read are where they were."""
    last = before.children[-1] if before.children else before.header
    expected = [(0, before.header), (before.num_bytes - before.num_last_bytes, last)]
    for position, record in expected:
        file.seek(position)
        line = file.readline(MAX_LINE_BYTES + 1)
        try:
            if type(record).model_validate_json(line) != record:
                return False
        except ValidationError:
            return False
    return file.tell() == before.num_bytes


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

    def append(self, child: Child) -> None:
        """Writes one line; it is on the disk when this returns.

        Raises:
          OSError: if the disk does not take it, in one line. Nothing must be appended
            after that: it would join a torn line.
        """
        try:
            _write_line(self._file, child)
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


def _check_order(child: Child, before: list[Child], seen: set[int], place: str) -> None:
    if child.index in seen:
        raise JournalError(f"{place}: child {child.index} is there twice")
    least = max(child.index + 1, before[-1].asked if before else 0)
    most = len(before) + MAX_IN_FLIGHT
    if not least <= child.asked <= most:
        raise JournalError(
            f"{place}: asked must be from {least} to {most}, got {child.asked}; restore"
            " the file from a copy, or cut it before this line to lose what follows"
        )
