"""What every controller promises, tried on each of them."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import controller

NAMES = ("dyna", "evolution", "ppo", "random", "reinforce")
NUM_CHOICES = (3, 2, 4, 1, 5)


@pytest.fixture(params=NAMES, scope="module")
def name(request):
    return request.param


def build(name):
    return controller.build(name, num_choices=NUM_CHOICES)


def rewards_of(tokens):
    return np.asarray(tokens, np.float32) @ np.array([0.1, 0.5, -0.2, 0.3, 0.05])


def play(c, state, rounds, num=7):
    """Returns the state and all tokens of `rounds` of ask and tell."""
    every = []
    for _ in range(rounds):
        state, tokens = c.ask(state, num)
        state = c.tell(state, tokens, rewards_of(tokens))
        every.append(tokens)
    return state, np.concatenate(every)


def check_shapes(state, first):
    """Shapes are those of a new state, but for what was empty there."""
    new, old = jax.tree.leaves(state), jax.tree.leaves(first)
    assert len(new) == len(old)
    for leaf, begun in zip(new, old, strict=True):
        assert np.asarray(leaf).dtype == np.asarray(begun).dtype
        assert np.ndim(leaf) == np.ndim(begun)
        sizes = zip(np.shape(leaf), np.shape(begun), strict=True)
        assert all(before in (0, size) for size, before in sizes)


@pytest.mark.parametrize("num", [0, 1, 10, 70])
def test_proposals_are_int32_rows_in_range(name, num):
    c = build(name)
    state, _ = play(c, c.init(0), 5)
    _, tokens = c.ask(state, num)
    assert tokens.dtype == np.int32
    assert tokens.shape == (num, len(NUM_CHOICES))
    assert ((tokens >= 0) & (tokens < np.array(NUM_CHOICES))).all()


def test_every_choice_is_proposed_at_first(name):
    c = build(name)
    _, tokens = c.ask(c.init(0), 200)
    # The rarest has probability about 1/5: missed with odds (4/5)^200 < 1e-19.
    for column, count in zip(tokens.T, NUM_CHOICES, strict=True):
        assert set(column.tolist()) == set(range(count))


def test_the_seed_decides_everything(name):
    _, first = play(build(name), build(name).init(5), 6)
    _, again = play(build(name), build(name).init(5), 6)
    _, other = play(build(name), build(name).init(6), 6)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_two_asks_in_a_row_differ(name):
    c = build(name)
    state, first = c.ask(c.init(0), 20)
    _, second = c.ask(state, 20)
    assert (first != second).any()


def test_a_state_saved_and_loaded_goes_on_the_same(name, tmp_path):
    c = build(name)
    state, _ = play(c, c.init(1), 6)
    leaves, structure = jax.tree.flatten(state)
    np.savez(tmp_path / "state.npz", *leaves)
    with np.load(tmp_path / "state.npz", allow_pickle=False) as file:
        loaded = jax.tree.unflatten(structure, [file[key] for key in file.files])
    _, expected = play(c, state, 6)
    _, continued = play(build(name), loaded, 6)
    np.testing.assert_array_equal(continued, expected)


@given(st.lists(st.sampled_from([0, 1, 2, 9, 40]), max_size=6), st.booleans())
@settings(max_examples=15, deadline=None)
def test_rewards_may_come_late_in_any_order_and_number(name, sizes, strangers):
    c = build(name)
    state = c.init(2)
    first = state
    waiting = np.zeros((0, len(NUM_CHOICES)), np.int32)
    rng = np.random.default_rng(0)
    for size in sizes:
        state, tokens = c.ask(state, size)
        waiting = rng.permutation(np.concatenate([waiting, tokens]))
        told, waiting = waiting[: size // 2], waiting[size // 2 :]
        if strangers:
            told = rng.integers(NUM_CHOICES, size=told.shape)
        state = c.tell(state, told, rewards_of(told))
    check_shapes(state, first)
    _, tokens = c.ask(state, 10)
    assert ((tokens >= 0) & (tokens < np.array(NUM_CHOICES))).all()
    for leaf in jax.tree.leaves(state):
        assert np.isfinite(np.asarray(leaf)).all()


def test_equal_rewards_and_huge_rewards_do_no_harm(name):
    c = build(name)
    for scale in (0.0, 1e-12, 1e12):
        state = c.init(0)
        for _ in range(5):
            state, tokens = c.ask(state, 10)
            state = c.tell(state, tokens, scale * rewards_of(tokens))
        _, tokens = c.ask(state, 10)
        assert ((tokens >= 0) & (tokens < np.array(NUM_CHOICES))).all()


@pytest.mark.parametrize(
    ("tokens", "rewards", "message"),
    [
        ([[0, 0, 4, 0, 0]], [1.0], r"token 2 must be in \[0, 4\), got 4 in sequence 0"),
        ([[0, -1, 0, 0, 0]], [1.0], "token 1 must be in"),
        ([[0, 0, 0, 0]], [1.0], r"tokens must be \[num, 5\], got shape \(1, 4\)"),
        ([[0.5, 0, 0, 0, 0]], [1.0], "tokens must be integers, got float64"),
        ([[0] * 5], [1.0, 2.0], r"rewards must be \[1\], one per sequence"),
        ([[0] * 5] * 2, [1.0, float("nan")], "must be finite, got nan for sequence 1"),
    ],
)
def test_what_tell_refuses(name, tokens, rewards, message):
    c = build(name)
    with pytest.raises(ValueError, match=message):
        c.tell(c.init(0), np.array(tokens), np.array(rewards))


def test_what_init_and_ask_refuse(name):
    c = build(name)
    with pytest.raises(ValueError, match=r"seed must be in \[0, 2\^32\), got -1"):
        c.init(-1)
    with pytest.raises(ValueError, match="cannot propose -1"):
        c.ask(c.init(2**32 - 1), -1)
