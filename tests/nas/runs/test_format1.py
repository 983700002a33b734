"""Runs of the version that wrote journals of format 1: read, shown, gone on with.

`format1/` has such runs as they were left, but for the names of hosts: two searches of
predicted accuracies, and a grid of which four children were trained. Their best.json
and pareto.json say what that version made of the same journals.
"""

import json
import shutil
from pathlib import Path

import pytest

from nas import report, search
from nas.runs import journal, journal_v1
from nas.runs.run_folder import RunFolder
from nas.study.metrics import ACCURACY, LATENCY_MS, NUM_MACS, Metric
from search_space import codec, spaces

pytestmark = pytest.mark.usefixtures("no_ray")

STORED = Path(__file__).with_name("format1")
SEARCHES = ["search-flops", "search-latency"]
ZCU102 = Metric(name="latency-zcu102", unit="ms", goal="min")


@pytest.fixture
def run(tmp_path):
    def copy(name):
        shutil.copytree(STORED / name, tmp_path / name)
        return RunFolder(tmp_path / name)

    return copy


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "kind", "front", "number"),
    [
        ("search-flops", "search", (ACCURACY, NUM_MACS), 12),
        ("search-latency", "search", (ACCURACY, ZCU102), 12),
        ("grid", "grid", (ACCURACY, NUM_MACS), 4),
    ],
)
def test_what_it_holds_is_read_as_metrics_by_name(name, kind, front, number):
    contents = journal.read(STORED / name / "journal.jsonl")
    header, *children = lines(STORED / name / "journal.jsonl")
    assert contents.format == 1
    assert contents.header.kind == kind
    assert contents.header.front == front
    assert contents.header.num_trials == header["num_children"]
    assert contents.header.definition == header["definition"]
    assert len(contents.trials) == len(children) == number
    for trial, child in zip(contents.completed, children, strict=True):
        expected = {
            key: child[key]
            for key in ("accuracy", "num_macs", "num_params", "images_per_second")
        }
        if front[-1] == ZCU102:
            expected["latency-zcu102"] = child["objective"]
        assert trial.metrics == expected
        assert trial.spread == {}
        for key in ("index", "asked", "reward", "num_steps", "finished"):
            assert getattr(trial, key) == child[key]
        assert list(trial.tokens) == child["tokens"]
        assert list(trial.losses) == child["losses"]
        assert trial.seconds.compile == child["seconds"]["compile"]


@pytest.mark.parametrize(
    ("reward", "metric"),
    [
        ({"objective": "flops", "target_latency": None}, NUM_MACS),
        ({}, NUM_MACS),
        ({"objective": "latency-vck190", "target": 3.0},
         Metric(name="latency-vck190", unit="ms", goal="min")),
        ({"objective": "throughput-a100", "target": 9e3},
         Metric(name="throughput-a100", unit="images/s", goal="max")),
        ({"objective": "flops", "target_latency": 20.0}, LATENCY_MS),
    ],
)  # fmt: skip
def test_what_was_weighed_has_its_name_unit_and_goal(tmp_path, reward, metric):
    header, child, *_ = lines(STORED / "search-latency" / "journal.jsonl")
    header["definition"]["reward"] = reward
    if metric == NUM_MACS:  # which was counted apart
        child["objective"] = None
    path = tmp_path / "journal.jsonl"
    path.write_text(f"{json.dumps(header)}\n{json.dumps(child)}\n")
    contents = journal.read(path)
    assert contents.header.front == (ACCURACY, metric)
    expected = child["num_macs"] if metric == NUM_MACS else child["objective"]
    assert contents.completed[0].metrics[metric.name] == expected
    assert journal_v1.objective(header["definition"]) == metric


@pytest.mark.parametrize("name", SEARCHES)
def test_a_report_finds_what_that_version_found(run, name):
    folder = run(name)
    before = folder.journal.read_bytes()
    assert report.main([str(folder.path)]) == 0
    assert folder.journal.read_bytes() == before  # a report only reads
    new = json.loads(folder.pareto.read_text())["networks"]
    cost = "num_macs" if name == "search-flops" else "objective"
    children = lines(folder.journal)[1:]
    front = [
        child
        for child in sorted(children, key=lambda child: child[cost])
        if all(
            other["accuracy"] < child["accuracy"]
            for other in children
            if other[cost] < child[cost]
        )
    ]
    assert [n["found"]["index"] for n in new] == [child["index"] for child in front]
    if name == "search-flops":  # of every search that version's front was over these
        old = json.loads((STORED / name / "pareto.json").read_text())["networks"]
        assert [n["architecture"] for n in new] == [n["architecture"] for n in old]
    old_best = json.loads((STORED / name / "best.json").read_text())
    assert codec.load_file(folder.best) == codec.load_file(STORED / name / "best.json")
    found = json.loads(folder.best.read_text())["found"]
    assert found["reward"] == old_best["found"]["reward"]
    page = folder.report.read_text()
    assert "12 of 12" in page
    assert "Left out" not in page  # its policy's log is read, too


@pytest.mark.parametrize("name", SEARCHES)
def test_a_resumed_one_goes_on_in_format_2(run, name):
    folder = run(name)
    before = folder.journal.read_bytes()
    known = journal.read(folder.journal)
    assert search.main(["--resume", str(folder.path), "--children", "17"]) == 0
    contents = journal.read(folder.journal)
    assert contents.format == 2
    assert contents.header == known.header
    assert contents.trials[:12] == known.trials
    assert [trial.index for trial in contents.trials] == list(range(17))
    space = spaces.load("accel-nasbench")
    assert len({space.decode(trial.tokens) for trial in contents.trials}) == 17
    for trial in contents.completed[12:]:
        assert set(known.header.objectives) <= trial.metrics.keys()
    assert (folder.path / "journal.v1.jsonl").read_bytes() == before
    assert "17 of 12" not in folder.report.read_text()

    assert search.main(["--resume", str(folder.path), "--children", "20"]) == 0
    assert len(journal.read(folder.journal).trials) == 20
    assert (folder.path / "journal.v1.jsonl").read_bytes() == before


def test_old_and_new_are_compared(run, tmp_path):
    old, new = run("search-flops"), run("search-latency")
    output = tmp_path / "page.html"
    assert search.main(["--resume", str(new.path), "--children", "13"]) == 0
    paths = [str(old.path), str(new.path)]
    assert report.main([*paths, "--output", str(output)]) == 0
    text = output.read_text()
    assert "<td>12</td>" in text
    assert "<td>13</td>" in text
    assert "The runs differ in reward" in text


def test_a_grid_of_which_four_children_are_trained_is_shown(run):
    folder = run("grid")
    assert report.main([str(folder.path)]) == 0
    record = json.loads(folder.family.read_text())
    (child,) = [
        c for c in lines(folder.journal)[1:] if c["tokens"] == [0, 0]
    ]  # the baseline
    assert record["members"][0]["num_macs"] == child["num_macs"]
    accuracy = record["members"][0]["validation_accuracy"]
    assert accuracy["mean"] == pytest.approx(child["accuracy"])


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"accuracy":0.', '"accuracy":7.', "accuracy"),
        ('"objective":null', '"objective":NaN', "objective"),
        ('"objective":null', '"speed":3', "speed"),
        ('"index":3,', '"index":2,', "twice"),
        ('"asked":4', '"asked":1', "asked must be"),
    ],
)
def test_damage_is_refused_in_a_line(run, capsys, old, new, told):
    folder = run("search-flops")
    header, *children = folder.journal.read_text().splitlines()
    assert old in children[3]
    children[3] = children[3].replace(old, new, 1)
    folder.journal.write_text("\n".join([header, *children]) + "\n")
    before = folder.journal.read_bytes()
    for command in (report.main, search.main):
        flags = ["--resume"] if command is search.main else []
        assert command([*flags, str(folder.path)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "journal.jsonl, line 5: " in error
        assert told in error
    assert folder.journal.read_bytes() == before


def test_a_torn_last_line_is_left_out_and_not_converted(run):
    folder = run("search-flops")
    with folder.journal.open("a") as file:
        file.write('{"index":12,"asked":13,"tok')
    assert len(journal.convert(folder.journal).trials) == 12
    assert journal.read(folder.journal).format == 2
