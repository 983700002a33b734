"""The pieces a network is made of, each with at most one convolution's weights.

A unit is the grain at which compiled code is shared between networks
(`trainers.steps.executables`): two units with the same hyperparameters have equal NNX
graph definitions and run the same executable, whatever network they stand in.

Every unit is called as `unit(x, shortcut, mode)`; `shortcut`, where given, is added to
the output.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from search_space.spec import NORM_EPSILON, Activation, Padding
from trainers.networks import init
from trainers.networks.depthwise import depthwise_conv, lax_padding
from trainers.networks.normalization import (
    Running,
    activate,
    normalize,
    normalize_batch,
)

Maps = Float[Array, "batch height width channels"]
NewMaps = Float[Array, "batch rows columns out_channels"]
"""What a unit makes of maps, where sides or channels may change."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Mode:
    """How a network is run.

    Attributes:
      train: use the batch's statistics and update the running ones. A traced bool
        makes one executable that does both; when it is false, `momentum` must be 1.
      momentum: of the running statistics; each becomes
        `momentum * old + (1 - momentum) * batch`.
      key: for dropout and stochastic depth; None switches both off.
      dropout: share of the network's dropout rate that is applied; None for all of it.
      drop_path: the same of its rates of stochastic depth.
    """

    train: bool | Array = dataclasses.field(metadata={"static": False})
    momentum: float | Array = 0.99  # TensorFlow reference
    key: Array | None = None
    dropout: float | Array | None = None
    drop_path: float | Array | None = None


EVALUATION = Mode(train=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convention:
    """Where frameworks differ; as in `search_space.spec.ArchSpec`."""

    padding: Padding = "same"
    norm_epsilon: float = NORM_EPSILON


TENSORFLOW = Convention()


class BatchNorm(nnx.Module):
    """Batch normalization and the activation behind it."""

    def __init__(
        self,
        channels: int,
        activation: Activation | None,
        epsilon: float = NORM_EPSILON,
    ) -> None:
        self.activation: Activation | None = activation
        self.epsilon = epsilon
        self.scale = nnx.Param(np.ones(channels, np.float32))
        self.bias = nnx.Param(np.zeros(channels, np.float32))
        self.mean = nnx.BatchStat(np.zeros(channels, np.float32))
        self.variance = nnx.BatchStat(np.ones(channels, np.float32))

    def __call__(self, x: Maps, mode: Mode) -> Maps:
        """Returns normalized, activated maps; in training updates the statistics."""
        scale, bias = self.scale[...], self.bias[...]
        running = self.mean[...], self.variance[...]
        if mode.train is False:
            return normalize(x, scale, bias, *running, self.activation, self.epsilon)
        shared = None if mode.train is True else Running(*running, mode.train)
        y, mean, variance = normalize_batch(  # pyright: ignore[reportGeneralTypeIssues]
            x, scale, bias, shared, self.activation, self.epsilon
        )
        updated = [
            mode.momentum * old + (1 - mode.momentum) * new
            for old, new in zip(running, (mean, variance), strict=True)
        ]
        self.mean[...], self.variance[...] = updated
        return y


class ConvUnit(nnx.Module):
    """Convolution kxk - BN - activation, ResNet's max-pooling where asked.

    `activation_after` follows the addition of the shortcut (ResNet).
    """

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int,
        activation: Activation | None,
        activation_after: Activation | None = None,
        max_pool: tuple[int, int] | None = None,
        drop_rate: float = 0.0,
        convention: Convention = TENSORFLOW,
    ) -> None:
        self.stride = stride
        self.padding: Padding = convention.padding
        self.activation_after: Activation | None = activation_after
        self.max_pool = max_pool
        self.drop_rate = drop_rate
        self.kernel = nnx.Param(
            init.conv_kernel(rng, kernel, in_channels, out_channels)
        )
        self.norm = BatchNorm(out_channels, activation, convention.norm_epsilon)

    def __call__(self, x: Maps, shortcut: NewMaps | None, mode: Mode) -> NewMaps:
        """Returns this unit's maps, with the shortcut added."""
        y = self.norm(_conv(x, self.kernel[...], self.stride, self.padding), mode)
        if self.max_pool is not None:
            y = max_pool(y, self.max_pool, self.padding)
        y = _add(y, shortcut, self.drop_rate, mode)
        return activate(y, self.activation_after)


class DepthwiseUnit(nnx.Module):
    """Depthwise convolution kxk - BN - activation."""

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        channels: int,
        kernel: int,
        stride: int,
        activation: Activation,
        convention: Convention = TENSORFLOW,
    ) -> None:
        self.stride = stride
        self.padding: Padding = convention.padding
        self.kernel = nnx.Param(init.depthwise_kernel(rng, kernel, channels))
        self.norm = BatchNorm(channels, activation, convention.norm_epsilon)

    def __call__(self, x: Maps, shortcut: NewMaps | None, mode: Mode) -> NewMaps:
        """Returns this unit's maps, with the shortcut added."""
        y = self.norm(
            depthwise_conv(x, self.kernel[...], self.stride, self.padding), mode
        )
        return _add(y, shortcut, 0.0, mode)


class SqueezeExciteUnit(nnx.Module):
    """Scales each channel by a gate computed from all channels' means.

    Pool, 1x1 - activation, 1x1 - sigmoid, with biases (arXiv:1709.01507).
    """

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        channels: int,
        hidden: int,
        activation: Activation,
        drop_rate: float = 0.0,
    ) -> None:
        self.activation: Activation = activation
        self.drop_rate = drop_rate
        self.reduce = nnx.Param(init.conv_kernel(rng, 1, channels, hidden)[0, 0])
        self.reduce_bias = nnx.Param(np.zeros(hidden, np.float32))
        self.expand = nnx.Param(init.conv_kernel(rng, 1, hidden, channels)[0, 0])
        self.expand_bias = nnx.Param(np.zeros(channels, np.float32))

    def __call__(self, x: Maps, shortcut: Maps | None, mode: Mode) -> Maps:
        """Returns this unit's maps, with the shortcut added."""
        pooled = x.astype(jnp.float32).mean((1, 2))
        # Two small products: cheaper to repeat than to keep what is between them.
        gate = jax.checkpoint(_gate, static_argnums=5)(
            pooled,
            self.reduce[...],
            self.reduce_bias[...],
            self.expand[...],
            self.expand_bias[...],
            self.activation,
        )
        y = x * gate[:, None, None].astype(x.dtype)
        return _add(y, shortcut, self.drop_rate, mode)


def _gate(
    pooled: Float[Array, "batch channels"],
    reduce: Float[Array, "channels hidden"],
    reduce_bias: Float[Array, " hidden"],
    expand: Float[Array, "hidden channels"],
    expand_bias: Float[Array, " channels"],
    activation: Activation,
) -> Float[Array, "batch channels"]:
    hidden = activate(_product(pooled, reduce) + reduce_bias, activation)
    return nnx.sigmoid(_product(hidden, expand) + expand_bias)


class PoolShortcut(nnx.Module):
    """MnasNet's pooling skip: average over the stride, cut or zero-padded in width.

    Its window, which is the stride and may be even, is SAME under either padding.
    """

    def __init__(self, *, out_channels: int, stride: int) -> None:
        self.out_channels = out_channels
        self.stride = stride

    def __call__(self, x: Maps, shortcut: NewMaps | None, mode: Mode) -> NewMaps:
        """Returns this unit's maps, with the shortcut added."""
        if self.stride > 1:
            window = (self.stride, self.stride)
            x = nnx.avg_pool(x, window, window, "SAME", count_include_pad=False)
        missing = self.out_channels - x.shape[-1]
        y = (
            jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, missing)))
            if missing > 0
            else x[..., : self.out_channels]
        )
        return _add(y, shortcut, 0.0, mode)


class ClassifierUnit(nnx.Module):
    """Global average pool, dropout, dense: maps to logits `[batch, classes]`."""

    def __init__(
        self, rng: np.random.Generator, *, channels: int, classes: int, dropout: float
    ) -> None:
        self.dropout = dropout
        self.kernel = nnx.Param(init.dense_kernel(rng, channels, classes))
        self.bias = nnx.Param(np.zeros(classes, np.float32))

    def __call__(
        self, x: Maps, shortcut: Maps | None, mode: Mode
    ) -> Float[Array, "batch classes"]:
        """Returns float32 logits; there is no shortcut to a classifier."""
        del shortcut
        features = x.astype(jnp.float32).mean((1, 2))
        features = _drop(features, self.dropout, mode.dropout, mode, features.shape)
        return _product(features, self.kernel[...]) + self.bias[...]


Unit = ConvUnit | DepthwiseUnit | SqueezeExciteUnit | PoolShortcut | ClassifierUnit


def max_pool(x: Maps, window_and_stride: tuple[int, int], padding: Padding) -> NewMaps:
    """Returns the maps max-pooled; the window's side is odd."""
    window, stride = window_and_stride
    pads = lax_padding(padding, window)
    return nnx.max_pool(
        x,
        (window, window),
        (stride, stride),
        pads,  # pyright: ignore[reportArgumentType]  # it takes pairs too
    )


def _conv(x: Maps, kernel: Array, stride: int, padding: Padding) -> NewMaps:
    kernel = kernel.astype(x.dtype)
    if kernel.shape[:2] == (1, 1):
        return _product(x[:, ::stride, ::stride], kernel)
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        lax_padding(padding, kernel.shape[0]),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@jax.custom_vjp
def _product(
    x: Float[Array, "*batch channels"], kernel: Float[Array, "*ones channels out"]
) -> Float[Array, "*batch out"]:
    """A matrix product whose gradients are plain matrix products too.

    Autodiff's gradient of the kernel is a product and a transposed copy of it, which
    on a CPU takes as long again.
    """
    y = x.reshape(-1, x.shape[-1]) @ kernel.reshape(kernel.shape[-2:])
    return y.reshape(*x.shape[:-1], y.shape[-1])


def _product_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _product(x, kernel), (x, kernel)


def _product_backward(
    residuals: tuple[Array, Array], grad: Array
) -> tuple[Array, Array]:
    x, kernel = residuals
    rows, grads = (a.reshape(-1, a.shape[-1]) for a in (x, grad))
    matrix = kernel.reshape(kernel.shape[-2:])
    grad_x = lax.dot_general(grads, matrix, (((1,), (1,)), ((), ())))
    grad_kernel = _sum_of_outer(rows, grads)
    return grad_x.reshape(x.shape), grad_kernel.reshape(kernel.shape)


def _sum_of_outer(a: Float[Array, "rows m"], b: Float[Array, "rows n"]) -> Array:
    """Returns a.T @ b.

    The CPU's product copies its first operand, transposed: of many rows let that be the
    narrower one. The barrier keeps XLA from turning the product back.
    """
    contract_rows = (((0,), (0,)), ((), ()))
    rows, wide = a.shape
    if rows < wide or wide <= b.shape[1]:
        return lax.dot_general(a, b, contract_rows)
    return lax.optimization_barrier(lax.dot_general(b, a, contract_rows)).T


_product.defvjp(_product_forward, _product_backward)


def _add(y: Maps, shortcut: Maps | None, drop_rate: float, mode: Mode) -> Maps:
    """Adds the shortcut; in training drops whole branches (arXiv:1603.09382)."""
    if shortcut is None:
        return y
    whole = (y.shape[0], 1, 1, 1)
    return _drop(y, drop_rate, mode.drop_path, mode, whole) + shortcut


def _drop(
    x: Array,
    rate: float,
    applied: float | Array | None,
    mode: Mode,
    shape: tuple[int, ...],
) -> Array:
    """Zeroes entries of `shape` (broadcast), and scales up the others.

    They are zeroed at `rate`, or at the share of it that is `applied`.
    """
    if rate == 0 or mode.key is None or mode.train is False:
        return x
    survival = 1 - (rate if applied is None else rate * applied)
    kept = jax.random.bernoulli(mode.key, survival, shape)
    kept = kept | jnp.logical_not(mode.train)
    scale = jnp.where(mode.train, 1 / survival, 1.0)
    return x * (kept * scale).astype(x.dtype)
