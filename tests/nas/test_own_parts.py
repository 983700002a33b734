"""Parts of a user's own: named on the command line, and held to the contracts."""

import json
import textwrap

import pytest

from nas import search
from nas.api import Scored
from nas.api import search as search_from_python
from nas.evaluation.evaluators import PredictChildren
from nas.study.metrics import ACCURACY, Metric
from nas.study.reward import soft
from nas.testing import EvaluatorContract, RewardContract
from search_space import spaces, zoo

MODULE = """
    import numpy as np
    from nas.study.metrics import ACCURACY, Metric
    from trainers.measurement import Measured

    class Counting:
        place = "driver"
        metrics = (ACCURACY, Metric(name="energy", unit="mJ", goal="min"))
        def prepare(self):
            def measure(spec, seed):
                layers = sum(stage.repeats for stage in spec.stages)
                metrics = {"accuracy": layers / 100, "energy": layers ** 2}
                return Measured(metrics=metrics)
            return measure

    def reward(metrics):
        return metrics["accuracy"] - metrics["energy"] / 1000

    class Sweep:
        def __init__(self, num_choices):
            self.num_choices = num_choices
        def init(self, seed):
            return np.int64(seed)
        def ask(self, state, num, pending=None):
            rows = np.random.default_rng(int(state)).integers(
                self.num_choices, size=(num, len(self.num_choices)))
            return state + 1, rows.astype(np.int32)
        def tell(self, state, tokens, rewards):
            return state

    class Lines:
        def started(self, trial):
            pass
        def finished(self, trial):
            with open("told.txt", "a") as file:
                file.write(f"{trial.index}\\n")

    nothing = 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "my_parts.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


FLAGS = [
    "--evaluator", "my_parts:Counting", "--reward", "my_parts:reward",
    "--controller", "my_parts:Sweep", "--space", "accel-nasbench",
]  # fmt: skip


def test_every_part_may_be_ones_own(mine, capsys):
    flags = [*FLAGS, "--callback", "my_parts:Lines", "--children", "6"]
    assert search.main([*flags, "--output", "run"]) == 0
    lines = (mine / "run" / "journal.jsonl").read_text().splitlines()
    header, *trials = map(json.loads, lines)
    assert header["objectives"] == ["accuracy", "energy", "num_macs"]
    for trial in trials:
        layers = round(100 * trial["metrics"]["accuracy"])
        assert trial["metrics"]["energy"] == layers**2
        assert trial["reward"] == pytest.approx(layers / 100 - layers**2 / 1000)
    assert (mine / "told.txt").read_text().split() == [str(i) for i in range(6)]
    pareto = json.loads((mine / "run" / "pareto.json").read_text())
    assert [m["name"] for m in pareto["objectives"]] == header["objectives"]
    assert "energy" in (mine / "run" / "report.html").read_text()

    capsys.readouterr()
    assert search.main(["--resume", "run", "--children", "8"]) == 2
    assert "is a module, and importing it runs it" in capsys.readouterr().err
    assert search.main(["--resume", "run", "--children", "8", *FLAGS]) == 0
    assert len((mine / "run" / "journal.jsonl").read_text().splitlines()) == 9


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--reward", "my_parts:nothing"], "must be a function of the metrics"),
        (["--reward", "my_parts:missing"], "has no missing"),
        (["--reward", "no_module:x"], "must be importable"),
        (["--reward", "my_parts:reward", "--beta", "-1"], "drop them"),
        (["--evaluator", "my_parts:nothing"], "must be an evaluator"),
        (["--evaluator", "my_parts:Lines"], "lacks metrics, place, prepare"),
        (["--controller", "my_parts:Lines"], "num_choices"),
        (["--callback", "my_parts:nothing"], "lacks started and finished"),
        (["--dataset", "my_parts:Lines"], "returns a DataSource"),
    ],
)
@pytest.mark.usefixtures("mine")
def test_what_is_no_such_part_is_refused_in_a_line(capsys, flags, told):
    evaluator = [] if "--dataset" in flags or "--evaluator" in flags else FLAGS[:2]
    assert search.main([*evaluator, *flags, "--output", "run"]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1


def test_from_python_with_a_function_and_on_from_its_folder(tmp_path):
    def score(spec):
        return {"accuracy": sum(stage.repeats for stage in spec.stages) / 100}

    found = search_from_python(
        "accel-nasbench",
        score,
        num_trials=8,
        controller="random",
        output=tmp_path / "r",
    )
    assert len(found.trials) == 8
    assert found.best.metrics["accuracy"] == score(found.spec(found.best))["accuracy"]
    assert found.best in found.front
    more = search_from_python(
        "accel-nasbench",
        score,
        num_trials=12,
        controller="random",
        resume=tmp_path / "r",
    )
    assert more.trials[:8] == found.trials
    assert len(more.trials) == 12


class TestPredictions(EvaluatorContract):
    def build(self):
        return PredictChildren(objective="latency-zcu102")

    def spec(self):
        space = spaces.load("accel-nasbench")
        return space.decode((0,) * len(space.num_choices))


class TestScores(EvaluatorContract):
    def build(self):
        speed = Metric(name="speed", unit="images/s", goal="max")
        return Scored(
            score=lambda _: {"accuracy": 0.5, "speed": 3.0},
            metrics=(ACCURACY, speed),
        )

    def spec(self):
        return zoo.load("mnasnet-a1")


class TestSoft(RewardContract):
    def build(self):
        return soft("num_macs", 4e8)

    def metrics(self):
        return {"accuracy": 0.7, "num_macs": 3e8}


class Lying(EvaluatorContract):
    def build(self):
        return Scored(score=lambda _: {"accuracy": 1.5})

    def spec(self):
        return zoo.load("mnasnet-a1")


def test_an_evaluator_that_lies_fails():
    with pytest.raises(AssertionError):
        Lying().test_it_measures_what_it_says()
