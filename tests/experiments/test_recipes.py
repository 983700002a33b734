"""Recipes: their flags are flags, and what is not a search is run at a small size."""

import json

import numpy as np
import pytest

from experiments.recipes import (
    cifar10_gpu,
    digits_laptop,
    imagenet_cluster,
    launch,
    retrain_top,
)
from nas import search
from nas.options import definition
from nas.options.definition import Definition, EvaluationOptions, SearchOptions
from nas.runs import journal
from nas.runs.run_folder import RunFolder
from search_space import codec, spaces
from tests.nas import trials


@pytest.mark.parametrize(
    ("flags", "dataset", "children", "images"),
    [
        (digits_laptop.FLAGS, "digits", 200, None),
        ((*cifar10_gpu.FLAGS, *cifar10_gpu.WORKERS), "cifar10", 500, 10 * 45_000),
        (imagenet_cluster.FLAGS, "imagenet2012", 8000, 5 * 1_231_167),
    ],
)
def test_recipes_are_searches(flags, dataset, children, images):
    parsed = search.parse(flags)
    assert parsed.definition.evaluation.dataset == dataset
    assert parsed.run.children == children
    config = parsed.definition.child
    if images is not None:  # to within a batch
        assert 0 <= images - config.steps * config.batch_size < config.batch_size


@pytest.fixture
def commands(monkeypatch):
    """What nas.search is called with."""
    seen = []
    monkeypatch.setattr(
        launch.search, "main", lambda arguments: seen.append(search.parse(arguments))
    )
    return seen


def test_a_recipe_starts_a_search_or_goes_on_with_it(tmp_path, commands):
    flags = ["--storage", str(tmp_path), "--workers", "7", "--devices-per-child", "4"]
    imagenet_cluster.main(flags)
    folder = tmp_path / "runs" / "imagenet"
    assert commands[0].run.output == folder
    assert commands[0].definition.evaluation.data_dir == str(tmp_path / "data")
    folder.mkdir(parents=True)
    header = trials.header(commands[0].definition, num_trials=8000)
    journal.create(folder / "journal.jsonl", header)
    imagenet_cluster.main(flags)
    assert commands[1].run.resume == folder
    for command in commands:
        assert command.workers.workers == 7
        assert command.workers.devices_per_child == 4.0
        assert command.workers.child_time_limit == 12 * 3600


@pytest.mark.parametrize("recipe", [digits_laptop, cifar10_gpu])
def test_a_recipe_of_fixed_flags_explains_itself_and_starts_no_search(
    recipe, tmp_path, commands, capsys
):
    with pytest.raises(SystemExit) as exit_:
        recipe.main(["--help"])
    assert exit_.value.code == 0
    assert "Hardware: " in capsys.readouterr().out
    with pytest.raises(SystemExit) as exit_:
        recipe.main(["--children", "8"])
    assert exit_.value.code == 2
    assert commands == []
    recipe.main(["--output", str(tmp_path / "here")])
    (command,) = commands
    assert command.run.output == tmp_path / "here"


ACCURACIES = (0.5, 0.9, 0.7, None, 0.8)


@pytest.fixture
def run(tmp_path):
    """A finished search of small networks, one of them infeasible."""
    options = Definition(
        search=SearchOptions(
            space="accel-nasbench", restrict=("*.layers=1", "*.expansion=1")
        ),
        evaluation=EvaluationOptions(dataset="digits"),
    )
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    counts = definition.build_space(options).num_choices
    rng = np.random.default_rng(0)
    found = []
    for index, accuracy in enumerate(ACCURACIES):
        common = {"asked": 5, "tokens": tuple(rng.integers(counts).tolist())}
        if accuracy is None:
            found.append(trials.infeasible(index, "diverged", **common))
        else:
            metrics = {"accuracy": accuracy}
            common |= {"reward": accuracy, "metrics": metrics}
            found.append(trials.completed(index, **common))
    trials.write(folder, found, options=options, num_trials=5)
    return folder.path


def test_the_best_are_retrained_once_each_by_those_who_share_the_work(
    run, tmp_path, monkeypatch
):
    """Training itself is stubbed: tests of nas.train and the slow test below do it."""
    trained = []

    def train(arguments):
        folder = tmp_path / "out" / arguments[0].rsplit("/", 1)[1].removesuffix(".json")
        folder.mkdir()
        (folder / "result.json").write_text('{"test": {"accuracy": 0.5}}')
        trained.append(arguments)
        return 0

    monkeypatch.setattr(retrain_top.train, "main", train)
    common = [str(run), "--output", str(tmp_path / "out"), "--top", "3"]
    for part in ("1/2", "2/2", "1/2"):
        assert retrain_top.main([*common, "--part", part]) == 0
    ranking = json.loads((tmp_path / "out" / "ranking.json").read_text())["children"]
    assert [row["index"] for row in ranking] == [1, 4, 2]
    assert [row["accuracy_in_search"] for row in ranking] == [0.9, 0.8, 0.7]
    assert all(row["retrained"]["test"]["accuracy"] == 0.5 for row in ranking)
    ranks = [arguments[0].rsplit("/", 1)[1] for arguments in trained]
    assert ranks == ["rank-01.json", "rank-03.json", "rank-02.json"]
    flags = ["--recipe", "efficientnet", "--dataset", "digits"]
    assert all(arguments[3:] == flags for arguments in trained)
    space = spaces.load("accel-nasbench").restrict(
        {"*.layers": (1,), "*.expansion": (1,)}
    )
    best = journal.read(run / "journal.jsonl").completed[1]
    own = codec.loads((tmp_path / "out" / "rank-01.json").read_text())
    assert own == space.decode(best.tokens)


@pytest.mark.slow
def test_one_is_really_retrained(run, tmp_path):
    flags = ["--output", str(tmp_path / "out"), "--top", "1", "--recipe", "short"]
    assert retrain_top.main([str(run), *flags, "--epochs", "0.2"]) == 0
    (row,) = json.loads((tmp_path / "out" / "ranking.json").read_text())["children"]
    assert 0.0 <= row["retrained"]["test"]["accuracy"] <= 1.0


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "a/b"])
def test_a_part_that_is_none_is_refused(run, tmp_path, part, capsys):
    flags = ["--output", str(tmp_path / "out"), "--part", part]
    assert retrain_top.main([str(run), *flags]) == 2
    assert "--part must be K/N" in capsys.readouterr().err


def test_a_folder_without_a_search_is_refused(tmp_path, capsys):
    assert retrain_top.main([str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert "journal.jsonl" in capsys.readouterr().err
