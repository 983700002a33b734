"""Tests for controller.predictor."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller import kernel, predictor

NUM_CHOICES = (3, 2, 4, 2, 3, 4)
D = len(NUM_CHOICES)
START = kernel.start(D)
NOTHING = np.zeros((0, D), np.int32)


def data(seed, num, noise=0.0):
    """Random sequences and values that are a sum over tokens, plus noise."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(NUM_CHOICES, size=(num, D)).astype(np.int32)
    worth = np.random.default_rng(9).normal(size=(D, 4))
    values = worth[np.arange(D), tokens].sum(axis=1)
    return tokens, values + noise * rng.normal(size=num)


def covariances(left, right):
    """At `START`, every decision is as relevant: linear 0.299, rates 4 / 6."""
    linear = 1 / (1 + math.exp(0.85))
    share = (left[:, None] == right[None]).mean(axis=-1)
    return linear * share + (1 - linear) * np.exp(-4.0 * (1 - share))


def textbook(tokens, values, new, pending=NOTHING):
    """Rasmussen and Williams, equations 2.23 and 2.24, by explicit inverse."""
    gram = covariances(tokens, tokens) + (0.1 + kernel.JITTER) * np.eye(len(tokens))
    scale = values @ np.linalg.inv(gram) @ values / len(values)
    means = covariances(new, tokens) @ np.linalg.inv(gram) @ values
    known = np.concatenate([tokens, pending])
    gram = covariances(known, known) + (0.1 + kernel.JITTER) * np.eye(len(known))
    cross = covariances(new, known)
    variances = 1 - np.einsum("mi,ij,mj->m", cross, np.linalg.inv(gram), cross)
    return means, np.sqrt(scale * variances)


@pytest.mark.parametrize("num_pending", [0, 5])
def test_agrees_with_the_textbook_formulas_written_out(num_pending):
    tokens, values = data(0, 30, noise=0.3)
    new, pending = data(1, 20)[0], data(2, num_pending)[0]
    found = predictor.exact(tokens, values, NUM_CHOICES, START, pending).predict(new)
    expected = textbook(tokens, values, new, pending)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("num_pending", [0, 5])
def test_with_every_result_inducing_sparse_is_exact(num_pending):
    # A law of Titsias's predictor. Results come in parts, and one of them twice.
    tokens, values = data(0, 40, noise=0.3)
    tokens, first = np.unique(tokens, axis=0, return_index=True)
    values = values[first]
    told = np.concatenate([tokens, tokens[:1]])
    twice = np.append(values, values[0] + 1.0)
    sums = predictor.no_sums(tokens)
    for rows in (slice(0, 7), slice(7, None)):
        sums = predictor.added(sums, told[rows], twice[rows], NUM_CHOICES, START)
    new, pending = data(1, 20)[0], data(2, num_pending)[0]
    # Pending ones that are not inducing are seen through those that are.
    pending = tokens[: len(pending)]
    known = predictor.exact(told, twice, NUM_CHOICES, START, pending)
    found = predictor.sparse(sums, known.scale, NUM_CHOICES, START, pending)
    for one, other in zip(found.predict(new), known.predict(new), strict=True):
        np.testing.assert_allclose(one, other, rtol=5e-3, atol=5e-3)


def test_more_results_than_inducing_ones_all_count():
    # 2,000 noisy results through 100 of them, against those 100 alone.
    tokens, values = data(0, 2000, noise=2.0)
    some = np.unique(tokens, axis=0)[::5]
    sums = predictor.added(predictor.no_sums(some), tokens, values, NUM_CHOICES, START)
    parameters = START.copy()
    parameters[1] = math.log(1.0)
    sums = predictor.added(
        predictor.no_sums(some), tokens, values, NUM_CHOICES, parameters
    )
    new, truth = data(1, 300)
    means, _ = predictor.sparse(sums, 1.0, NUM_CHOICES, parameters, NOTHING).predict(
        new
    )
    few, _ = predictor.exact(
        tokens[:100], values[:100], NUM_CHOICES, parameters, NOTHING
    ).predict(new)
    errors = [np.sqrt(np.mean((m - truth) ** 2)) for m in (means, few)]
    assert errors[0] < 0.5 * errors[1]


def test_inducing_results_are_the_best_and_some_of_every_stretch():
    rewards = np.random.default_rng(0).normal(size=5000)
    rows = predictor.chosen(rewards)
    assert len(np.unique(rows)) == len(rows) == predictor.MAX_EXACT
    best = np.argsort(-rewards)[: predictor.MAX_EXACT // 2]
    assert set(best.tolist()) <= set(rows.tolist())
    rest = np.setdiff1d(rows, best)
    per_thousand = np.bincount(rest // 1000, minlength=5)
    assert per_thousand.min() > 0.15 * len(rest)


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30),
)
def test_warped_rewards_come_back(rewards):
    given_rewards = np.array(rewards, np.float32)
    warp = predictor.Warp.of(given_rewards)
    values = warp.values(given_rewards)
    assert np.isfinite(values).all()
    span = float(np.ptp(given_rewards)) + float(np.abs(given_rewards).max())
    np.testing.assert_allclose(
        warp.rewards(values), given_rewards, atol=1e-5 * span + 1e-25
    )
    order = np.argsort(given_rewards, kind="stable")
    assert (np.diff(values[order]) >= 0.0).all()


def test_the_warp_by_hand():
    # The median is 2; above it are 2, 3 and 4: the mean square is 5 / 3. What is one
    # deviation below is at -log 2.
    warp = predictor.Warp.of(np.array([0.0, 1.0, 2.0, 3.0, 4.0], np.float32))
    assert float(warp.center) == 2.0
    assert float(warp.spread) == pytest.approx(math.sqrt(5 / 3))
    below = np.array([2.0 - math.sqrt(5 / 3)], np.float32)
    assert float(warp.values(below)[0]) == pytest.approx(-math.log(2), rel=1e-5)


def test_how_bad_the_bad_ones_are_hardly_matters():
    rewards = np.array([1.0, 2.0, 3.0, 4.0, 5.0], np.float32)
    worse = rewards.copy()
    worse[0] = -1e6
    near, far = (predictor.Warp.of(r).values(r) for r in (rewards, worse))
    np.testing.assert_allclose(far[1:], near[1:])
    assert far[0] > near[0] - 15.0


def test_rewards_that_all_agree():
    tokens, _ = data(0, 12)
    rewards = np.full(12, 0.7, np.float32)
    values = predictor.Warp.of(rewards).values(rewards)
    found = predictor.exact(tokens, values, NUM_CHOICES, START, NOTHING)
    means, deviations = found.predict(tokens)
    assert np.isfinite(means).all()
    assert np.isfinite(deviations).all()


def test_repeated_sequences_do_not_break_the_factorization():
    tokens = np.zeros((20, D), np.int32)
    certain = START.copy()
    certain[1] = math.log(1e-4)
    found = predictor.exact(
        tokens, np.linspace(0.0, 1.0, 20), NUM_CHOICES, certain, NOTHING
    )
    assert found.predict(tokens[:1])[0][0] == pytest.approx(0.5, abs=0.01)
