"""Tests for search_space.scaling."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_space import cost, scaling, zoo

NETWORKS = [zoo.load(name) for name in zoo.names()]


# EfficientNet's Table 3: multiply-adds in billions, as printed and as counted here.
# Two pairs of printed numbers look exchanged: MobileNetV1's resolution and compound
# rows, and ResNet-50's depth and width rows (whose counts are 0.1 short besides). The
# compound rows come out with 224 * 1.3 = 291.2 pixels rounded to a multiple of 32; at
# 291 they would be 2.5 and 1.4. The paper gives their coefficients for MobileNetV1
# alone: with those ResNet-50 has 14.4, so it must have been scaled by others.
COMPOUND = {"depth": 1.4, "width": 1.2, "resolution": 288}
TABLE_3 = [
    ("mobilenet-v1", {}, 0.6, 0.6),
    ("mobilenet-v1", {"width": 2.0}, 2.2, 2.2),
    ("mobilenet-v1", {"resolution": 448}, 2.2, 2.3),
    ("mobilenet-v1", COMPOUND, 2.3, 2.2),
    ("mobilenet-v2", {}, 0.3, 0.3),
    ("mobilenet-v2", {"depth": 4.0}, 1.2, 1.2),
    ("mobilenet-v2", {"width": 2.0}, 1.1, 1.1),
    ("mobilenet-v2", {"resolution": 448}, 1.2, 1.2),
    ("mobilenet-v2", COMPOUND, 1.3, 1.3),
    ("resnet-50", {}, 4.1, 4.1),
    ("resnet-50", {"depth": 4.0}, 16.2, 14.6),
    ("resnet-50", {"width": 2.0}, 14.7, 16.1),
    ("resnet-50", {"resolution": 448}, 16.4, 16.4),
    ("resnet-50", COMPOUND, 16.7, 14.4),
]


@pytest.mark.parametrize(("name", "factors", "printed", "counted"), TABLE_3)
def test_the_papers_scaling_table(name, factors, printed, counted):
    found = cost.num_macs(scaling.scale(zoo.load(name), **factors)) / 1e9
    assert round(found, 1) == counted
    exchanged = {(2.2, 2.3), (2.3, 2.2), (16.2, 14.6), (14.7, 16.1)}
    other_coefficients = {(16.7, 14.4)}
    if (printed, counted) not in exchanged | other_coefficients:
        assert counted == printed


def test_b7_is_scaled_in_every_part():
    b7 = zoo.load("efficientnet-b7")
    assert (b7.stem.channels, b7.head.channels) == (64, 2560)
    assert [s.channels for s in b7.stages] == [32, 48, 80, 160, 224, 384, 640]
    assert [s.repeats for s in b7.stages] == [4, 7, 7, 10, 10, 13, 4]


def test_fixed_ends_keep_their_width_and_depth():
    lite4 = zoo.load("efficientnet-lite4")
    assert (lite4.stem.channels, lite4.head.channels) == (32, 1280)
    assert [s.repeats for s in lite4.stages] == [1, 4, 4, 6, 6, 8, 1]
    assert [s.channels for s in lite4.stages] == [24, 32, 56, 112, 160, 272, 448]


@given(st.integers(1, 4096), st.floats(0.1, 4.0).filter(lambda w: w != 1.0))
def test_rounded_channels_are_near_multiples_of_eight(channels, width):
    rounded = scaling.round_channels(channels, width)
    assert rounded % 8 == 0
    assert 0.9 * channels * width <= rounded
    assert rounded <= max(8, 1.1 * channels * width + 8)


@given(st.sampled_from(NETWORKS))
def test_scaling_by_one_changes_nothing(spec):
    assert scaling.scale(spec) == spec


@settings(deadline=None)
@given(st.sampled_from(NETWORKS), st.floats(1.0, 2.0), st.floats(1.01, 2.0))
def test_scaling_up_costs_more_and_keeps_the_kind_of_network(spec, depth, width):
    scaled = scaling.scale(spec, depth=depth, width=width)
    assert cost.num_macs(scaled) >= cost.num_macs(spec)
    assert cost.num_params(scaled) >= cost.num_params(spec)
    kept = dataclasses.replace(
        scaled, stem=spec.stem, stages=spec.stages, head=spec.head
    )
    assert kept == spec
    assert [s.stride for s in scaled.stages] == [s.stride for s in spec.stages]


@pytest.mark.parametrize("multiplier", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["depth", "width"])
def test_multipliers_must_be_positive_and_finite(name, multiplier):
    with pytest.raises(ValueError, match=f"{name} must be positive and finite, got"):
        scaling.scale(NETWORKS[0], **{name: multiplier})


def test_scaling_out_of_range_is_refused():
    with pytest.raises(ValueError, match="less than or equal to 16384"):
        scaling.scale(NETWORKS[0], width=1000.0)
    with pytest.raises(ValueError, match="at least the total stride 32, got 31"):
        scaling.scale(NETWORKS[0], resolution=31)
