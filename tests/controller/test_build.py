"""Tests for controller.build."""

import pytest

import controller


def test_an_unknown_controller_lists_those_there_are():
    with pytest.raises(
        ValueError,
        match="'annealing'; there are dyna, evolution, ppo, ppo-nasnet, random, rei",
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


def test_nasnets_numbers_are_a_preset():
    # https://arxiv.org/abs/1707.07012, appendix A.2.
    preset = controller.build("ppo-nasnet", num_choices=(2,))
    assert type(preset) is type(controller.build("ppo", num_choices=(2,)))
    for c in (preset, controller.build("reinforce", num_choices=(2,))):
        numbers = (c.learning_rate, c.entropy_weight, c.baseline_decay)
        assert numbers == (3.5e-4, 1e-5, 0.95)
    changed = controller.build("ppo-nasnet", num_choices=(2,), learning_rate=0.5)
    assert (changed.learning_rate, changed.baseline_decay) == (0.5, 0.95)


@pytest.mark.parametrize(
    ("num_choices", "message"),
    [
        ((), "must be a tuple of 1 to 10000 counts"),
        ([2, 3], r"must be a tuple of 1 to 10000 counts, got \[2, 3\]"),
        ((2, 0), r"num_choices\[1\] must be an int from 1 to 10000, got 0"),
        ((2, True), r"num_choices\[1\] must be an int"),
    ],
)
@pytest.mark.parametrize("name", ["dyna", "evolution", "ppo", "random", "reinforce"])
def test_impossible_choices(name, num_choices, message):
    with pytest.raises(ValueError, match=message):
        controller.build(name, num_choices=num_choices)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("dyna", "exploration", -1.0),
        ("dyna", "forgetting", 1.5),
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
