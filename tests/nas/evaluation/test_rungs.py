"""A search whose children are trained in rungs: what is refused, and a real one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nas import search
from nas.runs import journal


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--fidelities", "60"], "two numbers of steps at least"),
        (["--fidelities", "60,60"], "each larger than the one before"),
        (["--fidelities", "60,a"], "whole numbers of steps between commas"),
        (["--fidelities", "2,6", "--steps", "9"], "drop --steps"),
        (["--fidelities", "2,6", "--repeats", "2"], "drop one or the other"),
    ],
)
def test_rungs_that_do_not_go_are_refused_in_a_line(flags, wanted, tmp_path, capfd):
    output = ["--output", str(tmp_path / "run")]
    flags = [*flags, "--dataset", "digits", *output]
    assert search.main([*flags, "--resolution", "32"]) == 2
    said = capfd.readouterr().err
    assert wanted in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_the_promising_go_on_from_their_weights(tmp_path):
    """Six children of 2 steps, two of them to 6, and the best again from nothing."""
    command = [
        *(sys.executable, "-m", "nas.search"),
        *("--space", "tiny_space:SPACE", "--target-flops", "300K"),
        *("--dataset", "digits", "--resolution", "8", "--fidelities", "2,6"),
        *("--children", "6", "--controller", "random", "--confirm", "1"),
        *("--confirm-repeats", "1", "--workers", "1", "--output", "run"),
    ]
    tests = Path(__file__).parents[1]
    paths = os.pathsep.join(map(str, (tests, tests.parents[1])))
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    contents = journal.read(tmp_path / "run" / "journal.jsonl")
    assert len(contents.trials) == 6
    rungs = [record.fidelity for record in contents.records if not record.repeat]
    assert 2 <= rungs.count(1) <= 4
    for record in contents.records:
        new_steps = 6 if record.repeat else (4 if record.fidelity else 2)
        assert record.num_steps == new_steps
    assert not (tmp_path / "run" / "weights").exists()
    found = json.loads((tmp_path / "run" / "best.json").read_text())["found"]
    assert found["fidelity"] == 1
    assert found["confirmed"]["trainings"] == 1
