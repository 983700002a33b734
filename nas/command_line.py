"""Command lines made from dataclasses, and complaints about them in one line."""

import contextlib
import io
import itertools
import re
import sys
from collections.abc import Sequence
from typing import TypeVar

import tyro

_T = TypeVar("_T")

_LONGEST_COMPLAINT = 2_000


class UsageError(Exception):
    """A flag whose value cannot be used. One line: rule, value and remedy.

    Not a ValueError, which the command line's parser would print in a box.
    """


def parse(
    arguments: Sequence[str] | None,
    defaults: _T,
    *,
    program: str,
    description: str,
) -> _T:
    """Parses a command line over `defaults`, whose class says what flags there are.

    Raises:
      UsageError: if a dataclass or a constructor refuses a value.
      SystemExit: for --help, and for what is no flag, which is printed.
    """
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(
                type(defaults),
                args=arguments,
                default=defaults,
                prog=f"python -m {program}",
                description=description,
                config=(tyro.conf.OmitArgPrefixes,),
            )
    except SystemExit:
        if message := _value_error(errors.getvalue()):
            raise UsageError(message) from None
        sys.stderr.write(errors.getvalue())  # an unknown flag, with suggestions
        raise


def complain(program: str, error: BaseException, status: int) -> int:
    """Prints `error` on one line of standard error; returns `status`.

    What it quotes may come from anybody's file, and must not command the terminal.
    """
    line = " ".join(str(error).split())
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    sys.stderr.write(f"{program}: {shown[:_LONGEST_COMPLAINT]}\n")
    return status


def _value_error(box: str) -> str | None:
    """The message in the box that tyro draws around a bad value; None if none."""
    title, *lines = box.splitlines() or [""]
    if "Value error" not in title:
        return None
    inside = [line.strip("│ ") for line in lines]
    message = itertools.takewhile(lambda line: not line.startswith("─"), inside)
    return re.sub(r"^Error parsing [\w.]+: ", "", " ".join(message))
