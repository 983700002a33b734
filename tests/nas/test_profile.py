"""Profiles and latency tables, by published counts and by hand."""

import dataclasses
import json
import time

import pytest

from nas import builder, profile, search
from nas.evaluation import evaluators, latency_table
from nas.options import definition
from search_space import layers, spaces, zoo
from trainers.deploy import latency
from trainers.measurement import Measured


def printed_json(capsys, *arguments):
    assert profile.main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_b0_counts_what_the_paper_prints(capsys):
    found = printed_json(capsys, "efficientnet-b0")
    assert found["num_macs"] == 385_814_752  # 0.39B
    assert found["num_params"] == 5_288_548  # 5.3M
    stem = found["layers"][0]
    assert stem["num_macs"] == 3 * 3 * 3 * 32 * 112 * 112
    assert stem["output"] == [112, 112, 32]


def test_stages_and_layers_sum_to_the_whole(capsys):
    found = printed_json(capsys, "mnasnet-a1", "--resolution", "96")
    for key in ("num_macs", "num_params"):
        for part in ("stages", "layers"):
            assert sum(entry[key] for entry in found[part]) == found[key]
    assert [stage["name"] for stage in found["stages"]][-1] == "head"


def test_table_shows_shares(capsys):
    assert profile.main(["efficientnet-b0"]) == 0
    text = capsys.readouterr().out
    # The classifier: 1280 * 1000 of 385,814,752 multiply-adds, 1,281,000 parameters.
    (line,) = [line for line in text.splitlines() if "head.classifier" in line]
    assert all(shown in line for shown in ("1,280,000", "0.3%", "1,281,000", "24.2%"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "give an architecture to profile, or --build-table"),
        (["efficientnet-b0", "--build-table", "mbconv"], "one thing at a time"),
        (
            ["efficientnet-b0", "--resolution", "8"],
            "at least the total stride 32, got 8",
        ),
        (["efficientnet-b9"], "got 'efficientnet-b9'"),
        (["efficientnet-b0", "--runs", "0"], "--runs must be at least 1, got 0"),
        (
            ["efficientnet-b0", "--clock", "processor", "--cores", "2"],
            "so --cores must be 1, got 2",
        ),
        (["--build-table", "mbcon"], "mbconv, mnasnet, accel-nasbench, efficientnetv2"),
    ],
)
def test_bad_values_end_in_one_line(capsys, arguments, told):
    assert profile.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert told in error


def test_processor_time_leaves_out_what_others_take():
    found = {
        clock: latency.measure(lambda: time.sleep(0.02), runs=3, clock=clock)
        for clock in ("wall", "processor")
    }
    assert found["wall"].median_ms >= 20
    assert found["processor"].median_ms < 10


@pytest.fixture(scope="module")
def space():
    """Networks of 32 pixels, of kernels 3 and 5 in two stages."""
    whole = spaces.load("accel-nasbench")
    keep = {d.name: d.choices[:1] for d in whole.decisions}
    kernels = {"stage1.kernel": (3, 5), "stage2.kernel": (3, 5)}
    return whole.restrict(keep | kernels)


def test_every_network_of_a_space_is_made_of_its_blocks(space):
    found = latency_table.blocks_of(space, 64)
    for tokens in ((0, 0), (0, 1), (1, 0), (1, 1)):
        full = [0] * len(space.num_choices)
        positions = [i for i, n in enumerate(space.num_choices) if n == 2]
        for position, token in zip(positions, tokens, strict=True):
            full[position] = token
        spec = dataclasses.replace(space.decode(full), resolution=64)
        assert {latency_table.key(block) for block in layers.blocks(spec)} <= set(found)
    # Stem, seven stages of one layer, head; two stages come in two forms, and no
    # stage's form changes what enters the next.
    assert len(found) == 1 + 7 + 2 + 1


def test_blocks_have_the_names_that_tables_on_the_disk_have():
    *_, last, head = layers.blocks(zoo.load("mobilenet-v2"))
    assert latency_table.key(head) == (
        '7x7x320 -> 1000 Head {"channels": 1280, "dropout": 0.2}'
    )
    assert latency_table.key(last) == (
        '7x7x160 -> 320 MBConvStage {"kind": "mbconv", "channels": 320, "kernel": 3,'
        ' "stride": 1, "expansion": 6, "repeats": 1, "se_ratio": 0.0,'
        ' "skip": "identity"}'
    )


def table(space, ms):
    return latency_table.LatencyTable(
        space=space.name,
        device="none",
        resolution=64,
        activation=space.base.activation,
        call_ms=0.5,
        blocks_ms=dict.fromkeys(latency_table.blocks_of(space, 64), ms),
    )


def test_a_prediction_is_the_sum_over_the_blocks(space):
    spec = space.decode([0] * len(space.num_choices))
    assert table(space, 2.0).predict(spec) == pytest.approx(0.5 + 2.0 * 9)


def test_a_network_of_another_space_is_refused(space):
    with pytest.raises(ValueError, match=r"has no block .*; build one for the space"):
        table(space, 2.0).predict(zoo.load("efficientnet-b0"))


def test_a_table_survives_its_file(space, tmp_path):
    path = tmp_path / "table.json"
    path.write_text(latency_table.dumps(table(space, 2.0)))
    assert latency_table.load(path) == table(space, 2.0)
    path.write_text(path.read_text().replace("2.0", "-2.0", 1))
    with pytest.raises(ValueError, match="finite and not negative"):
        latency_table.load(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"table\.json"):
        latency_table.load(path)


@pytest.fixture
def table_file(space, tmp_path):
    """Half a millisecond a call, and two for every block: all networks take 18.5."""
    path = tmp_path / "table.json"
    path.write_text(latency_table.dumps(table(space, 2.0)))
    return str(path)


def search_plan(table_file, target):
    whole = spaces.load("accel-nasbench")
    free = ("stage1.kernel", "stage2.kernel")
    search = definition.SearchOptions(
        space="accel-nasbench",
        restrict=tuple(
            f"{d.name}={d.choices[0]}" for d in whole.decisions if d.name not in free
        ),
    )
    reward = definition.RewardOptions(target_latency=target, latency_table=table_file)
    return builder.make(definition.Definition(search=search, reward=reward))


@pytest.mark.parametrize("resolution", [0, 10**9])
def test_a_table_of_an_impossible_resolution_predicts_nothing(space, resolution):
    bad = dataclasses.replace(table(space, 2.0), resolution=resolution)
    with pytest.raises(ValueError, match=f"got {resolution}: ") as error:
        bad.predict(space.base)
    assert "\n" not in str(error.value)


def test_a_search_weighs_accuracy_against_latency(table_file, monkeypatch):
    """At 18.5 of 20 ms MnasNet's soft reward is the accuracy times 0.925^-0.07."""
    measured = Measured(metrics={"accuracy": 0.8, "images_per_second": 1.0})
    monkeypatch.setattr(
        evaluators.TrainChildren, "prepare", lambda _: lambda *_: measured
    )
    parts = search_plan(table_file, 20.0)
    spec = parts.space.decode([0] * len(parts.space.num_choices))
    outcome = parts.evaluator.prepare()(spec, 0)
    assert outcome.metrics == {**measured.metrics, "latency_ms": 18.5}
    assert {metric.name for metric in parts.evaluator.metrics} == set(outcome.metrics)
    found = parts.reward(outcome.metrics)
    assert found == pytest.approx(0.8 * 0.925**-0.07)
    assert "20 ms" in definition.describe_reward(parts.definition)


def test_a_latency_out_of_reach_is_refused(table_file):
    with pytest.raises(ValueError, match=r"from 18.5 to 18.5 ms .* got 40 ms"):
        search_plan(table_file, 40.0)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--target-latency", "20ms"], "--latency-table go together"),
        (["--latency-table", "t.json"], "--latency-table go together"),
        (["--target-latency", "20"], "write 20ms"),
        (
            ["--target-latency", "9ms", "--latency-table", "t", "--target-flops", "1B"],
            "got --target-flops as well",
        ),
        (["--target-latency", "9ms", "--latency-table", "none.json"], "none.json"),
    ],
)
def test_a_search_refuses_half_a_latency(flags, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert search.main(flags) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert told in error


@pytest.mark.slow
def test_a_measured_table_ranks_measured_networks(tmp_path, capsys):
    """python -m pytest -m slow tests/nas/test_profile.py; some ten minutes, one core.

    Kernels, expansions and layers of the last three stages are free.
    """
    path = tmp_path / "table.json"
    fixed = [
        f"--restrict=stage{i}.{name}={value}"
        for i in range(4)
        for name, value in (("expansion", 4), ("kernel", 3), ("repeats", 2))
    ]
    assert (
        profile.main(["--build-table", "accel-nasbench", *fixed, "--output", str(path)])
        == 0
    )
    assert float(capsys.readouterr().out.split("Kendall tau ")[1].split(",")[0]) >= 0.9
