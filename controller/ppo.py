"""Proximal policy optimization (arXiv:1707.06347), made to learn from few results."""

# JAX leaves parts of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike, NDArray

from controller import neighbours, policy, policy_gradient, predictor, ring
from controller.conditions import Conditions, canonical
from controller.interface import (
    PolicySummary,
    check_decisions,
    check_num,
    check_pending,
    check_range,
    check_seed,
    check_told,
)

# Proposals are made and updates learn from so many sequences at most at once.
_CHUNK = 32
_MAX_REPLAY = 16
# How many proposals may be out before the oldest one's log-probability is forgotten.
_MAX_PROPOSED = 1024
# How many results are remembered, to replay the best of them.
_MAX_RESULTS = 1024
# How many results the predictor is fitted to, half of them the best, half the latest.
_MAX_FITTED = 300
# Fewer results than this say nothing about other sequences.
_MIN_FITTED = 10
# Its setting is looked at when there are so many times more results, and then climbs
# at most so many steps.
_GROWTH = 1.1
_MAX_STEPS = 3
# Among how many samples of the policy, and how many neighbours of how many of the
# best results, the predictor chooses.
_NUM_SAMPLES = 64
_NUM_NEIGHBOURS = 448
_NUM_PARENTS = 10

_Tokens = NDArray[np.int32]
_Floats = NDArray[np.float32]


class PPOState(NamedTuple):
    """What the controller knows.

    `seed` and `num_asks` int64 [] decide the random numbers; `proposed` has each
    proposal's log-probability when it was made, `results` the rewards; `baseline`
    float32 [] is the moving average of rewards; `setting` int64 [3] the predictor's.
    """

    seed: NDArray[np.int64]
    num_asks: NDArray[np.int64]
    params: policy.Params
    opt_state: optax.OptState
    proposed: ring.Ring
    results: ring.Ring
    baseline: _Floats
    setting: NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PPO:
    """The clipped surrogate over the LSTM policy, and four aids for few results.

    Each aid can be turned off; without all four it is the plain algorithm.

    rank_advantages: an update's advantages are utilities of the rewards' ranks in its
      batch, as in natural evolution strategies (arXiv:1106.4487, section 3.1), so that
      their scale and outliers do not matter. Off: rewards less their moving average.
    replay: so many of the best results so far join each update, as in self-imitation
      (arXiv:1806.05635) and priority queue training (arXiv:1801.03526). Their ratio
      is taken to the policy at the start of the update.
    neighbours: proposals are also drawn from around the best results, one to four
      tokens redrawn from the policy: evolution's step, guided.
    screen: proposals are chosen among many candidates by a Gaussian process fitted to
      this run's results (`controller.predictor`): the highest mean plus k standard
      deviations, k exponential with mean `exploration` for each, which keeps
      proposals of one batch apart (Hutter et al., "Parallel algorithm
      configuration", 2012).

    The rest is PPO's. NASNet's numbers are learning rate 3.5e-4, entropy weight 1e-5
    and baseline decay 0.95 (arXiv:1707.07012); its learning rate is meant for
    thousands of results.
    """

    num_choices: tuple[int, ...]
    conditions: Conditions = ()
    learning_rate: float = 0.01
    clip: float = 0.2
    epochs: int = 2
    entropy_weight: float = 1e-5
    baseline_decay: float = 0.95
    rank_advantages: bool = True
    replay: int = 10
    neighbours: bool = True
    screen: bool = True
    exploration: float = 4.0

    def __post_init__(self) -> None:
        """Rejects values that no update could use."""
        check_decisions(self.num_choices, self.conditions)
        check_range("learning_rate", self.learning_rate, 0.0)
        check_range("clip", self.clip, 0.0)
        check_range("epochs", self.epochs, 1)
        check_range("entropy_weight", self.entropy_weight, 0.0)
        check_range("baseline_decay", self.baseline_decay, 0.0, 1.0)
        check_range("replay", self.replay, 0, _MAX_REPLAY)
        check_range("exploration", self.exploration, 0.0)

    def init(self, seed: int) -> PPOState:
        """See `Controller.init`."""
        check_seed(seed)
        params = policy.init(seed, self.num_choices)
        decisions = len(self.num_choices)
        return PPOState(
            seed=np.asarray(seed),
            num_asks=np.asarray(0),
            params=params,
            opt_state=policy_gradient.init_optimizer(params),
            proposed=ring.empty(_MAX_PROPOSED, decisions),
            results=ring.empty(_MAX_RESULTS, decisions),
            baseline=np.zeros((), np.float32),
            setting=np.array(predictor.START),
        )

    def ask(
        self, state: PPOState, num: int, pending: ArrayLike | None = None
    ) -> tuple[PPOState, _Tokens]:
        """See `Controller.ask`; the predictor chooses nothing that is pending."""
        check_num(num)
        out = check_pending(pending, self.num_choices, self.conditions)
        parts = [np.zeros((0, len(self.num_choices)), np.int32)]
        for start in range(0, num, _CHUNK):
            rng = np.random.default_rng([int(state.seed), int(state.num_asks)])
            tokens = self._propose(state, rng, min(_CHUNK, num - start), out)
            chosen = np.take_along_axis(
                self._conditionals(state, tokens), tokens[..., None], axis=-1
            )
            state = state._replace(
                num_asks=state.num_asks + 1,
                proposed=ring.append(state.proposed, tokens, chosen.sum(axis=(1, 2))),
            )
            parts.append(tokens)
        return state, np.concatenate(parts)

    def tell(self, state: PPOState, tokens: ArrayLike, rewards: ArrayLike) -> PPOState:
        """See `Controller.tell`."""
        known, values = check_told(tokens, rewards, self.num_choices, self.conditions)
        before = int(state.results.size)
        size = _CHUNK - self.replay
        for start in range(0, len(values), size):
            chunk = slice(start, start + size)
            state = self._learn(state, known[chunk], values[chunk])
        if self.screen and _grown(before, int(state.results.size)):
            state = state._replace(setting=np.array(self._climbed(state)))
        return state

    def policy_summary(self, state: PPOState) -> PolicySummary:
        """See `HasPolicy`; of the policy alone, before candidates compete."""
        return policy.policy_summary(state.params, self.num_choices, self.conditions)

    def _climbed(self, state: PPOState) -> predictor.Setting:
        """Returns the predictor's setting, a few steps likelier than it was."""
        fitted, setting = self._fitted(state), _setting(state)
        for _ in range(_MAX_STEPS):
            found = predictor.climb(*fitted, self.num_choices, setting)
            if found == setting:
                break
            setting = found
        return setting

    def _learn(self, state: PPOState, tokens: _Tokens, rewards: _Floats) -> PPOState:
        """One update on at most `_CHUNK - replay` results."""
        best, best_rewards = _best_others(state.results, tokens, self.replay)
        joined = np.concatenate([rewards, best_rewards])
        baseline = state.baseline
        if self.rank_advantages:
            advantages = policy_gradient.rank_utilities(joined)
        else:
            mean = rewards.mean()
            # The first batch has no past to be better than: it is its own baseline.
            decay = self.baseline_decay if state.results.size else 0.0
            baseline = np.asarray(decay * baseline + (1.0 - decay) * mean, np.float32)
            advantages = joined - baseline
        unknown = np.full(len(best), np.nan, np.float32)
        batch = policy_gradient.padded(
            np.concatenate([tokens, best]),
            np.concatenate([ring.lookup(state.proposed, tokens), unknown]),
            advantages,
        )
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
            batch,
            conditions=self.conditions,
        )
        return state._replace(
            params=params,
            opt_state=opt_state,
            results=ring.append(state.results, tokens, rewards),
            baseline=baseline,
        )

    def _propose(
        self, state: PPOState, rng: np.random.Generator, num: int, pending: _Tokens
    ) -> _Tokens:
        """Returns `num` <= `_CHUNK` proposals."""
        samples = policy.sample(
            state.params, self.num_choices, rng, _NUM_SAMPLES, self.conditions
        )
        if state.results.size < _MIN_FITTED:
            return samples[:num]
        fitted = self._fit(state) if self.screen else None
        near = samples[:0]
        if self.neighbours:
            near = self._neighbours(state, rng, fitted)
        if fitted is None:
            half = len(near[: num // 2])
            return np.concatenate([near[:half], samples[: num - half]])
        candidates = _distinct(np.concatenate([samples, near]))
        return self._screened(state, rng, fitted, candidates, num, pending)

    def _screened(
        self,
        state: PPOState,
        rng: np.random.Generator,
        fitted: predictor.GaussianProcess,
        candidates: _Tokens,
        num: int,
        pending: _Tokens,
    ) -> _Tokens:
        """Returns the most promising `num` of the candidates that are new."""
        known = {*ring.keys(ring.entries(state.results)[0]), *ring.keys(pending)}
        new = np.array([key not in known for key in ring.keys(candidates)])
        if new.sum() < num:  # so few are left that the order does not matter
            order = np.argsort(~new, kind="stable")
            return candidates[np.resize(order, num)]
        candidates = candidates[new]
        return candidates[
            fitted.choose(candidates, rng.exponential(self.exploration, num))
        ]

    def _neighbours(
        self,
        state: PPOState,
        rng: np.random.Generator,
        fitted: predictor.GaussianProcess | None,
    ) -> _Tokens:
        """Returns neighbours of the best results; noise is smoothed away if it can."""
        if fitted is None:
            tokens, worth = ring.entries(state.results)
        else:
            tokens, _ = self._fitted(state)
            worth = fitted.means(tokens)
        parents = tokens[np.argsort(-worth, kind="stable")[:_NUM_PARENTS]]
        log_probs = self._conditionals(state, parents)
        near = neighbours.draw(rng, parents, log_probs, _NUM_NEIGHBOURS)
        return canonical(self.num_choices, self.conditions, near)

    def _fit(self, state: PPOState) -> predictor.GaussianProcess:
        return predictor.GaussianProcess.fit(
            *self._fitted(state), self.num_choices, _setting(state)
        )

    def _fitted(self, state: PPOState) -> tuple[_Tokens, _Floats]:
        """Returns the results that the predictor learns from, oldest first."""
        tokens, rewards = ring.entries(state.results)
        if len(rewards) <= _MAX_FITTED:
            return tokens, rewards
        order = np.argsort(-rewards, kind="stable")
        best, rest = order[: _MAX_FITTED // 2], np.sort(order[_MAX_FITTED // 2 :])
        kept = np.sort(np.concatenate([best, rest[-(_MAX_FITTED - len(best)) :]]))
        return tokens[kept], rewards[kept]

    def _conditionals(self, state: PPOState, tokens: _Tokens) -> _Floats:
        """Returns `policy.conditionals`."""
        unused = policy_gradient.padded_size(len(tokens)) - len(tokens)
        padded = np.pad(tokens, ((0, unused), (0, 0)))
        log_probs = _conditionals(
            self.num_choices, self.conditions, state.params, padded
        )
        return np.asarray(log_probs)[: len(tokens)]


def _best_others(
    results: ring.Ring, tokens: _Tokens, num: int
) -> tuple[_Tokens, _Floats]:
    """Returns the best `num` results, one each of those that are not in tokens."""
    known, rewards = ring.entries(results)
    taken, names = set(ring.keys(tokens)), ring.keys(known)
    best: list[int] = []
    for index in np.argsort(-rewards, kind="stable").tolist():
        if len(best) == num:
            break
        if names[index] not in taken:
            taken.add(names[index])
            best.append(index)
    return known[best], rewards[best]


def _distinct(tokens: _Tokens) -> _Tokens:
    """Returns each of tokens [n, D] once, in lexicographic order."""
    rows = dict(zip(ring.keys(tokens), range(len(tokens)), strict=True))
    return tokens[[rows[key] for key in sorted(rows)]]


def _grown(before: int, after: int) -> bool:
    """Whether there are a tenth more results than at the last such time, and enough.

    Each decides about the predictor's setting anew, which takes seven fits a step.
    """
    if after < _MIN_FITTED or before == after:
        return False
    levels = [math.log(max(size, 1), _GROWTH) for size in (before, after)]
    return before < _MIN_FITTED or math.floor(levels[0]) < math.floor(levels[1])


def _setting(state: PPOState) -> predictor.Setting:
    linear, rate, noise = state.setting.tolist()
    return linear, rate, noise


@functools.partial(jax.jit, static_argnums=(0, 1))
def _conditionals(
    num_choices: tuple[int, ...],
    conditions: Conditions,
    params: policy.Params,
    tokens: _Tokens,
) -> jax.Array:
    return policy.conditionals(params, num_choices, jnp.asarray(tokens), conditions)
