"""Tests for nas.scale's command line and for what a family is made of."""

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import nas.execution
from nas import report, scale
from nas.runs import journal
from search_space import codec, cost, zoo
from tests.nas import trials
from trainers.measurement import Measured

# What needs no training must not need Ray: importing it would fail here.
pytestmark = pytest.mark.usefixtures("no_ray")


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def family(tmp_path, *arguments):
    """Runs the command; returns family.json and the members' architectures."""
    assert scale.main([*arguments, "--output", "out"]) == 0
    record = json.loads((tmp_path / "out" / "family.json").read_text())
    specs = [codec.load_file(tmp_path / "out" / m["file"]) for m in record["members"]]
    return record, specs


@pytest.mark.parametrize(
    ("name", "base", "members"),
    [
        ("efficientnet", "efficientnet-b0", 8),
        ("efficientnet-lite", "efficientnet-lite0", 5),
        ("efficientnet-edgetpu", "efficientnet-edgetpu-s", 3),
        ("efficientnetv2", "efficientnetv2-b0", 4),
    ],
)
def test_presets_are_the_published_networks(tmp_path, name, base, members):
    _, specs = family(tmp_path, base, "--preset", name)
    assert specs == [zoo.load(spec.name) for spec in specs]
    assert len(specs) == members
    assert {spec.name for spec in specs} <= set(zoo.names())


def test_v2s_family_keeps_to_480_pixels_and_grows_in_its_late_stages(tmp_path):
    rules = ["--max-resolution", "480", "--later-depth", "1"]
    _, (first, second, third) = family(
        tmp_path, "efficientnetv2-s", "--phi", "0,1,3", *rules
    )
    assert first.stages == zoo.load("efficientnetv2-s").stages
    # 384 * 1.15 = 441.6, nearest multiple of 4; 384 * 1.52 = 584.
    assert (second.resolution, third.resolution) == (440, 480)
    growth = [
        new.repeats / old.repeats
        for new, old in zip(third.stages, first.stages, strict=True)
    ]
    assert growth[0] < growth[2] < growth[5]
    assert "Fused-MBConv4, 3x3" in (tmp_path / "out" / "family.html").read_text()


def test_members_by_the_formula(tmp_path):
    record, (whole, half, double) = family(
        tmp_path, "efficientnet-b0", "--phi", "0,0.5,1"
    )
    b0 = zoo.load("efficientnet-b0")
    assert whole.stages == b0.stages
    assert half.name == "efficientnet-b0-phi0.5"
    # By hand, 1.2, 1.1 and 1.15: 224 * 1.15 = 257.6, nearest multiple of 4; channels
    # 17.6, 26.4, 44, 88, 123.2, 211.2, 352 to multiples of 8, halves up.
    assert double.resolution == 256
    assert [s.channels for s in double.stages] == [16, 24, 48, 88, 120, 208, 352]
    assert [s.repeats for s in double.stages] == [2, 3, 3, 4, 4, 5, 2]
    assert [m["phi"] for m in record["members"]] == [0, 0.5, 1]
    assert [m["num_macs"] for m in record["members"]] == [
        cost.num_macs(spec) for spec in (whole, half, double)
    ]
    assert record["coefficients"] == {"alpha": 1.2, "beta": 1.1, "gamma": 1.15}
    page = (tmp_path / "out" / "family.html").read_text()
    assert page.count("not trained") == 3
    assert "MBConv6, 5x5, SE 0.25, 48 channels" in page


def test_a_member_can_be_scaled_again(tmp_path):
    family(tmp_path, "mobilenet-v1", "--phi", "1")
    assert scale.main(["out/phi-1.json", "--phi", "1", "--output", "again"]) == 0
    twice = codec.load_file("again/phi-1.json")
    assert twice.name == "mobilenet-v1-phi1-phi1"


@pytest.mark.parametrize(
    "targets",
    [
        ["--target-flops", "1B"],
        ["--target-memory", "8GB"],
        ["--target-flops", "1B", "--target-memory", "8GB"],
        ["--target-flops", "5B", "--target-memory", "200MB",
         "--memory-for", "inference", "--memory-batch", "1"],
    ],
)  # fmt: skip
def test_the_largest_member_within_targets(tmp_path, targets):
    record, _ = family(tmp_path, "efficientnet-b0", *targets)
    first, largest = record["members"]
    assert first["phi"] == 0
    beyond = f"{largest['phi'] + 0.001:.3f}"
    options = targets[targets.index("--memory-for") :] if len(targets) > 4 else []
    arguments = ["efficientnet-b0", "--phi", beyond, "--output", "next", *options]
    assert scale.main(arguments) == 0
    next_one = json.loads((tmp_path / "next" / "family.json").read_text())["members"][0]
    limits = {}
    limits["--target-flops"] = ("num_macs", 5e9 if "5B" in targets else 1e9)
    limits["--target-memory"] = ("memory_bytes", 2e8 if "200MB" in targets else 8e9)
    checked = [limits[x] for x in targets if x in limits]
    assert all(largest[name] <= limit for name, limit in checked)
    assert any(next_one[name] > limit for name, limit in checked)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "an architecture is needed"),
        (["b0"], "an architecture is a JSON file"),
        (["none.json"], "none.json"),
        (["efficientnet-b0", "--phi", "one"], "--phi must be numbers"),
        (["efficientnet-b0", "--phi", "nan"], "phi must be from -32 to 32, got nan"),
        (["efficientnet-b0", "--phi", "30"], "phi 30 makes no network"),
        (["efficientnet-b0", "--phi", "-15"], "at least the total stride 32, got 28"),
        (["efficientnet-b0", "--alpha", "2"], "within 0.1 of 2, got 3.2"),
        (["efficientnet-b0", "--beta", "0.9"], "beta must be at least 1"),
        (["efficientnet-b0", "--gamma", "nan"], "gamma must be at least 1"),
        (["efficientnet-b0", "--target-flops", "3M"], "the baseline's 386M, got 3M"),
        (["efficientnet-b0", "--target-memory", "1MB"], "lower --memory-batch"),
        (["efficientnet-b0", "--target-memory", "much"], "write 2GB"),
        (["efficientnet-b0", "--target-flops", "1B", "--phi", "1"], "drop one of them"),
        (["efficientnet-b0", "--preset", "efficientnet", "--alpha", "1.2"], "--preset"),
        (["efficientnet-b0", "--memory-batch", "0"], "--memory-batch must be at least"),
        (["efficientnet-b0", "--channel-multiple", "0"], "multiples of 1 or more"),
        (["efficientnet-b0", "--max-resolution", "200"], "baseline's 224"),
        (["efficientnet-b0", "--later-depth", "-1"], "must be from 0 to 10, got -1"),
        (["efficientnet-b0", "--preset", "efficientnet", "--later-depth", "1"],
         "--max-resolution and --later-depth"),
        (["efficientnet-b0", "--search-coefficients", "--alpha", "1.2"], "finds alpha"),
        (["efficientnet-b0", "--search-coefficients", "--grid-step", "0"], "(0, 1]"),
        (["efficientnet-b0", "--search-coefficients", "--grid-step", "0.3",
          "--tolerance", "0.01"], "none is within"),
        (["efficientnet-b0", "--search-coefficients", "--repeats", "0"],
         "--repeats must be at least 1, got 0"),
        (["efficientnet-b0", "--repeats", "3"], "--search-coefficients trains"),
        (["efficientnet-b0", "--search-coefficients", "--resolution", "16"],
         "--resolution 16 does not suit efficientnet-b0"),
        (["efficientnet-b0", "--search-coefficients", "--dataset", "digit"],
         "unknown data set"),
        (["efficientnet-b0", "--search-coefficients", "--phi", "30"],
         "phi 30 makes no network"),
        (["efficientnet-b0", "--search-coefficients", "--evaluator",
          "imagenet-surrogate"], "no scaled network is among them"),
        (["efficientnet-b0", "--steps", "0"], "steps must be at least 1"),
        (["--resume", "nowhere"], "nowhere"),
        (["efficientnet-b0", "--resume", "nowhere"], "drop efficientnet-b0"),
    ],
)  # fmt: skip
def test_a_bad_value_ends_in_one_line_before_any_work(
    capsys, tmp_path, arguments, told
):
    assert scale.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("nas.scale: ")
    assert printed.err.count("\n") == 1
    assert told in printed.err
    assert list(tmp_path.iterdir()) == [], "a refused command leaves nothing behind"


class Alone:
    """What `ray_workers` offers, without Ray; accuracies are resolutions."""

    def __init__(self, stop_after, accuracy=None, spread=()):
        self.stop_after = stop_after
        self.accuracy = accuracy or (
            lambda resolution, seed: min(1.0, 0.01 * resolution + seed % 100 * 1e-5)
        )
        self.spread = dict(spread)

    def cluster(self):
        return contextlib.nullcontext(lambda: {"CPU": 1.0})

    def run(self, study, evaluator, *, check, **_):
        for _ in range(self.stop_after):
            if (trial := study.next_trial()) is None:
                return
            resolution = evaluator.config(trial.spec).resolution
            accuracy = self.accuracy(resolution, trial.seed)
            measured = Measured(
                metrics={"accuracy": accuracy, "images_per_second": 1.0},
                losses=(2.0, 1.0),
                spread=self.spread,
            )
            study.finish(trial, measured, None)
            check()
        raise OSError("cut off here")


@pytest.fixture
def alone(monkeypatch):
    def install(stop_after, **how):
        workers = Alone(stop_after, **how)
        monkeypatch.setitem(sys.modules, "nas.execution.ray_workers", workers)
        monkeypatch.setattr(nas.execution, "ray_workers", workers, raising=False)

    return install


PHI = ["--phi", "0,1,2"]
GRID = ["--search-coefficients", "--grid-step", "0.2", "--repeats", "2", *PHI]


def test_a_grid_cut_off_and_resumed_finds_what_is_most_accurate(
    alone, capsys, tmp_path
):
    alone(stop_after=3)
    arguments = ["efficientnet-b0", *GRID, "--workers", "1", "--output", "run"]
    assert scale.main(arguments) == 1
    assert "--resume run" in capsys.readouterr().out
    alone(stop_after=1000)
    assert scale.main(["--resume", "run", "--phi", "3"]) == 2
    assert "--phi is (0.0, 1.0, 2.0), not (3.0,)" in capsys.readouterr().err
    assert scale.main(["--resume", "run", "--workers", "1"]) == 0
    said = capsys.readouterr().out
    # In steps of 0.2: (1, 1, 1.4), (1, 1.2, 1.2), (1, 1.4, 1), (1.4, 1, 1.2),
    # (1.4, 1.2, 1) and (2, 1, 1), by hand; and the baseline.
    assert "6 points" in said
    children = journal.read(tmp_path / "run" / "journal.jsonl").completed
    assert sorted(c.tokens for c in children) == [
        (r, n) for r in (0, 1) for n in range(7)
    ]
    record = json.loads((tmp_path / "run" / "family.json").read_text())
    assert record["coefficients"] == {"alpha": 1, "beta": 1, "gamma": 1.4}
    trained = [m["validation_accuracy"] for m in record["members"]]
    assert trained[2] is None
    # The baseline at 32 pixels; 32 * 312 / 224 (313.6 rounds to 312) is 45.
    assert trained[0]["mean"] == pytest.approx(0.32, abs=1e-3)
    assert trained[1]["mean"] == pytest.approx(0.45, abs=1e-3)
    assert [t["children"] for t in trained[:2]] == [2, 2]
    assert "Accuracy over the grid" in (tmp_path / "run" / "family.html").read_text()
    # The report is made of the journal alone.
    before = (tmp_path / "run" / "family.json").read_text()
    (tmp_path / "run" / "family.json").unlink()
    assert report.main(["run"]) == 0
    assert (tmp_path / "run" / "family.json").read_text() == before


def test_a_grid_that_decides_nothing_says_so(alone, capsys, tmp_path):
    """All points are worth the same, far more than half a digit at chance."""
    alone(
        stop_after=1000,
        accuracy=lambda _, seed: 0.1 + 0.01 * (seed % 7),
        spread={"accuracy": 0.05},
    )
    arguments = ["efficientnet-b0", *GRID, "--workers", "1"]
    assert scale.main([*arguments, "--output", "run"]) == 0
    said = capsys.readouterr().out
    page = (tmp_path / "run" / "family.html").read_text()
    for doubt in (
        "of 14 children stand at chance",
        "the best point is not told apart from",
    ):
        assert doubt in said
        assert doubt in page
    once = [*arguments, "--repeats", "1", "--output", "once"]
    assert scale.main(once) == 0
    assert "each point was trained once" in capsys.readouterr().out


def test_a_grid_that_decides_is_not_doubted(alone, capsys):
    alone(stop_after=1000, spread={"accuracy": 0.001})
    arguments = ["efficientnet-b0", *GRID, "--workers", "1", "--output", "run"]
    assert scale.main(arguments) == 0
    assert "Doubt" not in capsys.readouterr().out


def test_a_grid_of_format_1_goes_on(alone, tmp_path):
    """Four of its nine children were trained by the version before."""
    stored = Path(__file__).parent / "runs" / "format1" / "grid"
    shutil.copytree(stored, "run")
    alone(stop_after=1000)
    assert scale.main(["--resume", "run", "--workers", "1"]) == 0
    before = journal.read(stored / "journal.jsonl")
    contents = journal.read(tmp_path / "run" / "journal.jsonl")
    assert (before.format, contents.format) == (1, 2)
    assert contents.trials[:4] == before.trials
    assert len({trial.tokens for trial in contents.trials}) == 9
    record = json.loads((tmp_path / "run" / "family.json").read_text())
    trained = record["members"][0]["validation_accuracy"]["mean"]
    assert trained == before.completed[0].metrics["accuracy"]


def test_a_search_is_not_resumed_as_a_grid(capsys, tmp_path):
    journal.create(tmp_path / "journal.jsonl", trials.header())
    assert scale.main(["--resume", str(tmp_path)]) == 2
    assert "must hold a grid" in capsys.readouterr().err


def test_a_target_that_leaves_no_room_is_said(capsys, tmp_path):
    # The smallest phi above 0 adds a layer to every stage of B0: 570M multiply-adds.
    family(tmp_path, "efficientnet-b0", "--target-flops", "400M")
    assert "the next larger network breaks a target" in capsys.readouterr().out


def test_a_training_runs_folder_is_an_architecture(tmp_path):
    (tmp_path / "run" / "model").mkdir(parents=True)
    text = codec.dumps(zoo.load("mobilenet-v1"))
    (tmp_path / "run" / "model" / "architecture.json").write_text(text)
    _, (spec,) = family(tmp_path, "run", "--phi", "0")
    assert spec.stages == zoo.load("mobilenet-v1").stages


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_grid_on_two_workers(tmp_path):
    """Trains on digits under Ray: `pytest -m slow tests/nas/test_scale.py`."""
    command = [
        sys.executable, "-m", "nas.scale", "mobilenet-v1", "--search-coefficients",
        "--grid-step", "0.5", "--phi", "0,1", "--steps", "3", "--batch-size", "8",
        "--validation", "50", "--output", "run",
    ]  # fmt: skip
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
    children = journal.read(tmp_path / "run" / "journal.jsonl").completed
    assert len(children) == 2
    record = json.loads((tmp_path / "run" / "family.json").read_text())
    assert record["coefficients"] == {"alpha": 2, "beta": 1, "gamma": 1}
    point = next(child for child in children if child.tokens[1] == 1)
    assert (
        record["members"][1]["validation_accuracy"]["mean"] == point.metrics["accuracy"]
    )
    assert record["members"][1]["num_macs"] == point.metrics["num_macs"]


def test_a_grid_does_not_go_on_with_other_data(alone, capsys, tmp_path):
    for shade, name in enumerate(("cat", "dog")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(4):
            pixels = np.full((8, 8, 3), 50 + 20 * shade + i, np.uint8)
            pixels[: i + 1] = 0
            PIL.Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{i}.png")
    alone(stop_after=1)
    data = ["--dataset", "./pictures", "--workers", "1"]
    assert scale.main(["efficientnet-b0", *GRID, *data, "--output", "run"]) == 1
    (tmp_path / "pictures" / "dog").rename(tmp_path / "pictures" / "ant")
    assert scale.main(["--resume", "run"]) == 2
    assert "class 'dog' is now called 'ant'" in capsys.readouterr().err
