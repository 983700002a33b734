"""Tests for nas.resources: what may be asked for, and cores that are held."""

import json
import os
import subprocess
import sys

import pytest

from nas import resources
from nas.resources import ResourceError, WorkerOptions

CLAIM = """
import json, os, pathlib, sys
from nas import resources
claim = resources.claim_cores(int(sys.argv[2]), pathlib.Path(sys.argv[1]))
print(json.dumps([claim and claim.cores, sorted(os.sched_getaffinity(0))]), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def claimant(tmp_path):
    """Starts processes that claim cores and keep them; gives (process, answer)."""
    processes = []

    def start(number=1):
        process = subprocess.Popen(
            [sys.executable, "-c", CLAIM, str(tmp_path), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        processes.append(process)
        return process, json.loads(process.stdout.readline())

    yield start
    for process in processes:
        process.kill()
        process.communicate()


needs_pinning = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two cores and a system that pins processes to them",
)


@needs_pinning
def test_each_process_gets_a_core_of_its_own_and_death_frees_it(claimant):
    everything = sorted(os.sched_getaffinity(0))
    holders = [claimant() for _ in everything]
    assert sorted(answer[0][0] for _, answer in holders) == everything
    assert all(answer[1] == answer[0] for _, answer in holders)
    assert claimant()[1] == [None, everything]  # none left: runs anywhere
    victim, (cores, _) = holders[0]
    victim.kill()
    victim.wait()
    assert claimant()[1] == [cores, cores]


@needs_pinning
def test_a_claim_that_cannot_be_met_takes_nothing(claimant):
    everything = sorted(os.sched_getaffinity(0))
    assert claimant(len(everything) + 1)[1] == [None, everything]
    assert claimant(len(everything))[1] == [everything, everything]


@pytest.mark.parametrize(
    "options",
    [
        {"gpus_per_child": 1.5},
        {"gpus_per_child": -1.0},
        {"gpus_per_child": float("nan")},
        {"tpus_per_child": 3},
        {"tpus_per_child": 16},
        {"gpus_per_child": 1.0, "tpus_per_child": 1},
        {"cpus_per_child": 0},
        {"workers": 0},
    ],
)
def test_what_ray_cannot_hand_out_is_refused(options):
    with pytest.raises(ResourceError, match=next(iter(options)).replace("_", "-")):
        resources.allot(WorkerOptions(**options))


@pytest.mark.parametrize(
    ("options", "available", "workers"),
    [
        ({}, {"CPU": 2}, 2),
        ({"cpus_per_child": 3}, {"CPU": 8}, 2),
        ({"workers": 1}, {"CPU": 8}, 1),
        ({"gpus_per_child": 0.5}, {"CPU": 16, "GPU": 1}, 2),
        ({"gpus_per_child": 0.1}, {"CPU": 16, "GPU": 1}, 10),
        ({"gpus_per_child": 1.0}, {"CPU": 2, "GPU": 8}, 2),
        ({"tpus_per_child": 4}, {"CPU": 16, "TPU": 8}, 2),
    ],
)
def test_as_many_workers_as_fit(options, available, workers):
    options = WorkerOptions(**options)
    allotment = resources.allot(options)
    assert resources.count_workers(options, allotment, available) == workers


@pytest.mark.parametrize(
    ("options", "available"),
    [
        ({"workers": 3}, {"CPU": 2}),
        ({"cpus_per_child": 4}, {"CPU": 2}),
        ({"gpus_per_child": 1.0}, {"CPU": 2}),
        ({"tpus_per_child": 8}, {"CPU": 2, "TPU": 4}),
    ],
)
def test_workers_that_do_not_fit_are_refused(options, available):
    options = WorkerOptions(**options)
    with pytest.raises(ResourceError, match="must fit into what there is"):
        resources.count_workers(options, resources.allot(options), available)


def test_children_on_half_a_gpu_leave_each_other_room():
    shared = resources.allot(WorkerOptions(gpus_per_child=0.5))
    assert float(shared.environment["XLA_PYTHON_CLIENT_MEM_FRACTION"]) < 0.5


@pytest.mark.parametrize(
    ("available", "options", "request_"),
    [
        ({"CPU": 2}, {}, {"CPU": 1}),
        ({"CPU": 16, "GPU": 4}, {}, {"CPU": 1, "GPU": 1.0}),
        ({"CPU": 16, "TPU": 4}, {}, {"CPU": 1, "TPU": 1}),
        ({"CPU": 16, "GPU": 4}, {"gpus_per_child": 0.0}, {"CPU": 1}),
        ({"CPU": 16, "GPU": 4}, {"gpus_per_child": 2.0}, {"CPU": 1, "GPU": 2.0}),
    ],
)
def test_accelerators_are_taken_where_ray_sees_them(available, options, request_):
    allotment = resources.allot(WorkerOptions(**options), available)
    assert allotment.ray_resources == request_
