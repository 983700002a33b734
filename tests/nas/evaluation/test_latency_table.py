"""Tests for nas.evaluation.latency_table; nas.profile's tests build whole ones."""

import dataclasses

import numpy as np

from nas.evaluation import latency_table
from search_space import layers, spaces


def test_a_table_has_every_block_also_where_the_last_stage_is_left_out():
    space, resolution = spaces.load("efficientnetv2"), 96
    known = latency_table.blocks_of(space, resolution)
    rng = np.random.default_rng(0)
    used, lengths = set(), set()
    for tokens in rng.integers(space.num_choices, size=(200, 28)):
        spec = dataclasses.replace(space.decode(tokens), resolution=resolution)
        used |= {latency_table.key(block) for block in layers.blocks(spec)}
        lengths.add(len(spec.stages))
    assert lengths == {6, 7}
    assert used <= known.keys()
    # Two operations, two kernels and three expansions, in a first layer and in others,
    # which are the same in the stage that keeps stride and width; a stem, and a head
    # behind either end.
    assert len(known) == 1 + 2 * 2 * 3 * (1 + 6 * 2) + 2
