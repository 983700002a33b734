"""Tests for controller.policy_gradient."""

import functools
import itertools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from controller import policy, policy_gradient

NUM_CHOICES = (3, 2, 4)
EVERY = np.array(list(itertools.product(*map(range, NUM_CHOICES))), np.int32)


# Without jit, every operation is compiled on its own.
@functools.partial(jax.jit, static_argnums=(1, 3, 4))
def loss(params, num_choices, batch, clip, entropy_weight):
    return policy_gradient.loss(params, num_choices, batch, clip, entropy_weight)[0]


@jax.jit
def log_probs_of(params, tokens):
    return policy.evaluate(params, NUM_CHOICES, jnp.asarray(tokens))[0]


def batch_for(params, tokens, advantages, offsets: float | np.ndarray = 0.0):
    """A batch whose probability ratios are exp(-offsets)."""
    log_probs = log_probs_of(params, tokens)
    return policy_gradient.Batch(
        tokens=tokens,
        old_log_probs=np.asarray(log_probs) + offsets,
        advantages=np.asarray(advantages, np.asarray(log_probs).dtype),
        weights=np.full(len(tokens), 1 / len(tokens)),
    )


def test_gradients_agree_with_finite_differences():
    with jax.enable_x64():
        params = policy.init(0, NUM_CHOICES, 5)
        params = jax.tree.map(lambda leaf: 8.0 * leaf, params)
        assert params.bias.dtype == jnp.float64
        rng = np.random.default_rng(1)
        tokens = EVERY[rng.permutation(len(EVERY))[:8]]
        # Ratios on both sides of the clip, with advantages of both signs.
        offsets = np.array([0.0, 0.1, -0.1, 0.5, -0.5, 0.5, -0.5, 0.05])
        advantages = np.array([1.0, -2.0, 0.5, 1.0, 1.0, -1.0, -1.0, 3.0])
        batch = batch_for(params, tokens, advantages, offsets)

        def value(params):
            return loss(params, NUM_CHOICES, batch, 0.2, 0.3)

        flat, unflatten = jax.flatten_util.ravel_pytree(params)
        gradient = jax.flatten_util.ravel_pytree(jax.grad(value)(params))[0]
        for _ in range(10):
            direction = jnp.asarray(rng.normal(size=flat.shape))
            step = 1e-5 * direction
            rise = value(unflatten(flat + step)) - value(unflatten(flat - step))
            assert float(rise) / 2e-5 == pytest.approx(
                float(gradient @ direction), rel=1e-6, abs=1e-9
            )


@pytest.mark.parametrize(
    ("ratio", "advantage", "gain"),
    [
        # min(r A, clip(r, 0.8, 1.2) A), by hand.
        (1.0, 2.0, 2.0),
        (1.1, 2.0, 2.2),
        (1.5, 2.0, 2.4),
        (0.5, 2.0, 1.0),
        (1.5, -2.0, -3.0),
        (0.5, -2.0, -1.6),
    ],
)
def test_the_clipped_surrogate_by_hand(ratio, advantage, gain):
    params = policy.init(0, NUM_CHOICES, 5)
    batch = batch_for(params, EVERY[:1], [advantage], -np.log(ratio))
    value = loss(params, NUM_CHOICES, batch, 0.2, 0.0)
    assert float(value) == pytest.approx(-gain, rel=1e-5)


def test_padding_weighs_nothing():
    params = policy.init(0, NUM_CHOICES, 5)
    batch = batch_for(params, EVERY[:4], [1.0, -1.0, 2.0, 0.5], 0.1)
    padded = policy_gradient.Batch(
        tokens=np.pad(EVERY[:4], ((0, 3), (0, 0))),
        old_log_probs=np.pad(batch.old_log_probs, (0, 3)),
        advantages=np.pad(batch.advantages, (0, 3), constant_values=9.0),
        weights=np.pad(batch.weights, (0, 3)),
    )
    expected = loss(params, NUM_CHOICES, batch, 0.2, 0.1)
    found = loss(params, NUM_CHOICES, padded, 0.2, 0.1)
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


def test_an_update_moves_probability_to_where_the_advantage_is():
    params = policy.init(0, NUM_CHOICES)
    opt_state = policy_gradient.init_optimizer(params)
    step = policy_gradient.Step(0.01, 0.2, 4, 0.0)
    tokens = np.array([[0, 0, 0], [2, 1, 3]], np.int32)
    batch = policy_gradient.Batch(tokens, np.full(2, np.nan), [1.0, -1.0], [0.5, 0.5])
    before = log_probs_of(params, tokens)
    params, _ = policy_gradient.update(NUM_CHOICES, step, params, opt_state, batch)
    after = log_probs_of(params, tokens)
    assert after[0] > before[0]
    assert after[1] < before[1]


def test_stale_samples_that_are_likely_already_are_left_alone():
    # A ratio above 1 + clip with a positive advantage has no gradient.
    params = policy.init(0, NUM_CHOICES, 5)
    batch = batch_for(params, EVERY[:3], [1.0, 2.0, 0.5], offsets=-0.5)
    grads = jax.grad(loss)(params, NUM_CHOICES, batch, 0.2, 0.0)
    assert all(float(jnp.abs(leaf).max()) == 0.0 for leaf in jax.tree.leaves(grads))
