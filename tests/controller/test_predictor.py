"""Tests for controller.predictor."""

import math

import numpy as np
import pytest

from controller.predictor import START, GaussianProcess, climb

NUM_CHOICES = (3, 2, 4, 2, 3, 4)
# What START stands for, restated.
LINEAR, RATE, NOISE = 0.3, 4.0, 0.1


def data(seed, num, noise=0.0):
    """Random sequences and rewards that are a sum over tokens, plus noise."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(NUM_CHOICES, size=(num, len(NUM_CHOICES))).astype(np.int32)
    worth = np.random.default_rng(9).normal(size=(len(NUM_CHOICES), 4))
    rewards = worth[np.arange(len(NUM_CHOICES)), tokens].sum(axis=1)
    return tokens, (rewards + noise * rng.normal(size=num)).astype(np.float32)


def covariance(a, b):
    """The kernel of the module's docstring, for one pair of sequences."""
    share = np.mean(np.asarray(a) == np.asarray(b))
    return LINEAR * share + (1 - LINEAR) * math.exp(-RATE * (1 - share))


def test_agrees_with_the_textbook_formulas_written_out():
    # Rasmussen and Williams, equations 2.23 to 2.24 and 2.30, by explicit inverse.
    tokens, rewards = data(0, 30)
    new, _ = data(1, 20)
    found = GaussianProcess.fit(tokens, rewards, NUM_CHOICES, START)
    means, deviations = found.predict(new)

    y = (rewards - rewards.mean()) / rewards.std()
    gram = np.array([[covariance(a, b) for b in tokens] for a in tokens])
    gram += NOISE * np.eye(30)
    inverse = np.linalg.inv(gram)
    scale = y @ inverse @ y / 30
    cross = np.array([[covariance(a, b) for b in tokens] for a in new])
    np.testing.assert_allclose(
        means, rewards.mean() + rewards.std() * (cross @ inverse @ y), rtol=1e-4
    )
    variances = scale * (1 - np.einsum("mi,ij,mj->m", cross, inverse, cross))
    np.testing.assert_allclose(
        deviations, rewards.std() * np.sqrt(variances), rtol=1e-4
    )
    _, log_det = np.linalg.slogdet(scale * gram)
    expected = -0.5 * (
        y @ np.linalg.inv(scale * gram) @ y + log_det + 30 * math.log(2 * math.pi)
    )
    assert found.log_likelihood == pytest.approx(expected, rel=1e-5)


def test_predicts_unseen_sequences_of_a_sum():
    tokens, rewards = data(0, 60)
    setting = START
    for _ in range(6):
        setting = climb(tokens, rewards, NUM_CHOICES, setting)
    new, truth = data(1, 200)
    means, _ = GaussianProcess.fit(tokens, rewards, NUM_CHOICES, setting).predict(new)
    # Fourteen free numbers, sixty noiseless results.
    assert np.corrcoef(means, truth)[0, 1] > 0.99


def test_climbing_never_loses_likelihood_and_ends_at_a_top():
    tokens, rewards = data(2, 50, noise=1.0)

    def likelihood(setting):
        return GaussianProcess.fit(tokens, rewards, NUM_CHOICES, setting).log_likelihood

    path = [START]
    while (found := climb(tokens, rewards, NUM_CHOICES, path[-1])) != path[-1]:
        assert likelihood(found) > likelihood(path[-1])
        assert sum(abs(a - b) for a, b in zip(found, path[-1], strict=True)) == 1
        path.append(found)
    assert len(path) < 25


def test_noise_is_told_from_signal():
    def noise_of(noise):
        tokens, rewards = data(3, 150, noise=noise)
        setting = START
        for _ in range(20):
            setting = climb(tokens, rewards, NUM_CHOICES, setting)
        return setting[2]

    assert noise_of(0.0) <= 1  # the two smallest of the grid
    assert noise_of(3.0) >= 5  # the three largest


def test_results_make_their_neighbourhood_certain():
    tokens, rewards = data(4, 40)
    found = GaussianProcess.fit(tokens, rewards, NUM_CHOICES, (2, 3, 0))
    means, at_results = found.predict(tokens)
    np.testing.assert_allclose(means, rewards, atol=0.1)
    _, elsewhere = found.predict(data(5, 40)[0])
    assert at_results.max() < elsewhere.mean()


@pytest.mark.parametrize("setting", [START, (0, 5, 0), (5, 0, 7), (1, 1, 3)])
def test_chooses_as_if_all_deviations_were_known(setting):
    tokens, rewards = data(6, 60, noise=0.5)
    found = GaussianProcess.fit(tokens, rewards, NUM_CHOICES, setting)
    new = np.unique(data(7, 300)[0], axis=0)
    weights = np.array([0.0, 3.0, 0.5, 50.0, 1.0, 0.0])
    means, deviations = found.predict(new)
    expected = []
    for k in weights:
        scores = means + k * deviations
        scores[expected] = -np.inf
        expected.append(int(np.argmax(scores)))
    chosen = found.choose(new, weights)
    assert len(set(chosen)) == len(chosen)
    # Symmetric sequences tie up to rounding: their scores must agree, not their rows.
    np.testing.assert_allclose(
        means[chosen] + weights * deviations[chosen],
        means[expected] + weights * deviations[expected],
        rtol=1e-9,
    )


def test_rewards_that_all_agree():
    tokens, _ = data(0, 12)
    found = GaussianProcess.fit(
        tokens, np.full(12, 0.7, np.float32), NUM_CHOICES, START
    )
    means, deviations = found.predict(tokens)
    np.testing.assert_allclose(means, 0.7, rtol=1e-6)
    assert np.isfinite(deviations).all()
    assert np.isfinite(found.log_likelihood)


def test_repeated_sequences_do_not_break_the_factorization():
    tokens = np.zeros((20, len(NUM_CHOICES)), np.int32)
    rewards = np.linspace(0.0, 1.0, 20, dtype=np.float32)
    found = GaussianProcess.fit(tokens, rewards, NUM_CHOICES, (2, 3, 0))
    means, _ = found.predict(tokens[:1])
    assert means[0] == pytest.approx(0.5, abs=0.01)
