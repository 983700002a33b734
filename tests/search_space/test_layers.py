"""Tests for search_space.layers: shapes, strides, skips and drop rates of layers."""

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_space import layers, zoo
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


def _arch(*stages: Stage, resolution: int = 224, **fields) -> ArchSpec:
    return ArchSpec(
        name="test",
        resolution=resolution,
        activation="swish",
        stem=fields.pop("stem", Stem(channels=32)),
        stages=stages,
        head=ClassifierHead(channels=1280),
        **fields,
    )


def _mbconv(**fields) -> MBConvStage:
    return MBConvStage(
        **{
            "channels": 32,
            "kernel": 3,
            "stride": 1,
            "expansion": 6,
            "repeats": 2,
            "se_ratio": 0.25,
        }
        | fields
    )


def _fused(**fields) -> FusedMBConvStage:
    return FusedMBConvStage(
        **{"channels": 32, "kernel": 3, "expansion": 4, "repeats": 2} | fields
    )


def _b0() -> ArchSpec:
    # EfficientNet-B0's stages: kernel, stride, channels, repeats (its Table 1).
    rows = ((3, 1, 16, 1), (3, 2, 24, 2), (5, 2, 40, 2), (3, 2, 80, 3))
    rows += ((5, 1, 112, 3), (5, 2, 192, 4), (3, 1, 320, 1))
    stages = [
        _mbconv(kernel=k, stride=s, channels=c, repeats=r, expansion=6 if i else 1)
        for i, (k, s, c, r) in enumerate(rows)
    ]
    return _arch(*stages, drop_path=0.2)


def test_b0_has_the_shapes_of_its_table():
    found = layers.blocks(_b0())
    assert [(b.out_size, b.out_channels) for b in found[1:-1]] == [
        (112, 16), (56, 24), (56, 24), (28, 40), (28, 40), (14, 80), (14, 80),
        (14, 80), (14, 112), (14, 112), (14, 112), (7, 192), (7, 192), (7, 192),
        (7, 192), (7, 320),
    ]  # fmt: skip
    assert (found[0].name, found[0].in_size, found[0].out_size) == ("stem", 224, 112)
    assert (found[-1].name, found[-1].in_channels, found[-1].out_channels) == (
        "head",
        320,
        1000,
    )


def test_b0_drop_rates_are_those_of_the_tensorflow_code():
    # 0.2 * i / 16, applied only where an input of the same shape is added.
    rates = [b.drop_rate for b in layers.blocks(_b0())[1:-1]]
    residual = {2, 4, 6, 7, 9, 10, 12, 13, 14}
    assert rates == pytest.approx(
        [0.2 * i / 16 if i in residual else 0.0 for i in range(16)]
    )


def test_squeeze_units_come_from_the_layers_input():
    hidden = [b.se_hidden for b in layers.blocks(_b0())[1:-1]]
    # A quarter of 32, 16, 24, 24, 40, ...: what enters each layer, in B0's table.
    assert hidden == [8, 4, 6, 6, 10, 10, 20, 20, 20, 28, 28, 28, 48, 48, 48, 48]


@pytest.mark.parametrize(
    ("stage", "skips"),
    [
        (_mbconv(stride=2), ["none", "identity"]),
        (_mbconv(stride=1), ["identity", "identity"]),
        (_mbconv(skip="none"), ["none", "none"]),
        (_mbconv(stride=2, skip="pool"), ["pool", "identity"]),
        (_mbconv(channels=48, skip="pool"), ["pool", "identity"]),
        (_mbconv(channels=48), ["none", "identity"]),
        (
            ConvStage(channels=32, kernel=3, stride=2, repeats=2, skip="pool"),
            ["pool", "identity"],
        ),
        (ConvStage(channels=32, kernel=3, stride=1, repeats=2), ["none", "none"]),
        (SepConvStage(channels=32, kernel=3, stride=1, repeats=2), ["none", "none"]),
        (_fused(stride=2), ["none", "identity"]),
        (_fused(stride=1), ["identity", "identity"]),
        (_fused(stride=2, skip="pool"), ["pool", "identity"]),
        (_fused(stride=1, skip="none"), ["none", "none"]),
        (
            BottleneckStage(channels=64, bottleneck=16, kernel=3, stride=1, repeats=2),
            ["projection", "identity"],
        ),
        (
            BottleneckStage(channels=32, bottleneck=16, kernel=3, stride=2, repeats=2),
            ["projection", "identity"],
        ),
    ],
)
def test_skip_of_each_layer(stage, skips):
    assert [b.skip for b in layers.blocks(_arch(stage))[1:-1]] == skips


def test_same_padding_rounds_up_and_stops_at_one_pixel():
    arch = _arch(*[_mbconv(stride=2, repeats=1)] * 4, resolution=33)
    assert [b.out_size for b in layers.blocks(arch)[:-1]] == [17, 9, 5, 3, 2]
    arch = _arch(*[_mbconv(stride=2, repeats=1)] * 4, resolution=32)
    assert [b.out_size for b in layers.blocks(arch)[:-1]] == [16, 8, 4, 2, 1]


def test_resnet_stem_pools():
    arch = _arch(_mbconv(), stem=Stem(channels=64, kernel=7, stride=2, pool=True))
    stem, first, *_ = layers.blocks(arch)
    assert (stem.out_size, stem.stride, first.in_size) == (56, 2, 56)


# By stride: channels and side at 224 pixels.
FEATURE_MAPS = {
    # Table 1 of arXiv:1905.11946.
    "efficientnet-b0": {
        2: (16, 112), 4: (24, 56), 8: (40, 28), 16: (112, 14), 32: (320, 7)
    },
    # Table 2 of arXiv:1801.04381.
    "mobilenet-v2": {
        2: (16, 112), 4: (24, 56), 8: (32, 28), 16: (96, 14), 32: (320, 7)
    },
    # Figure 7 of arXiv:1807.11626.
    "mnasnet-a1": {
        2: (16, 112), 4: (24, 56), 8: (40, 28), 16: (112, 14), 32: (320, 7)
    },
    # Table 1 of arXiv:1704.04861.
    "mobilenet-v1": {
        2: (64, 112), 4: (128, 56), 8: (256, 28), 16: (512, 14), 32: (1024, 7)
    },
    # Table 4 of arXiv:2104.00298.
    "efficientnetv2-s": {
        2: (24, 112), 4: (48, 56), 8: (64, 28), 16: (160, 14), 32: (256, 7)
    },
    # conv2_x to conv5_x in table 1 of arXiv:1512.03385; conv1 is pooled in the stem.
    "resnet-50": {4: (256, 56), 8: (512, 28), 16: (1024, 14), 32: (2048, 7)},
}  # fmt: skip


@pytest.mark.parametrize("name", FEATURE_MAPS)
def test_feature_maps_are_those_of_the_published_tables(name):
    maps = layers.feature_maps(dataclasses.replace(zoo.load(name), resolution=224))
    assert {stride: block.output for stride, block in maps.items()} == FEATURE_MAPS[
        name
    ]


def test_feature_maps_are_of_the_last_block_before_a_stride():
    maps = layers.feature_maps(zoo.load("efficientnet-b0"))
    assert {stride: block.name for stride, block in maps.items()} == {
        2: "stage0.layer0",
        4: "stage1.layer1",
        8: "stage2.layer1",
        16: "stage4.layer2",  # 80 channels of stage 3, then 112 at the same stride
        32: "stage6.layer0",
    }


@pytest.mark.parametrize(
    ("name", "resolution", "channels"),
    [  # EfficientDet-D0, D3, D4 and D6: the backbones' P3 to P5
        ("efficientnet-b0", 512, (40, 112, 320)),
        ("efficientnet-b3", 896, (48, 136, 384)),
        ("efficientnet-b4", 1024, (56, 160, 448)),
        ("efficientnet-b6", 1280, (72, 200, 576)),
    ],
)
def test_feature_maps_of_efficientdets_backbones(name, resolution, channels):
    spec = dataclasses.replace(zoo.load(name), resolution=resolution)
    maps = layers.feature_maps(spec)
    assert [maps[stride].output for stride in (8, 16, 32)] == [
        (width, resolution // stride)
        for width, stride in zip(channels, (8, 16, 32), strict=True)
    ]


STRIDES = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3), st.booleans(), STRIDES, st.integers(0, 200))
def test_a_feature_map_has_a_pixel_for_each_stride(stem, pool, strides, more):
    stages = [
        _mbconv(stride=stride, channels=8 + i, repeats=1 + i)
        for i, stride in enumerate(strides)
    ]
    total = stem * (2 if pool else 1) * math.prod(strides)
    arch = _arch(
        *stages,
        stem=Stem(channels=4, stride=stem, pool=pool),
        resolution=total + more,
    )
    maps = layers.feature_maps(arch)
    assert list(maps) == sorted(set(maps))
    for stride, block in maps.items():
        assert block.out_size == math.ceil(arch.resolution / stride)
    # The head reads the last, which is the backbone's output.
    *_, last, head = layers.blocks(arch)
    assert (total, last) == (arch.total_stride, maps[max(maps)])
    assert (last.output, max(maps)) == ((head.in_channels, head.in_size), total)
