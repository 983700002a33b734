"""Runs a command on an input in this process, and says what is wrong with how it ends.

Wrong are a traceback, an exit status that is not documented, an end with an error that
is not one line, an escape sequence on the terminal, a file changed outside of what the
command was given, and more than so many seconds.
"""

import contextlib
import dataclasses
import io
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from nas import calibrate, export, predict, profile, report, scale, search, train
from nas.evaluation import latency_table
from nas.execution import driver
from nas.pages import serve
from nas.training import run as training
from trainers import loop

MAINS: dict[str, Callable[..., int]] = {
    "search": search.main, "scale": scale.main, "train": train.main,
    "predict": predict.main, "export": export.main, "profile": profile.main,
    "report": report.main, "calibrate": calibrate.main,
}  # fmt: skip
# 0, refused, stopped; interrupted; without a reader.
STATUSES = {0, 1, 2, 130, 143, 141}


class _Alarm(BaseException):
    """The time is up."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Input:
    """A command line, of a command by its last name; `what` was damaged and how."""

    command: str
    arguments: tuple[str, ...]
    what: str
    searches: bool = True  # else a search ends before its first child


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ending:
    """How a command ended: its status, and what is wrong, if anything is."""

    status: int | None
    complaint: str = ""
    fault: str | None = None
    details: str = ""


class Stubs:
    """Stand-ins for what takes long: training, measuring, serving, Ray."""

    def __init__(self) -> None:
        self.calls_left: int | None = None
        self.searches = True

    def fit(self, step: Any, state: Any, batches: Any, schedule: Any) -> Any:
        """Stands in for `loop.fit`: the state stays, losses are zero."""
        del step, schedule
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left < 0:
                raise loop.DivergedError("the loss is nan")
        return state, np.zeros(sum(1 for _ in batches), np.float32)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Puts the stand-ins into place."""
        run_study = driver.run

        def without_ray(started: Any, console: Any, interrupts: Any) -> None:
            if self.searches and started.setup.evaluator.place == "driver":
                run_study(started, console, interrupts)
            else:
                with driver._study(started):
                    pass

        def seen(source: Any, port: int) -> int:
            source.version()
            source.view()
            serve.listen(port).close()
            return 0

        def unmeasured(*_: Any, **__: Any) -> NoReturn:
            raise ValueError("nothing is measured here")

        patch.setattr(training.loop, "fit", self.fit)
        patch.setattr(training.Run, "_accuracies", lambda *_: {"accuracy": 0.5})
        patch.setattr(driver, "run", without_ray)
        patch.setattr(report, "_serve", seen)
        patch.setattr(latency_table, "build", unmeasured)
        patch.setattr(profile, "_latencies", lambda *_: {})


def run(tried: Input, *, seconds: int) -> Ending:
    """Runs the command, for so long at most."""
    out, err = io.StringIO(), io.StringIO()
    status, is_usage = None, False
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            _alarm(seconds),
        ):
            status = MAINS[tried.command](list(tried.arguments))
    except SystemExit as end:
        status, is_usage = end.code, True
    except _Alarm:
        return Ending(status=None, fault="hang", details=traceback.format_exc())
    # Whatever escapes a command is what is looked for, and the panics of libraries in
    # Rust (pydantic, safetensors) are no Exception.
    except BaseException:  # noqa: BLE001
        return Ending(status=None, fault="traceback", details=traceback.format_exc())
    shown, error = out.getvalue(), err.getvalue()
    ending = Ending(
        status=status if isinstance(status, int) else 0,
        complaint=error,
        fault=fault_of(status, shown, error, is_usage=is_usage),
    )
    return dataclasses.replace(ending, details=error[-3_000:] if ending.fault else "")


def fault_of(status: Any, shown: str, error: str, *, is_usage: bool) -> str | None:
    """What is wrong with how a command ended; None if nothing is.

    `is_usage`: it ended with the usage of its flags, which takes several lines.
    """
    if "Traceback (most recent call last)" in error:
        return "traceback on stderr"
    if status not in STATUSES:
        return f"status {status!r}"
    if any(c in shown + error for c in "\x1b\x07\u202e\x00"):
        return "escape"
    if status in (1, 2) and not is_usage and error.count("\n") != 1:
        return "not one line"
    return None


def help_of(command: str) -> str:
    """What the command says of its flags."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        MAINS[command](["--help"])
    return out.getvalue()


@contextlib.contextmanager
def _alarm(seconds: int) -> Iterator[None]:
    def ring(*_: Any) -> NoReturn:
        raise _Alarm

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def state_of(folder: Path) -> dict[str, tuple[Any, ...]]:
    """What is in a folder, so that any change shows."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found[str(path)] = (
            status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns,
        )  # fmt: skip
    return found


def as_process(program: str, arguments: Sequence[str]) -> list[str]:
    """The command line of a process of its own."""
    return ["-m", f"nas.{program}", *arguments]
