"""Tests for controller.build."""

import pytest

import controller


def test_an_unknown_controller_lists_those_there_are():
    with pytest.raises(
        ValueError, match="'annealing'; there are evolution, ppo, random, reinforce"
    ):
        controller.build("annealing", num_choices=(2,))


def test_an_unknown_option_lists_those_there_are():
    with pytest.raises(
        ValueError, match="evolution has no option size; it has population, tournament"
    ):
        controller.build("evolution", num_choices=(2,), size=3)
    with pytest.raises(ValueError, match="random has no option x; it has none"):
        controller.build("random", num_choices=(2,), x=1)


def test_options_reach_the_controller():
    c = controller.build("evolution", num_choices=(2,), population=7)
    state = c.init(0)
    assert state.rewards.shape == (7,)


@pytest.mark.parametrize(
    ("num_choices", "message"),
    [
        ((), "must be a tuple of 1 to 10000 counts"),
        ([2, 3], r"must be a tuple of 1 to 10000 counts, got \[2, 3\]"),
        ((2, 0), r"num_choices\[1\] must be an int from 1 to 10000, got 0"),
        ((2, True), r"num_choices\[1\] must be an int"),
    ],
)
@pytest.mark.parametrize("name", ["evolution", "ppo", "random", "reinforce"])
def test_impossible_choices(name, num_choices, message):
    with pytest.raises(ValueError, match=message):
        controller.build(name, num_choices=num_choices)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("evolution", "population", 0),
        ("evolution", "tournament", 0),
        ("ppo", "learning_rate", float("nan")),
        ("ppo", "epochs", 0),
        ("reinforce", "baseline_decay", 1.5),
        ("reinforce", "entropy_weight", -0.1),
    ],
)
def test_values_out_of_range_are_named(name, option, value):
    with pytest.raises(ValueError, match=f"{option} must be in .*, got {value}"):
        controller.build(name, num_choices=(2,), **{option: value})
