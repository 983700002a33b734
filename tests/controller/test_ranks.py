"""Tests for controller.ranks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller import ranks

distinct = st.lists(
    st.integers(-100, 100).map(float), min_size=1, max_size=30, unique=True
)


@given(distinct, st.floats(0.1, 10.0), st.floats(-10.0, 10.0))
def test_utilities_see_ranks_only(rewards, scale, shift):
    values = np.array(rewards, np.float32)
    found = ranks.utilities(values)
    moved = ranks.utilities((values * scale + shift).astype(np.float32))
    np.testing.assert_allclose(moved, found, atol=1e-5)
    assert found.sum() == pytest.approx(0.0, abs=1e-4)
    assert (np.diff(found[np.argsort(values)]) >= 0.0).all()


def test_utilities_by_hand():
    # Natural evolution strategies, n = 4: log 3 = 1.0986, log 3 - log 2 = 0.4055, 0, 0;
    # over their mean 0.3760, less 1.
    found = ranks.utilities(np.array([5.0, 7.0, 1.0, 6.0], np.float32))
    np.testing.assert_allclose(found, [-1.0, 1.9216, -1.0, 0.0784], atol=1e-3)


def test_equal_rewards_have_equal_utilities():
    found = ranks.utilities(np.array([2, 2, 1, 2, 1], np.float32))
    assert found[0] == found[1] == found[3] > found[2] == found[4]
    assert (ranks.utilities(np.full(7, 3.0, np.float32)) == 0.0).all()
