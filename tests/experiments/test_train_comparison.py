"""The comparison at a tiny budget: resumable, and the table is what the runs gave."""

import json
import statistics

import pytest

from experiments import train_comparison
from search_space import codec, cost, zoo
from search_space.spec import ArchSpec, ClassifierHead, MBConvStage, Stem

TINY = ArchSpec(
    name="tiny",
    resolution=8,
    activation="relu",
    stem=Stem(channels=8, stride=1),
    stages=(MBConvStage(channels=8, kernel=3, stride=2, expansion=1, repeats=1),),
    head=ClassifierHead(channels=None),
)


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.setattr(train_comparison, "ZOO", ())
    (tmp_path / "best.json").write_text(codec.dumps(TINY))
    return [
        *(str(tmp_path / "best.json"), "--output", str(tmp_path / "out")),
        *("--dataset", "digits", "--epochs", "1", "--resolution", "8", "--seeds", "2"),
    ]


def test_it_trains_each_seed_once_and_reports_the_test_split(command, tmp_path, capsys):
    assert train_comparison.main(command) == 0
    results = [
        json.loads((tmp_path / "out" / f"tiny-{seed}" / "result.json").read_text())
        for seed in range(2)
    ]
    (row,) = json.loads((tmp_path / "out" / "comparison.json").read_text())["networks"]
    accuracies = [result["test"]["accuracy of EMA"] for result in results]
    assert row["mean"] == pytest.approx(statistics.mean(accuracies))
    # By hand: the stem 3x3x1x8 at 8x8; 3x3 and 1x1 at 4x4; 8 x 10 at the end.
    assert row["num_macs"] == 72 * 64 + (72 + 64) * 16 + 80
    first = capsys.readouterr().out
    assert first.count("Run folder") == 2
    assert train_comparison.main(command) == 0
    again = capsys.readouterr().out
    assert "Run folder" not in again, "what is finished is not run again"
    assert again.splitlines()[-1] == first.splitlines()[-1]


def test_the_published_networks_are_the_papers():
    counts = [cost.num_macs(zoo.load(name)) for name in train_comparison.ZOO]
    assert counts == [300_774_272, 385_814_752]


def test_a_network_that_is_none_ends_in_one_line(tmp_path, capsys):
    assert train_comparison.main(["none.json", "--output", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
