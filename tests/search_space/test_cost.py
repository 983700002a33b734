"""Tests for search_space.cost against counts made by hand."""

import dataclasses
import random
import time

import pytest

from search_space import cost, layers, spaces, zoo
from search_space.spec import (
    ArchSpec,
    BottleneckStage,
    ClassifierHead,
    ConvStage,
    FusedMBConvStage,
    MBConvStage,
    SepConvStage,
    Stage,
    Stem,
)


def _profile(stage: Stage, *, stem: Stem | None = None) -> cost.Cost:
    """Costs on 8x8x3 images; the stage reads 4x4x4, unless the stem says otherwise."""
    return cost.profile(
        ArchSpec(
            name="hand",
            resolution=8,
            num_classes=10,
            activation="relu",
            stem=stem or Stem(channels=4),
            stages=(stage,),
            head=ClassifierHead(channels=None),
        )
    )


def _rows(profile: cost.Cost, prefix: str) -> list[tuple[str, int, int, int]]:
    """Name, multiply-adds, parameters and live float32 elements of each layer."""
    return [
        (
            found.layer.name.removeprefix(prefix),
            found.num_macs,
            found.num_params,
            found.activation_bytes // 4,
        )
        for found in profile.layers
        if found.layer.name.startswith(prefix)
    ]


def test_stem_and_head_by_hand():
    profile = _profile(ConvStage(channels=4, kernel=1, stride=1, repeats=1))
    assert _rows(profile, "stem.") == [
        ("conv", 9 * 3 * 4 * 16, 9 * 3 * 4, 8 * 8 * 3 + 4 * 4 * 4),
        ("conv_bn", 0, 8, 64 + 64),
    ]
    assert _rows(profile, "head.") == [
        ("pool", 0, 0, 64 + 4),
        ("classifier", 4 * 10, 4 * 10 + 10, 4 + 10),
    ]


def test_residual_mbconv_by_hand():
    profile = _profile(
        MBConvStage(
            channels=4, kernel=5, stride=1, expansion=6, repeats=1, se_ratio=0.5
        )
    )
    wide, skip = 24 * 16, 64  # elements of the expanded map and of the input
    assert _rows(profile, "stage0.layer0.") == [
        ("expand", 4 * 24 * 16, 4 * 24, skip + wide),
        ("expand_bn", 0, 48, 2 * wide + skip),
        ("depthwise", 25 * 24 * 16, 25 * 24, 2 * wide + skip),
        ("depthwise_bn", 0, 48, 2 * wide + skip),
        ("se_pool", 0, 0, wide + 24 + skip),
        ("se_reduce", 24 * 2, 24 * 2 + 2, 24 + 2 + wide + skip),
        ("se_expand", 2 * 24, 2 * 24 + 24, 2 + 24 + wide + skip),
        ("se_scale", 0, 0, 2 * wide + 24 + skip),
        ("project", 24 * 4 * 16, 24 * 4, wide + 64 + skip),
        ("project_bn", 0, 8, 2 * 64 + skip),
        ("add", 0, 0, 2 * 64 + skip),
    ]
    assert profile.peak_activation_bytes == 4 * (2 * wide + 24 + skip)


def test_strided_fused_mbconv_by_hand():
    profile = _profile(
        FusedMBConvStage(
            channels=8, kernel=3, stride=2, expansion=3, repeats=1, se_ratio=0.5
        )
    )
    wide = 12 * 4  # elements of the expanded map, 2x2 since the expansion strides
    assert _rows(profile, "stage0.layer0.") == [
        ("expand", 9 * 4 * 12 * 4, 9 * 4 * 12, 64 + wide),
        ("expand_bn", 0, 24, 2 * wide),
        ("se_pool", 0, 0, wide + 12),
        ("se_reduce", 12 * 2, 12 * 2 + 2, 12 + 2 + wide),
        ("se_expand", 2 * 12, 2 * 12 + 12, 2 + 12 + wide),
        ("se_scale", 0, 0, 2 * wide + 12),
        ("project", 12 * 8 * 4, 12 * 8, wide + 32),
        ("project_bn", 0, 16, 2 * 32),
    ]


def test_fused_mbconv_of_one_convolution_by_hand():
    profile = _profile(
        FusedMBConvStage(
            channels=4, kernel=5, stride=1, expansion=1, repeats=1, se_ratio=0.5
        )
    )
    skip = 64  # the block's input, which is gated itself and counts once
    assert _rows(profile, "stage0.layer0.") == [
        ("se_pool", 0, 0, skip + 4),
        ("se_reduce", 4 * 2, 4 * 2 + 2, 4 + 2 + skip),
        ("se_expand", 2 * 4, 2 * 4 + 4, 2 + 4 + skip),
        ("se_scale", 0, 0, skip + 4 + 64),
        ("conv", 25 * 4 * 4 * 16, 25 * 4 * 4, 2 * 64 + skip),
        ("conv_bn", 0, 8, 2 * 64 + skip),
        ("add", 0, 0, 2 * 64 + skip),
    ]


def test_fused_mbconv_of_edgetpu_by_hand():
    profile = _profile(
        FusedMBConvStage(
            channels=8,
            kernel=3,
            stride=2,
            expansion=3,
            repeats=1,
            stride_on="projection",
            expansion_of="output",
        )
    )
    wide = 24 * 16  # three times the output's 8 channels, at the input's 4x4
    assert _rows(profile, "stage0.layer0.") == [
        ("expand", 9 * 4 * 24 * 16, 9 * 4 * 24, 64 + wide),
        ("expand_bn", 0, 48, 2 * wide),
        ("project", 24 * 8 * 4, 24 * 8, wide + 32),
        ("project_bn", 0, 16, 2 * 32),
    ]


def test_strided_conv_with_pooled_skip_by_hand():
    profile = _profile(
        ConvStage(channels=8, kernel=3, stride=2, repeats=1, se_ratio=0.25, skip="pool")
    )
    out, skip = 8 * 4, 64
    assert _rows(profile, "stage0.layer0.") == [
        ("conv", 9 * 4 * 8 * 4, 9 * 4 * 8, skip + out),
        ("conv_bn", 0, 16, 2 * out + skip),
        ("se_pool", 0, 0, out + 8 + skip),
        ("se_reduce", 8 * 1, 8 * 1 + 1, 8 + 1 + out + skip),
        ("se_expand", 1 * 8, 1 * 8 + 8, 1 + 8 + out + skip),
        ("se_scale", 0, 0, 2 * out + 8 + skip),
        ("skip_pool", 0, 0, skip + 4 * 4 + out),
        ("add", 0, 0, 2 * out + 4 * 4),  # padded to 8 channels as it is added
    ]


def test_separable_convolution_by_hand():
    profile = _profile(SepConvStage(channels=8, kernel=3, stride=2, repeats=1))
    assert _rows(profile, "stage0.layer0.") == [
        ("depthwise", 9 * 4 * 4, 9 * 4, 64 + 16),
        ("depthwise_bn", 0, 8, 2 * 16),
        ("pointwise", 4 * 8 * 4, 4 * 8, 16 + 32),
        ("pointwise_bn", 0, 16, 2 * 32),
    ]


def test_projected_bottleneck_behind_a_pooled_stem_by_hand():
    profile = _profile(
        BottleneckStage(channels=8, bottleneck=2, kernel=3, stride=1, repeats=1),
        stem=Stem(channels=4, pool=True),
    )
    # The stem leaves 4x4x4 to its max-pooling, and that 2x2x4.
    assert _rows(profile, "stem.")[-1] == ("pool", 0, 0, 64 + 16)
    assert _rows(profile, "stage0.layer0.") == [
        ("reduce", 4 * 2 * 4, 4 * 2, 16 + 8),
        ("reduce_bn", 0, 4, 2 * 8 + 16),
        ("conv", 9 * 2 * 2 * 4, 9 * 2 * 2, 8 + 8 + 16),
        ("conv_bn", 0, 4, 2 * 8 + 16),
        ("expand", 2 * 8 * 4, 2 * 8, 8 + 32 + 16),
        ("expand_bn", 0, 16, 2 * 32 + 16),
        ("projection", 4 * 8 * 4, 4 * 8, 16 + 32 + 32),
        ("projection_bn", 0, 16, 2 * 32 + 32),
        ("add", 0, 0, 2 * 32 + 32),
    ]


def test_totals_are_sums_over_the_layers():
    profile = cost.profile(zoo.load("mnasnet-a1"))
    assert profile.num_macs == sum(found.num_macs for found in profile.layers)
    assert profile.num_params == sum(found.num_params for found in profile.layers)
    assert profile.peak_activation_bytes == max(
        found.activation_bytes for found in profile.layers
    )


@pytest.mark.parametrize("name", zoo.names())
def test_cached_counts_are_those_of_the_profile(name):
    profile = cost.profile(zoo.load(name))
    assert cost.num_macs(zoo.load(name)) == profile.num_macs
    assert cost.num_params(zoo.load(name)) == profile.num_params


# All lie between; at 224 pixels, but efficientnetv2's at 380.
MACS = {
    "mbconv": (5e7, 2e9),
    "mnasnet": (5e7, 2e9),
    "accel-nasbench": (5e7, 2e9),
    "efficientnetv2": (3e8, 5e10),
}


@pytest.mark.parametrize("name", spaces.names())
def test_ten_thousand_random_architectures_are_counted_in_about_a_second(name):
    # 0.5 to 1.1 s of one core of a small machine; the limit allows for a slower one.
    space, generator = spaces.load(name), random.Random(0)
    tokens = [
        [generator.randrange(n) for n in space.num_choices] for _ in range(10_000)
    ]
    start = time.process_time()
    counts = [cost.num_macs(space.decode(row)) for row in tokens]
    assert time.process_time() - start < 5.0
    least, most = MACS[name]
    assert least < min(counts) < max(counts) < most


@pytest.mark.parametrize(
    ("name", "resolution", "params", "millions"),
    [  # of google/automl's EfficientDet-D0, D1, D2, D3 and D6, without their heads
        ("efficientnet-b0", 512, 3_595_388, 1_901.490688),
        ("efficientnet-b1", 640, 6_101_024, 4_467.988),
        ("efficientnet-b2", 768, 7_202_562, 7_430.027),
        ("efficientnet-b3", 896, 10_103_336, 14_888.439),
        ("efficientnet-b6", 1280, 39_403_992, 107_284.332),
    ],
)
def test_a_backbone_costs_what_it_costs_in_efficientdet(
    name, resolution, params, millions
):
    spec = dataclasses.replace(zoo.load(name), resolution=resolution)
    profile = cost.profile(spec)
    names = {block.name for block in layers.backbone_blocks(spec)}
    backbone = [
        found
        for found in profile.layers
        if found.layer.name.rpartition(".")[0] in names
    ]
    assert sum(found.num_params for found in backbone) == params
    macs = sum(found.num_macs for found in backbone)
    assert macs == pytest.approx(millions * 1e6, abs=500)
