"""Tests for controller.evolution."""

import numpy as np

from controller.evolution import Evolution


def test_the_oldest_die_whatever_their_reward():
    # By hand, population 3: told A=9, B=1, C=2 in one call, then D=3 and E=4. A, the
    # best ever, dies first, then B: left are C, D, E.
    c = Evolution(num_choices=(6, 6), population=3, tournament=50)
    state = c.init(0)
    state = c.tell(state, [[0, 0], [1, 1], [2, 2]], [9.0, 1.0, 2.0])
    assert (c.ask(state, 200)[1] == [0, 0]).any(axis=1).all()  # children of A
    state = c.tell(state, [[3, 3]], [3.0])
    # A is gone; the best of B, C, D is D. With 50 draws from 3, a tournament misses D
    # with odds (2/3)^50 < 2e-9.
    assert (c.ask(state, 200)[1] == [3, 3]).any(axis=1).all()
    state = c.tell(state, [[4, 4]], [4.0])
    assert state.tokens.tolist() == [[2, 2], [3, 3], [4, 4]]
    assert state.rewards.tolist() == [2.0, 3.0, 4.0]


def test_a_child_differs_from_its_parent_in_one_token_uniformly():
    parent = np.array([1, 0, 2, 0])
    c = Evolution(num_choices=(3, 2, 4, 1), population=1, tournament=1)
    state = c.tell(c.init(0), [parent], [1.0])
    _, children = c.ask(state, 3000)
    changed = children != parent
    assert (changed.sum(axis=1) == 1).all()
    # The three decisions that have a choice, equally often: 1000 +- 26 each; the
    # bounds are five standard deviations.
    assert ((changed.sum(axis=0)[:3] > 870) & (changed.sum(axis=0)[:3] < 1130)).all()
    # Each other value equally often: 1000 / 3 of each for the decision with four.
    values, counts = np.unique(children[changed[:, 2], 2], return_counts=True)
    assert values.tolist() == [0, 1, 3]
    assert (counts > 240).all()


def test_proposals_are_random_until_the_population_is_full():
    c = Evolution(num_choices=(2,) * 20, population=5, tournament=5)
    state = c.tell(c.init(0), [[0] * 20] * 4, [1.0] * 4)
    _, tokens = c.ask(state, 100)
    assert 0.4 < tokens.mean() < 0.6  # 2,000 fair coins: 0.5 +- 0.011
    state = c.tell(state, [[0] * 20], [1.0])
    assert c.ask(state, 100)[1].mean() == 1 / 20


def test_tournaments_of_one_choose_parents_evenly_and_large_ones_the_best():
    population = [[0] * 8, [1] * 8]
    for tournament, expected in ((1, 0.5), (3, 1 - 0.5**3)):
        c = Evolution(num_choices=(2,) * 8, population=2, tournament=tournament)
        state = c.tell(c.init(0), population, [0.0, 1.0])
        _, children = c.ask(state, 2000)
        of_the_best = (children.sum(axis=1) == 7).mean()
        # Five standard deviations of a share of 2,000 are at most 0.056.
        assert abs(of_the_best - expected) < 0.056


def test_a_space_of_one_sequence():
    c = Evolution(num_choices=(1, 1), population=1, tournament=1)
    state = c.tell(c.init(0), [[0, 0]], [1.0])
    assert c.ask(state, 2)[1].tolist() == [[0, 0], [0, 0]]
