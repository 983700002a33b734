"""Tests for nas.study.metrics."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.study import metrics
from nas.study.metrics import ACCURACY, NUM_MACS, NUM_PARAMS, Metric, pareto_front

SPEED = Metric(name="speed", unit="images/s", goal="max")
ALL = (ACCURACY, SPEED, NUM_PARAMS, NUM_MACS)

rows = st.lists(
    st.fixed_dictionaries({metric.name: st.integers(0, 4) for metric in ALL}),
    max_size=25,
)


def at_least_as_good(a, b, metric):
    if metric.goal == "max":
        return a[metric.name] >= b[metric.name]
    return a[metric.name] <= b[metric.name]


def dominates(a, b, chosen):
    """By the definition of dominance: as good everywhere, and not the same."""
    return all(at_least_as_good(a, b, m) for m in chosen) and any(
        a[m.name] != b[m.name] for m in chosen
    )


@given(rows, st.lists(st.sampled_from(ALL), min_size=1, unique=True))
def test_the_front_is_the_set_of_undominated_rows(rows, chosen):
    front = pareto_front(rows, chosen)
    assert sorted(front) == [
        i
        for i, row in enumerate(rows)
        if not any(dominates(other, row, chosen) for other in rows)
    ]
    last = [chosen[-1].sign * rows[i][chosen[-1].name] for i in front]
    assert last == sorted(last, reverse=True)


def test_a_front_of_more_rows_than_are_compared_at_once():
    """On a line where more of one is less of the others, every row stays."""
    rows = [{"accuracy": i, "speed": -i, "num_params": 0} for i in range(3000)]
    chosen = (ACCURACY, SPEED, NUM_PARAMS)
    assert sorted(pareto_front(rows, chosen)) == list(range(3000))
    better = {"accuracy": 3000, "speed": 1, "num_params": -1}
    assert pareto_front([*rows, better], chosen) == [3000]


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_front_refuses_what_cannot_be_compared(value):
    row = {"accuracy": 0.5} | ({} if value is None else {"num_macs": value})
    with pytest.raises(ValueError, match="must have a finite num_macs"):
        pareto_front([row], (ACCURACY, NUM_MACS))
    with pytest.raises(ValueError, match="at least one metric"):
        pareto_front([row], ())


@pytest.mark.parametrize("name", ["", "Accuracy", "1st", "a b", "a" * 65, "a\n"])
def test_names_that_are_none(name):
    with pytest.raises(ValueError, match="a metric's name must"):
        Metric(name=name, goal="max")


def test_a_goal_that_is_none_and_a_name_twice():
    with pytest.raises(ValueError, match="goal must be max or min, got 'up'"):
        Metric(name="a", goal="up")
    with pytest.raises(ValueError, match="got accuracy twice"):
        metrics.by_name([ACCURACY, NUM_MACS, ACCURACY])
