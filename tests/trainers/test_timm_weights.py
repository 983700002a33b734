"""Weights by timm's names: round trips through files, and what is refused."""

import dataclasses

import numpy as np
import pytest

from nas.training import initial
from search_space import zoo
from search_space.spec import (
    ArchSpec,
    ClassifierHead,
    FusedMBConvStage,
    MBConvStage,
    Stem,
)
from trainers.deploy import saved, timm_weights
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
    head=ClassifierHead(channels=24),
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
        name: rng.uniform(0.5, 1.5, shape).astype(np.float32)
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


def drop(weights):
    del weights["blocks.1.0.bn2.bias"]


def add(weights):
    weights["blocks.1.1.conv_pw.weight"] = np.zeros((1, 1, 1, 1))


def reshape(weights):
    weights["conv_head.weight"] = np.zeros((32, 16, 1, 1))


def flatten(weights):
    weights["conv_stem.weight"] = np.zeros(8)


def not_depthwise(weights):
    weights["blocks.0.0.conv_dw.weight"] = np.zeros((8, 8, 3, 3))


def quantize(weights):
    weights["conv_head.weight"] = weights["conv_head.weight"].astype(np.int8)


def overflow(weights):
    weights["conv_head.weight"] = weights["conv_head.weight"] * np.float64(1e300)


def diverge(weights):
    weights["bn1.bias"] = np.full(8, np.nan, np.float32)


def negate(weights):
    weights["bn2.running_var"] = np.full(24, -0.5, np.float32)


def half_a_head(weights):
    del weights["classifier.weight"]


def no_classes(weights):
    weights["classifier.weight"] = np.zeros((0, 24), np.float32)


def escape(weights):
    weights["\x1b]0;title\a"] = np.zeros(1)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (drop, r"must hold blocks.1.0.bn2.bias"),
        (add, r"has no blocks.1.1.conv_pw.weight \(1 such\)"),
        (reshape, r"conv_head.weight must be of shape \(24, 16, 1, 1\), got \(32, 16"),
        (flatten, r"conv_stem.weight must have .* along axis 1, got shape \(8,\)"),
        (not_depthwise, r"conv_dw.weight must be of shape \(8, 1, 3, 3\), got \(8, 8,"),
        (quantize, r"conv_head.weight must hold floating-point numbers, got int8"),
        (overflow, r"conv_head.weight must hold finite numbers in float32, got -?inf"),
        (diverge, r"bn1.bias must hold finite numbers in float32, got nan"),
        (negate, r"bn2.running_var must hold variances of at least 0, got -0.5"),
        (half_a_head, r"must hold classifier.weight"),
        (
            no_classes,
            r"classifier.weight must have 1 to 1000000 .* got shape \(0, 24\)",
        ),
        (escape, r"has no '\\x1b\]0;title\\x07' \(1 such\)"),
        (dict.clear, r"timm's names"),
    ],
)
def test_weights_of_another_network_are_refused_by_name(weights, change, told):
    change(weights)
    with pytest.raises(saved.WeightsError, match=told):
        timm_weights.named_as_ours(SPEC, weights)


# timm's ConvBnAct and EdgeResidual.
FUSED_SHAPES = {
    "blocks.0.0.conv.weight": (8, 8, 3, 3),
    **norm("blocks.0.0.bn1", 8),
    "blocks.1.0.conv_exp.weight": (16, 8, 5, 5),
    **norm("blocks.1.0.bn1", 16),
    "blocks.1.0.se.conv_reduce.weight": (2, 16, 1, 1),
    "blocks.1.0.se.conv_reduce.bias": (2,),
    "blocks.1.0.se.conv_expand.weight": (16, 2, 1, 1),
    "blocks.1.0.se.conv_expand.bias": (16,),
    "blocks.1.0.conv_pwl.weight": (16, 16, 1, 1),
    **norm("blocks.1.0.bn2", 16),
}


def fused(**first):
    size = {"repeats": 1, "expansion": 1, "kernel": 3, "stride": 1, "channels": 8}
    stages = (
        FusedMBConvStage(**size | first),
        FusedMBConvStage(
            channels=16, kernel=5, stride=2, expansion=2, repeats=1, se_ratio=0.25
        ),
    )
    return dataclasses.replace(SPEC, stages=stages)


def test_fused_stages_have_the_names_of_timms_blocks(weights):
    rng = np.random.default_rng(1)
    weights = {k: v for k, v in weights.items() if not k.startswith("blocks.")} | {
        name: rng.uniform(0.5, 1.5, shape) for name, shape in FUSED_SHAPES.items()
    }
    ours = timm_weights.named_as_ours(fused(), weights)
    conv, expand = ours["blocks.1.units.0.kernel"], ours["blocks.2.units.0.kernel"]
    assert conv[2, 0, 1, 5] == np.float32(weights["blocks.0.0.conv.weight"][5, 1, 2, 0])
    wanted = weights["blocks.1.0.conv_exp.weight"][9, 3, 4, 1]
    assert expand[4, 1, 3, 9] == np.float32(wanted)
    np.testing.assert_array_equal(
        ours["blocks.2.units.2.norm.mean"],
        weights["blocks.1.0.bn2.running_mean"].astype(np.float32),
    )


def test_a_gate_before_a_single_convolution_is_nothing_that_timm_has(weights):
    with pytest.raises(saved.WeightsError, match="got fused_mbconv in stage 0"):
        timm_weights.named_as_ours(fused(se_ratio=0.25), weights)


def test_stages_that_timm_does_not_have_are_refused(weights):
    weights["conv_stem.weight"] = np.zeros((64, 3, 7, 7))
    weights["classifier.weight"] = np.zeros((4, 2048))
    weights.update({n: np.zeros(64) for n in norm("bn1", 64)})
    with pytest.raises(saved.WeightsError, match="got bottleneck in stage 0"):
        timm_weights.named_as_ours(zoo.load("resnet-50"), weights)


@pytest.mark.parametrize(
    "front", ["module.", "_orig_mod.", "state_dict.", "model_ema.module._orig_mod."]
)
def test_words_in_front_of_the_names_are_taken_away(weights, front):
    wrapped = {front + name: array for name, array in weights.items()}
    others = {"optimizer.state.momentum": np.zeros(3), "epoch": np.array(3)}
    found, under = timm_weights.unwrapped(wrapped | others)
    assert under == front
    assert found.keys() == weights.keys()
    assert all(found[name] is array for name, array in weights.items())


def test_bare_names_stay_as_they_are(weights):
    assert timm_weights.unwrapped(weights) == (weights, "")


def test_averaged_weights_go_before_the_last_ones(weights):
    last = {f"state_dict.{name}": array for name, array in weights.items()}
    averaged = {f"state_dict_ema.{name}": array + 1 for name, array in weights.items()}
    found, under = timm_weights.unwrapped(last | averaged)
    assert under == "state_dict_ema."
    np.testing.assert_array_equal(found["bn1.bias"], weights["bn1.bias"] + 1)


def test_two_networks_in_one_file_are_refused(weights):
    two = {f"{k}.{n}": a for k in ("student", "teacher") for n, a in weights.items()}
    with pytest.raises(saved.WeightsError, match=r"there are 2: student\., teacher\."):
        timm_weights.unwrapped(two)
