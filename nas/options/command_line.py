"""Command lines made from dataclasses, and complaints about them in one line."""

import contextlib
import functools
import io
import itertools
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import tyro

from nas.options import terminal

_T = TypeVar("_T")
_Main = Callable[[Sequence[str] | None], int]

_LONGEST_COMPLAINT = 2_000

NOBODY_READS = 128 + signal.SIGPIPE
"""The exit status when the reader of standard output has gone, as shells count."""


class UsageError(Exception):
    """A flag whose value cannot be used. One line: rule, value and remedy.

    Not a ValueError, which the command line's parser would print in a box.
    """


def command(program: str) -> Callable[[_Main], Callable[..., int]]:
    """Makes a command line's `main` end in good order, whatever its streams are.

    Standard output may be closed, full, or without a reader (`| head -1`), which ends
    the command with `NOBODY_READS`; Ctrl-C ends it with 130, and an allocation that
    fails with a line and 1.
    """

    def decorate(main: _Main) -> Callable[..., int]:
        @functools.wraps(main)
        def orderly(arguments: Sequence[str] | None = None) -> int:
            terminal.open_closed_streams()
            try:
                return _flushed(main, arguments)
            except BrokenPipeError:
                terminal.discard_output()
                return NOBODY_READS
            except KeyboardInterrupt:
                return 128 + signal.SIGINT
            except OSError as error:  # what is left is standard output's
                terminal.discard_output()
                return print_error(program, error, 1)
            except MemoryError as error:
                return _out_of_memory(program, error)
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                return _out_of_memory(program, error)

        return orderly

    return decorate


def _out_of_memory(program: str, error: Exception) -> int:
    what = str(error).strip().partition("\n")[0] or "an allocation failed"
    remedy = "take a smaller batch, resolution or network"
    return print_error(program, MemoryError(f"out of memory: {what}; {remedy}"), 1)


def _flushed(main: _Main, arguments: Sequence[str] | None) -> int:
    """Runs `main`, and flushes what it printed while that can still be told of."""
    try:
        status = main(arguments)
    except SystemExit:  # --help, and what is no flag
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return status


def parse(
    arguments: Sequence[str] | None,
    defaults: _T,
    *,
    program: str,
    description: str,
) -> _T:
    """Parses a command line over `defaults`, whose class says what flags there are.

    A default that is `tyro.MISSING` has to be given.

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
        # An unknown flag, with suggestions.
        for line in errors.getvalue().splitlines():
            sys.stderr.write(terminal.printable(line) + "\n")
        raise


def quantity(
    flag: str,
    metavar: str,
    parse: Callable[[str], Any],
    show: Callable[[Any], str],
) -> tyro.constructors.PrimitiveConstructorSpec[Any]:
    """How a flag takes a quantity in one word; None, where allowed, shows as `none`.

    Args:
      flag: begins the message of the `UsageError` for a word that is no quantity.
      metavar: stands for the word in --help.
      parse: raises a ValueError that says what the word should have been.
      show: gives the word for a value that is not None.
    """

    def parse_word(words: list[str]) -> Any:
        try:
            return parse(words[0])
        except ValueError as error:
            raise UsageError(f"{flag}: {error}") from None

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=parse_word,
        is_instance=lambda value: value is None or isinstance(value, int | float),
        str_from_instance=lambda value: ["none" if value is None else show(value)],
    )


def print_error(program: str, error: BaseException, status: int) -> int:
    """Prints `error` on one line of standard error; returns `status`.

    Raises:
      BrokenPipeError: if that is the error: it is for `command`.
    """
    if isinstance(error, BrokenPipeError):
        raise error
    shown = terminal.one_line(str(error))[:_LONGEST_COMPLAINT]
    sys.stderr.write(f"{program}: {shown}\n")
    return status


def _value_error(box: str) -> str | None:
    """The message in the box that tyro draws around a bad value; None if none."""
    title, *lines = box.splitlines() or [""]
    if "Value error" not in title:
        return None
    inside = [line.strip("│ ") for line in lines]
    # Where the stream is not known to take more than ASCII, a rule is under the title.
    inside = itertools.dropwhile(_is_rule, inside)
    message = itertools.takewhile(lambda line: not _is_rule(line), inside)
    return re.sub(r"^Error parsing [\w.]+: ", "", " ".join(message))


def _is_rule(line: str) -> bool:
    return len(line) > 2 and set(line) <= set("─-╰╯")  # noqa: PLR2004
