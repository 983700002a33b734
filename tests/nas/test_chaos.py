"""Harm done to searches and training runs on digits, and the count at their end.

`make chaos` runs these, which takes some minutes, and prints figures. The short form,
in the ordinary suite, is in test_search_process.py.
"""

import json
import random
import re
import shutil
import subprocess
import sys
import time

import psutil
import pytest
from ray.cluster_utils import Cluster

from search_space import codec
from search_space.spec import ArchSpec, ClassifierHead, MBConvStage, Stem
from tests.nas.search_process import (
    PRETEND,
    REAL,
    TINY,
    Search,
    assert_all_accounted_for,
    journaled,
)

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]
BATCH_SIZE = 5
TINY_NETWORK = ArchSpec(
    name="tiny",
    resolution=8,
    activation="swish",
    stem=Stem(channels=8, stride=1),
    stages=(MBConvStage(channels=8, kernel=3, stride=2, expansion=2, repeats=1),),
    head=ClassifierHead(channels=16, dropout=0.2),
)
GIVEN_UP = "its worker died (4 attempts)"


@pytest.fixture
def troubles(tmp_path):
    folder = tmp_path / "troubles"
    folder.mkdir()
    return folder


@pytest.fixture
def told(tmp_path):
    return tmp_path / "told"


@pytest.fixture
def real(tmp_path, troubles, told):
    """Starts real searches in `run`, or resumes them."""

    def start(*arguments, resume=None, log="log", environment=None):
        folder = resume or tmp_path / "run"
        # Resuming imports a space that is a module only if it is named again.
        trusted = TINY[:2]
        how = ["--resume", folder, *trusted] if resume else ["--output", folder, *TINY]
        return Search(
            folder,
            [REAL, troubles, *how, *arguments],
            log=tmp_path / log,
            environment={"OVERHEARD": str(told), **(environment or {})},
        )

    return start


def reasons(folder):
    return [c["infeasible"] for c in journaled(folder) if "infeasible" in c]


def say(text):
    sys.stdout.write(f"\n{text}\n")


def test_workers_die_in_each_phase_and_ten_in_a_row(real, troubles, told):
    phases = ["prepare", "build", "compile", "train", "measure", "report"]
    for phase in phases:
        (troubles / phase).touch()
    search = real("--children", "30")
    search.wait_for_children(10, seconds=600)
    assert not list(troubles.iterdir())
    assert reasons(search.folder) == []
    for number in range(10):
        (troubles / f"train-{number}").touch()
    assert search.finish(1200) == 0, search.said
    assert not list(troubles.iterdir()), "sixteen workers were to die, and did not"
    assert_all_accounted_for(search.folder, 30, told=told, batch_size=BATCH_SIZE)
    # A child is given up when it has been there at four deaths: two of ten at most.
    assert len(reasons(search.folder)) <= 2
    assert set(reasons(search.folder)) <= {GIVEN_UP}
    say(f"16 workers killed; 30 children, {len(reasons(search.folder))} given up")


def test_real_children_that_diverge_or_ask_for_too_much_memory(real, troubles, told):
    (troubles / "divergence").touch()
    (troubles / "memory").touch()
    search = real("--children", "8")
    assert search.finish(600) == 0, search.said
    assert_all_accounted_for(search.folder, 8, told=told, batch_size=BATCH_SIZE)
    first, second = sorted(reasons(search.folder))
    assert first.startswith("diverged: the loss is nan at step ")
    assert second.startswith("out of memory")


def test_a_node_is_lost_and_another_joins(real, told):
    """Two nodes of a core each; one dies with a child on it, and one comes.

    Children of half a minute: of shorter ones few are left when a new worker is up.
    """
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    try:
        first, _ = (cluster.add_node(num_cpus=1) for _ in range(2))
        cluster.wait_for_nodes()
        search = real(
            "--children", "10", "--workers", "2", "--steps", "2500",
            environment={"RAY_ADDRESS": cluster.address},
        )  # fmt: skip
        search.wait_for_children(2, seconds=600)
        lost = {p.pid for p in descendants(first)}
        cluster.remove_node(first, allow_graceful=False)
        at_loss = len(search.children())
        search.wait_for_children(at_loss + 1, seconds=600)
        joined = cluster.add_node(num_cpus=1)
        on_joined = set()
        while search.process.poll() is None:
            on_joined |= {p.pid for p in descendants(joined)}
            time.sleep(0.1)
        assert search.finish() == 0, search.said
    finally:
        cluster.shutdown()
    children = journaled(search.folder)
    assert_all_accounted_for(search.folder, 10, told=told, batch_size=BATCH_SIZE)
    assert reasons(search.folder) == []
    workers = [child["worker"]["pid"] for child in children]
    assert set(workers[:at_loss]) & lost
    assert not set(workers[at_loss + 1 :]) & lost
    num_joined = sum(pid in on_joined for pid in workers)
    assert num_joined > 0
    say(
        f"node lost after {at_loss} of 10 children; {num_joined} on the one that joined"
    )


def descendants(node):
    raylet = next(p for p in node.live_processes() if p[0] == "raylet")[1]
    return psutil.Process(raylet.pid).children(recursive=True)


def test_the_driver_dies_twenty_times_and_the_run_goes_on_elsewhere(
    real, told, tmp_path
):
    """At random moments, 20 of them: while starting, being told, learning, training."""
    moments = random.Random(0)
    search = real("--children", "2000")
    counts = []
    for number in range(20):
        if number % 2:  # else a busy machine would be killed as it starts, every time
            search.wait_for_children(counts[-1] + 1, seconds=300)
        time.sleep(moments.uniform(0.0, 4.0 if number % 2 else 20.0))
        assert search.process.poll() is None, search.said
        search.kill()
        counts.append(len(search.children()))
        if (search.folder / "journal.jsonl").exists():
            search = real(resume=search.folder, log=f"log-{number}")
        else:  # killed before there was anything to resume
            shutil.rmtree(search.folder, ignore_errors=True)
            search = real("--children", "2000", log=f"log-{number}")
    search.wait_for_children(counts[-1] + 1, seconds=300)
    search.kill()
    assert counts == sorted(counts)
    done = len(search.children())

    copy = tmp_path / "elsewhere" / "run"
    shutil.copytree(search.folder, copy)
    last = real("--children", str(done + 10), resume=copy, log="last-log")
    assert last.finish(600) == 0, last.said
    assert_all_accounted_for(copy, done + 10, told=told, batch_size=BATCH_SIZE)
    say(f"children when the driver was killed: {counts}; {done + 10} at the end")


def test_a_full_disk_stops_the_search_and_loses_nothing_reported(real, troubles, told):
    """The system refuses to let the journal grow, in the middle of a line."""
    (troubles / "journal").touch()
    search = real("--children", "12")
    assert search.finish(600) == 1, search.said
    assert "cannot write the journal" in search.said
    assert "--resume" in search.said
    assert "Traceback" not in search.said
    reported = [int(number) for number in re.findall(r"\[(\d+)/12\]", search.said)]
    assert reported  # children that end within half a second of another are not shown
    assert max(reported) <= len(search.children()) == 3
    assert not (search.folder / "journal.jsonl").read_bytes().endswith(b"\n")

    (troubles / "journal").unlink()
    again = real(resume=search.folder, log="again")
    assert again.finish(600) == 0, again.said
    assert_all_accounted_for(search.folder, 12, told=told, batch_size=BATCH_SIZE)


def test_five_thousand_trivial_children(tmp_path, told):
    """The driver's memory stays flat, and what it wrote opens in seconds.

    It keeps what no search can do without, such as the tokens that were proposed: 3 KB
    a child when this was last run, on 650 MB.
    """
    folder = tmp_path / "run"
    search = Search(
        folder,
        [
            PRETEND, 0, "none", "--output", folder, "--children", 5000,
            "--controller", "random", "--space", "mnasnet",
        ],
        environment={"OVERHEARD": str(told)},
    )  # fmt: skip
    driver = psutil.Process(search.process.pid)
    marks = {}
    for number in (100, 1000, 2000, 3000, 4000, 4900):
        search.wait_for_children(number, seconds=1200)
        marks[number] = (time.monotonic(), driver.memory_info().rss / 1e6)
    assert search.finish(600) == 0, search.said
    assert_all_accounted_for(folder, 5000, told=told, batch_size=BATCH_SIZE)
    (begun, _), (ended, last) = marks[100], marks[4900]
    kb_per_child = (last - marks[1000][1]) * 1e3 / 3900
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "nas.report", folder], check=True)
    opened = time.monotonic() - start
    cores = len(psutil.Process().cpu_affinity())
    say(
        json.dumps(
            {
                "cores": cores,
                "ms_per_child": round((ended - begun) / 4800 * 1e3, 1),
                "kb_per_child": round(kb_per_child, 1),
                "driver_mb": {n: round(mb) for n, (_, mb) in marks.items()},
                "report_seconds": round(opened, 1),
            }
        )
    )
    assert kb_per_child < 10
    assert opened < 30


def test_a_training_run_killed_at_random_moments_gives_the_same_losses(tmp_path):
    """Twenty times, in a run that is saving most of the time."""
    moments = random.Random(0)
    flags = ["--epochs", "8", "--save-every", "1", "--devices", "1"]
    network = str(tmp_path / "tiny.json")
    (tmp_path / "tiny.json").write_text(codec.dumps(TINY_NETWORK))
    command = [sys.executable, "-m", "nas.train"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run([*command, network, "--output", whole, *flags], check=True)
    steps = []
    for _ in range(20):
        resumable = (cut / "training.json").exists()
        if not resumable:
            shutil.rmtree(cut, ignore_errors=True)
        how = ["--resume", cut] if resumable else [network, "--output", cut, *flags]
        with (tmp_path / "log").open("a") as log:
            process = subprocess.Popen([*command, *how], stdout=log, stderr=log)
        until = time.monotonic() + moments.uniform(5.0, 30.0)
        while time.monotonic() < until and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        assert process.wait() in (0, -9), (tmp_path / "log").read_text()
        folder = cut / "last"
        names = [p.name for p in folder.iterdir()] if folder.exists() else []
        steps.append(max((int(name) for name in names if name.isdigit()), default=0))
    subprocess.run([*command, "--resume", cut], check=True)
    assert steps == sorted(steps)
    for name in ("losses.jsonl", "result.json"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    say(f"steps done when the run was killed: {steps}")
