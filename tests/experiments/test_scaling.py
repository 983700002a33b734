"""Tests for experiments.scaling."""

import json
import os
import subprocess
import sys

import pytest

from experiments import scaling
from search_space import cost


@pytest.mark.parametrize("multiple", scaling.MULTIPLES)
@pytest.mark.parametrize("method", scaling.METHODS)
def test_methods_are_compared_at_about_equal_cost(method, multiple):
    spec = scaling.scaled(method, multiple)
    base = scaling.BASELINE
    times = cost.num_macs(spec) / cost.num_macs(base)
    assert times == pytest.approx(multiple, rel=0.1)
    changed = {
        "depth": [s.repeats for s in spec.stages] != [s.repeats for s in base.stages],
        "width": [s.channels for s in spec.stages] != [s.channels for s in base.stages],
        "resolution": spec.resolution != base.resolution,
    }
    expected = set(changed) if method == "compound" else {method}
    assert {name for name, is_changed in changed.items() if is_changed} == expected


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_tiny_run_killed_and_resumed_is_whole(tmp_path):
    """Real children on digits: `pytest -m slow tests/experiments/test_scaling.py`."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "experiments.scaling"]
    options = [
        "--dataset", "digits", "--steps", "2", "--batch-size", "16",
        "--repeats", "1", "--validation", "50",
    ]  # fmt: skip
    first = subprocess.Popen([*command, "--output", str(run), *options])
    path = run / "journal.jsonl"
    while not path.exists() or path.read_bytes().count(b"\n") < 4:
        assert first.poll() is None
        os.sched_yield()
    first.kill()
    first.wait()
    result = tmp_path / "result.json"
    again = [*command, "--resume", str(run), "--result", str(result)]
    assert subprocess.run(again, check=False).returncode == 0
    record = json.loads(result.read_text())
    assert record["complete"]
    assert len(record["networks"]) == 13
    assert all(len(row["accuracies"]) == 1 for row in record["networks"])
    assert len(record["starts"]) == 2
