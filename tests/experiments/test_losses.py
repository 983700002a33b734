"""The verdict on two trainings, by hand."""

import dataclasses

import numpy as np
import pytest

from experiments.checks import nudged_weights
from experiments.checks.losses import Difference, Trained

ULP = 2.0**-23


def difference(*losses, accuracy=0.0):
    return Difference(losses=losses, accuracy=accuracy)


ROUNDING = difference(ULP, 1e-6, 3e-4, 2e-4, accuracy=0.02)


@pytest.mark.parametrize(
    ("found", "is_beyond"),
    [
        (difference(0.0, 0.0, 0.0, 0.0), False),
        (difference(8 * ULP, 9e-6, 2.9e-3, 2.9e-3, accuracy=0.04), False),
        (difference(9 * ULP, 0.0, 0.0, 0.0), True),
        (difference(0.0, 2e-5, 0.0, 0.0), True),
        (difference(0.0, 0.0, 0.0, 3.1e-3), True),  # what was reached before counts
        (difference(0.0, 0.0, 0.0, 0.0, accuracy=0.06), True),
        (difference(float("nan"), 0.0, 0.0, 0.0), True),
        (difference(0.0, 0.0, float("nan"), 0.0), True),
    ],
)
def test_what_is_beyond_rounding(found, is_beyond):
    assert found.is_beyond(ROUNDING) == is_beyond


def test_a_difference_is_relative_and_of_the_worst_accuracy():
    before = Trained(losses=(2.0, 4.0), accuracies={"accuracy": 0.5, "top_5": 0.9})
    after = dataclasses.replace(
        before, losses=(2.0, 3.0), accuracies={"accuracy": 0.5, "top_5": 0.65}
    )
    assert Difference.of(before, after) == difference(0.0, 0.25, accuracy=0.25)


def test_weights_are_nudged_by_one_unit_in_the_last_digit_by_turns():
    weights = np.array([[1.0, 1.0], [0.0, -2.0]], np.float32)
    expected = [[1 + ULP, 1 - ULP / 2], [0.0, -2 * (1 + ULP)]]
    assert nudged_weights.nudged(weights).tolist() == expected
