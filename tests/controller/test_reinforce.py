"""REINFORCE's baseline, by hand."""

import jax
import numpy as np
import pytest

import controller


def test_the_first_batch_is_its_own_baseline_and_later_ones_move_it():
    reinforce = controller.build("reinforce", num_choices=(3, 2), entropy_weight=0.0)
    start, tokens = reinforce.ask(reinforce.init(0), 4)
    first = reinforce.tell(start, tokens, np.full(4, 7.0))
    assert first.baseline == 7.0
    # Rewards that are the baseline teach nothing.
    jax.tree.map(np.testing.assert_array_equal, first.params, start.params)
    second = reinforce.tell(first, tokens, np.full(4, 9.0))
    assert second.baseline == pytest.approx(0.95 * 7.0 + 0.05 * 9.0)
    moved = [
        not np.array_equal(new, old)
        for new, old in zip(
            jax.tree.leaves(second.params), jax.tree.leaves(first.params), strict=True
        )
    ]
    assert any(moved)
