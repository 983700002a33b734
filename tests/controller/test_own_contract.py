"""The contract tests for users' own controllers, on ours; and that they can fail."""

import numpy as np
import pytest

import controller
from controller.testing import ControllerContract


class TestEvolution(ControllerContract):
    def build(self, num_choices):
        return controller.build("evolution", num_choices=num_choices)


class TestDyna(ControllerContract):
    def build(self, num_choices):
        return controller.build("dyna", num_choices=num_choices)


class TestPPO(ControllerContract):
    def build(self, num_choices):
        return controller.build("ppo", num_choices=num_choices)


class Careless:
    """Proposes one out of range, forgets its seed, and takes whatever it is told."""

    def __init__(self, num_choices):
        self.num_choices = num_choices

    def init(self, _):
        return np.int64(0)

    def ask(self, state, num, _=None):
        return state, np.full((num, len(self.num_choices)), 9, np.int32)

    def tell(self, state, *_):
        return state


class CarelessContract(ControllerContract):
    def build(self, num_choices):
        return Careless(num_choices)


@pytest.mark.parametrize(
    "name",
    [
        "test_proposals_are_int32_rows_in_range",
        "test_the_seed_decides_everything",
        "test_two_asks_in_a_row_differ",
        "test_results_of_strangers_are_learned",
        "test_what_is_refused",
    ],
)
def test_a_careless_controller_fails(name):
    with pytest.raises(AssertionError):
        getattr(CarelessContract(), name)()
