"""Tests for `--evaluator imagenet-surrogate`, from the command line to the files."""

import json
import re
import sys

import numpy as np
import pytest

from nas import search
from nas.runs import journal
from search_space import codec, spaces
from trainers import surrogate

SPACE = spaces.load("accel-nasbench")


SPEED = ("--objective", "throughput-a100", "--target", "9000")


@pytest.fixture(autouse=True)
def without_ray(monkeypatch):
    """Importing Ray would fail here: predictions need none."""
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "nas.execution.tune", raising=False)


def run(folder, *arguments, children=12):
    return search.main(
        [
            "--evaluator", "imagenet-surrogate", "--controller", "evolution",
            "--children", str(children), "--output", str(folder), *arguments,
        ]
    )  # fmt: skip


def children_of(folder):
    return journal.read(folder / "journal.jsonl").trained


def predicted(name, child):
    mean, _ = surrogate.load().predictors[name].predict([child.tokens])
    return float(mean[0])


def test_children_are_predicted_and_best_json_says_so(tmp_path, capsys):
    assert run(tmp_path / "run") == 0
    shown = " ".join(capsys.readouterr().out.split())
    said = "accuracies are predictions of top-1 on ImageNet, Accel-NASBench's shortened"
    assert said in shown
    assert "held-out RMSE 0.4" in shown
    assert "accel-nasbench, 1e+11 architectures" in shown
    found = children_of(tmp_path / "run")
    assert len(found) == 12
    for child in found:
        top1 = predicted("top1", child)
        assert child.accuracy == pytest.approx(top1 / 100)
        assert child.reward == pytest.approx(
            top1 / 100 * (child.num_macs / 4e8) ** -0.07
        )
    text = (tmp_path / "run" / "best.json").read_text()
    best = max(found, key=lambda child: child.reward)
    assert SPACE.encode(codec.loads(text)) == best.tokens
    assert said in json.loads(text)["found"]["dataset"]


def test_a_thousand_children_by_default(tmp_path):
    arguments = ["--evaluator", "imagenet-surrogate", "--output", str(tmp_path / "r")]
    parsed = search.parse(arguments)
    assert parsed.run.children == 1000
    assert parsed.definition.search.space == "accel-nasbench"
    assert search.parse([*arguments, "--children", "3"]).run.children == 3


def test_a_resumed_search_is_the_uninterrupted_one(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(whole, children=40) == 0
    assert run(cut, children=23) == 0
    assert search.main(["--resume", str(cut), "--children", "40"]) == 0
    assert [c.tokens for c in children_of(cut)] == [
        c.tokens for c in children_of(whole)
    ]


@pytest.mark.parametrize(
    ("objective", "target", "sign"),
    [("throughput-a100", 9000.0, 0.07), ("latency-zcu102", 8.0, -0.07)],
)
def test_a_speed_as_objective(tmp_path, capsys, objective, target, sign):
    arguments = ["--objective", objective, "--target", str(target)]
    assert run(tmp_path / "run", *arguments) == 0
    assert f"predicted {objective}" in capsys.readouterr().out
    for child in children_of(tmp_path / "run"):
        speed = predicted(objective, child)
        assert child.objective == pytest.approx(speed)
        assert child.reward == pytest.approx(child.accuracy * (speed / target) ** sign)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--space", "mbconv"], "predicts networks of the space accel-nasbench"),
        (["--steps", "7", "--dataset", "x"], "trains nothing, and --dataset is 'x'"),
        (["--objective", "watts", "--target", "3"], "or one of latency-vck190"),
        (["--objective", "throughput-a100"], "needs a positive --target"),
        (["--objective", "throughput-a100", "--target", "9"], "from .* to .*, got 9"),
        (["--target", "9000"], "--target is for another --objective"),
        (
            [*SPEED, "--target-flops", "300M"],
            "--target-flops is for --objective flops",
        ),
    ],
)
def test_what_does_not_go_together(tmp_path, capsys, arguments, message):
    assert run(tmp_path / "run", *arguments) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert re.search(message, printed)
    assert not (tmp_path / "run").exists()


def test_speeds_need_the_predictors(tmp_path, capsys):
    assert search.main([*SPEED, "--output", str(tmp_path / "run")]) == 2
    assert "add that, or drop --objective" in capsys.readouterr().err


def test_a_restricted_space_is_searched(tmp_path):
    assert run(tmp_path / "run", "--restrict", "*.se_ratio=0", "--seed", "3") == 0
    se = [i for i, d in enumerate(SPACE.decisions) if d.name.endswith("se_ratio")]
    for child in children_of(tmp_path / "run"):
        assert len(child.tokens) == 28
        restricted = SPACE.restrict({"*.se_ratio": (0.0,)})
        spec = restricted.decode(child.tokens)
        whole = np.array(SPACE.encode(spec))
        assert (whole[se] == 0).all()
        mean, _ = surrogate.load().predictors["top1"].predict(whole[None])
        assert child.accuracy == pytest.approx(float(mean[0]) / 100)
