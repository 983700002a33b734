"""A child on several devices is the child on one: virtual devices of the CPU."""

import functools
import json
import os
import subprocess
import sys
from unittest import mock

import jax
import numpy as np
import pytest

from search_space.spec import ArchSpec, ConvStage, Head, MBConvStage, Stem
from trainers import child, devices, executables
from trainers.data import catalog

SPEC = ArchSpec(
    name="small",
    resolution=16,
    activation="swish",
    stem=Stem(channels=8),
    stages=(
        ConvStage(channels=12, kernel=3, stride=2, repeats=1),
        MBConvStage(
            channels=12, kernel=3, stride=1, expansion=2, repeats=1, se_ratio=0.25
        ),
    ),
    head=Head(channels=32),
)
CONFIG = child.ChildConfig(steps=20, batch_size=32, resolution=8, optimizer="sgd")


def evaluate():
    dataset = catalog.load("digits", seed=0)
    return child.evaluate(SPEC, dataset=dataset, config=CONFIG, seed=1)


def report():
    """Returns losses and accuracy, and how often each unit's functions compiled."""
    units = []

    def watched(*arguments, **options):
        units.append(executables.compiled(*arguments, **options))
        return units[-1]

    step = functools.partial(executables.ChainedStep, executables=watched)
    with mock.patch.object(child, "ChainedStep", step):
        found = evaluate()
    functions = [f for u in units for f in (u.forward, u.backward, u.classify)]
    return {
        "losses": found.losses,
        "accuracy": found.accuracy,
        "devices": jax.local_device_count(),
        "compiled": [function._cache_size() for function in functions],
    }


@pytest.fixture(scope="module")
def on_four():
    done = subprocess.run(
        [sys.executable, __file__],
        env={
            **os.environ,
            "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
            "JAX_PLATFORMS": "cpu",
            # Virtual devices wait for each other on XLA's threads, by default one a
            # core: where those are few, they wait for ever.
            "NPROC": "32",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_child_on_four_devices_has_the_losses_of_one(on_four):
    alone = evaluate()
    assert on_four["devices"] == 4
    # Sums in another order. Batch norm by parts of 8 images would be off by 0.1.
    np.testing.assert_allclose(on_four["losses"], alone.losses, rtol=1e-3)
    assert on_four["accuracy"] == pytest.approx(alone.accuracy, abs=0.01)


def test_nothing_is_compiled_twice_because_arrays_moved(on_four):
    """A function of a unit runs in training and in evaluation, and compiles once."""
    assert set(on_four["compiled"]) <= {0, 1}
    assert sum(on_four["compiled"]) > 10


def test_more_devices_than_there_are_cannot_be_had():
    with pytest.raises(ValueError, match="as many devices as asked for, got 10000"):
        devices.local(10_000)


if __name__ == "__main__":
    json.dump(report(), sys.stdout)
