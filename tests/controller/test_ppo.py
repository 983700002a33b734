"""Tests for controller.ppo: what it learns, and from how few rewards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import controller
from controller import policy
from controller.ppo import PPO
from nas.loop import optimize

PLAIN = {"rank_advantages": False, "replay": 0, "neighbours": False, "screen": False}
AIDS = ("rank_advantages", "replay", "neighbours", "screen")

# 41,472 sequences; the best has the best token of each decision.
SEPARABLE = (3, 2, 4, 3, 2, 4, 3, 3, 2, 4)
WORTH = np.random.default_rng(0).normal(size=(len(SEPARABLE), 4))

# 6,561 sequences of four pairs. A pair is worth 1 if both of its tokens are 2, and
# every single 2 costs a quarter: each decision on its own says "not 2".
TRAPS = (3,) * 8


def separable(tokens):
    return WORTH[np.arange(len(SEPARABLE)), tokens].sum(axis=-1)


def traps(tokens):
    pairs = np.reshape(tokens, (len(tokens), -1, 2)) == 2
    return np.where(pairs.all(axis=-1), 1.0, -0.25 * pairs.sum(axis=-1)).sum(axis=-1)


def evaluations_until(best, num_choices, evaluate, num_trials, seed, options):
    """Returns how many evaluations it took to find `best`; None if it was not found."""
    c = controller.build("ppo", num_choices=num_choices, **options)
    trials = optimize(c, evaluate, num_trials=num_trials, seed=seed)
    hits = [i for i, trial in enumerate(trials) if trial.reward > best - 1e-6]
    return hits[0] + 1 if hits else None


def log_prob_of(state, num_choices, tokens):
    evaluate = jax.jit(policy.evaluate, static_argnums=1)
    return float(evaluate(state.params, num_choices, jnp.asarray(tokens))[0][0])


@pytest.mark.parametrize("seed", range(10))
def test_finds_the_best_of_a_separable_space_within_80_evaluations(seed):
    # Twenty seeds took 11 to 51. Eighty random ones find it with odds of 0.002.
    best = sum(WORTH[d, :count].max() for d, count in enumerate(SEPARABLE))
    assert evaluations_until(best, SEPARABLE, separable, 80, seed, {}) is not None


def test_finds_the_best_of_a_space_of_traps_within_150_evaluations():
    # Twenty seeds took 16 to 101. Random ones find it with odds 0.02 each.
    found = [evaluations_until(4.0, TRAPS, traps, 150, s, {}) for s in range(10)]
    assert sum(hit is not None for hit in found) >= 8


def test_the_plain_algorithm_learns_the_best_sequence():
    # No aid: the policy itself must come to propose the best of 120 sequences.
    num_choices = (3, 2, 4, 1, 5)
    c = PPO(num_choices=num_choices, **PLAIN)
    for seed in range(3):
        state = c.init(seed)
        for _ in range(60):
            state, tokens = c.ask(state, 20)
            state = c.tell(state, tokens, (tokens == [2, 0, 3, 0, 1]).sum(axis=1))
        assert log_prob_of(state, num_choices, [[2, 0, 3, 0, 1]]) > np.log(0.9)


def test_a_late_result_moves_the_policy_no_further_than_the_clip():
    # The same proposal is told again and again. As its probability when it was
    # proposed is remembered, it rises by about 1 + clip; that of a sequence that was
    # never proposed is taken as it stands each time, and rises without end.
    num_choices = (4,) * 12
    # Small steps: one of Adam's must not be past the clip already.
    c = PPO(num_choices=num_choices, learning_rate=1e-3, **PLAIN)

    def rise(tokens, state):
        state = c.tell(state, [[0] * 12], [0.0])  # the average to be better than
        before = log_prob_of(state, num_choices, tokens)
        for _ in range(40):
            state = c.tell(state, tokens, [1.0])
        return log_prob_of(state, num_choices, tokens) - before

    state, proposed = c.ask(c.init(0), 1)
    stranger = (proposed + 1) % 4
    assert 0.1 < rise(proposed, state) < 1.0
    assert rise(stranger, state) > 5.0


@pytest.mark.parametrize("off", AIDS)
def test_each_aid_makes_a_difference_and_none_is_needed(off):
    # Many more sequences than are told: else there is little left to propose.
    num_choices = (3, 2, 4, 1, 5, 4, 4, 4)
    value = 0 if off == "replay" else False

    def proposed(options):
        c = controller.build("ppo", num_choices=num_choices, **options)
        state = c.init(0)
        for _ in range(8):
            state, tokens = c.ask(state, 16)
            state = c.tell(state, tokens, (tokens**2).sum(axis=1))
        return c.ask(state, 16)[1]

    assert (proposed({}) != proposed({off: value})).any()


def test_proposals_leave_out_what_was_told_while_there_is_more():
    c = PPO(num_choices=(4, 4, 4))
    state, tokens = c.ask(c.init(0), 30)
    state = c.tell(state, tokens, tokens.sum(axis=1))
    told = {tuple(row) for row in tokens.tolist()}
    _, more = c.ask(state, 10)
    assert told.isdisjoint(tuple(row) for row in more.tolist())
    assert len(np.unique(more, axis=0)) == 10
