"""Proximal policy optimization (arXiv:1707.06347) over the LSTM policy."""

# JAX leaves parts of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

import dataclasses
from typing import NamedTuple

import numpy as np
import optax
from numpy.typing import ArrayLike, NDArray

from controller import policy, policy_gradient, ring
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
# Of how many proposals and results the log-probability is remembered. A proposal that
# more than so many others followed before its reward came counts as a stranger.
_MAX_PROPOSED = 4096

_Tokens = NDArray[np.int32]
_Floats = NDArray[np.float32]


class PPOState(NamedTuple):
    """What the controller knows.

    `seed` and `num_asks` int64 [] decide the random numbers; `proposed` has each
    proposal's log-probability when it was made; `baseline` float32 [] is the moving
    average of rewards, of `num_told` int64 [] batches.
    """

    seed: NDArray[np.int64]
    num_asks: NDArray[np.int64]
    params: policy.Params
    opt_state: optax.OptState
    proposed: ring.Ring
    baseline: _Floats
    num_told: NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PPO:
    """The clipped surrogate: `epochs` steps of Adam on each batch of rewards told.

    The ratio is to the probability at which a sequence was proposed. Of one that
    another proposed, it is to the probability at which it was first told. Advantages
    are rewards less their moving average, which a batch joins before it is compared.

    MnasNet's controller (https://arxiv.org/abs/1807.11626) is NASNet's, whose numbers
    (https://arxiv.org/abs/1707.07012, appendix A.2) `controller.build("ppo-nasnet")`
    has: learning rate 3.5e-4, entropy weight 1e-5, baseline decay 0.95; it was told of
    20 rewards at a time. Neither paper states clip and epochs. The learning rate here
    is larger.
    """

    num_choices: tuple[int, ...]
    conditions: Conditions = ()
    learning_rate: float = 1e-3
    clip: float = 0.2
    epochs: int = 4
    entropy_weight: float = 1e-5
    baseline_decay: float = 0.95

    def __post_init__(self) -> None:
        """Rejects values that no update could use."""
        check_decisions(self.num_choices, self.conditions)
        check_range("learning_rate", self.learning_rate, 0.0)
        check_range("clip", self.clip, 0.0)
        check_range("epochs", self.epochs, 1)
        check_range("entropy_weight", self.entropy_weight, 0.0)
        check_range("baseline_decay", self.baseline_decay, 0.0, 1.0)

    def init(self, seed: int) -> PPOState:
        """See `Controller.init`."""
        check_seed(seed)
        params = policy.init(seed, self.num_choices)
        return PPOState(
            seed=np.asarray(seed),
            num_asks=np.asarray(0),
            params=params,
            opt_state=policy_gradient.init_optimizer(params),
            proposed=ring.empty(_MAX_PROPOSED, len(self.num_choices)),
            baseline=np.zeros((), np.float32),
            num_told=np.asarray(0),
        )

    def ask(
        self, state: PPOState, num: int, pending: ArrayLike | None = None
    ) -> tuple[PPOState, _Tokens]:
        """See `Controller.ask`; what is pending changes nothing."""
        check_num(num)
        check_pending(pending, self.num_choices, self.conditions)
        parts = [np.zeros((0, len(self.num_choices)), np.int32)]
        for start in range(0, num, _CHUNK):
            rng = np.random.default_rng([int(state.seed), int(state.num_asks)])
            drawn = policy.sample(
                state.params, self.num_choices, rng, _CHUNK, self.conditions
            )
            tokens = drawn[: num - start]
            likely = self._log_probs(state, tokens)
            state = state._replace(
                num_asks=state.num_asks + 1,
                proposed=ring.append(state.proposed, tokens, likely),
            )
            parts.append(tokens)
        return state, np.concatenate(parts)

    def tell(self, state: PPOState, tokens: ArrayLike, rewards: ArrayLike) -> PPOState:
        """See `Controller.tell`."""
        known, values = check_told(tokens, rewards, self.num_choices, self.conditions)
        for start in range(0, len(values), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            state = self._learn(state, known[chunk], values[chunk])
        return state

    def policy_summary(self, state: PPOState) -> PolicySummary:
        """See `HasPolicy.policy_summary`."""
        return policy.policy_summary(state.params, self.num_choices, self.conditions)

    def _learn(self, state: PPOState, tokens: _Tokens, rewards: _Floats) -> PPOState:
        """One update on at most `_CHUNK` results."""
        old = ring.lookup(state.proposed, tokens)
        proposed, strangers = state.proposed, np.isnan(old)
        if strangers.any():
            likely = self._log_probs(state, tokens)
            old = np.where(strangers, likely, old)
            proposed = ring.append(proposed, tokens[strangers], likely[strangers])
        # The first batch has no past to be better than: it is its own baseline.
        decay = self.baseline_decay if state.num_told else 0.0
        baseline = np.float32(decay * state.baseline + (1.0 - decay) * rewards.mean())
        step = policy_gradient.Step(
            learning_rate=self.learning_rate,
            clip=self.clip,
            epochs=self.epochs,
            entropy_weight=self.entropy_weight,
        )
        params, opt_state = policy_gradient.update(
            self.num_choices,
            step,
            state.params,
            state.opt_state,
            policy_gradient.padded(tokens, old, rewards - baseline),
            conditions=self.conditions,
        )
        return state._replace(
            params=params,
            opt_state=opt_state,
            proposed=proposed,
            baseline=np.asarray(baseline),
            num_told=state.num_told + 1,
        )

    def _log_probs(self, state: PPOState, tokens: _Tokens) -> _Floats:
        return policy.log_probs(state.params, self.num_choices, tokens, self.conditions)
