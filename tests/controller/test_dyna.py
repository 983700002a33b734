"""Tests for controller.dyna: what it finds, from how few rewards, and who did it."""

import numpy as np
import pytest

import controller
from controller import predictor
from controller.dyna import Dyna
from nas.loop import optimize

# 41,472 sequences; the best has the best token of each decision.
SEPARABLE = (3, 2, 4, 3, 2, 4, 3, 3, 2, 4)
WORTH = np.random.default_rng(0).normal(size=(len(SEPARABLE), 4))
BEST = sum(WORTH[d, :count].max() for d, count in enumerate(SEPARABLE))

# 6,561 sequences of four pairs. A pair is worth 1 if both of its tokens are 2, and
# every single 2 costs a quarter: each decision on its own says "not 2".
TRAPS = (3,) * 8


def separable(tokens):
    return WORTH[np.arange(len(SEPARABLE)), tokens].sum(axis=-1)


def traps(tokens):
    pairs = np.reshape(tokens, (len(tokens), -1, 2)) == 2
    return np.where(pairs.all(axis=-1), 1.0, -0.25 * pairs.sum(axis=-1)).sum(axis=-1)


def evaluations_until(best, num_choices, evaluate, num_trials, seed):
    """Returns how many evaluations it took to find `best`; None if it was not found."""
    c = controller.build("dyna", num_choices=num_choices)
    trials = optimize(c, evaluate, num_trials=num_trials, seed=seed)
    hits = [i for i, trial in enumerate(trials) if trial.reward > best - 1e-6]
    return hits[0] + 1 if hits else None


@pytest.mark.parametrize("seed", range(4))
def test_finds_the_best_of_a_separable_space(seed):
    # Eighty random ones find it with odds of 0.002.
    assert evaluations_until(BEST, SEPARABLE, separable, 80, seed) is not None


def test_finds_the_best_of_a_space_of_traps():
    # Random ones find it with odds of 0.02 each, and three of six of them with 0.0002.
    found = [evaluations_until(4.0, TRAPS, traps, 150, seed) for seed in range(6)]
    assert sum(hit is not None for hit in found) >= 3


def told(seed=0, num=40, **options):
    c = Dyna(num_choices=SEPARABLE, **options)
    state, tokens = c.ask(c.init(seed), num)
    return c, c.tell(state, tokens, separable(tokens))


def test_the_policy_prefers_what_is_good():
    c, state = told()
    rng = np.random.default_rng(1)
    rows = rng.integers(SEPARABLE, size=(500, len(SEPARABLE))).astype(np.int32)
    likely = c.log_probs(state, rows)
    # Independent of it, a correlation of 500 pairs has a deviation of 0.045.
    assert np.corrcoef(likely, separable(rows))[0, 1] > 0.5
    assert c.policy_summary(state).entropy < c.policy_summary(c.init(0)).entropy


def test_what_is_proposed_are_samples_of_the_policy():
    # Of choices that the policy has all but given up, next to none are proposed.
    c, state = told(num=80)
    _, asked = c.ask(state, 40)
    probabilities = c.policy_summary(state).probabilities
    rare = probabilities[np.arange(len(SEPARABLE)), asked] < 0.005
    assert rare.mean() < 0.02
    chosen = c.log_probs(state, asked)
    uniform = np.random.default_rng(0).integers(SEPARABLE, size=asked.shape)
    assert chosen.mean() > c.log_probs(state, uniform).mean() + 1.0


def test_without_its_learning_the_policy_stays_uniform():
    c, state = told(learning_rate=0.0)
    found = c.log_probs(state, np.zeros((1, len(SEPARABLE)), np.int32))
    assert found[0] == pytest.approx(-np.log(41_472), rel=1e-5)


def test_without_a_model_it_learns_from_results_alone():
    c = Dyna(num_choices=(3, 2, 4), model=False, learning_rate=1.0)
    state = c.init(0)
    for _ in range(60):
        state, tokens = c.ask(state, 10)
        state = c.tell(state, tokens, tokens.sum(axis=1))
        assert c.predict(state, tokens) is None
    assert c.log_probs(state, [[2, 1, 3]])[0] > np.log(0.5)


def test_predictions_are_in_the_unit_of_rewards_and_smooth_noise_away():
    c = Dyna(num_choices=SEPARABLE)
    state, tokens = c.ask(c.init(0), 200)
    truth = 100.0 + 10.0 * separable(tokens)
    noisy = truth + np.random.default_rng(2).normal(size=200) * 10.0
    state = c.tell(state, tokens, noisy)
    found = c.predict(state, tokens)
    good = truth > np.median(truth)  # bad ones are only known to be bad
    error = np.sqrt(np.mean((found.means - truth)[good] ** 2))
    assert error < 7.0  # the rewards' own is 10
    assert 1.0 < np.median(found.deviations[good]) < 15.0


def test_too_few_results_predict_nothing():
    c = Dyna(num_choices=SEPARABLE)
    state, tokens = c.ask(c.init(0), 9)
    assert c.predict(c.tell(state, tokens, separable(tokens)), tokens) is None


def test_nothing_told_or_pending_is_proposed_while_there_is_more():
    c = Dyna(num_choices=(4, 4, 4))
    state, tokens = c.ask(c.init(0), 20)
    state = c.tell(state, tokens, tokens.sum(axis=1))
    _, pending = c.ask(state, 20)
    _, more = c.ask(state, 10, pending)
    seen = {tuple(row) for row in (*tokens.tolist(), *pending.tolist())}
    assert seen.isdisjoint(tuple(row) for row in more.tolist())
    assert len(np.unique(more, axis=0)) == 10


def test_nothing_is_forgotten():
    # The first of 3,000 results say that token 0 is worth 2; the later ones all have
    # token 1 there. What the first said still counts.
    c = Dyna(num_choices=(2, *[3] * 12), learning_rate=0.0)
    rng, state = np.random.default_rng(0), c.init(0)
    for number in range(10):
        tokens = rng.integers(c.num_choices, size=(300, 13)).astype(np.int32)
        tokens[:, 0] = number > 0
        rewards = 2.0 * (tokens[:, 0] == 0) + tokens[:, 1:].mean(axis=1)
        state = c.tell(state, tokens, rewards)
    assert len(state.rewards) == 3000 > predictor.MAX_EXACT
    rows = rng.integers(c.num_choices, size=(100, 13)).astype(np.int32)
    first, second = rows.copy(), rows.copy()
    first[:, 0], second[:, 0] = 0, 1
    gain = c.predict(state, first).means - c.predict(state, second).means
    assert gain.mean() == pytest.approx(2.0, abs=0.5)


def test_half_of_the_trials_infeasible_at_the_lowest_reward():
    def evaluate(tokens):
        # Odd first tokens cannot be measured, and count as the lowest.
        return np.where(tokens[:, 1] == 1, -20.0, separable(tokens))

    c = controller.build("dyna", num_choices=SEPARABLE)
    trials = optimize(c, evaluate, num_trials=120, seed=1)
    late = [trial.reward for trial in trials[60:]]
    assert np.mean(np.array(late) == -20.0) < 0.3
    best = BEST - WORTH[1, :2].max() + WORTH[1, 0]
    assert max(trial.reward for trial in trials) > best - 0.5


def test_a_crowd_of_pending_trials_and_rewards_out_of_order():
    c, rng = Dyna(num_choices=SEPARABLE), np.random.default_rng(3)
    state = c.init(0)
    out = np.zeros((0, len(SEPARABLE)), np.int32)
    seen = 0
    for _ in range(15):
        state, asked = c.ask(state, 200, out)
        out = rng.permutation(np.concatenate([out, asked]))
        state = c.tell(state, out[:40], separable(out[:40]))
        out, seen = out[40:], seen + 40
    assert len(state.rewards) == seen
    # Of 600 random ones the best would be more than 1 short with odds above a half.
    assert state.rewards.max() > BEST - 1.0
