"""Tests for nas.options.costs: costs as people write them."""

import pytest

from nas.options.costs import parse_cost
from nas.study.metrics import ACCURACY, COUNTED, LATENCY_MS, Metric, by_name
from nas.study.reward import Cost

SPEED = Metric(name="throughput-a100", unit="images/s", goal="max")
METRICS = by_name([ACCURACY, *COUNTED, LATENCY_MS, SPEED])


@pytest.mark.parametrize(
    ("text", "cost"),
    [
        ("num_params=5M^-0.05", ("num_params", 5e6, -0.05, -0.05, "min")),
        (" num_params=5M ", ("num_params", 5e6, -0.07, -0.07, "min")),
        ("num_macs=0.4B^0,-1", ("num_macs", 4e8, 0.0, -1.0, "min")),
        ("latency_ms=12.5^-0.1", ("latency_ms", 12.5, -0.1, -0.1, "min")),
        ("throughput-a100=9e3", ("throughput-a100", 9000.0, -0.07, -0.07, "max")),
    ],
)
def test_costs_as_people_write_them(text, cost):
    metric, target, below, above, goal = cost
    assert parse_cost(text, METRICS) == Cost(
        metric=metric, target=target, below=below, above=above, goal=goal
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "a cost is written METRIC=TARGET"),
        ("num_params", r"such as num_params=5M\^-0\.05"),
        ("num_params=", "a cost is written"),
        ("=5M", "a cost is written"),
        ("num_params=5M^", "a cost is written"),
        ("num_params=5M^-1,-2,-3", "a cost is written"),
        ("num_params=5M^^-1", "a cost is written"),
        ("watts=5", r"latency_ms, throughput-a100\), got watts"),
        ("num_params=many", "target must be a number .* got 'many'"),
        ("num_params=5M^much", "exponent must be a number, got 'much'"),
        ("num_params=0", "the target of num_params must be a positive amount"),
        ("num_params=-5M", "must be"),
        ("num_params=nan", "must be a positive amount, got nan"),
        ("num_params=inf", "must be a positive amount, got inf"),
        ("num_params=5M^0.05", "below must be finite and not above 0"),
        ("num_params=5M^-1,nan", "above must be finite"),
        ("x" * 10_000, "a cost is written"),
        ("num_params=" + "9" * 10_000, "must be a positive amount, got inf"),
    ],
)
def test_what_is_no_cost_is_refused_in_a_short_line(text, told):
    with pytest.raises(ValueError, match=told) as error:
        parse_cost(text, METRICS)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300
