"""Searches in processes of their own, and the count that must be right at their end."""

import collections
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_HERE = Path(__file__).parent
PRETEND = _HERE / "pretend_search.py"
REAL = _HERE / "real_search.py"
TINY = (
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
    driver's controller, which learns from the journal anew, was told of each once, in
    the journal's order, an infeasible one with the lowest reward so far; less than a
    batch may be left over. best.json is the best of the journal.
    """
    children = journaled(folder)
    assert_each_once(children, number)
    lines = [json.loads(line) for line in told.read_text().splitlines()]
    heard = [(tuple(tokens), reward) for tokens, reward in lines]
    expected, lowest = [], None
    for child in children:
        reward = child.get("reward")
        lowest = reward if lowest is None else min(lowest, reward or lowest)
        expected.append([tuple(child["tokens"]), lowest if reward is None else reward])
    for entry in expected:  # those before the first reward are told its value
        entry[1] = next(r for _, r in expected if r) if entry[1] is None else entry[1]
    assert 0 <= len(expected) - len(heard) < batch_size
    for (tokens, reward), (own, told_reward) in zip(expected, heard, strict=False):
        assert own == tokens
        assert abs(told_reward - reward) < 1e-6
    rewards = [child["reward"] for child in children if "reward" in child]
    best = json.loads((folder / "best.json").read_text())
    assert best["found"]["reward"] == max(rewards)
