"""REINFORCE on the autoregressive policy, with a moving-average baseline."""

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

from controller import policy
from controller.interface import (
    check_num,
    check_num_choices,
    check_range,
    check_seed,
    check_told,
)

# Samples and updates are padded to this many sequences, so that they compile once.
_CHUNK = 32


class ReinforceState(NamedTuple):
    """`key` uint32 [2], `baseline` [] the moving average of rewards, `num_told` []."""

    key: jax.Array
    params: policy.Params
    opt_state: optax.OptState
    baseline: jax.Array
    num_told: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reinforce:
    """One step of Adam on the policy gradient for each batch told.

    The defaults are the published rule for this policy: learning rate 3.5e-4, entropy
    weight 1e-5, baseline decay 0.95 (NASNet, https://arxiv.org/abs/1707.07012,
    appendix A.2). Rewards of proposals that an older policy made are not corrected
    for: the estimate is biased where `tell` comes late.
    """

    num_choices: tuple[int, ...]
    learning_rate: float = 3.5e-4
    entropy_weight: float = 1e-5
    baseline_decay: float = 0.95

    def __post_init__(self) -> None:
        """Rejects values that no update could use."""
        check_num_choices(self.num_choices)
        check_range("learning_rate", self.learning_rate, 0.0)
        check_range("entropy_weight", self.entropy_weight, 0.0)
        check_range("baseline_decay", self.baseline_decay, 0.0, 1.0)

    def init(self, seed: int) -> ReinforceState:
        """See `Controller.init`."""
        check_seed(seed)
        return self._init(np.uint32(seed))

    def ask(
        self, state: ReinforceState, num: int
    ) -> tuple[ReinforceState, NDArray[np.int32]]:
        """See `Controller.ask`."""
        check_num(num)
        parts = [np.zeros((0, len(self.num_choices)), np.int32)]
        for start in range(0, num, _CHUNK):
            state, tokens = self._sample(state)
            parts.append(np.asarray(tokens)[: num - start])
        return state, np.concatenate(parts)

    def tell(
        self, state: ReinforceState, tokens: ArrayLike, rewards: ArrayLike
    ) -> ReinforceState:
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
    def _init(self, seed: jax.Array) -> ReinforceState:
        key, init_key = jax.random.split(jax.random.key(seed))
        params = policy.init(init_key, self.num_choices)
        return ReinforceState(
            key=jax.random.key_data(key),
            params=params,
            opt_state=self._optimizer().init(params),
            baseline=jnp.zeros(()),
            num_told=jnp.zeros((), jnp.int32),
        )

    @functools.partial(jax.jit, static_argnums=0)
    def _sample(self, state: ReinforceState) -> tuple[ReinforceState, jax.Array]:
        key, sample_key = jax.random.split(jax.random.wrap_key_data(state.key))
        tokens, _ = policy.sample(state.params, self.num_choices, sample_key, _CHUNK)
        return state._replace(key=jax.random.key_data(key)), tokens

    @functools.partial(jax.jit, static_argnums=0)
    def _update(
        self,
        state: ReinforceState,
        tokens: jax.Array,
        rewards: jax.Array,
        num: jax.Array,
    ) -> ReinforceState:
        weights = (jnp.arange(_CHUNK) < num) / num
        mean = jnp.sum(weights * rewards)
        # The first batch has no past to be better than, so it is its own baseline.
        decayed = (
            self.baseline_decay * state.baseline + (1.0 - self.baseline_decay) * mean
        )
        baseline = jnp.where(state.num_told == 0, mean, decayed)
        grads = jax.grad(loss)(
            state.params,
            self.num_choices,
            tokens,
            weights * (rewards - baseline),
            weights * self.entropy_weight,
        )
        updates, opt_state = self._optimizer().update(
            grads, state.opt_state, state.params
        )
        # optax types any pytree as a union that names arrays and containers.
        params = cast(policy.Params, optax.apply_updates(state.params, updates))
        return state._replace(
            params=params,
            opt_state=opt_state,
            baseline=baseline,
            num_told=state.num_told + num,
        )


def loss(
    params: policy.Params,
    num_choices: tuple[int, ...],
    tokens: jax.Array,
    advantages: jax.Array,
    entropy_weights: jax.Array,
) -> jax.Array:
    """Minus the sum over tokens [n, D] of log-probability and entropy, weighted: []."""
    log_probs, entropies = policy.evaluate(params, num_choices, tokens)
    return -jnp.sum(advantages * log_probs + entropy_weights * entropies)
