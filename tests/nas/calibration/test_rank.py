"""Rank correlations against SciPy's, hand calculations and laws."""

import numpy as np
import pytest
import scipy.stats

from nas.calibration import rank


def tau(one, other):
    return rank.tau([(rank.order(np.array(one)), rank.order(np.array(other)))])


def test_tau_is_scipys_ties_included():
    rng = np.random.default_rng(0)
    for _ in range(20):
        one, other = rng.integers(0, 6, (2, 9)).astype(float)
        expected = scipy.stats.kendalltau(one, other).statistic
        assert tau(one, other).value == pytest.approx(expected, abs=1e-12)


def test_tau_of_resamples_is_scipys_of_the_architectures_drawn():
    rng = np.random.default_rng(1)
    one, other = rng.integers(0, 20, (2, 8)).astype(float)
    found = tau(one, other).resampled
    for drawn, value in zip(rank.resamples(8)[:50], found, strict=False):
        rows = np.repeat(np.arange(8), drawn)
        expected = scipy.stats.kendalltau(one[rows], other[rows]).statistic
        assert value == pytest.approx(expected, abs=1e-12)


def test_a_mean_over_seeds_and_a_constant_ranking():
    rising, falling = np.arange(5.0), -np.arange(5.0)
    orders = [(rank.order(rising), rank.order(s)) for s in (rising, falling)]
    assert rank.tau(orders).value == 0.0
    assert tau([1.0] * 5, rising).value == 0.0
    perfect = tau(rising, rising)
    assert (perfect.value, perfect.low, perfect.high) == (1.0, 1.0, 1.0)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    """Of normal pairs of correlation r tau is 2 / pi * asin(r).

    100 samples of 40: at 95 % coverage fewer than 86 hits have odds below 1e-4; the
    percentile interval covers somewhat less than it says.
    """
    rng = np.random.default_rng(2)
    truth = 2 / np.pi * np.arcsin(0.7)
    hits = 0
    for _ in range(100):
        one = rng.standard_normal(40)
        other = 0.7 * one + np.sqrt(1 - 0.49) * rng.standard_normal(40)
        found = tau(one, other)
        hits += found.low <= truth <= found.high
    assert hits >= 86


def test_beating_is_paired():
    """Both lose much in the same resamples, and one is above the other in each."""
    rng = np.random.default_rng(3)
    truth = rng.standard_normal(20)
    good = truth + 0.7 * rng.standard_normal(20)
    better = 0.5 * (truth + good)
    assert tau(better, truth).beats(tau(good, truth))
    assert tau(better, truth).low < tau(good, truth).high, "intervals overlap"
    assert not tau(good, truth).beats(tau(better, truth))
    assert not tau(good, truth).beats(tau(good, truth))


def test_reliability_by_hand():
    """Deviations (-1, 0, 1) and (-1, 1, 0): a correlation of 1 / 2, of ranks too."""
    found = rank.reliability(np.array([[1.0, 2, 3], [1, 3, 2]]))
    assert found is not None
    assert found.pearson == pytest.approx(0.5)
    assert found.spearman == pytest.approx(0.5)
    assert found.kendall == pytest.approx(1 / 3)
    assert found.of_means(3) == pytest.approx(0.75)
    assert rank.reliability(np.ones((1, 4))) is None
    opposed = rank.reliability(np.array([[1.0, 2, 3], [3, 2, 1]]))
    assert opposed is not None
    assert (opposed.of_means(1), opposed.of_means(2)) == (pytest.approx(-1.0), 0.0)


def test_spearman_and_browns_formula_holds_for_means_of_simulated_seeds():
    """Of 4,000 architectures; a correlation is off by 3 standard errors at 0.03."""
    rng = np.random.default_rng(4)
    true = rng.standard_normal(4_000)
    seeds = true + rng.standard_normal((6, 4_000))
    found = rank.reliability(seeds)
    assert found is not None
    halves = np.corrcoef(seeds[:3].mean(0), seeds[3:].mean(0))[0, 1]
    assert found.of_means(3) == pytest.approx(halves, abs=0.03)


def test_features_that_tell_nothing_order_nothing():
    """Leave-one-out gives about -1 here; ten taus of deviation 0.25: five errors."""
    rng = np.random.default_rng(5)
    taus = []
    for _ in range(10):
        truth = rng.standard_normal(10)
        learnt = rank.learnt_order(rng.standard_normal((10, 2)), truth)
        taus.append(rank.tau([(learnt, rank.order(truth))]).value)
    assert abs(np.mean(taus)) < 0.4


def test_a_combination_finds_what_no_feature_shows_alone():
    rng = np.random.default_rng(6)
    one, other = rng.standard_normal((2, 14))
    truth = one - other
    learnt = rank.learnt_order(np.stack([one, 1e3 * other], axis=1), truth)
    assert rank.tau([(learnt, rank.order(truth))]).value > 0.9
    assert tau(one, truth).value < 0.8
    assert learnt.tolist() == (-learnt.T).tolist()
