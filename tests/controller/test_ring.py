"""Tests for controller.ring."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from controller import ring

batches = st.lists(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 99)), max_size=6), max_size=6
)


@given(st.integers(1, 8), batches)
def test_behaves_like_the_tail_of_a_list(capacity, batches):
    kept, held = ring.empty(capacity, 1), []
    for batch in batches:
        tokens = np.array([[token] for token, _ in batch], np.int32).reshape(-1, 1)
        values = np.array([value for _, value in batch], np.float32)
        kept = ring.append(kept, tokens, values)
        held = [*held, *batch][-capacity:]
    tokens, values = ring.entries(kept)
    assert [*zip(tokens[:, 0].tolist(), values.tolist(), strict=True)] == held
    assert kept.tokens.shape == (capacity, 1)

    found = ring.lookup(kept, np.array([[0], [1], [2], [3]], np.int32))
    latest = dict(held)
    for token in range(4):
        if token in latest:
            assert found[token] == latest[token]
        else:
            assert np.isnan(found[token])
