"""The shapes in annotations are checked as the tests run.

Without that the first fails somewhere inside, and the others go through.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from trainers.augment import geometric, mixing
from trainers.data.dataset import ArrayExamples
from trainers.networks import units

KEY = jax.random.key(0)


def test_a_wrong_rank():
    with pytest.raises(TypeCheckError, match="images"):
        geometric.flip(KEY, jnp.zeros((2, 8, 8, 3, 1)))


def test_a_wrong_kind_of_number():
    images, labels = np.zeros((2, 8, 8, 3), np.int64), np.zeros(2, np.int64)
    with pytest.raises(TypeCheckError, match="images"):
        ArrayExamples(images=images, labels=labels)


def test_two_arrays_of_different_batches():
    with pytest.raises(TypeCheckError, match="targets"):
        mixing.blend(KEY, jnp.zeros((2, 8, 8, 3)), jnp.ones((1, 10)), alpha=0.2)


def test_while_a_function_is_traced():
    with pytest.raises(TypeCheckError, match="x"):
        jax.eval_shape(
            lambda x: units.max_pool(x, (3, 2), "same"), jnp.zeros((2, 8, 3))
        )
