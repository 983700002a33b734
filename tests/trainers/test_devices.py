"""A child on several devices is the child on one: virtual devices of the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from search_space.spec import ArchSpec, ClassifierHead, ConvStage, MBConvStage, Stem
from trainers import child
from trainers.data import catalog
from trainers.runtime import compilation, devices

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
    head=ClassifierHead(channels=32),
)
CONFIG = child.ChildConfig(steps=20, batch_size=32, resolution=8, optimizer="sgd")


def report(cache):
    """Returns losses and accuracy.

    Programs are compiled for where their arguments lay at first, and refuse others:
    that this runs shows that nothing moves between steps.
    """
    compilation.use_cache(cache)
    dataset = catalog.load("digits", seed=0)
    found = child.evaluate(SPEC, dataset=dataset, config=CONFIG, seed=1)
    return {
        "losses": found.losses,
        "accuracy": found.metrics["accuracy"],
        "devices": jax.local_device_count(),
    }


def on_devices(number, cache):
    """The report of a process with as many virtual devices."""
    done = subprocess.run(
        [sys.executable, __file__, str(cache)],
        env={
            **os.environ,
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={number}",
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
    found = json.loads(done.stdout)
    assert found["devices"] == number
    return found


def test_a_child_on_four_devices_has_the_losses_of_one(tmp_path):
    """Also where both keep what they compile in one place."""
    four, one = on_devices(4, tmp_path), on_devices(1, tmp_path)
    # Sums in another order. Batch norm by parts of 8 images would be off by 0.1.
    np.testing.assert_allclose(four["losses"], one["losses"], rtol=1e-3)
    assert four["accuracy"] == pytest.approx(one["accuracy"], abs=0.01)


def test_more_devices_than_there_are_cannot_be_had():
    with pytest.raises(ValueError, match="as many devices as asked for, got 10000"):
        devices.local(10_000)


if __name__ == "__main__":
    json.dump(report(Path(sys.argv[1])), sys.stdout)
