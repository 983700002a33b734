"""Tests for experiments.surrogate: reading the tarball, and what is fitted to it."""

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor

from experiments.surrogate import dataset, fit
from search_space import spaces, zoo
from trainers import surrogate

SPACE = spaces.load("accel-nasbench")
PLATFORMS = {
    f"throughput_{name}": {"throughput_mean": 10.0 + i}
    for i, name in enumerate(("a100", "3090", "tpuv2", "tpuv3", "zcu102", "vck190"))
} | {f"latency_{name}": {"latency_mean": 2.0} for name in ("zcu102", "vck190")}


def network(**changes):
    """EfficientNet-B0 in the benchmark's own words; REFERENCE tables of the paper."""
    layers = (1, 2, 2, 3, 3, 4, 1)
    kernels = (3, 3, 5, 3, 5, 5, 3)
    architecture = {}
    for i in range(7):
        architecture |= {
            f"block{i}_e": 1 if i == 0 else 6,
            f"block{i}_k": kernels[i],
            f"block{i}_l": layers[i],
            f"block{i}_se": True,
        }
    return {
        "architecture": architecture | changes,
        "metrics": {"val_top1": 65.5, "val_top5": 87.0},
        "platform_perf": PLATFORMS,
    }


def tarball(folder, files):
    path = folder / "data.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_reads_architectures_as_tokens_of_the_space(tmp_path):
    small = network(block6_se=False)
    small["platform_perf"] = PLATFORMS | {"throughput_3090": {"throughput_mean": None}}
    files = {"b.json": json.dumps(small), "a.json": json.dumps(network())}
    path = tarball(tmp_path, {k: v.encode() for k, v in files.items()})
    tokens, measured = dataset.read(path)
    b0 = SPACE.encode(zoo.load("efficientnet-b0"))
    assert tokens.tolist() == [list(b0), [*b0[:-1], 0]]
    assert measured["top1"].tolist() == [65.5, 65.5]
    assert measured["throughput-a100"].tolist() == [10.0, 10.0]
    np.testing.assert_array_equal(measured["throughput-rtx3090"], [11.0, np.nan])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "Invalid JSON"),
        (json.dumps(network(block0_e=3)).encode(), "not in tuple"),
        (json.dumps({"architecture": {}}).encode(), "metrics: Field required"),
        (b"x" * 100_000, "at most 20000 files of 64000 bytes"),
    ],
)
def test_other_tarballs_are_refused_in_one_line(tmp_path, content, message, capsys):
    path = tarball(tmp_path, {"a.json": content})
    assert fit.main([str(path), "--output", str(tmp_path / "out.npz")]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "out.npz").exists()


def test_what_is_no_tarball_is_refused(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(dataset.DatasetError, match="No such file"):
        dataset.read(path)
    path.write_bytes(b"no tar")
    with pytest.raises(dataset.DatasetError, match="cannot read"):
        dataset.read(path)
    whole = tarball(tmp_path, {"a.json": json.dumps(network()).encode()}).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(dataset.DatasetError):
        dataset.read(path)


def test_trees_predict_what_scikit_learn_predicts(monkeypatch):
    made = []

    class Kept(GradientBoostingRegressor):
        def fit(self, X, y):  # noqa: N803
            made.append(self)
            return super().fit(X, y)

    monkeypatch.setattr(fit, "GradientBoostingRegressor", Kept)
    rng = np.random.default_rng(0)
    tokens = rng.integers(SPACE.num_choices, size=(150, 28)).astype(np.int32)
    target = np.sin(tokens).sum(axis=1) + 7.0
    forest = fit._fit_one(fit.recipe("latency-x"), tokens, target)
    new = rng.integers(SPACE.num_choices, size=(50, 28)).astype(np.int32)
    np.testing.assert_allclose(forest(new)[0], made[0].predict(new), rtol=1e-5)


def test_networks_measured_twice_count_once():
    tokens = np.array([[1, 0], [0, 0], [1, 0], [1, 1]], np.int32)
    found = fit.distinct(tokens, np.array([1.0, 2.0, 4.0, np.nan]))
    assert [part.tolist() for part in found] == [[[0, 0], [1, 0]], [2.0, 2.5]]


def test_the_shipped_file_predicts_the_benchmark():
    path = os.environ.get("ACCEL_NASBENCH")
    if path is None:
        pytest.skip("set ACCEL_NASBENCH to data/accel_nasbench_imagenet.tar.gz")
    tokens, measured = dataset.read(Path(path))
    found = surrogate.load()
    assert set(measured) == set(found.predictors)
    predicted, _ = found.predictors["top1"].predict(tokens[:500])
    # Nine of ten models have seen each: closer than the held-out 0.41.
    assert np.sqrt(np.mean((predicted - measured["top1"][:500]) ** 2)) < 0.41
