"""One number to maximize from an accuracy and a cost, and the front of both.

A reward is called as `reward(accuracy, cost)`. Cost is in the unit of the target
(multiply-adds, parameters, milliseconds): lower is better.
"""

import dataclasses
import math
from collections.abc import Sequence

# "doubling the latency should be worth 5 % of relative accuracy": 2^-0.07 = 0.953.
_SOFT_EXPONENT = -0.07  # MnasNet, section 3; EfficientNet, section 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightedProduct:
    """`accuracy * (cost / target)^w`: MnasNet's piecewise form.

    w is `below` where cost <= target, else `above` (https://arxiv.org/abs/1807.11626,
    equations 2 and 3). `soft` and `hard` are the paper's two settings.
    """

    target: float
    below: float
    above: float

    def __post_init__(self) -> None:
        """Rejects targets that are not costs, and exponents that reward cost."""
        _check_target(self.target)
        _check_exponent("below", self.below)
        _check_exponent("above", self.above)

    def __call__(self, accuracy: float, cost: float) -> float:
        """Returns the reward.

        Raises:
          ValueError: if accuracy or cost is not a finite number of the right sign.
        """
        _check_measurement(accuracy, cost)
        exponent = self.below if cost <= self.target else self.above
        return accuracy * (cost / self.target) ** exponent


def soft(target: float, exponent: float = _SOFT_EXPONENT) -> WeightedProduct:
    """`accuracy * (cost / target)^exponent` on both sides of the target.

    >>> soft(400e6)(0.75, 400e6)
    0.75
    """
    return WeightedProduct(target=target, below=exponent, above=exponent)


def hard(target: float, exponent: float = -1.0) -> WeightedProduct:
    """`accuracy * min((cost / target)^exponent, 1)`: nothing is gained below target.

    With exponent -1 it is MnasNet's hard constraint (alpha 0, beta -1); with another
    one, TuNAS's (https://arxiv.org/abs/2008.06120, section 3.1).

    >>> hard(400e6)(0.75, 200e6), hard(400e6)(0.75, 800e6)
    (0.75, 0.375)
    """
    return WeightedProduct(target=target, below=0.0, above=exponent)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Absolute:
    """`accuracy + beta * |cost / target - 1|`: TuNAS's absolute reward.

    It pulls towards the target from both sides (https://arxiv.org/abs/2008.06120,
    section 3.2; beta is meant for an accuracy in [0, 1]).

    >>> Absolute(target=400e6)(0.75, 440e6)
    0.74
    """

    target: float
    beta: float = -0.10

    def __post_init__(self) -> None:
        """Rejects targets that are not costs, and a beta that rewards distance."""
        _check_target(self.target)
        _check_exponent("beta", self.beta)

    def __call__(self, accuracy: float, cost: float) -> float:
        """Returns the reward.

        Raises:
          ValueError: if accuracy or cost is not a finite number of the right sign.
        """
        _check_measurement(accuracy, cost)
        return accuracy + self.beta * abs(cost / self.target - 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HigherIsBetter:
    """A reward for a quantity that should be high, such as images a second.

    Its inverse is the cost: with `soft`, ACC * (value / target)^0.07.

    >>> fast = HigherIsBetter(reward=soft(1 / 9000))
    >>> fast(0.75, 9000.0) < fast(0.75, 18000.0)
    True
    """

    reward: WeightedProduct | Absolute

    def __call__(self, accuracy: float, value: float) -> float:
        """Returns the reward.

        Raises:
          ValueError: if accuracy or value is not a finite number of the right sign.
        """
        _check_measurement(accuracy, value)
        return self.reward(accuracy, 1.0 / value)


def pareto_front(accuracies: Sequence[float], costs: Sequence[float]) -> list[int]:
    """Returns the indices of the points that no other point dominates.

    A point dominates another if it is at least as accurate and at most as costly,
    and better in one of the two; equal points do not dominate each other. Indices
    are in order of cost, then of position. O(n log n).

    >>> pareto_front([0.7, 0.9, 0.8, 0.6], [1.0, 3.0, 2.0, 2.0])
    [0, 2, 1]

    Raises:
      ValueError: if the lengths differ or a number is not finite.
    """
    if len(accuracies) != len(costs):
        raise ValueError(
            f"one cost per accuracy, got {len(accuracies)} accuracies and "
            f"{len(costs)} costs"
        )
    for number in (*accuracies, *costs):
        if not math.isfinite(number):
            raise ValueError(
                f"accuracies and costs must be finite, got {number}; leave "
                "infeasible points out"
            )
    order = sorted(range(len(costs)), key=lambda i: (costs[i], -accuracies[i], i))
    front: list[int] = []
    for i in order:
        best = accuracies[front[-1]] if front else -math.inf
        if accuracies[i] > best or (
            accuracies[i] == best and costs[i] == costs[front[-1]]
        ):
            front.append(i)
    return front


def _check_target(target: float) -> None:
    if not (math.isfinite(target) and target > 0.0):
        raise ValueError(
            f"the target must be a positive cost, got {target}; 400M multiply-adds "
            "are 400e6"
        )


def _check_exponent(name: str, exponent: float) -> None:
    if not (math.isfinite(exponent) and exponent <= 0.0):
        raise ValueError(
            f"{name} must be finite and not above 0, or cost would be rewarded, got "
            f"{exponent}; MnasNet's is {_SOFT_EXPONENT}"
        )


def _check_measurement(accuracy: float, cost: float) -> None:
    if not (math.isfinite(accuracy) and accuracy >= 0.0):
        raise ValueError(
            f"accuracy must be finite and not negative, got {accuracy}; report a "
            "child without one as infeasible"
        )
    if not (math.isfinite(cost) and cost > 0.0):
        raise ValueError(f"cost must be finite and positive, got {cost}")
