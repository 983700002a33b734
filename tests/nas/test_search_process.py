"""Searches as a user sees them: processes that are killed, interrupted, resumed.

Real driver, real Ray, real journal; the children sleep where others train, except in
the test at the end. What an uninterrupted search does is found without Ray.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from nas.runs import journal
from nas.study.study import trial_seed
from tests.nas.search_process import PRETEND, Search, assert_each_once

OPTIONS = ["--controller", "random", "--seed", "3", "--rewards-per-update", "2"]


def pretend(folder, *arguments, seconds=0.3, trouble="none", log=None):
    return Search(folder, [PRETEND, seconds, trouble, *arguments], log=log)


def start(folder, *arguments, children=6, **how):
    return pretend(
        folder, "--output", folder, "--children", children, *OPTIONS, *arguments, **how
    )


def resume(folder, *arguments, **how):
    return pretend(folder, "--resume", folder, *arguments, **how)


def listening(pid):
    """Names of the processes below `pid` that listen, and the addresses they do at."""
    names, addresses = set(), set()
    driver = psutil.Process(pid)
    for process in [driver, *driver.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            for connection in process.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    names.add(process.name())
                    addresses.add(connection.laddr.ip)
    return names, addresses


def facts(children):
    """What of a child must not depend on when and where it was trained."""
    transient = {"finished", "worker", "asked"}
    return [{k: v for k, v in c.items() if k not in transient} for c in children]


def test_killed_search_and_killed_worker_change_nothing(tmp_path):
    """One worker: killed driver, resumed, a worker dying on the way: the same run."""
    reference = start(tmp_path / "whole", "--workers", "1", seconds=0, trouble="alone")

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
        (deaths / str(trial_seed(3, index))).touch()
    search = resume(run, "--workers", "1", trouble=deaths)
    assert search.finish() == 0, search.said
    assert not list(deaths.iterdir()), "the workers were to die, and did not"
    assert done_before < 6
    assert_each_once(search.children(), 6)
    assert reference.finish() == 0, reference.said
    assert facts(search.children()) == facts(reference.children())


def test_a_search_keeps_to_this_machine_and_ctrl_c_saves(tmp_path):
    """And a second search in its folder is refused."""
    run = tmp_path / "run"
    search = start(run, children=100)
    search.wait_for_children(3)
    names, addresses = listening(search.process.pid)
    assert {"gcs_server", "raylet"} <= names
    assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}

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
    assert (run / "controller.npz").stat().st_size > 0


@pytest.mark.slow
def test_children_that_hang_or_return_nonsense_are_infeasible_and_the_rest_is_not(
    tmp_path,
):
    """Each kind once; what hangs keeps Python's lock, or is a stopped process."""
    troubles = {1: "hang", 2: "stop", 4: "nan", 5: "inf", 7: "1.5", 8: "-0.5"}
    folder = tmp_path / "troubles"
    folder.mkdir()
    for index, kind in troubles.items():
        (folder / str(trial_seed(3, index))).write_text(kind)
    search = start(
        tmp_path / "run", "--child-time-limit", "3s", children=10, trouble=folder,
        seconds=0,
    )  # fmt: skip
    assert search.finish() == 0, search.said
    children = search.children()
    assert_each_once(children, 10)
    reasons = {c["index"]: c["infeasible"] for c in children if "infeasible" in c}
    diverged = {i for i in range(10) if trial_seed(3, i) % 7 == 0}
    assert set(reasons) == set(troubles) | diverged
    assert all("reward" not in c for c in children if c["index"] in reasons)
    for index, kind in troubles.items():
        told = {
            "hang": "took longer than --child-time-limit 3s",
            "stop": "took longer than --child-time-limit 3s",
            "nan": "accuracy must be finite, got nan",
            "inf": "accuracy must be finite, got inf",
        }.get(kind, f"accuracy must be in [0, 1], got {kind}")
        assert reasons[index] == told


@pytest.mark.slow
def test_an_exception_after_the_first_success_ends_the_search(tmp_path):
    """Once, not four times, with its reason; and what was measured is kept."""
    folder = tmp_path / "troubles"
    folder.mkdir()
    for index in (4, 5, 6, 7):  # tried four times, it would meet them all
        (folder / str(trial_seed(3, index))).write_text("raise")
    run = tmp_path / "run"
    search = start(run, "--workers", "1", children=8, trouble=folder, seconds=0)
    assert search.finish() == 1, search.said
    assert [child["index"] for child in search.children()] == [0, 1, 2, 3]
    assert len(list(folder.iterdir())) >= 3
    told = [line for line in search.said.splitlines() if "no such luck" in line]
    assert len(told) == 1
    assert "child 4 ended in an exception" in told[0]
    assert "KeyError: 'no such luck' (pretend_search.py, line " in told[0]
    assert f"--resume {run}" in search.said
    assert "Traceback" not in search.said
    assert (run / "best.json").exists()
    again = resume(run, "--workers", "1", seconds=0, log=tmp_path / "again.log")
    assert again.finish() == 0, again.said
    assert_each_once(again.children(), 8)


@pytest.mark.slow
def test_a_driver_that_was_paused_loses_no_child(tmp_path):
    """Stopped for longer than a child may take, while its workers go on."""
    search = start(
        tmp_path / "run", "--child-time-limit", "4s", children=8, seconds=1.5
    )
    search.wait_for_children(2)
    search.process.send_signal(signal.SIGSTOP)
    time.sleep(8)
    search.process.send_signal(signal.SIGCONT)
    assert search.finish() == 0, search.said
    assert_each_once(search.children(), 8)
    reasons = {c["infeasible"] for c in search.children() if "infeasible" in c}
    assert reasons <= {"diverged: the loss was <b>nan</b>"}


@pytest.mark.slow
def test_a_child_that_kills_every_worker_is_given_up(tmp_path):
    search = start(tmp_path / "run", children=2, trouble="deadly", seconds=0)
    assert search.finish() == 0, search.said
    assert_each_once(search.children(), 2)
    assert {c["infeasible"] for c in search.children()} == {
        "its worker died (4 attempts)"
    }
    assert "none was measured" in search.said


@pytest.mark.slow
def test_a_search_in_which_every_child_raises_stops_and_says_why(tmp_path):
    search = start(tmp_path / "run", children=50, trouble="broken", seconds=0)
    assert search.finish() == 1, search.said
    assert "RuntimeError: no such luck" in search.said
    assert "Traceback" not in search.said
    assert search.children() == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_many_moments_nothing_is_lost_or_repeated(tmp_path):
    """Two workers and ten kills: while starting, between children, while updating."""
    run = tmp_path / "run"
    search = start(run, children=30, seconds=0.2)
    search.wait_for_children(1)
    for number, delay in enumerate([0.0, 0.05, 0.1, 0.3, 0.5, 1, 2, 4, 8, 12]):
        time.sleep(delay)
        search.kill()
        lines = search.children()
        if len(lines) == 30:
            break
        search = resume(run, seconds=0.2, log=tmp_path / f"{number}.log")
    assert search.finish() in (0, -signal.SIGKILL), search.said
    assert resume(run, log=tmp_path / "last.log").finish() == 0
    assert_each_once(search.children(), 30)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_real_children_killed_and_resumed_are_the_same_children(tmp_path):
    """One worker trains small networks on digits; accuracies agree to the bit."""
    options = [
        "--space", "accel-nasbench", "--restrict", "*.layers=1",
        "--restrict", "*.expansion=1", "--target-flops", "55M", "--seed", "1",
        "--dataset", "digits", "--controller", "random", "--workers", "1",
        "--children", "4",
        "--steps", "5", "--batch-size", "16", "--validation", "100",
    ]  # fmt: skip
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        command = [sys.executable, "-m", "nas.search", "--output", str(folder)]
        process = subprocess.Popen([*command, *options])
        if folder == cut:
            while not (folder / "journal.jsonl").exists() or len(
                journal.read(folder / "journal.jsonl").trials
            ) < 2:  # fmt: skip
                assert process.poll() is None
                time.sleep(0.1)
            process.kill()
            process.wait()
            command = [sys.executable, "-m", "nas.search", "--resume", str(folder)]
            process = subprocess.Popen([*command, "--workers", "1"])
        assert process.wait(600) == 0
    runs = [journal.read(folder / "journal.jsonl").completed for folder in (whole, cut)]
    seen = [
        [(c.index, c.tokens, c.metrics["accuracy"], c.losses) for c in run]
        for run in runs
    ]
    assert len(seen[0]) == 4
    assert seen[0] == seen[1]
