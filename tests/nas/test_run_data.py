"""Searches know their data: going on with others is refused, from anywhere."""

import json
import sys

import numpy as np
import PIL.Image
import pytest

from nas import search
from nas.runs import journal
from search_space import spaces

SPACE = spaces.load("mnasnet")
TOKENS = (0,) * len(SPACE.num_choices)
CHILD = journal.Trained(
    index=0, asked=1, tokens=TOKENS, num_macs=10**8, num_params=10**6, finished=1.7e9,
    worker=None, reward=0.5, accuracy=0.5, losses=(1.0,), num_steps=1,
    images_per_second=1.0, seconds=journal.Seconds(compile=1.0, train=1.0, eval=1.0),
)  # fmt: skip


@pytest.fixture(autouse=True)
def without_ray(monkeypatch, tmp_path):
    """A search that would start workers fails here."""
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "nas.execution.tune", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
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
