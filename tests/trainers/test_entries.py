"""Tests for trainers.runtime.entries: files that hold what was given for their name."""

import os
import subprocess
import sys
import time

import pytest

from trainers.runtime import entries

# Replaces one of 200 entries every millisecond, as a busy worker does.
WRITER = """
import itertools, sys, time
from pathlib import Path
from trainers.runtime import entries
print("writing", flush=True)
for number in itertools.count():
    entries.write(Path(sys.argv[1]) / f"e{number % 200}", b"x" * 100)
    time.sleep(0.001)
"""


def test_an_entry_is_what_was_written_under_its_name(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    assert entries.read(a) is None
    entries.write(a, b"one")
    entries.write(b, b"two")
    assert (entries.read(a), entries.read(b)) == (b"one", b"two")
    a.rename(tmp_path / "c")
    b.rename(a)
    (tmp_path / "c").rename(b)
    assert (entries.read(a), entries.read(b)) == (None, None)
    entries.write(a, b"three")
    assert entries.read(a) == b"three"
    assert a.stat().st_mode & 0o7777 == 0o600


@pytest.mark.parametrize("length", [0, 10, 31, 32, 34])
def test_a_torn_entry_is_missing(tmp_path, length):
    entries.write(tmp_path / "a", b"one")
    content = (tmp_path / "a").read_bytes()
    assert len(content) == 35
    (tmp_path / "a").write_bytes(content[:length])
    assert entries.read(tmp_path / "a") is None


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(entries, "_digest", full)
    entries.write(tmp_path / "a", b"one")
    assert list(tmp_path.iterdir()) == []


def test_the_oldest_entries_beyond_the_limit_and_old_debris_are_removed(tmp_path):
    entries.prune(tmp_path, 0)
    now = time.time()
    for age in range(5):
        path = tmp_path / f"entry{age}"
        path.write_bytes(b"x" * 100)
        os.utime(path, (now - 9999 - age, now - 9999 - age))
    for name, age in (("tmpabc", 4000), ("tmpdef", 3000)):  # killed; still at it
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (now - age, now - age))
    entries.prune(tmp_path, 251)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["entry0", "entry1", "tmpdef"]


def test_pruning_beside_a_writer(tmp_path):
    """What is renamed between being listed and being looked at is no error."""
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        for _ in range(300):
            entries.prune(tmp_path, 10_000)
        writer.kill()
