"""Searches as a user sees them: processes that are killed, interrupted, resumed.

Real driver, real Ray, real journal; the children sleep where others train, except in
the test at the end. What an uninterrupted search does is found without Ray.
"""

import collections
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from nas import journal
from nas.session import child_seed

DRIVER = Path(__file__).with_name("pretend_search.py")
OPTIONS = ["--controller", "random", "--seed", "3", "--rewards-per-update", "2"]


class Search:
    """A search in a process of its own, and its run folder."""

    def __init__(self, folder, *arguments, seconds=0.3, trouble="none", log=None):
        self.folder = folder
        self.log = log or folder.with_suffix(".log")
        command = [sys.executable, str(DRIVER), str(seconds), str(trouble), *arguments]
        with self.log.open("w") as file:
            self.process = subprocess.Popen(
                command, stdout=file, stderr=file, start_new_session=True
            )

    @property
    def said(self):
        return self.log.read_text()

    def children(self):
        """Complete lines of the journal, by a parser that is not the tested one."""
        path = self.folder / "journal.jsonl"
        if not path.exists():
            return []
        lines = path.read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines[1:]]

    def wait_for_children(self, number):
        deadline = time.monotonic() + 60
        while len(self.children()) < number:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)

    def finish(self):
        """Waits for the end; returns the exit status."""
        try:
            return self.process.wait(90)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise AssertionError(self.said) from None

    def kill(self):
        """kill -9 of the driver alone: Ray's processes must see to themselves."""
        self.process.kill()
        self.process.wait()


def start(folder, *arguments, children=6, **how):
    return Search(
        folder, "--output", str(folder), "--children", str(children), *OPTIONS,
        *arguments, **how,
    )  # fmt: skip


def resume(folder, *arguments, **how):
    return Search(folder, "--resume", str(folder), *arguments, **how)


def facts(children):
    """What of a child must not depend on when and where it was trained."""
    transient = {"finished", "worker", "asked"}
    return [{k: v for k, v in c.items() if k not in transient} for c in children]


def assert_each_once(children, number):
    assert sorted(child["index"] for child in children) == list(range(number))
    tokens = collections.Counter(tuple(child["tokens"]) for child in children)
    assert set(tokens.values()) == {1}


def test_killed_search_and_killed_worker_change_nothing(tmp_path):
    """One worker: killed driver, resumed, a worker dying on the way: the same run."""
    reference = start(tmp_path / "whole", "--workers", "1", seconds=0)
    assert reference.finish() == 0, reference.said

    run = tmp_path / "run"
    search = start(run, "--workers", "1")
    search.wait_for_children(2)
    search.kill()
    done_before = len(search.children())
    with (run / "journal.jsonl").open("a") as file:
        file.write('{"index":5,"tok')  # what a kill within a write leaves

    deaths = tmp_path / "deaths"
    deaths.mkdir()
    for index in (4, 5):
        (deaths / str(child_seed(3, index))).touch()
    search = resume(run, "--workers", "1", trouble=deaths)
    assert search.finish() == 0, search.said
    assert not list(deaths.iterdir()), "the workers were to die, and did not"
    assert done_before < 6
    assert_each_once(search.children(), 6)
    assert facts(search.children()) == facts(reference.children())


def test_ctrl_c_saves_and_a_second_search_is_refused(tmp_path):
    run = tmp_path / "run"
    search = start(run, children=100)
    search.wait_for_children(3)

    second = resume(run, log=tmp_path / "second.log")
    assert second.finish() == 2
    assert "serves one search at a time" in second.said
    assert str(search.process.pid) in second.said

    os.killpg(search.process.pid, signal.SIGINT)  # as a terminal does
    pressed = time.monotonic()
    assert search.finish() == 130
    assert time.monotonic() - pressed < 20
    assert f"--resume {run}" in search.said
    assert "Traceback" not in search.said
    for name in ("best.json", "pareto.json", "report.html", "config.json"):
        assert (run / name).stat().st_size > 0
    best = max(c["reward"] for c in search.children() if "reward" in c)
    assert json.loads((run / "best.json").read_text())["found"]["reward"] == best
    assert journal.read(run / "journal.jsonl").num_bytes > 0
