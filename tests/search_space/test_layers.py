"""Tests for search_space.layers: shapes, strides, skips and drop rates of layers."""

import pytest

from search_space import layers
from search_space.spec import (
    ArchSpec,
    BottleneckStage,
    ConvStage,
    Head,
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
        head=Head(channels=1280),
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
