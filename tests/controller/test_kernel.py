"""Tests for controller.kernel."""

import math

import numpy as np
import pytest

from controller import kernel

NUM_CHOICES = (3, 2, 4, 2, 3, 4)
D = len(NUM_CHOICES)


def some_tokens(seed, num):
    rng = np.random.default_rng(seed)
    return rng.integers(NUM_CHOICES, size=(num, D)).astype(np.int32)


def covariance(a, b, linear, rates):
    """The kernel of the module's docstring, for one pair of sequences."""
    same = np.asarray(a) == np.asarray(b)
    shared = float((rates * same).sum() / rates.sum())
    return linear * shared + (1 - linear) * math.exp(-float((rates * ~same).sum()))


def parameters_of(linear, noise, rates):
    relevance = np.log(rates / rates.mean())
    return np.array(
        [math.log(linear / (1 - linear)), math.log(noise), math.log(rates.sum()),
         *relevance]
    )  # fmt: skip


def test_covariances_by_the_formula():
    rates = np.array([0.5, 0.1, 1.0, 2.0, 0.3, 0.1])
    left, right = some_tokens(0, 5), some_tokens(1, 7)
    found = kernel.covariance(
        kernel.one_hot(left, NUM_CHOICES).astype(np.float64),
        kernel.one_hot(right, NUM_CHOICES).astype(np.float64),
        NUM_CHOICES,
        parameters_of(0.3, 0.1, rates),
    )
    expected = [[covariance(a, b, 0.3, rates) for b in right] for a in left]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def negative_log_posterior(parameters, tokens, values):
    """By an explicit inverse (Rasmussen and Williams, equation 2.30), with priors."""
    linear, noise = 1 / (1 + math.exp(-parameters[0])), math.exp(parameters[1])
    rates = np.exp(parameters[3:])
    rates = math.exp(parameters[2]) * rates / rates.sum()
    num = len(values)
    gram = np.array([[covariance(a, b, linear, rates) for b in tokens] for a in tokens])
    gram += (noise + kernel.JITTER) * np.eye(num)
    scale = values @ np.linalg.inv(gram) @ values / num
    _, log_det = np.linalg.slogdet(scale * gram)
    away = parameters - kernel.start(D)
    away[:2] /= 2.0
    return 0.5 * (num + log_det) + 0.5 * away @ away


def test_what_is_climbed_is_the_posterior_and_ends_at_a_top_of_it():
    tokens = some_tokens(2, 60)
    values = np.random.default_rng(3).normal(size=60) + 2.0 * (tokens[:, 2] == 1)
    values -= values.mean()
    place, before = kernel.start(D), math.inf
    for _ in range(8):
        place = kernel.likelier(tokens, values, NUM_CHOICES, place)
        now = negative_log_posterior(place, tokens, values)
        assert now <= before + 1e-6
        before = now
    rng = np.random.default_rng(4)
    for _ in range(20):
        near = place + 0.05 * rng.normal(size=len(place))
        assert negative_log_posterior(near, tokens, values) > now - 1e-3


def test_decisions_that_matter_are_told_from_those_that_do_not():
    tokens = some_tokens(5, 120)
    values = np.where(tokens[:, 2] == 1, 1.0, 0.0) + (tokens[:, 5] == 3)
    values = (values - values.mean()) / values.std()
    place = kernel.start(D)
    for _ in range(3):
        place = kernel.likelier(tokens, values, NUM_CHOICES, place)
    assert set(np.argsort(place[3:])[-2:].tolist()) == {2, 5}


@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_noise_is_told_from_signal(noise):
    tokens, rng = some_tokens(6, 150), np.random.default_rng(7)
    values = tokens.sum(axis=1) + noise * rng.normal(size=150)
    values = (values - values.mean()) / values.std()
    place = kernel.start(D)
    for _ in range(4):
        place = kernel.likelier(tokens, values, NUM_CHOICES, place)
    found = kernel.noise(place)
    assert found < 0.01 if noise == 0.0 else found > 0.3


def test_values_that_all_agree_give_finite_parameters():
    tokens = some_tokens(8, 20)
    place = kernel.likelier(tokens, np.zeros(20), NUM_CHOICES, kernel.start(D))
    assert np.isfinite(place).all()
