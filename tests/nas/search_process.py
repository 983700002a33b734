"""Searches in processes of their own, and the count that must be right at their end."""

import collections
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.nas import overheard

_HERE = Path(__file__).parent
PRETEND = _HERE / "pretend_search.py"
REAL = _HERE / "real_search.py"
TINY = (
    "--dataset", "digits",
    "--space", "tiny_space:SPACE", "--target-flops", "300K", "--resolution", "8",
    "--steps", "5", "--batch-size", "16", "--validation", "100",
)  # fmt: skip


class Search:
    """A search in a process of its own, and its run folder."""

    def __init__(self, folder, command, *, log=None, environment=None):
        self.folder = folder
        self.log = log or folder.with_suffix(".log")
        with self.log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, command)],
                stdout=file,
                stderr=file,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )

    @property
    def said(self):
        return self.log.read_text()

    def children(self):
        """Complete lines of the journal, by a parser that is not the tested one."""
        return journaled(self.folder)

    def wait_for_children(self, number, seconds=120):
        deadline = time.monotonic() + seconds
        while len(self.children()) < number:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)

    def finish(self, seconds=240):
        """Waits for the end; returns the exit status."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise AssertionError(self.said) from None

    def kill(self):
        """kill -9 of the driver alone: Ray's processes must see to themselves."""
        self.process.kill()
        self.process.wait()


def journaled(folder):
    path = folder / "journal.jsonl"
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines[1:]]


def assert_each_once(children, number):
    assert sorted(child["index"] for child in children) == list(range(number))
    tokens = collections.Counter(tuple(child["tokens"]) for child in children)
    assert set(tokens.values()) == {1}


def assert_all_accounted_for(folder, number, *, told, batch_size):
    """The count at the end of a search that was done harm.

    Every child is in the journal once, and there are as many as asked for. The last
    driver's controller knows each once, in the journal's order, through the snapshot
    that it went on from or because it was told; an infeasible one with the lowest
    reward that there was by then. Less than a batch may be left over. best.json is the
    best of the journal.
    """
    children = journaled(folder)
    assert_each_once(children, number)
    rewards = [child.get("reward") for child in children]
    lowest = list(itertools.accumulate(rewards, _lower))
    position = 0
    for call_tokens, call_rewards in overheard.lineage(told):
        known = position + len(call_tokens)  # at least so many, when it was told
        for tokens, reward in zip(call_tokens, call_rewards, strict=True):
            assert tokens == children[position]["tokens"]
            possible = {rewards[position]} - {None} or set(lowest[known - 1 :])
            assert any(abs(reward - one) < 1e-6 for one in possible), (tokens, reward)
            position += 1
    assert 0 <= number - position < batch_size
    best = json.loads((folder / "best.json").read_text())
    assert best["found"]["reward"] == max(r for r in rewards if r is not None)


def _lower(one, other):
    return min((r for r in (one, other) if r is not None), default=None)
