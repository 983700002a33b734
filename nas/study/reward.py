"""One number to maximize from a trial's metrics.

A reward is called with the metrics by name, `reward({"accuracy": 0.7, ...})`, and may
be anybody's function. Ours are MnasNet's weighted product and TuNAS's absolute reward.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Literal

# "doubling the latency should be worth 5 % of relative accuracy": 2^-0.07 = 0.953.
SOFT_EXPONENT = -0.07  # MnasNet, section 3; EfficientNet, section 3

Reward = Callable[[Mapping[str, float]], float]
"""Metrics by name -> reward, higher is better."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """What accuracy is weighed against: `(value / target)^w`.

    w is `below` where the value is at most the target, else `above`. Of a metric whose
    goal is `max`, such as images a second, the inverse is the cost: the factor is
    `(target / value)^w`, and `below` holds where the value is at least the target.

    Attributes:
      metric: its name.
      target: in the metric's unit.
      below: exponent of what is better than the target, at most 0.
      above: exponent of what is worse, at most 0.
      goal: the metric's.

    Raises:
      ValueError: when it is made, if the target is no amount or an exponent rewards
        cost.
    """

    metric: str
    target: float
    below: float = SOFT_EXPONENT
    above: float = SOFT_EXPONENT
    goal: Literal["max", "min"] = "min"

    def __post_init__(self) -> None:
        """Rejects targets that are not amounts, and exponents that reward cost."""
        _check_target(self.metric, self.target)
        _check_exponent("below", self.below)
        _check_exponent("above", self.above)

    def excess(self, metrics: Mapping[str, float]) -> float:
        """Returns how many times the target the cost is; 1 at the target.

        Raises:
          ValueError: if the metric is missing, or not a finite number above 0.
        """
        value = _amount(metrics, self.metric)
        return value / self.target if self.goal == "min" else self.target / value

    def factor(self, metrics: Mapping[str, float]) -> float:
        """Returns what accuracy is multiplied by; raises as `excess`."""
        excess = self.excess(metrics)
        return excess ** (self.below if excess <= 1.0 else self.above)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightedProduct:
    """`quality * (cost / target)^w`, with a factor for each of the costs.

    MnasNet's piecewise form (https://arxiv.org/abs/1807.11626, equations 2 and 3), and
    with several costs EfficientNetV2's A * S^w * P^v (https://arxiv.org/abs/2104.00298,
    section 3.3).
    """

    quality: str = "accuracy"
    costs: tuple[Cost, ...]

    def __call__(self, metrics: Mapping[str, float]) -> float:
        """Returns the reward.

        Raises:
          ValueError: if a metric is missing, or is no finite number of the right sign.
        """
        reward = _quality(metrics, self.quality)
        for cost in self.costs:
            reward *= cost.factor(metrics)
        return reward


@dataclasses.dataclass(frozen=True, kw_only=True)
class Absolute:
    """`quality + beta * |cost / target - 1|`: TuNAS's absolute reward.

    It pulls towards the target from both sides (https://arxiv.org/abs/2008.06120,
    section 3.2; beta is meant for an accuracy in [0, 1]). With several costs, the terms
    add up. A cost's exponents mean nothing here.

    >>> absolute = Absolute(costs=(Cost(metric="num_macs", target=400e6),))
    >>> absolute({"accuracy": 0.75, "num_macs": 440e6})
    0.74
    """

    quality: str = "accuracy"
    costs: tuple[Cost, ...]
    beta: float = -0.10

    def __post_init__(self) -> None:
        """Rejects a beta that rewards distance."""
        _check_exponent("beta", self.beta)

    def __call__(self, metrics: Mapping[str, float]) -> float:
        """Returns the reward.

        Raises:
          ValueError: if a metric is missing, or is no finite number of the right sign.
        """
        distance = sum(abs(cost.excess(metrics) - 1.0) for cost in self.costs)
        return _quality(metrics, self.quality) + self.beta * distance


def soft(
    metric: str, target: float, exponent: float = SOFT_EXPONENT
) -> WeightedProduct:
    """`accuracy * (cost / target)^exponent` on both sides of the target.

    >>> soft("num_macs", 400e6)({"accuracy": 0.75, "num_macs": 400e6})
    0.75
    """
    cost = Cost(metric=metric, target=target, below=exponent, above=exponent)
    return WeightedProduct(costs=(cost,))


def hard(metric: str, target: float, exponent: float = -1.0) -> WeightedProduct:
    """`accuracy * min((cost / target)^exponent, 1)`: nothing is gained below target.

    With exponent -1 it is MnasNet's hard constraint (alpha 0, beta -1); with another
    one, TuNAS's (https://arxiv.org/abs/2008.06120, section 3.1).

    >>> reward = hard("num_macs", 400e6)
    >>> [reward({"accuracy": 0.75, "num_macs": macs}) for macs in (200e6, 800e6)]
    [0.75, 0.375]
    """
    cost = Cost(metric=metric, target=target, below=0.0, above=exponent)
    return WeightedProduct(costs=(cost,))


def _check_target(metric: str, target: float) -> None:
    if not (math.isfinite(target) and target > 0.0):
        raise ValueError(
            f"the target of {metric} must be a positive amount, got {target}; 400M "
            "multiply-adds are 400e6"
        )


def _check_exponent(name: str, exponent: float) -> None:
    if not (math.isfinite(exponent) and exponent <= 0.0):
        raise ValueError(
            f"{name} must be finite and not above 0, or cost would be rewarded, got "
            f"{exponent}; MnasNet's is {SOFT_EXPONENT}"
        )


def _quality(metrics: Mapping[str, float], name: str) -> float:
    value = _present(metrics, name)
    if not (math.isfinite(value) and value >= 0.0):
        raise ValueError(
            f"{name} must be finite and not negative, got {value}; report a trial "
            "without one as infeasible"
        )
    return value


def _amount(metrics: Mapping[str, float], name: str) -> float:
    value = _present(metrics, name)
    if not (math.isfinite(value) and value > 0.0):
        raise ValueError(f"{name} must be finite and positive, got {value}")
    return value


def _present(metrics: Mapping[str, float], name: str) -> float:
    if name not in metrics:
        raise ValueError(
            f"the reward weighs {name}, and a trial has {', '.join(sorted(metrics))}"
        )
    return metrics[name]
