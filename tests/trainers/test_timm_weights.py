"""Weights by timm's names: round trips through files, and what is refused."""

import dataclasses

import numpy as np
import pytest

from nas import initial
from search_space import zoo
from search_space.spec import ArchSpec, Head, MBConvStage, Stem
from trainers import saved, timm_weights
from trainers.networks import classifier

SPEC = ArchSpec(
    name="two-blocks",
    resolution=32,
    num_classes=4,
    activation="swish",
    stem=Stem(channels=8),
    stages=(
        MBConvStage(channels=8, kernel=3, stride=1, expansion=1, repeats=1),
        MBConvStage(
            channels=16, kernel=5, stride=2, expansion=2, repeats=1, se_ratio=0.25
        ),
    ),
    head=Head(channels=24),
)


def norm(name, channels):
    kinds = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{kind}": (channels,) for kind in kinds}


# Written down from timm's own EfficientNets: names and PyTorch's shapes.
SHAPES = {
    "conv_stem.weight": (8, 3, 3, 3),
    **norm("bn1", 8),
    "blocks.0.0.conv_dw.weight": (8, 1, 3, 3),
    **norm("blocks.0.0.bn1", 8),
    "blocks.0.0.conv_pw.weight": (8, 8, 1, 1),
    **norm("blocks.0.0.bn2", 8),
    "blocks.1.0.conv_pw.weight": (16, 8, 1, 1),
    **norm("blocks.1.0.bn1", 16),
    "blocks.1.0.conv_dw.weight": (16, 1, 5, 5),
    **norm("blocks.1.0.bn2", 16),
    "blocks.1.0.se.conv_reduce.weight": (2, 16, 1, 1),
    "blocks.1.0.se.conv_reduce.bias": (2,),
    "blocks.1.0.se.conv_expand.weight": (16, 2, 1, 1),
    "blocks.1.0.se.conv_expand.bias": (16,),
    "blocks.1.0.conv_pwl.weight": (16, 16, 1, 1),
    **norm("blocks.1.0.bn3", 16),
    "conv_head.weight": (24, 16, 1, 1),
    **norm("bn2", 24),
    "classifier.weight": (4, 24),
    "classifier.bias": (4,),
}


@pytest.fixture
def weights():
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in SHAPES.items()
    } | {"bn1.num_batches_tracked": np.array(3)}


def test_kernels_are_turned_from_pytorchs_layout(weights):
    ours = timm_weights.named_as_ours(SPEC, weights)
    stem, depthwise = ours["blocks.0.units.0.kernel"], ours["blocks.2.units.1.kernel"]
    assert stem[2, 0, 1, 5] == weights["conv_stem.weight"][5, 1, 2, 0]
    assert depthwise[4, 1, 9] == weights["blocks.1.0.conv_dw.weight"][9, 0, 4, 1]
    dense = ours["blocks.3.units.1.kernel"]
    assert dense[7, 2] == weights["classifier.weight"][2, 7]
    np.testing.assert_array_equal(
        ours["blocks.3.units.0.norm.variance"], weights["bn2.running_var"]
    )


@pytest.mark.parametrize("classes", [4, 9])
def test_a_file_starts_a_network_with_a_new_head_where_classes_differ(
    weights, tmp_path, classes
):
    path = tmp_path / "timm.safetensors"
    saved.write_safetensors(path, weights)
    spec = dataclasses.replace(SPEC, num_classes=classes)
    network, report = initial.network(spec, str(path), seed=5)
    found, fresh = saved.arrays(network), saved.arrays(classifier.build(spec, seed=5))
    wanted = timm_weights.named_as_ours(SPEC, weights)
    for name, array in found.items():
        is_head = name.startswith("blocks.3.units.1.")
        source = fresh if is_head and classes != 4 else wanted
        np.testing.assert_array_equal(array, source[name])
    assert ("instead of 4" in report) == (classes != 4)


def test_pytorch_files_are_read_as_weights_alone(weights, tmp_path):
    torch = pytest.importorskip("torch", reason="pip install torch")
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    torch.save(tensors, tmp_path / "weights.pth")
    found = timm_weights.read(tmp_path / "weights.pth")
    assert found.keys() == weights.keys()
    np.testing.assert_array_equal(found["bn1.bias"], weights["bn1.bias"])
    torch.save({"model": print}, tmp_path / "code.pth")
    with pytest.raises(saved.WeightsError, match="weights alone"):
        timm_weights.read(tmp_path / "code.pth")


def drop(weights):
    del weights["blocks.1.0.bn2.bias"]


def add(weights):
    weights["blocks.1.1.conv_pw.weight"] = np.zeros((1, 1, 1, 1))


def reshape(weights):
    weights["conv_head.weight"] = np.zeros((32, 16, 1, 1))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (drop, r"must hold blocks.1.0.bn2.bias"),
        (add, r"has no blocks.1.1.conv_pw.weight \(1 such\)"),
        (reshape, r"conv_head must be of shape \(1, 1, 16, 24\), got \(1, 1, 16, 32\)"),
        (dict.clear, r"timm's names"),
    ],
)
def test_weights_of_another_network_are_refused_by_name(weights, change, told):
    change(weights)
    with pytest.raises(saved.WeightsError, match=told):
        timm_weights.named_as_ours(SPEC, weights)


def test_stages_that_timm_does_not_have_are_refused(weights):
    weights["conv_stem.weight"] = np.zeros((64, 3, 7, 7))
    weights.update({n: np.zeros(64) for n in norm("bn1", 64)})
    with pytest.raises(saved.WeightsError, match="got bottleneck in stage 0"):
        timm_weights.named_as_ours(zoo.load("resnet-50"), weights)


def test_a_truncated_file_is_refused(weights, tmp_path):
    path = tmp_path / "timm.safetensors"
    saved.write_safetensors(path, weights)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(saved.WeightsError, match="whole safetensors file"):
        timm_weights.read(path)
