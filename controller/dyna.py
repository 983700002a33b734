"""Model-based policy search: a policy that learns from a model of the search's results.

Between real rewards the policy takes steps of policy gradients on its own samples,
which a predictor fitted to this run's results judges, as in Dyna (Sutton, 1991) and in
DyNA-PPO for sequence design (Angermueller et al., ICLR 2020). Samples are fresh at each
step, so that the gradient needs no ratio to an older policy. What is proposed are
samples of the policy as well.
"""

# threadpoolctl has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportMissingTypeStubs=false

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import threadpoolctl
from numpy.typing import ArrayLike, NDArray

from controller import kernel, linear_policy, predictor, ranks, ring
from controller.conditions import Conditions
from controller.interface import (
    PolicySummary,
    Prediction,
    check_decisions,
    check_num,
    check_pending,
    check_range,
    check_seed,
    check_told,
)

# Fewer results than this say nothing about other sequences.
_MIN_FITTED = 10
# The kernel's parameters are looked at when there are so many times more results.
_GROWTH = 1.1
# The policy learns from so many of its samples at each step,
_NUM_SAMPLES = 128
# takes so many steps for each reward told, and no more than so many at once,
_STEPS_PER_REWARD = 3
_MAX_STEPS = 150
# and proposals are chosen from so many samples, or so many times what is asked for.
_NUM_CANDIDATES = 256
_CANDIDATES_EACH = 4
# A policy that has only samples left which are known already is flattened so often, its
# logits halved each time.
_MAX_FLATTENED = 6
# So many of those pending make their surroundings more certain; none is proposed again.
_MAX_PENDING = 128

# Matrices this small gain nothing from a second thread, and where workers keep every
# core busy, BLAS threads that wait for each other are a hundred times slower.
_one_thread = threadpoolctl.ThreadpoolController().wrap(limits=1, user_api="blas")

_Tokens = NDArray[np.int32]
_Floats = NDArray[np.floating[Any]]


class DynaState(NamedTuple):
    """What the controller knows; `tokens` [n, D] and `rewards` [n] are all it was told.

    `seed`, `num_asks` and `num_tells` int64 [] decide the random numbers. `warp`,
    `parameters`, `sums` and `scale` float64 [] are the predictor's, as of when there
    were `fitted` int64 [] results; `sums` holds the later ones as well.
    """

    seed: NDArray[np.int64]
    num_asks: NDArray[np.int64]
    num_tells: NDArray[np.int64]
    params: linear_policy.Params
    tokens: _Tokens
    rewards: _Floats
    warp: predictor.Warp
    parameters: kernel.Parameters
    sums: predictor.Sums
    scale: NDArray[np.float64]
    fitted: NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dyna:
    """A linear autoregressive policy, taught by a Gaussian process, proposes.

    Attributes:
      num_choices: number of values of each token.
      conditions: which decisions matter under which.
      learning_rate: of the policy's steps. A step goes up the log-probability of its
        samples, weighted by the utilities of their ranks (arXiv:1106.4487, section
        3.1) by the predictor's mean + k standard deviations.
      forgetting: the share of themselves by which logits shrink at each step, which
        keeps the policy from becoming sure of what few results speak for.
      exploration: the mean of k, which is drawn from an exponential distribution for
        each sample and each proposal anew: that keeps proposals of one batch apart
        (Hutter et al., "Parallel algorithm configuration", 2012).
      model: off, the policy learns from the results alone, a step for each batch, and
        its samples are proposed as they come.
    """

    num_choices: tuple[int, ...]
    conditions: Conditions = ()
    learning_rate: float = 3.0
    forgetting: float = 0.03
    exploration: float = 2.0
    model: bool = True

    def __post_init__(self) -> None:
        """Rejects values that no update could use."""
        check_decisions(self.num_choices, self.conditions)
        check_range("learning_rate", self.learning_rate, 0.0)
        check_range("forgetting", self.forgetting, 0.0, 1.0)
        check_range("exploration", self.exploration, 0.0)

    def init(self, seed: int) -> DynaState:
        """See `Controller.init`."""
        check_seed(seed)
        nothing = np.zeros((0, len(self.num_choices)), np.int32)
        return DynaState(
            seed=np.asarray(seed),
            num_asks=np.asarray(0),
            num_tells=np.asarray(0),
            params=linear_policy.init(self.num_choices),
            tokens=nothing,
            rewards=np.zeros(0, np.float32),
            warp=predictor.Warp(center=np.zeros(()), spread=np.ones(())),
            parameters=kernel.start(len(self.num_choices)),
            sums=predictor.no_sums(nothing),
            scale=np.ones(()),
            fitted=np.asarray(0),
        )

    @_one_thread
    def ask(
        self, state: DynaState, num: int, pending: ArrayLike | None = None
    ) -> tuple[DynaState, _Tokens]:
        """See `Controller.ask`; nothing pending is proposed while there is more."""
        check_num(num)
        out = check_pending(pending, self.num_choices, self.conditions)
        rng = np.random.default_rng([int(state.seed), 0, int(state.num_asks)])
        asked = state._replace(num_asks=state.num_asks + 1)
        if not (self.model and self._is_fitted(state)):
            tokens, _ = self._sample(state.params, rng, num)
            return asked, tokens
        candidates, num_new = self._candidates(state, rng, num, out)
        if num_new < num:  # so few are left that the order does not matter
            return asked, candidates[np.arange(num) % len(candidates)]
        means, deviations = self._predictor(state, out).predict(candidates)
        chosen: list[int] = []
        for k in rng.exponential(self.exploration, num).tolist():
            scores = means + k * deviations
            scores[chosen] = -np.inf
            chosen.append(int(np.argmax(scores)))
        return asked, candidates[chosen]

    @_one_thread
    def tell(
        self, state: DynaState, tokens: ArrayLike, rewards: ArrayLike
    ) -> DynaState:
        """See `Controller.tell`."""
        known, values = check_told(tokens, rewards, self.num_choices, self.conditions)
        if not len(values):
            return state
        state = state._replace(
            num_tells=state.num_tells + 1,
            tokens=np.concatenate([state.tokens, known]),
            rewards=np.concatenate([state.rewards, values]),
        )
        if not self.model:
            weights = ranks.utilities(values) / len(values)
            return state._replace(params=self._stepped(state.params, known, weights))
        if not self._is_fitted(state):
            return state
        state = self._fit(state, len(values))
        return self._practise(state, len(values)) if self.learning_rate else state

    @_one_thread
    def policy_summary(self, state: DynaState) -> PolicySummary:
        """See `HasPolicy.policy_summary`."""
        return linear_policy.policy_summary(
            state.params, self.num_choices, self.conditions
        )

    @_one_thread
    def predict(self, state: DynaState, tokens: ArrayLike) -> Prediction | None:
        """See `HasPredictor.predict`."""
        rows = check_pending(tokens, self.num_choices, self.conditions)
        if not (self.model and self._is_fitted(state)):
            return None
        means, deviations = self._predictor(state, rows[:0]).predict(rows)
        low, middle, high = (
            np.asarray(state.warp.rewards(means + k * deviations), np.float64)
            for k in (-1.0, 0.0, 1.0)
        )
        return Prediction(means=middle, deviations=0.5 * (high - low))

    @_one_thread
    def log_probs(self, state: DynaState, tokens: ArrayLike) -> _Floats:
        """Returns the logarithms [n] of the policy's probabilities of tokens [n, D]."""
        rows = check_pending(tokens, self.num_choices, self.conditions)
        return linear_policy.log_probs(
            state.params, self.num_choices, rows, self.conditions
        )

    def _is_fitted(self, state: DynaState) -> bool:
        return len(state.rewards) >= _MIN_FITTED

    def _candidates(
        self, state: DynaState, rng: np.random.Generator, num: int, pending: _Tokens
    ) -> tuple[_Tokens, int]:
        """Returns different samples of the policy, and how many of them are new.

        Only new ones where there are `num`; else new ones come first.
        """
        known = {*ring.keys(state.tokens), *ring.keys(pending)}
        rows: dict[bytes, _Tokens] = {}
        new: list[_Tokens] = []
        params, size = state.params, max(_NUM_CANDIDATES, _CANDIDATES_EACH * num)
        for _ in range(_MAX_FLATTENED):
            tokens, _ = self._sample(params, rng, size)
            rows |= dict(zip(ring.keys(tokens), tokens, strict=True))
            new = [row for key, row in rows.items() if key not in known]
            if len(new) >= num:
                return np.stack(new or [*rows.values()]), len(new)
            params = linear_policy.flattened(params)
        old = [row for key, row in rows.items() if key in known]
        return np.stack([*new, *old]), len(new)

    def _predictor(self, state: DynaState, pending: _Tokens) -> predictor.Predictor:
        out = pending[-_MAX_PENDING:]
        if len(state.rewards) <= predictor.MAX_EXACT:
            values = state.warp.values(state.rewards)
            return predictor.exact(
                state.tokens, values, self.num_choices, state.parameters, out
            )
        return predictor.sparse(
            state.sums, float(state.scale), self.num_choices, state.parameters, out
        )

    def _fit(self, state: DynaState, num: int) -> DynaState:
        """Takes in the latest `num` results, and now and then looks at all anew."""
        total = len(state.rewards)
        is_exact = total <= predictor.MAX_EXACT
        is_first = not (is_exact or len(state.sums.inducing))
        if is_first or total >= _GROWTH * int(state.fitted):
            worth = state.rewards
            if not (is_exact or is_first):  # what they are by now, luck apart
                worth, _ = self._predictor(state, state.tokens[:0]).predict(
                    state.tokens
                )
            return self._fit_anew(state, worth)
        if is_exact:
            return state
        sums = predictor.added(
            state.sums,
            state.tokens[-num:],
            state.warp.values(state.rewards[-num:]),
            self.num_choices,
            state.parameters,
        )
        return state._replace(sums=sums)

    def _fit_anew(self, state: DynaState, worth: _Floats) -> DynaState:
        """Looks at all results; the best are those of the highest `worth` [n]."""
        total = len(state.rewards)
        is_exact = total <= predictor.MAX_EXACT
        warp = predictor.Warp.of(state.rewards)
        values = warp.values(state.rewards)
        rows = np.arange(total) if is_exact else predictor.chosen(worth)
        tokens = state.tokens[rows]
        parameters = kernel.likelier(
            tokens, values[rows], self.num_choices, state.parameters
        )
        state = state._replace(
            warp=warp, parameters=parameters, fitted=np.asarray(total)
        )
        if is_exact:
            return state
        known = predictor.exact(
            tokens, values[rows], self.num_choices, parameters, tokens[:0]
        )
        sums = predictor.no_sums(np.unique(tokens, axis=0))
        sums = predictor.added(sums, state.tokens, values, self.num_choices, parameters)
        return state._replace(sums=sums, scale=np.asarray(known.scale))

    def _practise(self, state: DynaState, num: int) -> DynaState:
        """Teaches the policy what the predictor thinks, now that it has `num` more."""
        judge = self._predictor(state, state.tokens[:0])
        rng = np.random.default_rng([int(state.seed), 1, int(state.num_tells)])
        params = state.params
        for _ in range(min(_STEPS_PER_REWARD * num, _MAX_STEPS)):
            tokens, _ = self._sample(params, rng, _NUM_SAMPLES)
            means, deviations = judge.predict(tokens)
            k = rng.exponential(self.exploration, _NUM_SAMPLES)
            scores = (means + k * deviations).astype(np.float32)
            weights = ranks.utilities(scores) / _NUM_SAMPLES
            params = self._stepped(params, tokens, weights)
        return state._replace(params=params)

    def _sample(
        self, params: linear_policy.Params, rng: np.random.Generator, num: int
    ) -> tuple[_Tokens, _Floats]:
        return linear_policy.sample(params, self.num_choices, rng, num, self.conditions)

    def _stepped(
        self, params: linear_policy.Params, tokens: _Tokens, weights: _Floats
    ) -> linear_policy.Params:
        return linear_policy.stepped(
            params,
            self.num_choices,
            tokens,
            weights,
            self.learning_rate,
            self.forgetting,
            self.conditions,
        )
