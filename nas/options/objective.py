"""What a search weighs accuracy against: multiply-adds, or a speed."""

import dataclasses
from typing import Literal

from nas.options.quantity import format_flops
from nas.runs import journal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """A quantity that every measured child of a search has.

    `unit` is empty for a count. `goal` says which of two children of the same accuracy
    is the better one: that with the smaller value (min), or with the larger (max).
    """

    name: str
    unit: str = ""
    goal: Literal["min", "max"] = "min"

    @property
    def title(self) -> str:
        """The name and the unit, for an axis."""
        return f"{self.name} in {self.unit}" if self.unit else self.name

    @property
    def is_counted(self) -> bool:
        """Whether it is the count of multiply-adds, which no child lacks."""
        return self == MULTIPLY_ADDS

    def of(self, child: journal.Trained) -> float:
        """Returns the child's value."""
        if self.is_counted or child.objective is None:
            return child.num_macs
        return child.objective

    def cost(self, child: journal.Trained) -> float:
        """Returns the child's value such that the smaller is the better."""
        return self.of(child) if self.goal == "min" else -self.of(child)

    def shown(self, value: float) -> str:
        """Returns a value with its unit.

        >>> MULTIPLY_ADDS.shown(3.858e8)
        '386M multiply-adds'
        >>> Objective(name="latency", unit="ms").shown(18.5)
        '18.5 ms'
        """
        if self.is_counted:
            return f"{format_flops(value)} {self.name}"
        return f"{value:.4g} {self.unit}"


MULTIPLY_ADDS = Objective(name="multiply-adds")
