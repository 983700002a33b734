"""Laws of the held-out split."""

import collections
import fractions

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.data import split


@st.composite
def labels_and_sizes(draw):
    labels = draw(st.lists(st.integers(0, 6), min_size=2, max_size=200))
    return np.array(labels), draw(st.integers(1, len(labels) - 1))


@given(labels_and_sizes(), st.integers(0, 2**32))
def test_stratified_partitions_in_proportion(drawn, seed):
    labels, held_out = drawn
    kept, held = split.stratified(labels, held_out, seed=seed)

    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert len(held) == held_out
    in_class = collections.Counter(labels.tolist())
    held_in_class = collections.Counter(labels[held].tolist())
    up, down = [], []
    for label, count in in_class.items():
        exact = fractions.Fraction(count * held_out, len(labels))
        error = held_in_class[label] - exact
        assert abs(error) < 1
        (up if error > 0 else down).append(exact % 1)
    # The largest remainders are rounded up.
    assert min(up, default=1) >= max(down, default=0)


def test_stratified_by_hand():
    labels = np.array([0] * 6 + [1] * 4)
    _, held = split.stratified(labels, 5, seed=0)  # exactly 3 and 2
    assert np.bincount(labels[held]).tolist() == [3, 2]


@pytest.mark.parametrize(
    "carve",
    [
        lambda seed: split.uniform(1000, 100, seed=seed),
        lambda seed: split.stratified(np.arange(1000) % 7, 100, seed=seed),
    ],
)
def test_seed_decides(carve):
    np.testing.assert_array_equal(carve(3)[1], carve(3)[1])
    # 100 of 1,000 at random: equal by chance with odds below 1e-100.
    assert carve(3)[1].tolist() != carve(4)[1].tolist()


@given(st.integers(2, 500), st.data(), st.integers(0, 2**32))
def test_uniform_partitions(num, data, seed):
    held_out = data.draw(st.integers(1, num - 1))
    kept, held = split.uniform(num, held_out, seed=seed)
    assert sorted([*kept, *held]) == list(range(num))
    assert len(held) == held_out


@pytest.mark.parametrize("held_out", [-1, 0, 10, 11])
def test_refuses_to_leave_a_side_empty(held_out):
    with pytest.raises(ValueError, match=r"from 1 to 9 .*got -?\d+"):
        split.uniform(10, held_out, seed=0)
