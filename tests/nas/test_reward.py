"""Tests for nas.study.reward."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.study.reward import Absolute, WeightedProduct, hard, pareto_front, soft

accuracies = st.floats(0.0, 1.0)
costs = st.floats(1e-3, 1e12)


def test_soft_is_worth_five_percent_per_doubling():
    # "if compared with model A, model B has 5 % higher accuracy and twice the latency,
    # the two have similar reward": 1.05 * 2^-0.07 = 1.0003 (MnasNet, section 3).
    reward = soft(75.0)
    assert reward(0.5, 75.0) == 0.5
    assert reward(0.525, 150.0) == pytest.approx(reward(0.5, 75.0), rel=1e-3)


def test_efficientnet_b0_at_400m():
    # By hand: ln(390 / 400) = -0.025318; exp(0.07 * 0.025318) = 1.0017738.
    assert soft(400e6)(0.771, 390e6) == pytest.approx(0.771 * 1.0017738, rel=1e-6)


def test_hard_halves_at_twice_the_target_and_is_flat_below():
    reward = hard(75.0)
    assert reward(0.6, 150.0) == pytest.approx(0.3)
    assert reward(0.6, 75.0) == reward(0.6, 10.0) == 0.6


@given(accuracies, costs, st.floats(-2.0, 0.0))
def test_hard_is_tunas_minimum(accuracy, cost, exponent):
    expected = accuracy * min((cost / 400e6) ** exponent, 1.0)
    assert hard(400e6, exponent)(accuracy, cost) == pytest.approx(expected)


def test_exponents_apply_on_their_own_side():
    reward = WeightedProduct(target=100.0, below=-0.5, above=-2.0)
    assert reward(1.0, 25.0) == pytest.approx(2.0)
    assert reward(1.0, 200.0) == pytest.approx(0.25)


def test_absolute_by_hand():
    # 0.75 - 0.10 * |1.5 - 1| and 0.75 - 0.10 * |0.5 - 1|
    assert Absolute(target=80.0)(0.75, 120.0) == pytest.approx(0.70)
    assert Absolute(target=80.0)(0.75, 40.0) == pytest.approx(0.70)


@given(st.sampled_from([soft(4e8), hard(4e8)]), accuracies, accuracies, costs)
def test_more_accuracy_at_the_same_cost_is_never_worse(reward, a, b, cost):
    low, high = sorted((a, b))
    assert reward(low, cost) <= reward(high, cost)


@pytest.mark.parametrize("target", [0.0, -1.0, math.nan, math.inf])
def test_impossible_targets(target):
    with pytest.raises(ValueError, match="target must be a positive cost"):
        soft(target)
    with pytest.raises(ValueError, match="target must be a positive cost"):
        Absolute(target=target)


def test_exponents_that_reward_cost():
    with pytest.raises(ValueError, match=r"above must be finite .* got 0\.07"):
        hard(1.0, 0.07)
    with pytest.raises(ValueError, match="below"):
        WeightedProduct(target=1.0, below=math.nan, above=0.0)
    with pytest.raises(ValueError, match="beta"):
        Absolute(target=1.0, beta=0.1)


@pytest.mark.parametrize("reward", [soft(1.0), Absolute(target=1.0)])
def test_measurements_that_are_none(reward):
    with pytest.raises(ValueError, match="accuracy must be finite"):
        reward(math.nan, 1.0)
    with pytest.raises(ValueError, match="cost must be finite and positive"):
        reward(0.5, 0.0)


points = st.lists(
    st.tuples(st.integers(0, 5).map(float), st.integers(0, 5).map(float)), max_size=30
)


@given(points)
def test_front_is_the_set_of_undominated_points(points):
    def dominated(i):
        return any(
            a >= points[i][0] and c <= points[i][1] and (a, c) != points[i]
            for a, c in points
        )

    front = pareto_front([a for a, _ in points], [c for _, c in points])
    assert sorted(front) == [i for i in range(len(points)) if not dominated(i)]
    assert [points[i][1] for i in front] == sorted(points[i][1] for i in front)


def test_front_refuses_what_cannot_be_compared():
    with pytest.raises(ValueError, match="2 accuracies and 1 costs"):
        pareto_front([0.1, 0.2], [1.0])
    with pytest.raises(ValueError, match="must be finite, got nan"):
        pareto_front([math.nan], [1.0])
