"""Batch normalization with its hand-written gradient against autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trainers.networks import normalization

ACTIVATIONS = {
    None: lambda x: x,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "swish": jax.nn.swish,
}


def textbook(x, scale, bias, _running, activation, epsilon):
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    normal = (x - mean) / jnp.sqrt(variance + epsilon)
    return ACTIVATIONS[activation](normal * scale + bias), mean, variance


@pytest.mark.parametrize("epsilon", [1e-3, 0.5])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_value_and_gradients_equal_the_textbook_form(activation, epsilon):
    rng = np.random.default_rng(0)
    x, grad = (jnp.asarray(rng.normal(2, 3, (4, 5, 5, 6)), "float32") for _ in "ab")
    scale, bias = (jnp.asarray(rng.normal(1, 1, 6), "float32") for _ in "ab")

    def run(f):
        (y, mean, variance), vjp = jax.vjp(
            lambda *args: f(*args, None, activation, epsilon), x, scale, bias
        )
        zero = jnp.zeros(6)
        return y, mean, variance, *vjp((grad, zero, zero))

    for got, want in zip(
        run(normalization.normalize_batch), run(textbook), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5)


STATISTICS = ([3.0, -1.0], [4.0, 0.25])  # mean and variance, not a batch's own


def by_hand(x, scale, bias, mean, variance):
    """In float64 by NumPy, with swish."""
    y = (np.asarray(x, np.float64) - mean) / np.sqrt(np.add(variance, 1e-3))
    y = y * scale + bias
    return y / (1 + np.exp(-y))


@pytest.fixture
def inputs():
    x = np.random.default_rng(1).normal(2, 3, (3, 4, 4, 2)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray([1.5, 0.5]), jnp.asarray([0.3, 1.0])


def test_evaluation_uses_the_statistics_it_is_given(inputs):
    given = map(jnp.asarray, STATISTICS)
    found = normalization.normalize(*inputs, *given, "swish")
    want = by_hand(*inputs, *STATISTICS)
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("train", [True, False])
def test_one_executable_trains_with_the_batchs_and_evaluates_with_the_running(
    inputs, train
):
    batch = inputs[0].mean((0, 1, 2)), inputs[0].var((0, 1, 2))
    running = normalization.Running(*map(jnp.asarray, STATISTICS), jnp.asarray(train))
    found, mean, variance = normalization.normalize_batch(*inputs, running, "swish")
    used = batch if train else STATISTICS
    np.testing.assert_allclose(found, by_hand(*inputs, *used), rtol=1e-4, atol=1e-5)
    # The batch's in both cases: the caller decides what becomes of them.
    np.testing.assert_allclose(mean, batch[0], rtol=1e-5)
    np.testing.assert_allclose(variance, batch[1], rtol=1e-4)
