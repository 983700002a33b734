"""Tests for nas.execution.resources: what may be asked for, and cores that are held."""

import contextlib
import json
import math
import os
import subprocess
import sys

import pytest

from nas.execution import resources
from nas.execution.resources import ResourceError, WorkerOptions

CLAIM = """
import json, os, pathlib, sys
from nas.execution import resources
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


MACHINE = {"CPU": 16.0, "memory": 6.4e10}
GPUS = {**MACHINE, "GPU": 4.0}
TPUS = {**MACHINE, "TPU": 8.0}


@pytest.mark.parametrize(
    ("options", "available", "rule"),
    [
        ({"devices_per_child": 1.5}, GPUS, "a whole number, or a fraction below 1"),
        ({"devices_per_child": -1.0}, GPUS, "a whole number, or a fraction below 1"),
        ({"devices_per_child": math.nan}, GPUS, "a whole number, or a fraction"),
        ({"devices_per_child": math.inf}, GPUS, "a whole number, or a fraction"),
        ({"devices_per_child": 3.0}, TPUS, "one of 1, 2, 4, 8 on TPUs"),
        ({"devices_per_child": 16.0}, TPUS, "one of 1, 2, 4, 8 on TPUs"),
        ({"devices_per_child": 0.5}, TPUS, "one of 1, 2, 4, 8 on TPUs"),
        ({"devices_per_child": 1.0}, MACHINE, "Ray sees none"),
        ({"cpus_per_child": 0}, MACHINE, "at least 1"),
        ({"workers": 0}, MACHINE, "at least 1"),
    ],
)
def test_what_ray_cannot_hand_out_is_refused(options, available, rule):
    flag = next(iter(options)).replace("_", "-")
    with pytest.raises(ResourceError, match=f"--{flag} .*{rule}.*"):
        resources.resolve(WorkerOptions(**options), available)


@pytest.mark.parametrize(
    ("options", "available", "workers"),
    [
        ({}, {"CPU": 2}, 2),
        ({"cpus_per_child": 3}, {"CPU": 8}, 2),
        ({"workers": 1}, {"CPU": 8}, 1),
        ({"devices_per_child": 0.5}, {"CPU": 16, "GPU": 1}, 2),
        ({"devices_per_child": 0.1}, {"CPU": 16, "GPU": 1}, 10),
        ({"devices_per_child": 1.0}, {"CPU": 2, "GPU": 8}, 2),
        ({"devices_per_child": 4.0}, {"CPU": 16, "GPU": 8}, 2),
        ({"devices_per_child": 4.0}, {"CPU": 16, "TPU": 8}, 2),
        ({"devices_per_child": 0.0}, {"CPU": 16, "GPU": 8}, 16),
    ],
)
def test_as_many_workers_as_fit(options, available, workers):
    options = WorkerOptions(**options)
    worker_resources = resources.resolve(options, available)
    assert resources.count_workers(options, worker_resources, available) == workers


@pytest.mark.parametrize(
    ("options", "available"),
    [
        ({"workers": 3}, {"CPU": 2}),
        ({"cpus_per_child": 4}, {"CPU": 2}),
        ({"devices_per_child": 2.0}, {"CPU": 2, "GPU": 1}),
        ({"devices_per_child": 8.0}, {"CPU": 2, "TPU": 4}),
    ],
)
def test_workers_that_do_not_fit_are_refused(options, available):
    options = WorkerOptions(**options)
    worker_resources = resources.resolve(options, available)
    with pytest.raises(ResourceError, match="must fit into what there is"):
        resources.count_workers(options, worker_resources, available)


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_children_that_share_a_gpu_leave_each_other_room(share):
    """Together they preallocate less than there is: JAX takes 0.75 each by default."""
    worker_resources = resources.resolve(WorkerOptions(devices_per_child=share), GPUS)
    fraction = float(worker_resources.environment["XLA_PYTHON_CLIENT_MEM_FRACTION"])
    assert 0.8 < fraction / share < 1.0
    assert worker_resources.num_devices == 1


@pytest.mark.parametrize(
    ("available", "devices", "asked"),
    [
        (MACHINE, None, {"CPU": 1}),
        (GPUS, None, {"CPU": 1, "GPU": 1.0}),
        (TPUS, None, {"CPU": 1, "TPU": 1}),
        (GPUS, 0.0, {"CPU": 1}),
        (GPUS, 2.0, {"CPU": 1, "GPU": 2.0}),
        (TPUS, 8.0, {"CPU": 1, "TPU": 8}),
    ],
)
def test_accelerators_are_taken_where_ray_sees_them(available, devices, asked):
    worker_resources = resources.resolve(
        WorkerOptions(devices_per_child=devices), available
    )
    assert worker_resources.ray_resources == asked


@pytest.mark.parametrize(("batch_size", "fits"), [(32, True), (2, False), (30, False)])
def test_a_batch_divides_over_the_devices_of_a_child(batch_size, fits):
    worker_resources = resources.resolve(WorkerOptions(devices_per_child=4.0), GPUS)
    told = contextlib.nullcontext() if fits else pytest.raises(ResourceError)
    with told as error:
        resources.check_batch(batch_size, worker_resources)
    if error is not None:
        proposed = int(str(error.value).rsplit(" ", 1)[1])
        resources.check_batch(proposed, worker_resources)
        assert 0 < proposed - batch_size < 4
