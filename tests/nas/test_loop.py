"""Tests for nas.loop."""

import numpy as np
import pytest

import controller
from nas.loop import optimize

RANDOM = controller.build("random", num_choices=(3, 2, 4))


def test_an_exhausted_space_ends_the_search_with_every_sequence():
    batches = []

    def evaluate(tokens):
        batches.append(len(tokens))
        return tokens @ np.array([8, 4, 1])

    trials = optimize(RANDOM, evaluate, num_trials=1000, batch_size=10)
    assert batches == [10, 10, 4]
    every = {(a, b, c) for a in range(3) for b in range(2) for c in range(4)}
    assert {tuple(t.tokens.tolist()) for t in trials} == every
    assert [t.reward for t in trials] == [
        float(t.tokens @ np.array([8, 4, 1])) for t in trials
    ]


def test_stops_at_the_number_of_trials_and_tells_whole_batches_only():
    sizes = []

    def evaluate(tokens):
        sizes.append(len(tokens))
        return np.zeros(len(tokens))

    assert len(optimize(RANDOM, evaluate, num_trials=13, batch_size=5)) == 13
    assert sizes == [5, 5, 3]
    assert optimize(RANDOM, evaluate, num_trials=0) == []


def test_the_seed_decides_the_trials():
    def tokens(seed):
        trials = optimize(RANDOM, lambda t: t.sum(-1), num_trials=10, seed=seed)
        return [t.tokens.tolist() for t in trials]

    assert tokens(1) == tokens(1)
    assert tokens(1) != tokens(2)


def test_evaluations_of_the_wrong_kind():
    with pytest.raises(ValueError, match=r"each of 10 sequences, got shape \(10, 1\)"):
        optimize(RANDOM, lambda t: np.zeros((len(t), 1)))
    with pytest.raises(ValueError, match="must be finite, got nan"):
        optimize(RANDOM, lambda t: np.full(len(t), np.nan))
    with pytest.raises(ValueError, match="num_trials must be 0 or more, got -1"):
        optimize(RANDOM, lambda t: np.zeros(len(t)), num_trials=-1)
