"""What every controller promises, as tests for those who write their own.

    from controller.testing import ControllerContract

    class TestMine(ControllerContract):
        def build(self, num_choices):
            return MyController(num_choices=num_choices)

and pytest runs what is here on it. Nothing here needs pytest itself.
"""

# JAX leaves parts of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import abc
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from controller.interface import Controller

NUM_CHOICES = (3, 2, 4, 1, 5)


def rewards_of(tokens: ArrayLike) -> NDArray[np.float32]:
    """Returns rewards [n] of tokens [n, 5]: a weighted sum."""
    weights = np.array([0.1, 0.5, -0.2, 0.3, 0.05], np.float32)
    return np.asarray(tokens, np.float32) @ weights


class ControllerContract(abc.ABC):
    """Subclass it in a test file, and say how the controller is built."""

    @abc.abstractmethod
    def build(self, num_choices: tuple[int, ...]) -> Controller[Any]:
        """Returns the controller for decisions of so many choices each."""

    def played(self, rounds: int, seed: int = 0) -> tuple[Any, Any, NDArray[np.int32]]:
        """Returns controller, state and all tokens of rounds of ask and tell."""
        c = self.build(NUM_CHOICES)
        state, every = c.init(seed), []
        for _ in range(rounds):
            state, tokens = c.ask(state, 7)
            state = c.tell(state, tokens, rewards_of(tokens))
            every.append(tokens)
        return c, state, np.concatenate(every)

    def test_proposals_are_int32_rows_in_range(self) -> None:
        """Whatever was learned, and however many are asked for."""
        c, state, _ = self.played(5)
        for num in (0, 1, 10, 70):
            _, tokens = c.ask(state, num)
            assert tokens.dtype == np.int32
            assert tokens.shape == (num, len(NUM_CHOICES))
            assert ((tokens >= 0) & (tokens < np.array(NUM_CHOICES))).all()

    def test_the_seed_decides_everything(self) -> None:
        """The same seed and calls give the same tokens, another seed others."""
        first, again, other = (self.played(6, seed)[2] for seed in (5, 5, 6))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()

    def test_two_asks_in_a_row_differ(self) -> None:
        """Asking moves the random numbers on."""
        c = self.build(NUM_CHOICES)
        state, first = c.ask(c.init(0), 20)
        _, second = c.ask(state, 20)
        assert (first != second).any()

    def test_a_state_is_a_tree_of_arrays_that_can_be_stored(self) -> None:
        """Taken apart and put together, it goes on the same."""
        c, state, _ = self.played(6, seed=1)
        leaves, structure = jax.tree.flatten(state)
        stored = [np.array(leaf) for leaf in leaves]
        assert all(leaf.dtype != object for leaf in stored)
        loaded = jax.tree.unflatten(structure, stored)
        _, expected = c.ask(state, 20)
        _, found = c.ask(loaded, 20)
        np.testing.assert_array_equal(found, expected)

    def test_results_of_strangers_are_learned(self) -> None:
        """Any tokens, in any number, also those that were never proposed."""
        c = self.build(NUM_CHOICES)
        state, rng = c.init(2), np.random.default_rng(0)
        for size in (0, 1, 40):
            tokens = rng.integers(NUM_CHOICES, size=(size, len(NUM_CHOICES)))
            state = c.tell(state, tokens, rewards_of(tokens))
        _, tokens = c.ask(state, 10)
        assert ((tokens >= 0) & (tokens < np.array(NUM_CHOICES))).all()

    def test_what_is_pending_may_be_named(self) -> None:
        """It changes nothing about the form of what is proposed."""
        c, state, tokens = self.played(3)
        _, asked = c.ask(state, 5, tokens[:4])
        assert asked.shape == (5, len(NUM_CHOICES))

    def test_equal_and_huge_rewards_do_no_harm(self) -> None:
        """States stay finite."""
        for scale in (0.0, 1e-12, 1e12):
            c = self.build(NUM_CHOICES)
            state = c.init(0)
            for _ in range(4):
                state, tokens = c.ask(state, 10)
                state = c.tell(state, tokens, scale * rewards_of(tokens))
            for leaf in jax.tree.leaves(state):
                assert np.isfinite(np.asarray(leaf)).all()

    def test_what_is_refused(self) -> None:
        """Tokens out of range, rewards that are not finite, seeds of 33 bits."""
        c = self.build(NUM_CHOICES)
        state = c.init(0)
        _refuses(lambda: c.tell(state, [[0, 0, 4, 0, 0]], [1.0]))
        _refuses(lambda: c.tell(state, [[0] * 4], [1.0]))
        _refuses(lambda: c.tell(state, [[0] * 5], [float("nan")]))
        _refuses(lambda: c.tell(state, [[0] * 5], [1.0, 2.0]))
        _refuses(lambda: c.init(-1))
        _refuses(lambda: c.ask(state, -1))


def _refuses(call: Callable[[], Any]) -> None:
    try:
        call()
    except ValueError:
        return
    raise AssertionError("a ValueError was to be raised")
