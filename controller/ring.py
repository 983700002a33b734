"""A fixed-capacity memory of token sequences with a number each; the oldest goes."""

# JAX leaves parts of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Ring(NamedTuple):
    """`tokens` int32 [capacity, D], `values` [capacity], `num_appended` int32 [].

    `num_appended` is the number of entries ever appended; entry k lies at k % capacity.
    """

    tokens: jax.Array
    values: jax.Array
    num_appended: jax.Array


def empty(capacity: int, num_decisions: int) -> Ring:
    """Returns a ring that holds nothing."""
    return Ring(
        tokens=jnp.zeros((capacity, num_decisions), jnp.int32),
        values=jnp.zeros(capacity),
        num_appended=jnp.zeros((), jnp.int32),
    )


def append(ring: Ring, tokens: jax.Array, values: jax.Array, num: jax.Array) -> Ring:
    """Appends the first `num` of tokens [n, D] and values [n]; n <= capacity."""
    capacity = ring.values.shape[0]
    offsets = jnp.arange(tokens.shape[0])
    # An index past the end is dropped.
    slots = jnp.where(offsets < num, (ring.num_appended + offsets) % capacity, capacity)
    return Ring(
        tokens=ring.tokens.at[slots].set(tokens, mode="drop"),
        values=ring.values.at[slots].set(values, mode="drop"),
        num_appended=ring.num_appended + num,
    )


def filled(ring: Ring) -> jax.Array:
    """Returns which slots hold an entry: bool [capacity]."""
    return jnp.arange(ring.values.shape[0]) < ring.num_appended


def lookup(ring: Ring, tokens: jax.Array, missing: jax.Array) -> jax.Array:
    """Returns the latest value of each of tokens [n, D], else its `missing` [n]."""
    capacity = ring.values.shape[0]
    equal = (ring.tokens[None] == tokens[:, None]).all(axis=-1) & filled(ring)[None]
    age = (ring.num_appended - 1 - jnp.arange(capacity)) % capacity
    latest = jnp.argmin(jnp.where(equal, age[None], capacity), axis=-1)
    return jnp.where(equal.any(axis=-1), ring.values[latest], missing)
