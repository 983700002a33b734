"""Searches know their data: going on with others is refused, from anywhere."""

import json

import numpy as np
import PIL.Image
import pytest

from nas import search
from nas.runs import journal
from search_space import spaces
from tests.nas import trials

SPACE = spaces.load("mnasnet")
TOKENS = (0,) * len(SPACE.num_choices)
CHILD = trials.completed(0, tokens=TOKENS)


# A search that would start workers fails here.
pytestmark = pytest.mark.usefixtures("no_ray")


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def fill(folder, num):
    folder.mkdir(parents=True)
    for i in range(num):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{i}.png")


@pytest.fixture
def run(tmp_path, capsys):
    """A search of one child, which is done, of `./pictures`."""
    for name in ("cat", "dog"):
        fill(tmp_path / "pictures" / name, 6)
    arguments = ["--dataset", "./pictures", "--space", "mnasnet", "--children", "1"]
    with pytest.raises(ImportError, match="ray"):
        search.main([*arguments, "--output", "run"])
    path = tmp_path / "run" / "journal.jsonl"
    with journal.Writer(path, journal.read(path)) as writer:
        writer.append(CHILD)
    capsys.readouterr()
    return tmp_path / "run"


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_search_goes_on_from_another_working_directory(run, capsys, monkeypatch):
    fill(run.parent / "elsewhere" / "pictures" / "fox", 4)
    monkeypatch.chdir(run.parent / "elsewhere")
    assert search.main(["--resume", str(run)]) == 0
    said = capsys.readouterr().out
    assert f"from {run.parent / 'pictures'}" in said
    assert "Unchecked" not in said
    header = journal.read(run / "journal.jsonl").header
    assert header.definition["evaluation"]["dataset"] == str(run.parent / "pictures")


def rename(pictures):
    (pictures / "dog").rename(pictures / "ant")


def add(pictures):
    fill(pictures / "ant", 6)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (rename, "class 'dog' is now called 'ant'"),
        (add, "class 'ant' was added; 6 more images"),
    ],
)
def test_other_data_are_refused_and_nothing_is_touched(run, capsys, change, told):
    change(run.parent / "pictures")
    before = contents(run)
    assert search.main(["--resume", str(run), "--children", "2"]) == 2
    said = capsys.readouterr()
    assert told in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    after = contents(run)
    assert after.pop(run / ".lock")
    assert after == {path: before[path] for path in after}


def test_a_journal_without_the_data_s_record_goes_on_with_a_line(run, capsys):
    path = run / "journal.jsonl"
    header, child = path.read_text().splitlines()
    earlier = {k: v for k, v in json.loads(header).items() if k != "data"}
    path.write_text(json.dumps(earlier) + f"\n{child}\n")
    rename(run.parent / "pictures")
    assert search.main(["--resume", str(run)]) == 0
    assert "Unchecked" in capsys.readouterr().out
