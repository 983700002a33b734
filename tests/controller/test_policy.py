"""Tests for controller.policy."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from controller import policy

NUM_CHOICES = (3, 1, 2, 4)
evaluate = jax.jit(policy.evaluate, static_argnums=1)
EVERY = np.array(list(itertools.product(*map(range, NUM_CHOICES))), np.int32)


def sharpened(seed, num_choices=NUM_CHOICES):
    """A policy whose distributions are far from uniform and depend on the past."""
    params = policy.init(seed, num_choices, 16)
    return jax.tree.map(lambda leaf: 12.0 * leaf, params)


def reference_log_prob(params, num_choices, tokens):
    """The same network, restated in NumPy for one sequence."""
    embed, kernel, recurrent, bias, head, head_bias = (
        np.asarray(leaf, float) for leaf in params
    )
    hidden = cell = np.zeros(len(bias) // 4)
    last, total, entropy = 0, 0.0, 0.0
    for d, token in enumerate(tokens):
        gates = embed[d, last] @ kernel + hidden @ recurrent + bias
        i, f, g, o = np.split(gates, 4)

        def sigmoid(x):
            return 1.0 / (1.0 + np.exp(-x))

        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
        logits = (hidden @ head[d] + head_bias[d])[: num_choices[d]]
        probs = np.exp(logits - logits.max())
        probs /= probs.sum()
        total += math.log(probs[token])
        entropy -= float(probs @ np.log(probs))
        last = int(token)
    return total, entropy


@pytest.mark.parametrize("seed", range(3))
def test_probabilities_of_all_sequences_sum_to_one(seed):
    log_probs, _ = evaluate(sharpened(seed), NUM_CHOICES, jnp.asarray(EVERY))
    assert float(jnp.exp(log_probs).sum()) == pytest.approx(1.0, abs=1e-5)
    # The policy under test is no uniform one.
    assert float(jnp.exp(log_probs).max()) > 2 / len(EVERY)


@pytest.mark.parametrize("seed", range(3))
def test_mean_entropy_of_sequences_is_the_entropy_of_their_distribution(seed):
    log_probs, entropies = evaluate(sharpened(seed), NUM_CHOICES, jnp.asarray(EVERY))
    probs = np.exp(np.asarray(log_probs, float))
    expected = -(probs * np.log(probs)).sum()
    assert float((probs * np.asarray(entropies)).sum()) == pytest.approx(expected, 1e-4)


def test_agrees_with_the_equations_restated_in_numpy():
    params = sharpened(7)
    log_probs, entropies = evaluate(params, NUM_CHOICES, jnp.asarray(EVERY))
    expected = [reference_log_prob(params, NUM_CHOICES, tokens) for tokens in EVERY]
    np.testing.assert_allclose(log_probs, [e[0] for e in expected], atol=1e-4)
    np.testing.assert_allclose(entropies, [e[1] for e in expected], atol=1e-4)


def test_samples_come_as_often_as_their_probability_says():
    params, num = sharpened(3), 20_000
    tokens = policy.sample(params, NUM_CHOICES, np.random.default_rng(1), num)
    strides = np.array([8, 8, 4, 1])
    counts = np.bincount(tokens @ strides, minlength=len(EVERY))
    probs = np.exp(evaluate(params, NUM_CHOICES, jnp.asarray(EVERY))[0])
    # Five standard deviations for each of 24 sequences: wrong once in 70,000 seeds.
    deviation = np.sqrt(num * probs * (1 - probs)) + 1.0
    assert (np.abs(counts - num * probs) < 5 * deviation).all()


def test_starts_nearly_uniform_with_weights_in_nasnets_range():
    num_choices = (4,) * 35
    params = policy.init(0, num_choices)
    for leaf in (params.embed, params.kernel, params.recurrent, params.head):
        assert -0.1 <= float(leaf.min()) < -0.099
        assert 0.099 < float(leaf.max()) <= 0.1
    assert params.kernel.shape == params.recurrent.shape == (100, 400)
    tokens = policy.sample(params, num_choices, np.random.default_rng(1), 100)
    _, entropies = evaluate(params, num_choices, tokens)
    assert float(entropies.min()) > 0.99 * 35 * math.log(4)


def test_gradients_are_finite_where_a_decision_has_no_choice():
    params = policy.init(0, NUM_CHOICES)

    def total(params):
        log_probs, entropies = evaluate(params, NUM_CHOICES, jnp.asarray(EVERY))
        return (log_probs + entropies).sum()

    for leaf in jax.tree.leaves(jax.jit(jax.grad(total))(params)):
        assert bool(jnp.isfinite(leaf).all())


def test_beliefs_of_a_policy_without_weights_are_uniform():
    params = jax.tree.map(jnp.zeros_like, policy.init(0, NUM_CHOICES, 16))
    policy_summary = policy.policy_summary(params, NUM_CHOICES)
    for row, count in zip(policy_summary.probabilities, NUM_CHOICES, strict=True):
        uniform = [1 / count] * count + [0.0] * (4 - count)
        np.testing.assert_allclose(row, uniform, rtol=1e-6)  # some ulps of float32
    entropy = math.log(math.prod(NUM_CHOICES))
    assert policy_summary.entropy == pytest.approx(entropy, rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_beliefs_are_the_marginals_of_all_sequences(seed):
    params = sharpened(seed)
    log_probs, _ = evaluate(params, NUM_CHOICES, jnp.asarray(EVERY))
    probs = np.exp(np.asarray(log_probs, float))
    policy_summary = policy.policy_summary(params, NUM_CHOICES)
    for d, count in enumerate(NUM_CHOICES):
        exact = [probs[EVERY[:, d] == choice].sum() for choice in range(count)]
        # The first depends on nothing; the others are means over 32 samples of values
        # in [0, 1], with a standard error of at most 0.09: four of them, for fixed
        # noise.
        atol = 1e-5 if d == 0 else 0.36
        np.testing.assert_allclose(
            policy_summary.probabilities[d, :count], exact, atol=atol
        )
    entropy = -(probs * np.log(probs)).sum()
    assert policy_summary.entropy == pytest.approx(entropy, rel=0.25)
