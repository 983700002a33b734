"""Tests for `--evaluator imagenet-surrogate`, from the command line to the files."""

import json
import re

import numpy as np
import pytest

from nas import search
from nas.runs import journal
from search_space import codec, spaces
from trainers import surrogate

SPACE = spaces.load("accel-nasbench")


SPEED = ("--objective", "throughput-a100", "--target", "9000")


# Predictions need no Ray.
pytestmark = pytest.mark.usefixtures("no_ray")


def run(folder, *arguments, children=12):
    return search.main(
        [
            "--evaluator", "imagenet-surrogate", "--controller", "evolution",
            "--children", str(children), "--output", str(folder), *arguments,
        ]
    )  # fmt: skip


def children_of(folder):
    return journal.read(folder / "journal.jsonl").completed


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
        assert child.metrics["accuracy"] == pytest.approx(top1 / 100)
        assert child.reward == pytest.approx(
            top1 / 100 * (child.metrics["num_macs"] / 4e8) ** -0.07
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
    said = capsys.readouterr().out
    unit = "images/s" if sign > 0 else "ms"
    assert f"soft, target {objective} {target:g} {unit}, predicted" in said
    for child in children_of(tmp_path / "run"):
        speed = predicted(objective, child)
        assert child.metrics[objective] == pytest.approx(speed)
        quality = child.metrics["accuracy"]
        assert child.reward == pytest.approx(quality * (speed / target) ** sign)


def test_a_second_cost_weighs_and_is_on_the_front_and_on_the_page(tmp_path, capsys):
    """accuracy * (MACs / 400M)^-0.07 * (params / 2.5M)^-0.05, by hand."""
    assert run(tmp_path / "run", "--cost", "num_params=2.5M^-0.05", children=30) == 0
    said = capsys.readouterr().out
    assert "soft, target 400M multiply-adds; num_params=2.5M^-0.05" in said
    found = children_of(tmp_path / "run")
    for child in found:
        m = child.metrics
        factors = (m["num_macs"] / 4e8) ** -0.07 * (m["num_params"] / 2.5e6) ** -0.05
        assert child.reward == pytest.approx(m["accuracy"] * factors)

    pareto = json.loads((tmp_path / "run" / "pareto.json").read_text())
    names = ("accuracy", "num_macs", "num_params")
    assert tuple(metric["name"] for metric in pareto["objectives"]) == names

    def values(child):
        accuracy, *costs = (child.metrics[name] for name in names)
        return (accuracy, *(-c for c in costs))

    front = {
        child.index
        for child in found
        if not any(
            all(a >= b for a, b in zip(values(other), values(child), strict=True))
            and values(other) != values(child)
            for other in found
        )
    }
    listed = [network["found"] for network in pareto["networks"]]
    assert {one["index"] for one in listed} == front
    assert [one["metrics"]["num_params"] for one in listed] == sorted(
        one["metrics"]["num_params"] for one in listed
    )
    page = (tmp_path / "run" / "report.html").read_text()
    assert "its parameters" in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])
    (drawn,) = (s["figure"] for s in data["sections"] if s["id"] == "tradeoff")
    points, marked = drawn["data"]
    assert len(points["x"]) == 30
    assert marked["mode"] == "markers"  # of three metrics it is no line in the plane
    shown = set(zip(marked["x"], marked["y"], strict=True))
    assert shown == {
        (m["num_macs"], m["accuracy"]) for m in (o["metrics"] for o in listed)
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--space", "mbconv"], "predicts networks of the space accel-nasbench"),
        (["--steps", "7", "--dataset", "x"], "trains nothing, and --dataset is 'x'"),
        (["--objective", "watts", "--target", "3"], "or one of latency-vck190"),
        (["--objective", "throughput-a100"], "needs a positive --target"),
        (["--objective", "throughput-a100", "--target", "9"], "from .* to .*, got 9"),
        (["--target", "9000"], "--target is for another --objective"),
        (["--cost", "num_params"], "METRIC=TARGET"),
        (["--cost", "watts=3"], "must be of a metric that trials have"),
        (["--cost", "num_macs=300M"], "num_macs is weighed already"),
        (["--cost", "num_params=5M^0.05"], "not above 0"),
        (["--cost", "num_params=5M", "--reward", "absolute"], "--cost adds factors"),
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
        assert child.metrics["accuracy"] == pytest.approx(float(mean[0]) / 100)
