"""Tests for controller.linear_policy."""

import itertools
import math

import numpy as np
import pytest

from controller import kernel, linear_policy
from controller.linear_policy import Params

NUM_CHOICES = (3, 1, 2, 4)
TOTAL = sum(NUM_CHOICES)
EVERY = np.array(list(itertools.product(*map(range, NUM_CHOICES))), np.int32)
OFFSETS = (0, 3, 4, 6)


def some_policy(seed):
    rng = np.random.default_rng(seed)
    bias = rng.normal(size=TOTAL).astype(np.float32)
    pairs = rng.normal(size=(TOTAL, TOTAL)).astype(np.float32)
    decision = np.repeat(np.arange(4), NUM_CHOICES)
    return Params(bias, pairs * (decision[:, None] < decision[None, :]))


def reference(params, tokens):
    """The log-probability of one sequence, decision by decision."""
    total = 0.0
    for d, token in enumerate(tokens):
        columns = slice(OFFSETS[d], OFFSETS[d] + NUM_CHOICES[d])
        logits = params.bias[columns].astype(float)
        for before in range(d):
            logits = logits + params.pairs[OFFSETS[before] + tokens[before], columns]
        total += logits[token] - math.log(np.exp(logits).sum())
    return total


def test_log_probabilities_decision_by_decision_and_they_sum_to_one():
    params = some_policy(0)
    found = linear_policy.log_probs(params, NUM_CHOICES, EVERY)
    np.testing.assert_allclose(
        found, [reference(params, row) for row in EVERY.tolist()], rtol=1e-5
    )
    assert np.exp(found.astype(float)).sum() == pytest.approx(1.0, abs=1e-5)


def test_samples_come_as_often_as_their_probability_says():
    params = some_policy(1)
    tokens, likely = linear_policy.sample(
        params, NUM_CHOICES, np.random.default_rng(0), 20_000
    )
    np.testing.assert_allclose(
        likely, linear_policy.log_probs(params, NUM_CHOICES, tokens)
    )
    index = np.ravel_multi_index(tuple(tokens.T), NUM_CHOICES)
    shares = np.bincount(index, minlength=len(EVERY)) / 20_000
    expected = np.exp(linear_policy.log_probs(params, NUM_CHOICES, EVERY))
    # Five standard deviations of 24 shares.
    bound = 5 * np.sqrt(expected * (1 - expected) / 20_000) + 1e-4
    assert (np.abs(shares - expected) < bound).all()


def test_it_begins_uniform():
    found = linear_policy.policy_summary(linear_policy.init(NUM_CHOICES), NUM_CHOICES)
    assert found.entropy == pytest.approx(math.log(24), rel=1e-5)
    np.testing.assert_allclose(found.probabilities[2], [0.5, 0.5, 0, 0])


def test_a_step_goes_up_the_gradient():
    # By finite differences of the sum of weights times log-probabilities, in float64.
    params = some_policy(2)
    rng = np.random.default_rng(3)
    weights = rng.normal(size=8).astype(np.float32)
    tokens = EVERY[rng.permutation(24)[:8]]
    moved = linear_policy.stepped(params, NUM_CHOICES, tokens, weights, 1.0, 0.0)

    def value(bias, pairs):
        changed = Params(bias, pairs)
        return weights @ [reference(changed, row) for row in tokens.tolist()]

    exact = [leaf.astype(float) for leaf in params]
    for column in range(TOTAL):
        step = 1e-5 * np.eye(TOTAL)[column]
        rise = value(exact[0] + step, exact[1]) - value(exact[0] - step, exact[1])
        found = moved.bias[column] - params.bias[column]
        assert found == pytest.approx(rise / 2e-5, abs=1e-4)
    for row, column in ((0, 4), (2, 9), (5, 6), (4, 4), (9, 0)):
        step = np.zeros((TOTAL, TOTAL))
        step[row, column] = 1e-5
        rise = value(exact[0], exact[1] + step) - value(exact[0], exact[1] - step)
        found = moved.pairs[row, column] - params.pairs[row, column]
        # Tables of pairs move by a share of the rate: one in four decisions.
        assert found == pytest.approx(rise / 2e-5 / 4, abs=1e-4)


def test_forgetting_alone_leads_to_the_uniform_policy():
    params = some_policy(4)
    for _ in range(200):
        params = linear_policy.stepped(
            params, NUM_CHOICES, EVERY[:2], np.zeros(2, np.float32), 1.0, 0.1
        )
    found = linear_policy.policy_summary(params, NUM_CHOICES)
    assert found.entropy == pytest.approx(math.log(24), rel=1e-4)


def test_it_learns_what_only_a_pair_of_choices_is_worth():
    # Equal bits are worth 1, each as good as the other: no bias can say so.
    num_choices, rng = (2, 2), np.random.default_rng(0)
    params = linear_policy.init(num_choices)
    for _ in range(300):
        tokens, _ = linear_policy.sample(params, num_choices, rng, 64)
        worth = (tokens[:, 0] == tokens[:, 1]) - 0.5
        weights = (worth / 64).astype(np.float32)
        params = linear_policy.stepped(params, num_choices, tokens, weights, 1.0, 0.0)
    tokens, _ = linear_policy.sample(params, num_choices, rng, 2000)
    assert (tokens[:, 0] == tokens[:, 1]).mean() > 0.95


def test_where_tables_of_pairs_do_not_fit_it_does_without():
    num_choices = (100,) * 30
    params = linear_policy.init(num_choices)
    assert params.pairs.size == 0
    tokens, likely = linear_policy.sample(
        params, num_choices, np.random.default_rng(0), 3
    )
    np.testing.assert_allclose(likely, -30 * math.log(100), rtol=1e-5)
    weights = np.full(3, 1.0, np.float32)
    params = linear_policy.stepped(params, num_choices, tokens, weights, 1.0, 0.0)
    assert (linear_policy.log_probs(params, num_choices, tokens) > likely).all()


def test_marks_are_ones_at_the_choices_made():
    found = kernel.one_hot(np.array([[2, 0, 1, 3]], np.int32), NUM_CHOICES)
    assert found.tolist() == [[0, 0, 1, 1, 0, 1, 0, 0, 0, 1]]
