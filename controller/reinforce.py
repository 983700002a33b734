"""REINFORCE on the autoregressive policy, with a moving-average baseline."""

# JAX leaves parts of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

import dataclasses
import math
from typing import NamedTuple

import numpy as np
import optax
from numpy.typing import ArrayLike, NDArray

from controller import policy, policy_gradient
from controller.conditions import Conditions
from controller.interface import (
    PolicySummary,
    check_decisions,
    check_num,
    check_pending,
    check_range,
    check_seed,
    check_told,
)

# So many sequences are sampled at once; an update learns from at most so many.
_CHUNK = 32


class ReinforceState(NamedTuple):
    """What the controller knows.

    `seed` and `num_asks` int64 [] decide the random numbers; `baseline` float32 [] is
    the moving average of rewards, of `num_told` int64 [] batches.
    """

    seed: NDArray[np.int64]
    num_asks: NDArray[np.int64]
    params: policy.Params
    opt_state: optax.OptState
    baseline: NDArray[np.float32]
    num_told: NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reinforce:
    """One step of Adam on the policy gradient for each batch told.

    The defaults are the published rule for this policy: learning rate 3.5e-4, entropy
    weight 1e-5, baseline decay 0.95 (NASNet, https://arxiv.org/abs/1707.07012,
    appendix A.2). Nothing corrects for proposals that an older policy made: the
    estimate is biased where `tell` comes late.
    """

    num_choices: tuple[int, ...]
    conditions: Conditions = ()
    learning_rate: float = 3.5e-4
    entropy_weight: float = 1e-5
    baseline_decay: float = 0.95

    def __post_init__(self) -> None:
        """Rejects values that no update could use."""
        check_decisions(self.num_choices, self.conditions)
        check_range("learning_rate", self.learning_rate, 0.0)
        check_range("entropy_weight", self.entropy_weight, 0.0)
        check_range("baseline_decay", self.baseline_decay, 0.0, 1.0)

    def init(self, seed: int) -> ReinforceState:
        """See `Controller.init`."""
        check_seed(seed)
        params = policy.init(seed, self.num_choices)
        return ReinforceState(
            seed=np.asarray(seed),
            num_asks=np.asarray(0),
            params=params,
            opt_state=policy_gradient.init_optimizer(params),
            baseline=np.zeros((), np.float32),
            num_told=np.asarray(0),
        )

    def ask(
        self, state: ReinforceState, num: int, pending: ArrayLike | None = None
    ) -> tuple[ReinforceState, NDArray[np.int32]]:
        """See `Controller.ask`; what is pending changes nothing."""
        check_num(num)
        check_pending(pending, self.num_choices)
        parts = [np.zeros((0, len(self.num_choices)), np.int32)]
        for start in range(0, num, _CHUNK):
            rng = np.random.default_rng([int(state.seed), int(state.num_asks)])
            tokens = policy.sample(
                state.params, self.num_choices, rng, _CHUNK, self.conditions
            )
            parts.append(tokens[: num - start])
            state = state._replace(num_asks=state.num_asks + 1)
        return state, np.concatenate(parts)

    def tell(
        self, state: ReinforceState, tokens: ArrayLike, rewards: ArrayLike
    ) -> ReinforceState:
        """See `Controller.tell`."""
        known, values = check_told(tokens, rewards, self.num_choices, self.conditions)
        for start in range(0, len(values), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            state = self._learn(state, known[chunk], values[chunk])
        return state

    def policy_summary(self, state: ReinforceState) -> PolicySummary:
        """See `HasPolicy.policy_summary`."""
        return policy.policy_summary(state.params, self.num_choices, self.conditions)

    def _learn(
        self,
        state: ReinforceState,
        tokens: NDArray[np.int32],
        rewards: NDArray[np.float32],
    ) -> ReinforceState:
        # The first batch has no past to be better than: it is its own baseline.
        decay = self.baseline_decay if state.num_told else 0.0
        baseline = np.float32(decay * state.baseline + (1.0 - decay) * rewards.mean())
        # At a ratio of 1 the clipped surrogate's gradient is the policy gradient.
        unknown = np.full(len(rewards), np.nan, np.float32)
        params, opt_state = policy_gradient.update(
            self.num_choices,
            policy_gradient.Step(
                learning_rate=self.learning_rate,
                clip=math.inf,
                epochs=1,
                entropy_weight=self.entropy_weight,
            ),
            state.params,
            state.opt_state,
            policy_gradient.padded(tokens, unknown, rewards - baseline),
            conditions=self.conditions,
        )
        return state._replace(
            params=params,
            opt_state=opt_state,
            baseline=np.asarray(baseline),
            num_told=state.num_told + 1,
        )
