"""Batch normalization fused with the activation behind it.

The training form has a hand-written gradient. It keeps the convolution's output and
two vectors instead of every intermediate map, and it is laid out in two passes over
memory; autodiff's takes about half as long again on a CPU.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from search_space.spec import NORM_EPSILON, Activation

_RELU6_LIMIT = 6.0

Maps = Float[Array, "batch height width channels"]
PerChannel = Float[Array, " channels"]
Weights = Array
"""Per channel too. Without a shape: those that nobody has trained yet are NumPy's,
or what JAX makes of that as it traces."""


def activate(x: Array, activation: Activation | None) -> Array:
    """Returns the activation of `x`; None is the identity."""
    match activation:
        case None:
            return x
        case "relu":
            return jnp.maximum(x, 0)
        case "relu6":
            return jnp.clip(x, 0, _RELU6_LIMIT)
        case "swish":
            return x * _sigmoid(x)


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1 + jnp.tanh(0.5 * x))  # tanh is cheaper than exp and a division


def _slope(half: Array, activation: Activation) -> Array:
    """Returns the activation's slope at twice `half`."""
    match activation:
        case "relu":
            return (half > 0).astype(half.dtype)
        case "relu6":
            inside = (half > 0) & (half < _RELU6_LIMIT / 2)
            return inside.astype(half.dtype)
        case "swish":
            tanh = jnp.tanh(half)
            return (0.5 + 0.5 * tanh) * (1 + half * (1 - tanh))


def normalize(
    x: Maps,
    scale: Weights,
    bias: Weights,
    mean: PerChannel,
    variance: PerChannel,
    activation: Activation | None,
    epsilon: float = NORM_EPSILON,
) -> Maps:
    """Evaluation form: normalizes with given statistics, then activates."""
    factor = lax.rsqrt(variance + epsilon) * scale
    factor, offset = lax.optimization_barrier((factor, bias - mean * factor))
    y = x.astype(jnp.float32) * factor + offset
    return activate(y, activation).astype(x.dtype)


class Running(NamedTuple):
    """Statistics to normalize with in place of the batch's, unless `train` holds."""

    mean: PerChannel
    variance: PerChannel
    train: Array


_Residuals = tuple[Maps, Any, Any, PerChannel, PerChannel]  # Any: Weights


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def normalize_batch(
    x: Maps,
    scale: Weights,
    bias: Weights,
    running: Running | None,
    activation: Activation | None,
    epsilon: float = NORM_EPSILON,
) -> tuple[Maps, PerChannel, PerChannel]:
    """Training form: normalizes with the batch's own statistics, then activates.

    With `running` one executable serves training and evaluation.

    Returns:
      The activated maps in x's dtype; the batch's mean and (biased) variance over
      batch and space in float32. Gradients flow through the maps alone, and are
      those of training.
    """
    outputs, _ = _forward(x, scale, bias, running, activation, epsilon)
    return outputs


def _forward(
    x: Maps,
    scale: Weights,
    bias: Weights,
    running: Running | None,
    activation: Activation | None,
    epsilon: float,
) -> tuple[tuple[Maps, PerChannel, PerChannel], _Residuals]:
    x32 = x.astype(jnp.float32)
    mean = used_mean = x32.mean((0, 1, 2))
    variance = jnp.maximum((x32 * x32).mean((0, 1, 2)) - mean * mean, 0)
    used_variance = variance
    if running is not None:
        used_mean = jnp.where(running.train, mean, running.mean)
        used_variance = jnp.where(running.train, variance, running.variance)
    y = normalize(x, scale, bias, used_mean, used_variance, activation, epsilon)
    return (y, mean, variance), (x, scale, bias, mean, variance)


def _backward(
    activation: Activation | None,
    epsilon: float,
    residuals: _Residuals,
    grads: tuple[Maps, PerChannel, PerChannel],
) -> tuple[Maps, PerChannel, PerChannel, None]:
    x, scale, bias, mean, variance = residuals
    count = x.size // x.shape[-1]
    x32 = x.astype(jnp.float32)
    inverse_std = lax.rsqrt(variance + epsilon)
    factor = inverse_std * scale
    offset = bias - mean * factor
    grad = grads[0].astype(jnp.float32)
    grad_y = grad_y_again = grad
    if activation is not None:
        # The barrier ends a pass over memory: the sums read what it wrote. The last
        # pass computes the same again, from another expression lest XLA find out:
        # overwriting grad_y in place, its loop would be one that no compiler dares
        # to vectorize.
        slope = _slope(0.5 * (x32 * factor + offset), activation)
        grad_y = lax.optimization_barrier(grad * slope)
        slope_again = _slope(x32 * (0.5 * factor) + 0.5 * offset, activation)
        grad_y_again = grad * slope_again
    grad_bias = grad_y.sum((0, 1, 2))
    grad_scale = inverse_std * ((grad_y * x32).sum((0, 1, 2)) - mean * grad_bias)
    # d/dx of factor * (x - mean(x)) with the variance's own dependence on x: a
    # combination of grad_y, x and a constant, with coefficients per channel.
    along_x = -factor * grad_scale * inverse_std / count
    constant = -factor * grad_bias / count - along_x * mean
    grad_x = factor * grad_y_again + along_x * x32 + constant
    return grad_x.astype(x.dtype), grad_scale, grad_bias, None


normalize_batch.defvjp(_forward, _backward)
