"""What an update computes: advantages, the clipped surrogate, and steps of Adam."""

# JAX leaves parts of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

import functools
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike, NDArray

from controller import policy
from controller.conditions import Conditions


class Batch(NamedTuple):
    """What one update learns from: tokens [n, D], the rest [n].

    An unknown old log-probability is NaN: the policy's at the start of the update is
    taken. `weights` sum to 1; padding has weight 0.
    """

    tokens: ArrayLike
    old_log_probs: ArrayLike
    advantages: ArrayLike
    weights: ArrayLike


def padded(
    tokens: NDArray[np.int32],
    old_log_probs: NDArray[np.float32],
    advantages: NDArray[np.float32],
) -> Batch:
    """Returns a batch of `policy.padded_size(n)` rows, of which n weigh the same."""
    num, unused = len(tokens), policy.padded_size(len(tokens)) - len(tokens)
    return Batch(
        tokens=np.pad(tokens, ((0, unused), (0, 0))),
        old_log_probs=np.pad(old_log_probs, (0, unused)),
        advantages=np.pad(advantages, (0, unused)),
        weights=np.pad(np.full(num, 1.0 / num, np.float32), (0, unused)),
    )


class Step(NamedTuple):
    """What decides the steps of an update, apart from its batch.

    Ordinary arguments of the compiled program: all controllers share one.
    """

    learning_rate: float
    clip: float
    epochs: int
    entropy_weight: float


def loss(
    params: policy.Params,
    num_choices: tuple[int, ...],
    batch: Batch,
    clip: float,
    entropy_weight: float,
    conditions: Conditions = (),
) -> tuple[jax.Array, jax.Array]:
    """The clipped surrogate (equation 7, to minimize) less the entropy bonus: [].

    Also returns the old log-probabilities [n], the unknown ones filled in.
    """
    log_probs, entropies = policy.evaluate(
        params, num_choices, jnp.asarray(batch.tokens), conditions
    )
    advantages = jnp.asarray(batch.advantages)
    old = jnp.asarray(batch.old_log_probs)
    old = jnp.where(jnp.isnan(old), jax.lax.stop_gradient(log_probs), old)
    ratios = jnp.exp(log_probs - old)
    clipped = jnp.clip(ratios, 1.0 - clip, 1.0 + clip)
    gains = jnp.minimum(ratios * advantages, clipped * advantages)
    weights = jnp.asarray(batch.weights)
    return -jnp.sum(weights * (gains + entropy_weight * entropies)), old


def init_optimizer(params: policy.Params) -> optax.OptState:
    """Returns Adam's first state: all zeros, made without compiling anything."""
    shapes = jax.eval_shape(_optimizer(0.0).init, params)
    return jax.tree.map(_zeros, shapes)


@functools.partial(jax.jit, static_argnums=0, static_argnames="conditions")
def update(
    num_choices: tuple[int, ...],
    step: Step,
    params: policy.Params,
    opt_state: optax.OptState,
    batch: Batch,
    conditions: Conditions = (),
) -> tuple[policy.Params, optax.OptState]:
    """Returns the parameters and optimizer state after `step.epochs` steps."""
    optimizer = _optimizer(step.learning_rate)
    gradient = jax.grad(loss, has_aux=True)

    def epoch(
        _: int, carry: tuple[policy.Params, optax.OptState, jax.Array]
    ) -> tuple[policy.Params, optax.OptState, jax.Array]:
        params, opt_state, old = carry
        current = batch._replace(old_log_probs=old)
        grads, old = gradient(
            params, num_choices, current, step.clip, step.entropy_weight, conditions
        )
        updates, opt_state = optimizer.update(grads, opt_state, params)
        # optax types any pytree as a union that names arrays and containers.
        params = cast(policy.Params, optax.apply_updates(params, updates))
        return params, opt_state, old

    start = (params, opt_state, jnp.asarray(batch.old_log_probs))
    params, opt_state, _ = jax.lax.fori_loop(0, step.epochs, epoch, start)
    return params, opt_state


def _optimizer(learning_rate: float) -> optax.GradientTransformation:
    return optax.adam(learning_rate)


def _zeros(leaf: jax.ShapeDtypeStruct) -> NDArray[Any]:
    return np.zeros(leaf.shape, leaf.dtype)
