"""Commands whose standard output is closed, full or unread; text for the terminal."""

import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from nas.options import command_line, terminal

ROOT = Path(__file__).parents[3]


def shell(command, **environment):
    """Runs a shell's command; returns its status and standard error."""
    ended = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment}, timeout=250,
    )  # fmt: skip
    return ended.returncode, ended.stderr


@pytest.mark.parametrize(
    ("redirection", "status"), [(">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 0)]
)
def test_a_closed_stream_is_no_error(redirection, status):
    command = f"{sys.executable} -m nas.profile efficientnet-lite0 --json {redirection}"
    assert shell(command) == (status, "")


def test_an_output_that_nobody_reads_ends_a_command_in_silence():
    command = f"{sys.executable} -m nas.profile efficientnet-b7 | head -1 > /dev/null"
    assert shell(f"{command}; exit ${{PIPESTATUS[0]}}") in (
        (141, ""),
        (0, ""),  # it was all in the pipe before the reader went
    )


def test_a_full_disk_under_the_output_is_one_line():
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    command = f"{sys.executable} -m nas.profile efficientnet-lite0 > /dev/full"
    status, error = shell(command)
    assert status in (1, 2)
    assert error.count("\n") == 1
    assert "No space left" in error


class Gone:
    """A stream whose reader has gone."""

    errors = "strict"

    def write(self, _):
        raise BrokenPipeError

    def flush(self):
        pass

    def fileno(self):
        raise ValueError


@pytest.mark.parametrize(
    ("error", "status", "lines"),
    [
        (BrokenPipeError(), 141, 0),
        (KeyboardInterrupt(), 130, 0),
        (MemoryError("Unable to allocate 4 EiB"), 1, 1),
        (OSError(28, "No space left on device"), 1, 1),
    ],
)
def test_what_ends_a_command(capsys, error, status, lines):
    @command_line.command("nas.it")
    def main(_=None):
        raise error

    assert main([]) == status
    assert capsys.readouterr().err.count("\n") == lines


def test_a_reader_that_goes_while_a_command_complains(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Gone())

    @command_line.command("nas.it")
    def main(_=None):
        try:
            terminal.say("a line")
        except OSError as error:
            return command_line.print_error("nas.it", error, 2)

    assert main([]) == 141


def test_a_screen_lets_its_caller_know_that_nobody_reads(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Gone())
    with pytest.raises(BrokenPipeError):
        terminal.screen().print("a line")


def test_text_for_the_terminal_has_nothing_that_commands_it():
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    shown = terminal.printable(every)
    left = {unicodedata.category(c) for c in shown if c not in "\u200c\u200d"}
    # Unicode's categories of controls, formats, surrogates and separators of lines.
    assert not left & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    words = "Möwe 海鸥 می‌خواهم 👩‍🚀 [/red]"
    assert terminal.printable(words) == words


def test_a_name_that_cannot_be_encoded_is_shown_all_the_same(capsys):
    terminal.say("runs/\udcff\x1b[2J")
    assert capsys.readouterr().out == "runs/\ufffd\ufffd[2J\n"
