"""Tests for nas.monitoring.policy_log: what is kept of a policy, however it is cut."""

import pytest

from nas import search
from nas.monitoring import policy_log
from search_space import spaces

SPACE = spaces.load("accel-nasbench")


# Predictions need no Ray.
pytestmark = pytest.mark.usefixtures("no_ray")


def searched(folder, *arguments):
    assert search.main(["--evaluator", "imagenet-surrogate", *arguments]) == 0
    found = policy_log.read(folder / "policy.jsonl", SPACE.num_choices)
    assert found.damage is None
    return found.entries


@pytest.mark.parametrize("controller", ["dyna", "ppo", "reinforce"])
def test_a_policy_is_logged_after_each_update(tmp_path, controller):
    folder = tmp_path / "run"
    start = ["--controller", controller, "--children", "12", "--output", str(folder)]
    first = searched(folder, *start)
    assert [entry.children for entry in first] == [5, 10]
    for entry in first:
        assert 0.0 < entry.entropy < 25.5  # that of 1.1e11 architectures is 25.4
        for row in entry.probabilities:
            assert sum(row) == pytest.approx(1.0, abs=1e-3)

    with (folder / "policy.jsonl").open("a") as file:
        file.write('{"children": 99, "entro')  # what a kill leaves
    more = searched(folder, "--resume", str(folder), "--children", "20")
    assert more[:2] == first
    assert [entry.children for entry in more] == [5, 10, 15, 20]


@pytest.mark.parametrize("damage", ["zeros", "cut"])
def test_a_damaged_log_does_not_end_a_search(tmp_path, damage):
    folder = tmp_path / "run"
    searched(folder, "--children", "12", "--output", str(folder))
    path = folder / "policy.jsonl"
    first, second = path.read_bytes().splitlines(keepends=True)
    if damage == "zeros":  # as a power cut leaves them
        path.write_bytes(first + b"\0" * 4096 + b"\n")
    else:
        path.write_bytes(first + second[:-100] + b"\n")
    (folder / "report.html").unlink()
    assert search.main(["--resume", str(folder), "--children", "20"]) == 0
    found = policy_log.read(path, SPACE.num_choices)
    assert [entry.children for entry in found.entries] == [5, 15, 20]
    assert "line 2 must be what this search wrote" in (found.damage or "")
    assert "line 2 must be what this search" in (folder / "report.html").read_text()


def test_what_is_no_line_is_left_where_it_is(tmp_path):
    """Three million bytes without a new line: nothing that a search left torn."""
    folder = tmp_path / "run"
    searched(folder, "--children", "12", "--output", str(folder))
    path = folder / "policy.jsonl"
    path.write_bytes(b"x" * 3_000_000)
    assert search.main(["--resume", str(folder), "--children", "20"]) == 0
    found = policy_log.read(path, SPACE.num_choices)
    assert [entry.children for entry in found.entries] == [15, 20]


def test_a_controller_without_a_policy_logs_none(tmp_path):
    folder = tmp_path / "run"
    flags = ["--controller", "evolution", "--children", "6", "--output", str(folder)]
    assert searched(folder, *flags) == ()
    assert not (folder / "policy.jsonl").exists()
