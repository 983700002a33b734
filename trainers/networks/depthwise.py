"""Depthwise convolution that is fast on a CPU too.

XLA's grouped convolution is slow on a CPU, its gradients more so. There, the forward
pass and the gradient of the input are sums of shifted products, which XLA fuses into
one loop; the gradient of the weights is summed over tiles of a few positions, all taps
at a time. All work on as many images at once as fit the cache. Elsewhere the native
convolution and its own gradients are used.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from search_space.spec import Padding

_CACHE_BYTES = 1 << 20  # half a core's second-level cache: images worked on at once
_MOST_IN_TILE = 7  # output positions; measured: more are slower, and 7 divides 224
_DIMS = ("NHWC", "HWIO", "NHWC")

Images = Float[Array, "batch height width channels"]
Outputs = Float[Array, "batch rows columns channels"]
Padded = Float[Array, "group padded_height padded_width channels"]
PaddedGrads = Float[Array, "group padded_rows padded_columns channels"]
Kernel = Float[Array, "kernel kernel channels"]


class _Window(NamedTuple):
    """How a kernel of this size goes over a side: in both directions alike."""

    kernel: int
    stride: int
    padding: Padding


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise_conv(
    x: Images, kernel: Kernel, stride: int, padding: Padding = "same"
) -> Outputs:
    """Convolves each channel with its own kernel.

    Args:
      x: images, `[batch, height, width, channels]`, float32 or bfloat16.
      kernel: `[k, k, channels]`, k odd.
      stride: in both directions.
      padding: as in `search_space.spec.ArchSpec`.

    Returns:
      `[batch, ceil(height / stride), ceil(width / stride), channels]` in x's dtype;
      bfloat16 is summed in float32.
    """
    return lax.platform_dependent(
        x,
        kernel,
        cpu=partial(_shifted, stride, padding),
        default=partial(native_conv, stride, padding),
    )


def _forward(
    x: Images, kernel: Kernel, stride: int, padding: Padding
) -> tuple[Outputs, tuple[Images, Kernel]]:
    return depthwise_conv(x, kernel, stride, padding), (x, kernel)


def _backward(
    stride: int, padding: Padding, residuals: tuple[Images, Kernel], grad: Outputs
) -> tuple[Images, Kernel]:
    x, kernel = residuals
    return lax.platform_dependent(
        x,
        kernel,
        grad,
        cpu=partial(_shifted_gradients, stride, padding),
        default=partial(_native_gradients, stride, padding),
    )


depthwise_conv.defvjp(_forward, _backward)


def lax_padding(padding: Padding, kernel: int) -> str | list[tuple[int, int]]:
    """Returns what JAX's windowed operations take for it; `kernel` is a side."""
    return "SAME" if padding == "same" else [(kernel // 2, kernel // 2)] * 2


def native_conv(stride: int, padding: Padding, x: Images, kernel: Kernel) -> Outputs:
    """The same by XLA's grouped convolution, on any device."""
    return lax.conv_general_dilated(
        x,
        kernel[:, :, None, :].astype(x.dtype),
        (stride, stride),
        lax_padding(padding, kernel.shape[0]),
        dimension_numbers=_DIMS,
        feature_group_count=x.shape[-1],
    )


def _native_gradients(
    stride: int, padding: Padding, x: Images, kernel: Kernel, grad: Outputs
) -> tuple[Images, Kernel]:
    _, vjp = jax.vjp(partial(native_conv, stride, padding), x, kernel)
    return vjp(grad)


def _placed(size: int, window: _Window) -> tuple[int, int]:
    """Returns output size and padding before; the kernel is odd."""
    out = -(-size // window.stride)
    if window.padding == "symmetric":
        return out, window.kernel // 2
    total = max((out - 1) * window.stride + window.kernel - size, 0)
    return out, total // 2


def _live_taps(size: int, window: _Window) -> range:
    """Taps that touch the image at all; on small maps the outer ones see padding."""
    out, before = _placed(size, window)
    live = [
        tap
        for tap in range(window.kernel)
        if any(0 <= tap + window.stride * i - before < size for i in range(out))
    ]
    return range(live[0], live[-1] + 1)


def _reach(size: int, window: _Window) -> tuple[int, int]:
    """Padding before and after that the live taps read, never negative."""
    out, before = _placed(size, window)
    taps = _live_taps(size, window)
    after = (out - 1) * window.stride + taps.stop - before - size
    return before - taps.start, max(0, after)


def _frame(group: int, like: Images, pads: Sequence[tuple[int, int]]) -> Padded:
    """Zeros for `group` images with their padding."""
    height, width = (n + sum(p) for n, p in zip(like.shape[1:3], pads, strict=True))
    return jnp.zeros((group, height, width, like.shape[3]), like.dtype)


def _fill(
    frame: Padded, images: Images, first: Array, pads: Sequence[tuple[int, int]]
) -> Padded:
    """Puts the images from `first` on inside the padding.

    Written into memory that a loop hands on. An operation that pads would be fused
    with what computes the images, and once more with each that reads them.
    """
    group = lax.dynamic_slice_in_dim(images, first, frame.shape[0])
    return lax.dynamic_update_slice(frame, group, (0, pads[0][0], pads[1][0], 0))


def _window(
    padded: Padded, i: int, j: int, rows: int, columns: int, stride: int
) -> Float[Array, "group {rows} {columns} channels"]:
    return padded[
        :,
        i : i + (rows - 1) * stride + 1 : stride,
        j : j + (columns - 1) * stride + 1 : stride,
    ]


def _shifted(stride: int, padding: Padding, x: Images, kernel: Kernel) -> Outputs:
    kernel32 = kernel.astype(jnp.float32)
    over = _Window(kernel.shape[0], stride, padding)
    batch, *sides, channels = x.shape
    rows, columns = (_placed(n, over)[0] for n in sides)
    row_taps, column_taps = (_live_taps(n, over) for n in sides)
    pads = [_reach(n, over) for n in sides]
    group = _group_size(batch, 4 * x[0].nbytes)

    def convolve_group(
        index: Array, carried: tuple[Padded, Outputs]
    ) -> tuple[Padded, Outputs]:
        padded, out = carried
        padded = _fill(padded, x, index * group, pads)
        total = jnp.zeros((), jnp.float32)
        for a, i in enumerate(row_taps):
            for b, j in enumerate(column_taps):
                window = _window(padded, a, b, rows, columns, stride)
                total = total + window * kernel32[i, j]
        total = total.astype(x.dtype)
        return padded, lax.dynamic_update_slice_in_dim(out, total, index * group, 0)

    out = lax.empty((batch, rows, columns, channels), x.dtype)
    carried = _frame(group, x, pads), out
    return lax.fori_loop(0, batch // group, convolve_group, carried)[1]


def _shifted_gradients(
    stride: int, padding: Padding, x: Images, kernel: Kernel, grad: Outputs
) -> tuple[Images, Kernel]:
    size = kernel.shape[0]
    over = _Window(size, stride, padding)
    batch, *sides, channels = x.shape
    phases = [_Phases.of(n, over) for n in sides]
    taps = [_live_taps(n, over) for n in sides]
    pads = [_reach(n, over) for n in sides]
    grad_pads = [axis.padding for axis in phases]
    group = _group_size(batch, 4 * (x[0].nbytes + grad[0].nbytes))

    def add_group(
        index: Array, carried: tuple[Padded, PaddedGrads, Images, Array]
    ) -> tuple[Padded, PaddedGrads, Images, Array]:
        padded, padded_grad, grad_x, sums = carried
        padded = _fill(padded, x, index * group, pads)
        padded_grad = _fill(padded_grad, grad, index * group, grad_pads)
        sums = _add_tiles(sums, padded, padded_grad, grad_pads, grad.shape, stride)
        through = _input_gradient(padded_grad, kernel, phases)
        through = through[:, : sides[0], : sides[1]].astype(x.dtype)
        grad_x = lax.dynamic_update_slice_in_dim(grad_x, through, index * group, 0)
        return padded, padded_grad, grad_x, sums

    *_, grad_x, sums = lax.fori_loop(
        0,
        batch // group,
        add_group,
        (
            _frame(group, x, pads),
            _frame(group, grad, grad_pads),
            lax.empty(x.shape, x.dtype),
            jnp.zeros((*map(len, taps), channels), jnp.float32),
        ),
    )
    outside = [(axis.start, size - axis.stop) for axis in taps]
    return grad_x, jnp.pad(sums[::-1], (*outside, (0, 0))).astype(kernel.dtype)


class _Phases(NamedTuple):
    """How rows (or columns) of the input get their gradient.

    Input row r gets `kernel[i] * grad[a]` from every tap i and output row a with
    a * stride + i - before = r. Rows of one residue modulo the stride, a phase, share
    their taps.

    Attributes:
      taps: of each phase: every tap with the padded output row where it starts.
      size: rows of a phase.
      padding: of the output rows, with which every tap finds `size` of them.
    """

    taps: list[list[tuple[int, int]]]
    size: int
    padding: tuple[int, int]

    @classmethod
    def of(cls, size: int, window: _Window) -> "_Phases":
        out, before = _placed(size, window)
        stride = window.stride
        phase_size = -(-size // stride)
        taps = [
            [
                (i, (phase + before - i) // stride)
                for i in _live_taps(size, window)
                if (phase + before - i) % stride == 0
            ]
            for phase in range(stride)
        ]
        firsts = [first for phase in taps for _, first in phase]
        lead = max(0, -min(firsts))
        padded = [[(i, first + lead) for i, first in phase] for phase in taps]
        return cls(padded, phase_size, (lead, max(0, max(firsts) + phase_size - out)))


def _input_gradient(
    padded_grad: PaddedGrads, kernel: Kernel, phases: Sequence[_Phases]
) -> Images:
    """Gradient of the input, at least: to a multiple of the stride.

    Each phase is a stride-1 sum of shifted products; the phases are then interleaved.
    """
    by_row, by_column = phases
    kernel32 = kernel.astype(jnp.float32)
    shape = (len(padded_grad), by_row.size, by_column.size, kernel.shape[2])

    def phase(row_taps: list[tuple[int, int]], column_taps: list[tuple[int, int]]):
        total = jnp.zeros(shape, jnp.float32)
        for i, top in row_taps:
            for j, left in column_taps:
                window = _window(padded_grad, top, left, *shape[1:3], 1)
                total = total + window * kernel32[i, j]
        return total

    rows = [jnp.stack([phase(r, c) for c in by_column.taps], 3) for r in by_row.taps]
    stride = len(rows)
    return jnp.stack(rows, 2).reshape(
        len(padded_grad), by_row.size * stride, by_column.size * stride, shape[3]
    )


def _add_tiles(
    sums: Float[Array, "taps_down taps_across channels"],
    padded: Padded,
    padded_grad: PaddedGrads,
    grad_pads: Sequence[tuple[int, int]],
    grad_shape: tuple[int, ...],
    stride: int,
) -> Float[Array, "taps_down taps_across channels"]:
    """Adds the kernel's gradient: for each tap, the sum of window * grad.

    A loop over small tiles of the output. Each of a tile's positions adds its gradient,
    times all the taps' inputs: those stand together in memory, channels innermost.

    `sums` has its rows in reverse order, here and afterwards.
    """
    *taps, channels = sums.shape
    _, rows, columns, _ = grad_shape
    tile = _tile(rows, columns)
    grid = (len(padded), rows // tile[0], columns // tile[1])
    reach = [(n - 1) * stride + t for n, t in zip(tile, taps, strict=True)]
    (rows_before, _), (columns_before, _) = grad_pads

    def add_tile(index: Array, sums: Array) -> Array:
        image, *corner = jnp.unravel_index(index, grid)
        top, left = (c * n for c, n in zip(corner, tile, strict=True))
        inputs = lax.dynamic_slice(
            padded, (image, top * stride, left * stride, 0), (1, *reach, channels)
        )
        grads = lax.dynamic_slice(
            padded_grad,
            (image, top + rows_before, left + columns_before, 0),
            (1, *tile, channels),
        ).astype(jnp.float32)
        # Turned over and back: sums that are updated where they stand make a loop that
        # is not vectorized.
        total = sums[::-1]
        for i, j in np.ndindex(tile):
            window = _window(inputs, i * stride, j * stride, taps[0], taps[1], 1)[0]
            total = total + window * grads[0, i, j]
        return total[::-1]

    return lax.fori_loop(0, math.prod(grid), add_tile, sums)


def _tile(rows: int, columns: int) -> tuple[int, int]:
    """Divisors of the output's sides: few positions, but more than one if possible."""

    def divisor(size: int, most: int) -> int:
        return max(n for n in range(1, most + 1) if size % n == 0)

    height = divisor(rows, 2)
    return height, divisor(columns, _MOST_IN_TILE // height)


def _group_size(batch: int, bytes_per_image: int) -> int:
    """Largest divisor of the batch whose images fit the cache together.

    All of a batch whose size is left open (`jax.export`), which JAX annotates as int.
    """
    if not isinstance(batch, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        return batch
    fitting = max(1, _CACHE_BYTES // bytes_per_image)
    return max(n for n in range(1, batch + 1) if batch % n == 0 and n <= fitting)
