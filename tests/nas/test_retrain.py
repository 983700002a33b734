"""A search's best trained at length, beside others, at a tiny size."""

import dataclasses
import json
import math
import shutil
import statistics
from functools import partial

import jax
import pytest

from nas import retrain, train
from nas.options.definition import Definition, EvaluationOptions, SearchOptions
from nas.runs import journal
from nas.runs.run_folder import RunFolder
from search_space import codec, cost
from search_space.space import SearchSpace, StageChoices
from search_space.spec import ArchSpec, ClassifierHead, MBConvStage, Stem
from tests.nas import trials

TINY = ArchSpec(
    name="tiny",
    resolution=32,
    activation="relu",
    stem=Stem(channels=8),
    stages=(MBConvStage(channels=16, kernel=3, stride=2, expansion=1, repeats=1),),
    head=ClassifierHead(channels=None),
)
SPACE = SearchSpace(
    name="tinier",
    base=TINY,
    stages=(
        StageChoices(
            choices={"kernel": (3, 5), "expansion": (1, 2)},
            build=partial(MBConvStage, channels=8, stride=2, repeats=1),
        ),
    ),
)
FLAGS = [
    *("--resolution", "8", "--epochs", "1", "--batch-size", "128", "--devices", "1"),
    *("--load-space", "--seeds", "2"),
]
SMALLEST, IN_BETWEEN, LARGEST = (0, 0), (1, 0), (1, 1)


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """A folder with the tiny architecture, and a compilation cache for all tests."""
    folder = tmp_path_factory.mktemp("retrain")
    (folder / "tiny.json").write_text(codec.dumps(TINY))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MBCONV_NAS_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        cache = jax.config.jax_compilation_cache_dir
        yield folder
        jax.config.update("jax_compilation_cache_dir", cache)


def searched(
    path, *, space="tests.nas.test_retrain:SPACE", dataset="digits", again=True
):
    """A run whose third child has the highest reward, once measured again."""
    options = Definition(
        search=SearchOptions(space=space, target_flops=cost.num_macs(between())),
        evaluation=EvaluationOptions(dataset=dataset, validation=200),
    )
    folder = RunFolder(path)
    folder.path.mkdir()
    found = [
        child(0, SMALLEST, 0.70, reward=0.97),
        child(1, IN_BETWEEN, 0.80, reward=0.90),
        child(2, LARGEST, 0.90, reward=0.95),
        trials.infeasible(3, "diverged", tokens=SMALLEST),
    ]
    if again:
        found += [child(2, LARGEST, 0.85, reward=0.94, asked=0, repeat=1)]
    trials.write(folder, found, options=options, num_trials=4)
    return folder.path


def between():
    return SPACE.decode(IN_BETWEEN)


def child(index, tokens, accuracy, **changes):
    macs = cost.num_macs(SPACE.decode(tokens))
    metrics = {"accuracy": accuracy, "num_macs": macs}
    return trials.completed(index, tokens=tokens, metrics=metrics, **changes)


@pytest.fixture(scope="module")
def run(home):
    return searched(home / "run")


@pytest.fixture(scope="module")
def retrained(run):
    """The confirmed best, the best at the target, and a network beside them."""
    command = [str(run), "--beside", "tiny.json", *FLAGS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrain.retrained, "_LATENCY_RUNS", 5)
        assert retrain.main(command) == 0
    return run / "retrained", command


def document(folder):
    """What is written, by a parser that takes no NaN."""
    text = (folder / "retrained.json").read_text()
    return json.loads(text, parse_constant=lambda word: pytest.fail(word))


def files(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow  # real trainings, for minutes
def test_the_confirmed_best_the_best_at_the_target_and_a_network_beside(retrained):
    folder, _ = retrained
    networks = document(folder)["networks"]
    assert [one["name"] for one in networks] == ["child-2", "child-1", "tiny"]
    assert [one["kind"] for one in networks] == ["found", "found", "beside"]
    assert codec.load_file(folder / "child-2" / "architecture.json") == SPACE.decode(
        LARGEST
    )
    assert networks[0]["accuracy_in_search"] == 0.85  # confirmed, not claimed


@pytest.mark.slow  # real trainings, for minutes
def test_the_numbers_are_those_of_the_runs(retrained):
    folder, _ = retrained
    found = document(folder)
    assert (found["version"], found["accuracy"]) == (1, "test")
    assert {"command", "git_commit", "versions", "hardware"} == set(found["provenance"])
    assert found["options"]["epochs"] == 1
    assert found["options"]["validation"] == 200  # the search's
    for one in found["networks"]:
        runs = [folder / one["name"] / f"seed-{seed}" for seed in (0, 1)]
        results = [json.loads((r / "result.json").read_text()) for r in runs]
        tests = [result["test"]["accuracy of EMA"] for result in results]
        assert [seed["test"] for seed in one["seeds"]] == tests
        assert one["mean"] == pytest.approx(statistics.mean(tests))
        # Of two values: half their difference.
        assert one["error"] == pytest.approx(abs(tests[0] - tests[1]) / 2)
        seeds = [json.loads((r / "training.json").read_text())["seed"] for r in runs]
        assert seeds == [0, 1]
        assert one["latency"]["median_ms"] > 0
        trained = codec.load_file(runs[0] / "architecture.json")
        assert one["as_trained"]["num_macs"] == cost.num_macs(trained)
        assert (trained.resolution, trained.num_classes) == (8, 10)
        assert one["at_deployment"]["resolution"] == 32


@pytest.mark.slow  # real trainings, for minutes
def test_the_network_beside_has_about_the_multiply_adds_of_the_first(retrained):
    folder, _ = retrained
    first, _, beside = document(folder)["networks"]
    wanted = first["as_trained"]["num_macs"]
    ratio = beside["as_trained"]["num_macs"] / wanted
    own = dataclasses.replace(TINY, resolution=8, in_channels=1, num_classes=10)
    assert abs(math.log(ratio)) < abs(math.log(cost.num_macs(own) / wanted))
    assert beside["at_deployment"]["resolution"] == TINY.resolution
    assert f"{ratio - 1:+.1%} of child-2's multiply-adds" in beside["note"]


@pytest.mark.slow  # real trainings, for minutes
def test_the_page_and_the_screen_show_the_table(retrained, capsys):
    folder, command = retrained
    assert retrain.main(command) == 0
    said = capsys.readouterr().out
    page = (folder / "retrained.html").read_text()
    for one in document(folder)["networks"]:
        shown = (
            f"{100 * one['mean']:.2f} \N{PLUS-MINUS SIGN} {100 * one['error']:.2f} %"
        )
        assert shown in said
        assert shown in page
    for verdict in document(folder)["verdicts"]:
        assert verdict in said
        assert verdict in page


@pytest.mark.slow  # real trainings, for minutes
def test_the_same_command_again_changes_nothing(retrained, capsys):
    folder, command = retrained
    before = files(folder)
    assert retrain.main(command) == 0
    assert files(folder) == before
    assert "0 to do, 6 done" in capsys.readouterr().out


@pytest.mark.slow  # real trainings, for minutes
def test_what_is_missing_alone_is_trained_and_by_whose_part_it_is(
    retrained, capsys, monkeypatch
):
    """As after a kill: one run is unfinished, one had barely begun."""
    folder, command = retrained
    before = (folder / "retrained.json").read_text()
    result = folder / "child-1" / "seed-1" / "result.json"
    losses = result.with_name("losses.jsonl").read_text()
    result.unlink()
    barely = folder / "tiny" / "seed-1"
    shutil.rmtree(barely)
    barely.mkdir()
    (barely / "architecture.json").write_text(codec.dumps(TINY))
    trained = []
    carry_out = train.carry_out

    def counted(parsed, last_words):
        trained.append(parsed.resume or parsed.output)
        return carry_out(parsed, last_words)

    monkeypatch.setattr(train, "carry_out", counted)
    assert retrain.main([*command, "--part", "1/2"]) == 0  # the 1st, 3rd and 5th
    assert "Unfinished  1 of 6 trainings" in capsys.readouterr().out
    assert trained == [folder / "child-1" / "seed-1"]
    assert result.with_name("losses.jsonl").read_text() == losses
    assert retrain.main([*command, "--part", "2/2"]) == 0
    assert trained[1:] == [barely]
    after = document(folder)
    assert after["networks"] == json.loads(before)["networks"]


@pytest.mark.slow  # real trainings, for minutes
def test_more_seeds_of_fewer_networks_train_what_is_new_alone(retrained, capsys):
    folder, command = retrained
    flags = ["--no-at-target", "--seeds", "3"]
    assert retrain.main([command[0], *FLAGS, *flags]) == 0
    assert "1 to do, 2 done" in capsys.readouterr().out
    (one,) = document(folder)["networks"]
    tests = [seed["test"] for seed in one["seeds"]]
    assert one["error"] == pytest.approx(statistics.stdev(tests) / math.sqrt(3))
    assert document(folder)["verdicts"] == []


@pytest.mark.slow  # real trainings, for minutes
def test_another_recipe_in_the_same_folder_is_refused(retrained, capsys):
    _, command = retrained
    assert "begun with another epochs" in refused(capsys, *command, "--epochs", "2")


def refused(capsys, *arguments):
    capsys.readouterr()
    assert retrain.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("nas.retrain: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--part", "0/2"], "--part must be K/N"),
        (["--part", "3/2"], "--part must be K/N"),
        (["--part", "a/b"], "--part must be K/N"),
        (["--seeds", "0"], "--seeds must be from 1"),
        (["--top", "0"], "--top must be from 1"),
        (["--beside", "efficientnet-b9"], "got 'efficientnet-b9'"),
        (["--beside", "tiny.json,tiny.json"], "a name of its own"),
        (["--dataset", "digit"], "unknown data set 'digit'"),
        (["--epochs", "0"], "epochs must be above 0"),
    ],
)
def test_a_bad_value_ends_in_one_line(run, tmp_path, capsys, flags, told):
    flags = [*FLAGS, "--output", str(tmp_path / "out"), *flags]
    assert told in refused(capsys, str(run), *flags)
    assert not (tmp_path / "out").exists()


def test_what_is_no_search_with_networks_is_refused(tmp_path, capsys):
    assert "name a search's folder" in refused(capsys)
    assert "journal.jsonl" in refused(capsys, str(tmp_path))
    empty = RunFolder(tmp_path / "empty")
    empty.path.mkdir()
    trials.write(empty, [trials.infeasible(0, "diverged")], num_trials=1)
    assert "must have measured networks" in refused(capsys, str(empty.path))
    grid = RunFolder(tmp_path / "grid")
    grid.path.mkdir()
    journal.create(grid.journal, trials.header(kind="grid"))
    assert "of another kind, 'grid'" in refused(capsys, str(grid.path))


def test_a_strangers_folder_runs_no_code_and_leads_nowhere(run, tmp_path, capsys):
    assert "add --load-space" in refused(capsys, str(run))
    own = searched(tmp_path / "own", dataset="os:system")
    assert "add --dataset os:system" in refused(capsys, str(own), "--load-space")
    linked = searched(tmp_path / "linked")
    (linked / "retrained").symlink_to(tmp_path)
    assert "no symbolic links" in refused(capsys, str(linked), *FLAGS)


def test_differences_within_two_standard_errors_are_none():
    """Errors of 0.3 and 0.4 points make 0.5: 0.9 is within, 1.1 is not."""
    for points, word in ((0.9, "so no difference"), (1.1, "more than two")):
        found = [
            network("child-1", "found", 0.80 + points / 100, 0.003),
            network("a", "beside", 0.70, 0.003),
            network("b", "beside", 0.80, 0.004),
        ]
        (line,) = retrain.retrained.verdicts(found)
        assert line.startswith(
            f"child-1 is {points:.2f} \N{PLUS-MINUS SIGN} 0.50 points above b"
        )
        assert word in line


def network(name, kind, mean, error):
    costs = retrain.retrained.Costs(resolution=8, num_macs=1, num_params=1)
    seed = retrain.retrained.Seed(seed=0, steps=1, validation=mean, test=mean)
    return retrain.retrained.Network(
        name=name, kind=kind, note="", phi=None, width=None, accuracy_in_search=None,
        as_trained=costs, at_deployment=costs, seeds=(seed,), mean=mean, error=error,
    )  # fmt: skip
