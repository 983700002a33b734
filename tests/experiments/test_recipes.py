"""Recipes: their flags are flags of nas.search."""

import pytest

from experiments.recipes import cifar10_gpu, digits_laptop, imagenet_cluster, launch
from nas import search
from nas.runs import journal
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
