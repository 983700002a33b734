"""Depthwise convolution that is fast on a CPU too.

XLA's grouped convolution is slow on a CPU, its gradients more so. There, the forward
pass and the gradient of the input are sums of shifted products, which XLA fuses into
one loop; the gradient of the weights is summed over tiles of a few positions, all taps
at a time. Elsewhere the native convolution and its own gradients are used.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

_MOST_IN_TILE = 7  # output positions; measured: more are slower, and 7 divides 224
_DIMS = ("NHWC", "HWIO", "NHWC")

Images = Float[Array, "batch height width channels"]
Kernel = Float[Array, "kernel kernel channels"]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise_conv(x: Images, kernel: Kernel, stride: int) -> Images:
    """Convolves each channel with its own kernel, padding SAME.

    Args:
      x: images, `[batch, height, width, channels]`, float32 or bfloat16.
      kernel: `[k, k, channels]`, k odd.
      stride: in both directions.

    Returns:
      `[batch, ceil(height / stride), ceil(width / stride), channels]` in x's dtype;
      bfloat16 is summed in float32.
    """
    return lax.platform_dependent(
        x, kernel, cpu=partial(_shifted, stride), default=partial(native_conv, stride)
    )


def _forward(
    x: Images, kernel: Kernel, stride: int
) -> tuple[Images, tuple[Images, Kernel]]:
    return depthwise_conv(x, kernel, stride), (x, kernel)


def _backward(
    stride: int, residuals: tuple[Images, Kernel], grad: Images
) -> tuple[Images, Kernel]:
    x, kernel = residuals
    return lax.platform_dependent(
        x,
        kernel,
        grad,
        cpu=partial(_shifted_gradients, stride),
        default=partial(_native_gradients, stride),
    )


depthwise_conv.defvjp(_forward, _backward)


def native_conv(stride: int, x: Images, kernel: Kernel) -> Images:
    """The same by XLA's grouped convolution, on any device."""
    return lax.conv_general_dilated(
        x,
        kernel[:, :, None, :].astype(x.dtype),
        (stride, stride),
        "SAME",
        dimension_numbers=_DIMS,
        feature_group_count=x.shape[-1],
    )


def _native_gradients(
    stride: int, x: Images, kernel: Kernel, grad: Images
) -> tuple[Images, Kernel]:
    _, vjp = jax.vjp(partial(native_conv, stride), x, kernel)
    return vjp(grad)


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int, int]:
    """Returns output size, padding before and padding after, as SAME has them."""
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    return out, total // 2, total - total // 2


def _live_taps(size: int, kernel: int, stride: int) -> range:
    """Taps that touch the image at all; on small maps the outer ones see padding."""
    out, before, _ = _same_padding(size, kernel, stride)
    live = [
        tap
        for tap in range(kernel)
        if any(0 <= tap + stride * i - before < size for i in range(out))
    ]
    return range(live[0], live[-1] + 1)


def _pad(x: Images, kernel: int, stride: int) -> Images:
    """Pads by what the live taps reach: window (i, j) of them starts at row i."""

    def reach(size: int) -> tuple[int, int, int]:
        out, before, _ = _same_padding(size, kernel, stride)
        taps = _live_taps(size, kernel, stride)
        after = (out - 1) * stride + taps.stop - before - size
        return before - taps.start, after, 0

    zero = jnp.zeros((), x.dtype)
    none = (0, 0, 0)
    return lax.pad(x, zero, (none, reach(x.shape[1]), reach(x.shape[2]), none))


def _window(padded: Images, i: int, j: int, rows: int, columns: int, stride: int):
    return padded[
        :,
        i : i + (rows - 1) * stride + 1 : stride,
        j : j + (columns - 1) * stride + 1 : stride,
    ]


def _shifted(stride: int, x: Images, kernel: Kernel) -> Images:
    size = kernel.shape[0]
    (rows, *_), (columns, *_) = (_same_padding(n, size, stride) for n in x.shape[1:3])
    kernel32 = kernel.astype(jnp.float32)
    padded = _pad(x, size, stride)
    total = jnp.zeros((), jnp.float32)
    for a, i in enumerate(_live_taps(x.shape[1], size, stride)):
        for b, j in enumerate(_live_taps(x.shape[2], size, stride)):
            window = _window(padded, a, b, rows, columns, stride)
            total = total + window * kernel32[i, j]
    return total.astype(x.dtype)


def _shifted_gradients(
    stride: int, x: Images, kernel: Kernel, grad: Images
) -> tuple[Images, Kernel]:
    return (
        _input_gradient(stride, x, kernel, grad),
        _kernel_gradient(stride, x, kernel, grad),
    )


def _input_gradient(stride: int, x: Images, kernel: Kernel, grad: Images) -> Images:
    """Gradient of the input, one phase of the stride at a time.

    Input row r gets `kernel[i] * grad[a]` from every tap i and output row a with
    a * stride + i - before = r. Rows of one residue modulo the stride share their
    taps, so each phase is a stride-1 sum of shifted products; the phases are then
    interleaved.
    """
    size, kernel32 = kernel.shape[0], kernel.astype(jnp.float32)
    height, width = x.shape[1:3]
    rows, columns = -(-height // stride), -(-width // stride)
    row_phases = [_phase_taps(height, size, stride, p) for p in range(stride)]
    column_phases = [_phase_taps(width, size, stride, p) for p in range(stride)]
    row_pads = _phase_padding(row_phases, rows, grad.shape[1])
    column_pads = _phase_padding(column_phases, columns, grad.shape[2])
    padded = lax.optimization_barrier(
        jnp.pad(grad, ((0, 0), row_pads, column_pads, (0, 0)))
    )

    def phase(row_taps: list[tuple[int, int]], column_taps: list[tuple[int, int]]):
        total = jnp.zeros((x.shape[0], rows, columns, x.shape[3]), jnp.float32)
        for i, a in row_taps:
            for j, b in column_taps:
                top, left = row_pads[0] + a, column_pads[0] + b
                window = padded[:, top : top + rows, left : left + columns]
                total = total + window * kernel32[i, j]
        return total

    if stride == 1:
        return phase(row_phases[0], column_phases[0]).astype(x.dtype)
    phases = [jnp.stack([phase(r, c) for c in column_phases], 3) for r in row_phases]
    full = jnp.stack(phases, 2).reshape(
        x.shape[0], rows * stride, columns * stride, x.shape[3]
    )
    return full[:, :height, :width].astype(x.dtype)


def _phase_taps(
    size: int, kernel: int, stride: int, phase: int
) -> list[tuple[int, int]]:
    """Taps i that reach input rows of this phase, with the first output row they do."""
    _, before, _ = _same_padding(size, kernel, stride)
    return [
        (i, (phase + before - i) // stride)
        for i in _live_taps(size, kernel, stride)
        if (phase + before - i) % stride == 0
    ]


def _phase_padding(
    phases: list[list[tuple[int, int]]], wanted: int, given: int
) -> tuple[int, int]:
    """Padding with which every tap of every phase finds `wanted` output rows."""
    firsts = [first for taps in phases for _, first in taps]
    return max(0, -min(firsts)), max(0, max(firsts) + wanted - given)


def _kernel_gradient(stride: int, x: Images, kernel: Kernel, grad: Images) -> Kernel:
    """Gradient of the kernel: for each tap, the sum of window * grad.

    A loop over small tiles of the output. Each of a tile's positions adds its gradient,
    times all the taps' inputs: those stand together in memory, channels innermost.
    """
    size = kernel.shape[0]
    batch, rows, columns, channels = grad.shape
    row_taps = _live_taps(x.shape[1], size, stride)
    column_taps = _live_taps(x.shape[2], size, stride)
    taps = (len(row_taps), len(column_taps))
    padded = lax.optimization_barrier(_pad(x, size, stride))
    tile = _tile(rows, columns)
    grid = (batch, rows // tile[0], columns // tile[1])
    reach = [(n - 1) * stride + t for n, t in zip(tile, taps, strict=True)]

    def add_tile(index: Array, total: Float[Array, "rows columns channels"]) -> Array:
        image, *corner = jnp.unravel_index(index, grid)
        top, left = (c * n for c, n in zip(corner, tile, strict=True))
        inputs = lax.dynamic_slice(
            padded, (image, top * stride, left * stride, 0), (1, *reach, channels)
        )
        grads = lax.dynamic_slice(grad, (image, top, left, 0), (1, *tile, channels))
        # Turned over and back: a total that is updated where it stands makes a loop
        # that is not vectorized.
        total = total[::-1]
        for i, j in np.ndindex(tile):
            window = _window(inputs, i * stride, j * stride, *taps, 1)[0]
            total = total + window.astype(jnp.float32) * grads[0, i, j]
        return total[::-1]

    zeros = jnp.zeros((*taps, channels), jnp.float32)
    sums = lax.fori_loop(0, math.prod(grid), add_tile, zeros)[::-1]
    outside = [(taps.start, size - taps.stop) for taps in (row_taps, column_taps)]
    return jnp.pad(sums, (*outside, (0, 0))).astype(kernel.dtype)


def _tile(rows: int, columns: int) -> tuple[int, int]:
    """Divisors of the output's sides: few positions, but more than one if possible."""

    def divisor(size: int, most: int) -> int:
        return max(n for n in range(1, most + 1) if size % n == 0)

    height = divisor(rows, 2)
    return height, divisor(columns, _MOST_IN_TILE // height)
