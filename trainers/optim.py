"""Optimizers as optax chains, and learning-rate schedules as arrays.

The learning rate and the weight decay are arguments of each update rather than part of
the chain: the compiled update is then the same for every schedule, and for every unit
of a network.
"""

import dataclasses
import math
from typing import Literal

import jax
import numpy as np
import optax
from jaxtyping import Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """An update rule.

    `rmsprop` is TensorFlow 1's, as EfficientNet was trained with: the accumulator
    starts at 1, epsilon is inside the root, momentum accumulates scaled steps.
    """

    name: Literal["sgd", "rmsprop", "adamw"] = "sgd"
    momentum: float = 0.9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine:
    """Linear warm-up over a share of the steps, then a half cosine to zero."""

    peak: float
    warmup: float = 0.1

    def values(self, num_steps: int) -> np.ndarray:
        """Returns the learning rate of each step, float32 `[num_steps]`."""
        warmup_steps = max(1, math.ceil(self.warmup * num_steps))
        schedule = optax.warmup_cosine_decay_schedule(
            self.peak / warmup_steps, self.peak, warmup_steps, num_steps + 1
        )
        return np.asarray(schedule(np.arange(num_steps)), np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Staircase:
    """Linear warm-up, then a multiplication by `factor` after every `every` steps.

    EfficientNet's (its TensorFlow code): 0.97 every 2.4 epochs, counted from the
    start, 5 epochs of warm-up from zero.
    """

    peak: float
    warmup_steps: int
    factor: float
    every: float

    def values(self, num_steps: int) -> np.ndarray:
        """Returns the learning rate of each step, float32 `[num_steps]`."""
        steps = np.arange(num_steps)
        decayed = self.peak * self.factor ** np.floor(steps / self.every)
        rising = self.peak * steps / max(1, self.warmup_steps)
        return np.where(steps < self.warmup_steps, rising, decayed).astype(np.float32)


def chain(
    optimizer: Optimizer, decayed: optax.Params | None = None
) -> optax.GradientTransformationExtraArgs:
    """Returns the update rule.

    Its `update` takes `learning_rate` and `weight_decay` as keywords. The latter is the
    gradient of an L2 penalty of half of it times the sum of squares; for `adamw` it is
    decoupled (arXiv:1711.05101). `decayed` is true where weights decay, in the form of
    the weights; by default kernels do, arrays of more than one dimension.
    """
    decay = optax.masked(_decay(), _kernels if decayed is None else decayed)
    match optimizer.name:
        case "sgd":
            rules = (decay, optax.trace(optimizer.momentum, nesterov=True), _descend())
        case "rmsprop":
            rms = optax.scale_by_rms(
                decay=0.9, eps=1e-3, initial_scale=1.0, eps_in_sqrt=True
            )
            rules = (decay, rms, _descend(), optax.trace(optimizer.momentum))
        case "adamw":
            rules = (optax.scale_by_adam(b1=optimizer.momentum), decay, _descend())
    return optax.with_extra_args_support(optax.chain(*rules))


def _kernels(params: optax.Params) -> optax.Params:
    return jax.tree.map(lambda p: p.ndim > 1, params)


def _decay() -> optax.GradientTransformationExtraArgs:
    """Adds the weights, times the weight decay that the update is given."""

    def update(
        updates: optax.Updates,
        state: optax.EmptyState,
        params: optax.Params | None = None,
        *,
        weight_decay: Array,
        **_: Array,
    ) -> tuple[optax.Updates, optax.EmptyState]:
        return jax.tree.map(lambda u, p: u + weight_decay * p, updates, params), state

    return optax.GradientTransformationExtraArgs(
        lambda params: optax.EmptyState(),  # noqa: ARG005
        update,  # pyright: ignore[reportArgumentType]
    )


def _descend() -> optax.GradientTransformationExtraArgs:
    """Multiplies by minus the learning rate that the update is given."""

    def update(
        updates: optax.Updates,
        state: optax.EmptyState,
        params: optax.Params | None = None,
        *,
        learning_rate: Array,
        **_: Array,
    ) -> tuple[optax.Updates, optax.EmptyState]:
        del params
        return jax.tree.map(lambda u: -learning_rate * u, updates), state

    return optax.GradientTransformationExtraArgs(
        lambda params: optax.EmptyState(),  # noqa: ARG005
        update,  # pyright: ignore[reportArgumentType]
    )
