"""What a search's numbers cannot carry is said, and nothing where they can."""

import numpy as np
import pytest

from nas.runs import doubts, journal
from nas.study.metrics import ACCURACY, NUM_MACS, NUM_PARAMS
from tests.nas import trials


def contents(accuracies, *, error, again=(), chance=0.1, validation=10_000):
    header = journal.Header(
        kind="search",
        created=0.0,
        num_trials=len(accuracies),
        definition={},
        metrics=(ACCURACY, NUM_MACS, NUM_PARAMS),
        objectives=("accuracy", "num_macs"),
        dataset="none",
        splits={"train": 50_000, "validation": validation},
        chance=chance,
        versions={},
    )
    found = [
        trials.completed(
            index,
            tokens=(0,),
            reward=float(accuracy),
            metrics={"accuracy": float(accuracy), "num_macs": 1, "num_params": 1},
            spread={"accuracy": error},
        )
        for index, accuracy in enumerate(accuracies)
    ]
    return journal.Contents(
        header=header,
        records=(*found, *again),
        num_bytes=0,
        first_line=b"",
        last_line=b"",
    )


def test_numbers_that_can_carry_it_are_not_doubted():
    assert doubts.of(contents(np.linspace(0.5, 0.8, 20), error=0.005)) == []


def test_children_at_chance_are_counted():
    """Within two standard errors of 1/10, or below: 0.08, 0.1 and 0.115, not 0.13."""
    found = contents([0.08, 0.1, 0.115, 0.13, 0.5, 0.6], error=0.01)
    (line,) = [line for line in doubts.of(found) if "chance" in line]
    assert line.startswith("3 of 6 children stand at chance (10.0%)")
    assert "--steps" in line


def test_differences_within_the_error_are_noise():
    """Forty equal networks differ by their error alone."""
    rng = np.random.default_rng(0)
    found = contents(0.7 + rng.normal(0, 0.02, 40), error=0.02)
    (line,) = doubts.of(found)
    assert "mostly noise" in line
    assert "--repeats" in line


@pytest.mark.parametrize(("number", "doubted"), [(90, True), (3_300, False)])
def test_a_split_that_is_too_small_to_tell_children_apart(number, doubted):
    """Of 90 images: 2 * sqrt(2) * sqrt(0.25 / 90) = 14.9 points."""
    found = contents(np.linspace(0.3, 0.9, 20), error=0.001, validation=number)
    lines = doubts.of(found)
    assert bool(lines) == doubted
    if doubted:
        assert "differ by 14.9%" in lines[0]


def again(index, rewards):
    return [
        trials.completed(
            index,
            repeat=repeat,
            tokens=(0,),
            reward=reward,
            metrics={"accuracy": reward, "num_macs": 1, "num_params": 1},
            spread={"accuracy": 0.001},
        )
        for repeat, reward in enumerate(rewards, 1)
    ]


def test_leaders_that_their_seeds_do_not_tell_apart():
    """Pooled deviation 0.01: means of two differ surely by 2 * 0.01 or more."""
    later = [
        *again(0, [0.70, 0.7141421]),
        *again(1, [0.69, 0.7041421]),
        *again(2, [0.60, 0.6141421]),
    ]
    found = contents([0.7, 0.69, 0.6], error=0.001, again=later)
    (line,) = doubts.of(found)
    assert "not told apart from child 1," in line
    assert "--confirm-repeats" in line
