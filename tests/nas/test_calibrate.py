"""Tests for nas.calibrate: the command, its files, and `nas.search --budget`."""

import contextlib
import dataclasses
import json
import sys
from pathlib import Path

import pytest

import nas.execution
from nas import calibrate, report, search
from nas.calibration import plan, record
from nas.runs import journal
from search_space import cost
from tests.nas import trials
from tests.nas.search_process import Search, journaled
from tests.nas.tiny_space import SPACE
from trainers.measurement import Infeasible, Measured, Seconds

TINY = [
    "--space", "tiny_space:SPACE", "--architectures", "4", "--steps", "6",
    "--try-steps", "2", "--resolution", "8", "--batch-size", "16",
    "--validation", "60", "--norm-batches", "1",
]  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parent)


class Pretend:
    """What `ray_workers` offers, without Ray: a true quality under noise.

    The quality rises with the position among the architectures where `orders` is
    "good", and has nothing to do with it where it is "noise". Noise shrinks with steps.
    """

    def __init__(self, orders="good", stop_after=10_000, ill=None):
        self.orders, self.left, self.ill = orders, stop_after, ill

    def cluster(self):
        return contextlib.nullcontext(lambda: {"CPU": 1.0})

    def run(self, study, evaluator, *, check, **_):
        while (trial := study.next_trial()) is not None:
            if self.left == 0:
                raise OSError("cut off here")
            self.left -= 1
            study.finish(trial, self.outcome(evaluator, trial), None)
            check()

    def outcome(self, evaluator, trial):
        budget = evaluator.budgets[trial.fidelity]
        position = trial.tokens[2]
        if position == self.ill:
            return Infeasible("as asked")
        chance = trial.seed % 1_000 / 1_000 - 0.5
        # 5 of every 12 in a row are out of order by multiply-adds.
        true = (5 * position) % 12 if self.orders == "good" else 0
        noise = {20: 20.0, 60: 2.0, 200: 0.5, 600: 0.1}[budget.steps] * chance
        metrics = {"accuracy": 0.5 + 0.01 * (true + noise), "images_per_second": 1.0}
        scores = {"naswot": 7.0, "log10_synflow": true, "score_seconds": 0.5}
        seconds = Seconds(compile=9.0, train=0.01 * budget.steps, eval=0.1)
        return Measured(metrics=metrics | scores, losses=(2.0, 1.0), seconds=seconds)


@pytest.fixture
def pretend(monkeypatch):
    def install(**how):
        workers = Pretend(**how)
        monkeypatch.setitem(sys.modules, "nas.execution.ray_workers", workers)
        monkeypatch.setattr(nas.execution, "ray_workers", workers, raising=False)

    return install


def found(folder="run"):
    return record.load(Path(folder))


def test_architectures_are_spread_over_the_multiply_adds():
    specs = plan.spread_out(SPACE, 8, 0)
    macs = [cost.num_macs(spec) for spec in specs]
    assert len(set(specs)) == 8
    assert macs == sorted(macs)
    assert plan.spread_out(SPACE, 8, 0) == specs
    assert plan.spread_out(SPACE, 8, 1) != specs
    # Two expansions in each of four stages are left: 16 networks.
    with pytest.raises(ValueError, match="--architectures must be at most"):
        plan.spread_out(SPACE.restrict({"*.kernel": (3,), "*.repeats": (1,)}), 17, 0)


def test_a_calibration_cut_off_and_resumed_recommends_the_cheapest(pretend, capsys):
    pretend(stop_after=30)
    assert calibrate.main(["--workers", "1", "--output", "run"]) == 1
    said = capsys.readouterr().out
    assert "66 trainings are left" in said
    assert "--resume run" in said
    assert not Path("run/calibration.json").exists()
    assert report.main(["run"]) == 2
    assert "--resume run" in capsys.readouterr().err
    pretend()
    assert calibrate.main(["--resume", "run", "--bar", "0.9"]) == 2
    assert "--bar is 0.6, not 0.9" in capsys.readouterr().err
    assert calibrate.main(["--resume", "run", "--workers", "1"]) == 0
    said = capsys.readouterr().out
    children = journal.read(Path("run/journal.jsonl")).completed
    assert sorted(c.tokens for c in children) == [
        (s, b, a) for s in range(2) for b in range(4) for a in range(12)
    ]
    assert all(c.fidelity == c.tokens[1] for c in children)
    made = found()
    # By construction 20 steps are noise, 60 are not; 0.01 s a step and 0.1 s each.
    steps = {(row.budget.steps, row.repeats): row for row in made.budgets}
    assert steps[20, 1].rank.tau < 0.5
    assert steps[60, 1].rank.tau > 0.6
    assert steps[60, 1].seconds == pytest.approx(0.7)
    assert steps[60, 2].seconds == pytest.approx(1.4)
    assert steps[60, 1].images_trained == 60 * 32
    assert steps[60, 1].images_measured == 1_333
    assert made.recommended == steps[60, 1]
    assert made.flags == "--steps 60 --resolution 32"
    assert f"Flags       {made.flags}" in said
    predictors = {row.name: row for row in made.predictors}
    assert predictors["synflow"].rank.tau > 0.9
    assert predictors["NASWOT"].rank.tau == 0.0, "it ties all"
    assert not predictors["NASWOT"].beats_multiply_adds
    assert abs(predictors["more multiply-adds"].rank.tau) < 0.5
    page = Path("run/report.html").read_text()
    assert "no better than multiply-adds" in page
    # The report is made of the journal alone.
    before = Path("run/calibration.json").read_text()
    Path("run/calibration.json").unlink()
    assert report.main(["run"]) == 0
    assert Path("run/calibration.json").read_text() == before
    assert report.main(["run", "--serve"]) == 2
    assert "is a calibration" in capsys.readouterr().err


def test_where_all_is_noise_nothing_is_recommended(pretend, capsys):
    pretend(orders="noise", ill=3)
    arguments = ["--workers", "1", "--output", "run", "--bar", "0.7"]
    assert calibrate.main(arguments) == 0
    made = found()
    assert (made.recommended, made.flags) == (None, None)
    assert len(made.architectures) == 11
    assert len(made.left_out) == 1
    assert "even two trainings at the longest budget agree" in made.verdict
    capsys.readouterr()
    assert search.main(["--budget", "run"]) == 2
    assert "recommends no budget: none: even two" in capsys.readouterr().err
    Path("run/calibration.json").unlink()
    assert search.main(["--budget", "run"]) == 2
    assert "is not there; go on with it" in capsys.readouterr().err
    assert search.main(["--budget", "auto"]) == 2
    assert "python -m nas.calibrate --dataset patterns" in capsys.readouterr().err
    assert search.main(["--budget", "run", "--evaluator", "imagenet-surrogate"]) == 2
    assert "drop one of them" in capsys.readouterr().err


def test_a_search_takes_the_budget(pretend, capsys):
    """What is found is in the journal as plain numbers; flags win over it."""
    pretend()
    arguments = ["--learning-rate", "0.01", "--workers", "1"]
    assert calibrate.main(arguments) == 0
    (folder,) = Path("runs").iterdir()
    made = found(folder)
    assert made.flags == "--steps 60 --resolution 32 --learning-rate 0.01"
    run = search.parse(["--budget", "auto"]).definition
    assert (run.child.steps, run.child.learning_rate) == (60, 0.01)
    pasted = search.parse(made.flags.split()).definition
    assert run == pasted
    run = search.parse(["--budget", str(folder), "--steps", "70"]).definition
    assert run == dataclasses.replace(
        pasted, child=dataclasses.replace(pasted.child, steps=70)
    )
    for other in (["--space", "mnasnet"], ["--restrict", "*.kernel=3"]):
        assert search.main(["--budget", "auto", *other]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "python -m nas.calibrate --dataset patterns --space" in said
        assert search.main(["--budget", str(folder), *other]) == 2
        assert "must be a calibration of what is searched" in capsys.readouterr().err


def test_other_data_or_a_damaged_record_is_no_calibration(pretend, capsys):
    pretend()
    assert calibrate.main(["--workers", "1", "--output", "runs/one"]) == 0
    path = Path("runs/one/calibration.json")
    text = path.read_text()
    whole = json.loads(text)
    whole["data"]["digests"]["train"] = "0"
    path.write_text(json.dumps(whole))
    capsys.readouterr()
    assert search.main(["--budget", "runs/one"]) == 2
    assert "not the same ones, in train" in capsys.readouterr().err
    for damaged in (text[:50], text.replace('"steps"', '"stepz"'), "[]", '{"a": NaN}'):
        path.write_text(damaged)
        for where in ("runs/one", "auto"):
            assert search.main(["--budget", where]) == 2
            assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--architectures", "3"], "--architectures must be at least 4"),
        (["--architectures", "201"], "at most 200"),
        (["--architectures", "many"], "many"),
        (["--trainings", "1"], "--trainings must be at least 2"),
        (["--bar", "1"], "--bar must be above 0 and below 1"),
        (["--bar", "nan"], "--bar must be above 0 and below 1"),
        (["--try-steps", "600"], "--try-steps must be above 0 and below --steps 600"),
        (["--try-steps", "0"], "got 0"),
        (["--try-share", "nan"], "--try-share must be above 0"),
        (["--try-share", "1.5"], "--try-share must be above 0 and below --share 1"),
        (["--try-share", "0.001"], "take a larger share"),
        (["--share", "0"], "(0, 1]"),
        (["--try-resolution", "1"], "a resolution of 1 does not suit"),
        (["--try-validation", "1333"], "below the 1,333 images"),
        (["--space", "nowhere"], "nowhere"),
        (["--restrict", "stem.kernel=3"], "stem.kernel"),
        (["--dataset", "digit"], "unknown data set"),
        (["--evaluator", "imagenet-surrogate"], "drop the flag"),
        (["--seed", "-1"], "--seed must be"),
        (["--resume", "nowhere"], "nowhere"),
    ],
)
@pytest.mark.usefixtures("no_ray")
def test_a_bad_value_ends_in_one_line_before_any_work(
    capsys, tmp_path, arguments, told
):
    try:
        status = calibrate.main(arguments)
    except SystemExit as exit:  # what is no number
        status = exit.code
    assert status == 2
    printed = capsys.readouterr()
    assert told in printed.err
    if "many" not in arguments:
        assert printed.err.startswith("nas.calibrate: ")
        assert printed.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [], "a refused command leaves nothing behind"


def test_other_runs_are_no_calibrations(capsys, tmp_path):
    journal.create(tmp_path / "journal.jsonl", trials.header())
    assert calibrate.main(["--resume", str(tmp_path)]) == 2
    assert "must hold a calibration" in capsys.readouterr().err


@pytest.mark.timeout(600)
@pytest.mark.slow  # two minutes
def test_real_trainings_killed_and_resumed(tmp_path):
    """Digits at 8 pixels; the driver is killed on its way."""
    log = tmp_path / "run.log"
    path = {"PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[2]}"}
    command = ["-m", "nas.calibrate", "--workers", "1"]
    one = Search(
        tmp_path / "run", [*command, *TINY, "--output", "run"], log=log,
        environment=path,
    )  # fmt: skip
    one.wait_for_children(5, seconds=250)
    one.kill()
    before = journaled(tmp_path / "run")
    two = Search(
        tmp_path / "run", [*command, "--resume", "run"], log=log, environment=path
    )
    assert two.finish() == 0, two.said
    children = journaled(tmp_path / "run")
    assert children[: len(before)] == before
    assert len(children) == 16
    for child in children:
        seed, budget, architecture = child["tokens"]
        assert child["index"] == 8 * seed + 4 * budget + architecture
        assert child["fidelity"] == budget
        assert child["num_steps"] == (2, 6)[budget]
        accuracy = child["metrics"]["accuracy"]
        assert accuracy * 60 == pytest.approx(round(accuracy * 60))
        assert child["metrics"]["naswot"] > 0
    made = found(tmp_path / "run")
    assert " ".join(made.verdict.split()) in " ".join(two.said.split())
    assert len(made.budgets) == 3  # 2 steps once and twice, 6 steps
    assert made.evaluation.dataset == "digits"


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        calibrate.main(["--help"])
    said = capsys.readouterr().out
    assert "--try-validation" in said
    assert "--budget auto" in said
