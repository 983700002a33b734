"""Tests for controller.ppo: the paper's algorithm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import controller
from controller import policy
from controller.ppo import PPO

NUM_CHOICES = (4,) * 12


def log_probs_of(state, num_choices, tokens):
    evaluate = jax.jit(policy.evaluate, static_argnums=1)
    return np.asarray(evaluate(state.params, num_choices, jnp.asarray(tokens))[0])


def test_learns_the_best_sequence():
    # The policy itself must come to propose the best of 120 sequences.
    num_choices = (3, 2, 4, 1, 5)
    c = PPO(num_choices=num_choices, learning_rate=0.01)
    for seed in range(3):
        state = c.init(seed)
        for _ in range(60):
            state, tokens = c.ask(state, 20)
            state = c.tell(state, tokens, (tokens == [2, 0, 3, 0, 1]).sum(axis=1))
        likely = log_probs_of(state, num_choices, [[2, 0, 3, 0, 1]])
        assert likely[0] > np.log(0.9)


def test_remembers_at_what_probability_each_was_proposed():
    c = PPO(num_choices=NUM_CHOICES, learning_rate=0.03)
    state, first = c.ask(c.init(0), 40)  # two chunks
    at_first = log_probs_of(state, NUM_CHOICES, first)
    state = c.tell(state, first, first.sum(axis=1))
    state, second = c.ask(state, 5)
    remembered = state.proposed.values[-45:]
    np.testing.assert_allclose(remembered[:40], at_first, rtol=1e-5)
    now = log_probs_of(state, NUM_CHOICES, np.concatenate([first, second]))
    np.testing.assert_allclose(remembered[40:], now[40:], rtol=1e-5)
    assert np.abs(remembered[:40] - now[:40]).min() > 1e-3  # the policy has moved


def test_no_result_moves_the_policy_further_than_the_clip():
    # The same result is told again and again. The ratio is to the probability at which
    # it was proposed, or first told if another proposed it: past 1 + clip it teaches
    # nothing, but Adam's momentum carries a little further.
    # Small steps: one of Adam's must not be past the clip already.
    c = PPO(num_choices=NUM_CHOICES, learning_rate=1e-3)

    def rise(tokens, state):
        state = c.tell(state, [[0] * 12], [0.0])  # the average to be better than
        before = log_probs_of(state, NUM_CHOICES, tokens)
        for _ in range(40):
            state = c.tell(state, tokens, [1.0])
        return float((log_probs_of(state, NUM_CHOICES, tokens) - before)[0])

    state, proposed = c.ask(c.init(0), 1)
    stranger = (proposed + 1) % 4
    assert np.log(1.2) < rise(proposed, state) < 1.0
    assert np.log(1.2) < rise(stranger, state) < 1.0


def test_the_first_batch_is_its_own_baseline_and_later_ones_move_it():
    # By hand: 7, then 0.95 * 7 + 0.05 * 9.
    ppo = controller.build("ppo", num_choices=(3, 2), entropy_weight=0.0)
    start, tokens = ppo.ask(ppo.init(0), 4)
    first = ppo.tell(start, tokens, np.full(4, 7.0))
    assert first.baseline == 7.0
    # Rewards that are the baseline teach nothing.
    jax.tree.map(np.testing.assert_array_equal, first.params, start.params)
    second = ppo.tell(first, tokens, np.full(4, 9.0))
    assert second.baseline == pytest.approx(0.95 * 7.0 + 0.05 * 9.0)


def test_the_entropy_bonus_keeps_a_policy_open():
    def entropy(weight):
        c = PPO(num_choices=(3, 2, 4), learning_rate=0.03, entropy_weight=weight)
        state = c.init(0)
        for _ in range(40):
            state, tokens = c.ask(state, 16)
            state = c.tell(state, tokens, tokens.sum(axis=1))
        return c.policy_summary(state).entropy

    assert entropy(3.0) > entropy(0.0) + 0.5
