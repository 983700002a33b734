"""Depthwise convolution against XLA's grouped convolution."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from trainers.networks.depthwise import depthwise_conv


def grouped(x, kernel, stride, padding):
    half = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x,
        kernel[:, :, None, :],
        (stride, stride),
        "SAME" if padding == "same" else ((half, half), (half, half)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def value_and_gradients(conv, x, kernel, grad, stride, padding):
    @jax.jit
    def both(x, kernel, grad):
        out, vjp = jax.vjp(lambda x, k: conv(x, k, stride, padding), x, kernel)
        return out, *vjp(grad)

    return both(x, kernel, grad)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 17),
    width=st.integers(1, 17),
    kernel=st.sampled_from([1, 3, 5, 7]),
    stride=st.sampled_from([1, 2, 3]),
    padding=st.sampled_from(["same", "symmetric"]),
    batch=st.integers(1, 6),
    channels=st.integers(1, 9),
    dtype=st.sampled_from([jnp.float32, jnp.bfloat16]),
)
def test_equals_grouped_convolution_with_both_gradients(
    height, width, kernel, stride, padding, batch, channels, dtype
):
    rng = np.random.default_rng(height * 1000 + width)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)  # noqa: E731
    x = draw(batch, height, width, channels)
    weights = draw(kernel, kernel, channels)
    grad = draw(batch, -(-height // stride), -(-width // stride), channels)
    got = value_and_gradients(depthwise_conv, x, weights, grad, stride, padding)
    # The reference works in float64: the question is the error of ours alone.
    with jax.enable_x64(True):  # noqa: FBT003
        wide = [jnp.asarray(np.asarray(a, np.float64)) for a in (x, weights, grad)]
        want = value_and_gradients(grouped, *wide, stride, padding)
    # Half a unit in the last place of the result, and a rounding error per term.
    eps = float(jnp.finfo(dtype).eps)
    for ours, reference in zip(got, want, strict=True):
        assert ours.dtype == dtype
        scale = float(np.abs(reference).max()) + 1.0
        error = np.abs(np.asarray(ours, np.float64) - np.asarray(reference)).max()
        assert error <= scale * (eps / 2 + batch * height * width * 6e-8)


@pytest.mark.parametrize(
    ("stride", "padding"), list(itertools.product([1, 2], ["same", "symmetric"]))
)
def test_by_hand_on_one_row(stride, padding):
    # 1x4 image, kernel's middle row (1, 10, 100); the other rows see padding only.
    x = jnp.asarray([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 4, 1)
    kernel = jnp.full((3, 3, 1), 7.0).at[1].set(jnp.asarray([[1.0], [10.0], [100.0]]))
    every = [210.0, 321.0, 432.0, 43.0]  # out[i] = x[i-1] + 10 x[i] + 100 x[i+1]
    want = {
        (1, "same"): every,
        (2, "same"): [321.0, 43.0],  # an even side pads only after: from 0 and 2
        (1, "symmetric"): every,
        (2, "symmetric"): [210.0, 432.0],  # windows start at -1 and 1
    }[stride, padding]
    got = depthwise_conv(x, kernel, stride, padding)
    np.testing.assert_array_equal(got.reshape(-1), want)
