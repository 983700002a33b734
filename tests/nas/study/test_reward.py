"""Tests for nas.study.reward."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.study.reward import Absolute, Cost, WeightedProduct, hard, soft

accuracies = st.floats(0.0, 1.0)
costs = st.floats(1e-3, 1e12)


def of(accuracy, macs):
    return {"accuracy": accuracy, "num_macs": macs}


def cost(target, **exponents):
    return Cost(metric="num_macs", target=target, **exponents)


def test_soft_is_worth_five_percent_per_doubling():
    # "if compared with model A, model B has 5 % higher accuracy and twice the latency,
    # the two have similar reward": 1.05 * 2^-0.07 = 1.0003 (MnasNet, section 3).
    reward = soft("num_macs", 75.0)
    assert reward(of(0.5, 75.0)) == 0.5
    assert reward(of(0.525, 150.0)) == pytest.approx(reward(of(0.5, 75.0)), rel=1e-3)


def test_efficientnet_b0_at_400m():
    # By hand: ln(390 / 400) = -0.025318; exp(0.07 * 0.025318) = 1.0017738.
    reward = soft("num_macs", 400e6)(of(0.771, 390e6))
    assert reward == pytest.approx(0.771 * 1.0017738, rel=1e-6)


def test_hard_halves_at_twice_the_target_and_is_flat_below():
    reward = hard("num_macs", 75.0)
    assert reward(of(0.6, 150.0)) == pytest.approx(0.3)
    assert reward(of(0.6, 75.0)) == reward(of(0.6, 10.0)) == 0.6


@given(accuracies, costs, st.floats(-2.0, 0.0))
def test_hard_is_tunas_minimum(accuracy, macs, exponent):
    expected = accuracy * min((macs / 400e6) ** exponent, 1.0)
    reward = hard("num_macs", 400e6, exponent)(of(accuracy, macs))
    assert reward == pytest.approx(expected)


def test_exponents_apply_on_their_own_side():
    reward = WeightedProduct(costs=(cost(100.0, below=-0.5, above=-2.0),))
    assert reward(of(1.0, 25.0)) == pytest.approx(2.0)
    assert reward(of(1.0, 200.0)) == pytest.approx(0.25)


def test_two_costs_are_efficientnetv2s_product():
    # A * S^-0.07 * P^-0.05 with S and P in units of their targets, by hand:
    # 0.8 * 2^-0.07 * 0.5^-0.05 = 0.8 * 0.952638 * 1.035265 = 0.788987.
    step = Cost(metric="train_step_ms", target=100.0)
    size = Cost(metric="num_params", target=20e6, below=-0.05, above=-0.05)
    reward = WeightedProduct(costs=(step, size))
    found = reward({"accuracy": 0.8, "train_step_ms": 200.0, "num_params": 10e6})
    assert found == pytest.approx(0.788987, rel=1e-5)


def test_a_metric_of_which_more_is_better_costs_its_inverse():
    fast = Cost(metric="throughput", target=1000.0, below=0.0, above=-1.0, goal="max")
    reward = WeightedProduct(costs=(fast,))
    assert reward({"accuracy": 0.5, "throughput": 2000.0}) == 0.5
    assert reward({"accuracy": 0.5, "throughput": 500.0}) == pytest.approx(0.25)


def test_absolute_by_hand():
    # 0.75 - 0.10 * |1.5 - 1| and 0.75 - 0.10 * |0.5 - 1|
    reward = Absolute(costs=(cost(80.0),))
    assert reward(of(0.75, 120.0)) == pytest.approx(0.70)
    assert reward(of(0.75, 40.0)) == pytest.approx(0.70)


@given(
    st.sampled_from([soft("num_macs", 4e8), hard("num_macs", 4e8)]),
    accuracies,
    accuracies,
    costs,
)
def test_more_accuracy_at_the_same_cost_is_never_worse(reward, a, b, macs):
    low, high = sorted((a, b))
    assert reward(of(low, macs)) <= reward(of(high, macs))


@pytest.mark.parametrize("target", [0.0, -1.0, math.nan, math.inf])
def test_impossible_targets(target):
    with pytest.raises(ValueError, match="target of num_macs must be a positive"):
        cost(target)


def test_exponents_that_reward_cost():
    with pytest.raises(ValueError, match=r"above must be finite .* got 0\.07"):
        hard("num_macs", 1.0, 0.07)
    with pytest.raises(ValueError, match="below"):
        cost(1.0, below=math.nan)
    with pytest.raises(ValueError, match="beta"):
        Absolute(costs=(cost(1.0),), beta=0.1)


@pytest.mark.parametrize("reward", [soft("num_macs", 1.0), Absolute(costs=(cost(1),))])
def test_measurements_that_are_none(reward):
    with pytest.raises(ValueError, match="accuracy must be finite"):
        reward(of(math.nan, 1.0))
    with pytest.raises(ValueError, match="num_macs must be finite and positive"):
        reward(of(0.5, 0.0))
    with pytest.raises(ValueError, match="weighs num_macs, and a trial has accuracy"):
        reward({"accuracy": 0.5})
