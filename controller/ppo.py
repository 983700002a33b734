"""Proximal policy optimization of the autoregressive policy (arXiv:1707.06347)."""

# JAX leaves parts of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

import dataclasses
import functools
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike, NDArray

from controller import policy, ring
from controller.interface import (
    check_num,
    check_num_choices,
    check_range,
    check_seed,
    check_told,
)

# Samples and updates are padded to this many sequences, so that they compile once.
_CHUNK = 32
# How many proposals may be out before the oldest one's log-probability is forgotten.
_MAX_PROPOSED = 1024


class PPOState(NamedTuple):
    """What the controller knows.

    `key` uint32 [2]; `proposed` has each proposal's log-probability when it was
    sampled; `baseline` [] is the moving average of rewards, `num_told` int32 [].
    """

    key: jax.Array
    params: policy.Params
    opt_state: optax.OptState
    proposed: ring.Ring
    baseline: jax.Array
    num_told: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class PPO:
    """Clipped surrogate objective, several epochs over each batch told."""

    num_choices: tuple[int, ...]
    learning_rate: float = 0.01
    clip: float = 0.2
    epochs: int = 4
    entropy_weight: float = 1e-5
    baseline_decay: float = 0.95

    def __post_init__(self) -> None:
        """Rejects values that no update could use."""
        check_num_choices(self.num_choices)
        check_range("learning_rate", self.learning_rate, 0.0)
        check_range("clip", self.clip, 0.0)
        check_range("epochs", self.epochs, 1)
        check_range("entropy_weight", self.entropy_weight, 0.0)
        check_range("baseline_decay", self.baseline_decay, 0.0, 1.0)

    def init(self, seed: int) -> PPOState:
        """See `Controller.init`."""
        check_seed(seed)
        return self._init(np.uint32(seed))

    def ask(self, state: PPOState, num: int) -> tuple[PPOState, NDArray[np.int32]]:
        """See `Controller.ask`."""
        check_num(num)
        parts = [np.zeros((0, len(self.num_choices)), np.int32)]
        for start in range(0, num, _CHUNK):
            size = min(_CHUNK, num - start)
            state, tokens = self._sample(state, np.int32(size))
            parts.append(np.asarray(tokens)[:size])
        return state, np.concatenate(parts)

    def tell(self, state: PPOState, tokens: ArrayLike, rewards: ArrayLike) -> PPOState:
        """See `Controller.tell`."""
        known, values = check_told(tokens, rewards, self.num_choices)
        for start in range(0, len(values), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            missing = _CHUNK - len(values[chunk])
            state = self._update(
                state,
                np.pad(known[chunk], ((0, missing), (0, 0))),
                np.pad(values[chunk], (0, missing)),
                np.int32(_CHUNK - missing),
            )
        return state

    def _optimizer(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate)

    @functools.partial(jax.jit, static_argnums=0)
    def _init(self, seed: jax.Array) -> PPOState:
        key, init_key = jax.random.split(jax.random.key(seed))
        params = policy.init(init_key, self.num_choices)
        return PPOState(
            key=jax.random.key_data(key),
            params=params,
            opt_state=self._optimizer().init(params),
            proposed=ring.empty(_MAX_PROPOSED, len(self.num_choices)),
            baseline=jnp.zeros(()),
            num_told=jnp.zeros((), jnp.int32),
        )

    @functools.partial(jax.jit, static_argnums=0)
    def _sample(self, state: PPOState, num: jax.Array) -> tuple[PPOState, jax.Array]:
        key, sample_key = jax.random.split(jax.random.wrap_key_data(state.key))
        tokens, log_probs = policy.sample(
            state.params, self.num_choices, sample_key, _CHUNK
        )
        proposed = ring.append(state.proposed, tokens, log_probs, num)
        return state._replace(key=jax.random.key_data(key), proposed=proposed), tokens

    @functools.partial(jax.jit, static_argnums=0)
    def _update(
        self, state: PPOState, tokens: jax.Array, rewards: jax.Array, num: jax.Array
    ) -> PPOState:
        weights = (jnp.arange(_CHUNK) < num) / num
        mean = jnp.sum(weights * rewards)
        baseline = jnp.where(
            state.num_told == 0,
            mean,
            self.baseline_decay * state.baseline + (1 - self.baseline_decay) * mean,
        )
        current, _ = policy.evaluate(state.params, self.num_choices, tokens)
        batch = Batch(
            tokens=tokens,
            old_log_probs=ring.lookup(state.proposed, tokens, current),
            advantages=rewards - baseline,
            weights=weights,
        )
        optimizer = self._optimizer()

        def epoch(
            _: int, carry: tuple[policy.Params, optax.OptState]
        ) -> tuple[policy.Params, optax.OptState]:
            params, opt_state = carry
            grads = jax.grad(loss)(
                params, self.num_choices, batch, self.clip, self.entropy_weight
            )
            updates, opt_state = optimizer.update(grads, opt_state, params)
            # optax types any pytree as a union that names arrays and containers.
            params = cast(policy.Params, optax.apply_updates(params, updates))
            return params, opt_state

        params, opt_state = jax.lax.fori_loop(
            0, self.epochs, epoch, (state.params, state.opt_state)
        )
        return state._replace(
            params=params,
            opt_state=opt_state,
            baseline=baseline,
            num_told=state.num_told + num,
        )


class Batch(NamedTuple):
    """What one update learns from: tokens [n, D], the rest [n].

    `weights` sum to 1; padding has weight 0.
    """

    tokens: jax.Array
    old_log_probs: jax.Array
    advantages: jax.Array
    weights: jax.Array


def loss(
    params: policy.Params,
    num_choices: tuple[int, ...],
    batch: Batch,
    clip: float,
    entropy_weight: float,
) -> jax.Array:
    """The clipped surrogate (equation 7, to minimize) less the entropy bonus: []."""
    log_probs, entropies = policy.evaluate(params, num_choices, batch.tokens)
    ratios = jnp.exp(log_probs - batch.old_log_probs)
    clipped = jnp.clip(ratios, 1.0 - clip, 1.0 + clip)
    gains = jnp.minimum(ratios * batch.advantages, clipped * batch.advantages)
    return -jnp.sum(batch.weights * (gains + entropy_weight * entropies))
