"""Folders and files from strangers, one after the other: what each must lead to."""

import json
import os

import pytest

from nas import train
from search_space import codec
from tests.fuzz import harness
from tests.fuzz.harness import Input
from tests.fuzz.material import TINY

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def end(bench):
    """Runs a command; returns its status and what it complains of."""
    material, surroundings = bench
    before = harness.state_of(surroundings)

    def run(command, *arguments):
        tried = Input(command=command, arguments=arguments, what="")
        ending = harness.run(tried, seconds=60)
        assert ending.fault is None, ending.details
        return ending.status, ending.complaint

    material.clear()
    yield run
    assert harness.state_of(surroundings) == before


@pytest.mark.parametrize("how", ["link", "pipe"])
@pytest.mark.parametrize(
    "name",
    [
        "training.json", "architecture.json", "losses.jsonl", "result.json", ".lock",
        "config.json", "model/weights.safetensors", "model/model.json",
        "last/new", "best/16", "tensorboard/events", "model/other",
    ],
)  # fmt: skip
def test_a_training_run_with_a_link_or_a_pipe_is_not_resumed(bench, end, name, how):
    material, surroundings = bench
    path = material.copy("trained") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if how == "link":
        path.symlink_to(surroundings / "secrets" / "mine")
    else:
        os.mkfifo(path)
    status, complaint = end("train", "--resume", "out-trained")
    assert status == 2
    assert name in complaint


def test_a_folder_of_a_run_that_is_a_link_is_not_written_to(bench, end):
    material, surroundings = bench
    run = material.copy("halfway")
    (run / "model").symlink_to(surroundings / "secrets")
    assert end("train", "--resume", "out-halfway")[0] == 2


def test_a_file_with_another_name_elsewhere_is_not_added_to(bench, end):
    material, surroundings = bench
    for run, name, command in (
        ("searched", "journal.jsonl", "search"),
        ("searched", ".lock", "search"),
        ("halfway", ".lock", "train"),
    ):
        path = material.copy(run) / name
        path.unlink()
        path.hardlink_to(surroundings / "secrets" / "mine")
        assert end(command, "--resume", f"out-{run}")[0] in (1, 2)


@pytest.mark.parametrize(
    "line",
    ["null", "[]", "3", '"x"', '{"after": "3", "losses": []}', '{"after": 1}',
     '{"after": 0, "losses": 5}', '{"after": 1e99, "losses": [1]}', "[" * 9_000],
)  # fmt: skip
def test_other_json_among_the_losses_is_forgotten(bench, end, line):
    material, _ = bench
    path = material.copy("halfway") / train.training.LOSSES
    whole = path.read_text()
    path.write_text(line + "\n" + whole + line + "\n")
    assert end("train", "--resume", "out-halfway")[0] == 0
    after = path.read_text().splitlines()
    assert json.loads(after[0]) == json.loads(whole)
    assert line not in after


@pytest.mark.parametrize("damage", ["7", "null", "[]", '{"tree_metadata": 3}', "{}"])
def test_metadata_of_a_checkpoint_that_are_other_json(bench, end, damage):
    material, _ = bench
    run = material.copy("halfway")
    (path,) = run.glob("last/*/state/_METADATA")
    path.write_text(damage)
    status, complaint = end("train", "--resume", "out-halfway")
    # Orbax can do without some of it.
    assert status == 0 or "must be a whole checkpoint" in complaint


@pytest.mark.parametrize("asked", [2**53, 10_006])
def test_a_journal_that_asks_without_end_is_refused(bench, end, asked):
    material, _ = bench
    path = material.copy("searched") / "journal.jsonl"
    *lines, last = path.read_text().splitlines()
    last = json.dumps(json.loads(last) | {"asked": asked})
    path.write_text("\n".join([*lines, last]) + "\n")
    status, complaint = end("search", "--resume", "out-searched", "--children", "7")
    assert status == 2
    # Six children, of which the last was told of when 10,000 others were under way.
    assert f"must be from 6 to 10005, got {asked}" in complaint


@pytest.mark.parametrize(
    "name", ["../../x", "/tmp/x", "a/b", "..", ".hidden", "x" * 200]
)
def test_a_name_does_not_choose_where_an_export_goes(bench, end, name):
    material, _ = bench
    text = json.loads(codec.dumps(TINY))
    text["architecture"]["name"] = name
    (material.place / "out.json").write_text(json.dumps(text))
    before = {entry.name for entry in material.place.iterdir()}
    outside = set(material.place.parents[1].iterdir())
    assert end("export", "out.json", "--format", "safetensors")[0] == 0
    (made,) = {entry.name for entry in material.place.iterdir()} - before
    assert made.endswith("-safetensors")
    assert not made.startswith(".")
    assert set(material.place.parents[1].iterdir()) == outside


def test_a_name_is_no_markup(bench, capsys):
    material, _ = bench
    material.clear()
    text = json.loads(codec.dumps(TINY))
    text["architecture"]["name"] = "[/red] [bold]x"
    (material.place / "out.json").write_text(json.dumps(text))
    harness.MAINS["profile"](["out.json"])
    assert "[/red] [bold]x at 8 pixels" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "tiny.json", "--dataset", "~nosuchuser/x", "--output", "out"),
        ("train", "tiny.json", "--data-dir", "~nosuchuser", "--dataset", "cifar10"),
        ("train", "tiny.json", "--init", "~nosuchuser", "--output", "out"),
        ("train", "~nosuchuser", "--output", "out"),
        ("train", "--resume", "~nosuchuser"),
        ("search", "--dataset", "~nosuchuser/x", "--output", "out"),
        ("search", "--resume", "~nosuchuser"),
        ("search", "--latency-table", "~nosuchuser", "--target-latency", "9ms"),
        ("scale", "~nosuchuser"),
        ("scale", "--resume", "~nosuchuser"),
        ("predict", "~nosuchuser", "ok.png"),
        ("predict", "trained", "~nosuchuser"),
        ("export", "~nosuchuser"),
        ("profile", "~nosuchuser"),
        ("report", "~nosuchuser"),
    ],
)
def test_a_user_who_is_none(end, arguments):
    assert end(*arguments)[0] == 2


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        ("train", "--epochs"), ("train", "--batch-size"), ("train", "--resolution"),
        ("train", "--save-every"), ("train", "--warmup-epochs"), ("train", "--devices"),
        ("train", "--accumulation"), ("train", "--validation"), ("train", "--seed"),
        ("search", "--steps"), ("search", "--batch-size"), ("search", "--resolution"),
        ("search", "--children"), ("search", "--workers"), ("search", "--validation"),
        ("search", "--rewards-per-update"), ("search", "--cpus-per-child"),
        ("scale", "--repeats"), ("scale", "--phi"), ("scale", "--memory-batch"),
        ("profile", "--resolution"), ("report", "--port"), ("export", "--seed"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["1" + "0" * 10, "1" + "0" * 25, "1" + "0" * 300])
def test_absurd_numbers(end, command, flag, value):
    first = {"report": ["searched"], "search": ["--controller", "random"]}
    output = ["--output", "out"] * (command not in ("profile", "report"))
    status, complaint = end(
        command, *first.get(command, ["tiny.json"]), flag, value, *output
    )
    if status == 0:  # a number that only says how often, or of which any will do
        assert flag in {
            "--save-every", "--rewards-per-update", "--warmup-epochs", "--children",
            "--memory-batch", "--seed", "--port",
        }  # fmt: skip
    else:
        assert status == 2
    assert "out of memory" not in complaint


@pytest.mark.parametrize("name", ["/dev/null", "fifo", "empty"])
def test_a_page_does_not_take_the_place_of_what_is_no_file(bench, end, name):
    material, _ = bench
    material.copy("searched")
    before = os.stat(name)
    assert end("report", "searched", "out-searched", "--output", name)[0] == 2
    assert (os.stat(name).st_ino, os.stat(name).st_mode) == (
        before.st_ino, before.st_mode,
    )  # fmt: skip
