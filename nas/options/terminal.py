"""Text on the terminal, and a terminal that may be gone.

What is shown quotes anybody's files: names of architectures, classes and folders,
reasons of failures. It must not command the terminal.
"""

import contextlib
import io
import os
import sys
from typing import NoReturn

from rich.console import Console

# Joiners: invisible, and part of how several languages are written.
_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"


def printable(text: str) -> str:
    r"""Returns `text` with U+FFFD in place of all that is not for reading.

    Escapes and other controls, new lines among them, direction marks, and halves of
    characters as the names of files may have.

    >>> printable("caf\u00e9 \x1b[2J").encode("ascii", "backslashreplace")
    b'caf\\xe9 \\ufffd[2J'
    """
    return "".join(
        c if c.isprintable() or c in _JOINERS else "\N{REPLACEMENT CHARACTER}"
        for c in text
    )


def one_line(text: str) -> str:
    r"""Returns `text` on one line, and as `printable`.

    >>> one_line("a\n\tb\x07")
    'a b\ufffd'
    """
    return printable(" ".join(text.split()))


def say(text: str) -> None:
    """Prints a line.

    Raises:
      OSError: if standard output does not take it; BrokenPipeError if nobody reads.
    """
    sys.stdout.write(printable(text) + "\n")


class Screen(Console):
    """Rich's console, which would end the process when nobody reads it any more."""

    def on_broken_pipe(self) -> NoReturn:
        """Lets the BrokenPipeError go on, to whoever can end things in good order."""
        raise


def screen() -> Screen:
    """Returns standard output, for lines of any length."""
    return Screen(soft_wrap=True)


def open_closed_streams() -> None:
    """Puts the null device where a standard stream is closed (`>&-`).

    Else the next file opened would get its number, and whatever a library prints.
    Characters that the terminal's encoding lacks are shown as escapes.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            _occupy(number)
            mode = "w" if number else "r"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Sends what is still to be printed nowhere: its reader has gone."""
    # A stream of a test's has no number.
    with contextlib.suppress(io.UnsupportedOperation, ValueError):
        number = sys.stdout.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)


def _occupy(number: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != number:
            os.dup2(null, number)
            os.close(null)
