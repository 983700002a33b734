"""Tests for controller.neighbours."""

import numpy as np

from controller import neighbours

PARENTS = np.array([[0, 0, 0, 0, 1], [2, 0, 3, 1, 0]], np.int32)
NUM_CHOICES = (3, 1, 4, 2, 2)


def uniform():
    """Both parents' conditionals [2, 5, 4]: every choice as likely."""
    table = np.full((2, 5, 4), -np.inf, np.float32)
    for d, count in enumerate(NUM_CHOICES):
        table[:, d, :count] = -np.log(count)
    return table


def test_one_to_four_tokens_of_a_parent_change_within_range():
    rng = np.random.default_rng(0)
    drawn = neighbours.draw(rng, PARENTS[:1], uniform()[:1], 1000)
    assert ((drawn >= 0) & (drawn < np.array(NUM_CHOICES))).all()
    distances = (drawn != PARENTS[0]).sum(axis=-1)
    # Decision 1 has no choice, so four changes are all that there are.
    assert set(distances.tolist()) == {1, 2, 3, 4}


def test_all_parents_have_neighbours():
    rng = np.random.default_rng(0)
    drawn = neighbours.draw(rng, PARENTS, uniform(), 1000)
    for parent in PARENTS:
        # A quarter of half of them differ in one token: 125 +- 10.
        assert ((drawn != parent).sum(axis=-1) == 1).sum() > 75


def test_all_counts_of_changes_are_equally_likely():
    parents = np.zeros((1, 30), np.int32)
    table = np.full((1, 30, 2), np.log(0.5), np.float32)
    drawn = neighbours.draw(np.random.default_rng(1), parents, table, 4000)
    counts = np.bincount(drawn.sum(axis=1), minlength=5)
    assert counts[0] == 0
    # 1,000 of each, standard deviation 27; the bounds are five of them.
    assert (np.abs(counts[1:] - 1000) < 137).all()
    assert len(counts) == 5


def test_changed_tokens_come_from_the_policy():
    parents = np.array([[0, 0, 0, 0, 1]], np.int32)
    table = uniform()[:1]
    table[:, 0, :3] = np.log([0.8, 0.15, 0.05])
    drawn = neighbours.draw(np.random.default_rng(0), parents, table, 6000)
    changed = drawn[drawn[:, 0] != 0, 0]
    # A quarter is uniform: 0.75 * 0.15 + 0.25 / 3 = 0.1958 and, for token 2, 0.1208;
    # the parent's 0 is excluded. About 3,700 changes; five standard deviations: 0.04.
    assert abs((changed == 1).mean() - 0.1958 / (0.1958 + 0.1208)) < 0.04


def test_a_space_without_choices():
    parents = np.zeros((1, 3), np.int32)
    table = np.zeros((1, 3, 1), np.float32)
    drawn = neighbours.draw(np.random.default_rng(0), parents, table, 5)
    assert drawn.tolist() == [[0, 0, 0]] * 5
