"""Tests for experiments.benchmarks.search_efficiency and its task."""

import json

import numpy as np
import pytest

from experiments.benchmarks import imagenet_task, peers, search_efficiency
from search_space import zoo


def test_the_reward_of_b0_is_its_top1_at_its_published_cost():
    task = imagenet_task.soft()
    b0 = np.array([task.space.encode(zoo.load("efficientnet-b0"))], np.int32)
    top1 = task.top1.predict(b0)[0][0]
    # 385,814,752 multiply-adds: the paper's 0.39B.
    expected = top1 * (385_814_752 / 400e6) ** -0.07
    assert task.rewards(b0).tolist() == pytest.approx([expected])


def test_under_noise_the_end_is_measured_again():
    exact = np.linspace(60.0, 61.0, 100)
    observed = exact.copy()
    observed[0] = 99.0  # a fluke
    assert imagenet_task.chosen(exact, exact, 0.0, 0) == 61.0
    # Five measurements of noise 0.02 each cannot make a point of difference.
    assert imagenet_task.chosen(observed, exact, 0.02, 0) > 60.9


def test_above_the_constraint_a_network_is_worth_nothing():
    task = imagenet_task.constrained()
    least = np.zeros((1, len(task.space.num_choices)), np.int32)
    most = np.array([task.space.num_choices], np.int32) - 1
    b0 = np.array([task.space.encode(zoo.load("efficientnet-b0"))], np.int32)
    tokens = np.concatenate([least, b0, most])
    rewards, top1, macs = (
        task.rewards(tokens),
        *map(np.array, (task.accuracies(tokens), task.costs(tokens))),
    )
    # B0 is at the limit itself: its reward is its accuracy. The largest is above, and
    # loses in proportion (MnasNet's hard reward, alpha 0 and beta -1).
    np.testing.assert_allclose(rewards[:2], top1[:2])
    assert rewards[2] == pytest.approx(top1[2] * 385_814_752 / macs[2])
    assert (task.worths(tokens, rewards) > 0.0).tolist() == [True, True, False]
    assert imagenet_task.count_beyond_b0(task, tokens) == 1


def test_finished_searches_are_kept_and_repeat(tmp_path, capsys):
    command = ["--methods", "evolution-20-5", "--sections", "noise", "--children"]
    command += ["50", "--output", str(tmp_path), "--seeds"]
    assert search_efficiency.main([*command, "1"]) == 0
    path = tmp_path / "search_efficiency.json"
    kept = json.loads(path.read_text())["sections"]["noise"]["evolution-20-5"]["0"]
    # A mark on what is kept: the second call must not search again.
    mark = f'"50": {kept["marks"]["50"]}'
    path.write_text(path.read_text().replace(mark, '"50": 12.34', 1))
    assert search_efficiency.main([*command, "2"]) == 0
    rows = json.loads(path.read_text())["sections"]["noise"]["evolution-20-5"]
    assert rows["0"]["marks"]["50"] == 12.34
    assert rows["1"]["marks"].keys() == {"25", "50"}
    # The end is chosen under noise: it may be below the best that was there.
    assert rows["1"]["marks"]["50"] <= rows["1"]["best_so_far"][-1] + 1e-3
    assert str(tmp_path) not in path.read_text()
    assert "| evolution-20-5 |" in capsys.readouterr().out
    assert (tmp_path / "search_efficiency_noise.html").exists()


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["--methods", "luck"], "--methods must be of"),
        (["--seeds", "0"], "--seeds must be 1 or more, got 0"),
        (["--children", "24"], "--children must be 25 or more, got 24"),
    ],
)
def test_what_cannot_be_compared_is_refused(arguments, rule, capsys):
    assert search_efficiency.main(arguments) == 2
    assert rule in capsys.readouterr().err


def test_a_search_to_more_children_is_run_again(tmp_path):
    command = ["--methods", "random", "--sections", "exact", "--seeds", "1"]
    command += ["--output", str(tmp_path), "--children"]
    path = tmp_path / "search_efficiency.json"
    for children, marks in (("25", {"25"}), ("50", {"25", "50"})):
        assert search_efficiency.main([*command, children]) == 0
        rows = json.loads(path.read_text())["sections"]["exact"]["random"]
        assert rows["0"]["marks"].keys() == marks


@pytest.mark.parametrize(
    "name", ["pyglove-evolution-20-5", "optuna-tpe", "torch-lstm-reinforce"]
)
def test_peers_evaluate_as_many_different_networks_as_asked(name):
    peer = peers.PEERS[name]
    pytest.importorskip(peer.package)
    asked: list[tuple[int, ...]] = []

    def evaluate(tokens):
        asked.extend(map(tuple, tokens.tolist()))
        return tokens.sum(axis=1).astype(float)

    peer.search((3, 2, 4, 3), evaluate, 30, 0)
    assert len(asked) == len(set(asked))
    # Repeats end a search after 60 proposals; the last batch of six may go over.
    assert 20 <= len(asked) <= 35
    rows = np.array(asked)
    assert ((rows >= 0) & (rows < (3, 2, 4, 3))).all()
