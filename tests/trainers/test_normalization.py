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


def test_evaluation_with_the_batch_statistics_equals_training():
    x = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4, 4, 2)), "float32")
    scale, bias = jnp.asarray([1.5, 0.5]), jnp.asarray([0.0, 1.0])
    y, mean, variance = normalization.normalize_batch(x, scale, bias, None, "swish")
    again = normalization.normalize(x, scale, bias, mean, variance, "swish")
    np.testing.assert_allclose(y, again, rtol=1e-6)
