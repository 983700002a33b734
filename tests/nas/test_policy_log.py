"""Tests for nas.policy_log: what a search keeps of its policy, however it is cut."""

import sys

import pytest

from nas import policy_log, search
from search_space import spaces

SPACE = spaces.load("accel-nasbench")


@pytest.fixture(autouse=True)
def without_ray(monkeypatch):
    """Importing Ray would fail here: predictions need none."""
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "nas.tune", raising=False)


def searched(folder, *arguments):
    assert search.main(["--evaluator", "imagenet-surrogate", *arguments]) == 0
    return policy_log.read(folder / "policy.jsonl", SPACE.num_choices)


@pytest.mark.parametrize("controller", ["ppo", "reinforce"])
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


def test_a_controller_without_a_policy_logs_none(tmp_path):
    folder = tmp_path / "run"
    flags = ["--controller", "evolution", "--children", "6", "--output", str(folder)]
    assert searched(folder, *flags) == ()
    assert not (folder / "policy.jsonl").exists()
