"""Tests for search_space.compound."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_space import compound, cost, zoo
from search_space.compound import Coefficients
from search_space.scaling import ScalingRules

B0 = zoo.load("efficientnet-b0")
NETWORKS = [zoo.load(name) for name in zoo.names()]


def test_the_published_coefficients_give_the_published_growth():
    # EfficientNet, section 3.3; 1.2 * 1.1^2 * 1.15^2 = 1.92.
    assert compound.PUBLISHED.growth == pytest.approx(1.92, abs=0.005)
    compound.PUBLISHED.check()


def test_the_formula_does_not_give_the_presets():
    """At phi = 7 it is deeper than B7 by far; at phi = 1 it is nearer to B2 than B1."""
    at_seven = compound.member(B0, compound.PUBLISHED, 7.0)
    b7 = zoo.load("efficientnet-b7")
    assert sum(s.repeats for s in at_seven.stages) > sum(s.repeats for s in b7.stages)
    at_one = cost.num_macs(compound.member(B0, compound.PUBLISHED, 1.0))
    b1, b2 = (cost.num_macs(zoo.load(f"efficientnet-b{i}")) for i in (1, 2))
    assert abs(at_one - b2) < abs(at_one - b1)


def test_efficientnetv2s_changes_by_hand():
    """A cap on the resolution, and later stages that grow more (arXiv:2104.00298)."""
    rules = ScalingRules(max_resolution=280, later_depth=1.0)
    coefficients = Coefficients(alpha=2.0, beta=1.0, gamma=1.15)
    one, two = (compound.member(B0, coefficients, phi, rules) for phi in (1.0, 2.0))
    # 224 * 1.15 = 257.6 to a multiple of 4; 224 * 1.3225 = 296.2 is too much.
    assert (one.resolution, two.resolution) == (256, 280)
    # 1, 2, 2, 3, 3, 4, 1 times 2 to the power of 1 + i / 6: 2, 2.24, 2.52, 2.83, 3.17,
    # 3.56 and 4, rounded up.
    assert [s.repeats for s in one.stages] == [2, 5, 6, 9, 10, 15, 4]
    plain = compound.member(B0, coefficients, 1.0)
    assert [s.repeats for s in plain.stages] == [2, 4, 4, 6, 6, 8, 2]
    assert [s.channels for s in one.stages] == [s.channels for s in plain.stages]
    with pytest.raises(
        ValueError, match="max_resolution must be at least the baseline"
    ):
        compound.member(B0, coefficients, 1.0, ScalingRules(max_resolution=223))


def test_a_smaller_member_by_hand():
    """At phi -2 depth is 1 / 1.44, width 1 / 1.21 and resolution 1 / 1.3225."""
    small = compound.member(B0, compound.PUBLISHED, -2.0)
    assert [s.repeats for s in small.stages] == [1, 2, 2, 3, 3, 3, 1]
    # 24 / 1.21 = 19.8 is nearest to 16, which would lose more than a tenth.
    assert [s.channels for s in small.stages] == [16, 24, 32, 64, 96, 160, 264]
    assert (small.stem.channels, small.head.channels) == (24, 1056)
    assert small.resolution == 168  # 169.4


@pytest.mark.parametrize("step", [0.1, 0.05])
def test_a_grid_is_every_point_within_the_constraint(step):
    """By brute force over integers, where nothing rounds."""
    units = round(1 / step)
    side = range(units, round(2.2 * units) + 1)
    whole = units**5
    expected = {
        (a, b, g)
        for a, b, g in itertools.product(side, side, side)
        if abs(10 * a * b * b * g * g - 20 * whole) <= whole
    }
    found = {
        tuple(round(value * units) for value in (p.alpha, p.beta, p.gamma))
        for p in compound.grid(step)
    }
    assert found == expected


@settings(deadline=None, max_examples=50)
@given(
    st.sampled_from(NETWORKS),
    st.sampled_from(compound.grid(0.05)),
    st.floats(0.1, 4.0),
    st.floats(0.0, 1.0),
)
def test_members_grow_with_phi_in_every_part(spec, point, phi, more):
    small = compound.member(spec, point, phi)
    large = compound.member(spec, point, phi + more)
    assert small.resolution <= large.resolution
    for one, other in zip(small.stages, large.stages, strict=True):
        assert one.channels <= other.channels
        assert one.repeats <= other.repeats


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(NETWORKS),
    st.sampled_from(compound.grid(0.1)),
    st.floats(1.0, 30.0),
)
def test_the_largest_phi_fits_and_the_next_does_not(spec, point, times):
    limit = times * cost.num_macs(spec)

    def macs(phi):
        try:
            return cost.num_macs(compound.member(spec, point, phi))
        except ValueError:  # beyond what a network can be: 1024 layers
            return math.inf

    phi = compound.largest_phi(spec, point, lambda s: cost.num_macs(s) <= limit)
    assert macs(phi) <= limit < macs(phi + 0.001)


def test_a_baseline_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="efficientnet-b0 must fit"):
        compound.largest_phi(B0, compound.PUBLISHED, lambda _: False)


def test_a_limit_that_nothing_reaches_ends_at_what_can_exist():
    phi = compound.largest_phi(B0, compound.PUBLISHED, lambda _: True)
    compound.member(B0, compound.PUBLISHED, phi)
    with pytest.raises(ValueError, match="makes no network of efficientnet-b0"):
        compound.member(B0, compound.PUBLISHED, phi + 0.001)


@pytest.mark.parametrize("value", [0.99, float("nan"), float("inf"), -1.2])
def test_coefficients_are_at_least_one(value):
    with pytest.raises(ValueError, match="beta must be at least 1 and finite"):
        Coefficients(alpha=1.2, beta=value, gamma=1.15)


def test_grids_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="at most 10000 points"):
        compound.grid(0.005)
    with pytest.raises(ValueError, match="smaller step or a larger tolerance"):
        compound.grid(0.3, 0.01)


@pytest.mark.parametrize("name", ["mobilenet-v2", "mnasnet-a1", "efficientnet-b0"])
@pytest.mark.parametrize("wanted", [64e6, 400e6, 1.5e9])
@pytest.mark.parametrize("gamma", [1.0, 1.15])
def test_the_nearest_is_within_two_hundredths_smaller_or_larger(name, wanted, gamma):
    base = zoo.load(name)
    coefficients = Coefficients(alpha=1.2, beta=1.1, gamma=gamma)
    found = compound.nearest(base, coefficients, cost.num_macs, wanted)
    macs = cost.num_macs(found.spec)
    assert macs == pytest.approx(wanted, rel=0.02)
    assert (found.phi > 0) == (macs > cost.num_macs(base)) or abs(found.phi) < 1
    if gamma == 1.0:
        assert found.spec.resolution == base.resolution


def test_the_nearest_of_a_networks_own_size_is_itself():
    found = compound.nearest(B0, compound.PUBLISHED, cost.num_macs, cost.num_macs(B0))
    assert (found.phi, found.width) == (0.0, 1.0)
    assert found.spec.stages == B0.stages


def test_there_is_none_nearest_where_none_exists():
    def impossible(spec):
        raise ValueError(spec.name)

    with pytest.raises(ValueError, match="none does"):
        compound.nearest(B0, compound.PUBLISHED, impossible, 1e6)
