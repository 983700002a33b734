"""Tests for experiments.benchmarks.search_efficiency and its task."""

import json

import numpy as np
import pytest

from experiments.benchmarks import imagenet_task, peers, search_efficiency
from search_space import zoo


def test_the_reward_of_b0_is_its_top1_at_its_published_cost():
    task = imagenet_task.load()
    b0 = np.array([task.space.encode(zoo.load("efficientnet-b0"))], np.int32)
    top1 = task.top1.predict(b0)[0][0]
    # 385,814,752 multiply-adds: the paper's 0.39B.
    expected = top1 * (385_814_752 / 400e6) ** -0.07
    assert task.rewards(b0).tolist() == pytest.approx([expected])


def test_under_noise_the_end_is_measured_again():
    exact = np.linspace(60.0, 61.0, 100)
    observed = exact.copy()
    observed[0] = 99.0  # a fluke
    assert imagenet_task.chosen(observed, exact, 0.0, 0) == 60.0
    # Five measurements of noise 0.02 each cannot make a point of difference.
    assert imagenet_task.chosen(observed, exact, 0.02, 0) > 60.9


def test_finished_searches_are_kept_and_repeat(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(search_efficiency, "MARKS", (10, 40))
    command = ["--methods", "evolution-20-5", "--output", str(tmp_path), "--seeds"]
    assert search_efficiency.main([*command, "1"]) == 0
    path = tmp_path / "search_efficiency.json"
    first = json.loads(path.read_text())["rows"]["evolution-20-5"]["0"]
    assert search_efficiency.main([*command, "2"]) == 0
    rows = json.loads(path.read_text())["rows"]["evolution-20-5"]
    assert rows["0"] == first
    assert first["marks"][0] <= first["marks"][1]
    assert first["marks"][1] == pytest.approx(first["best_so_far"][-1], abs=1e-3)
    assert "evolution-20-5" in capsys.readouterr().out


def test_unknown_methods_are_refused(capsys):
    assert search_efficiency.main(["--methods", "luck"]) == 2
    assert "must be of ppo" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["pyglove-evolution-20-5", "optuna-tpe", "torch-lstm-reinforce"]
)
def test_peers_evaluate_as_many_different_networks_as_asked(name):
    peer = peers.PEERS[name]
    pytest.importorskip(peer.package)
    asked = []

    def evaluate(tokens):
        asked.extend(map(tuple, tokens.tolist()))
        return tokens.sum(axis=1).astype(float)

    peer.search((3, 2, 4, 3), evaluate, 30, 0)
    assert len(asked) == len(set(asked))
    assert 30 <= len(asked) <= 35  # the last batch of six may go over
    rows = np.array(asked)
    assert ((rows >= 0) & (rows < (3, 2, 4, 3))).all()
