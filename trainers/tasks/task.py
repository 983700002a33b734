"""The seam between a training loop and what is learned."""

from collections.abc import Mapping
from typing import Any, Protocol

from jaxtyping import Array, Float

from trainers.phases import Strengths

Targets = tuple[Any, ...]
"""What outputs are compared with: pytrees of arrays whose first axis is the batch's."""

Batch = tuple[Any, ...]
"""What the network takes, and behind it the targets."""

Observations = dict[str, Float[Array, "..."]]
"""What is seen of a batch in evaluation, by name; a sum over batches is of them all."""


class Task(Protocol):
    """What is learned. Equal tasks share compiled code, and `repr` tells others apart.

    All but `metrics` is traced.
    """

    def loss(
        self, outputs: Any, targets: Targets, strengths: Strengths
    ) -> Float[Array, ""]:
        """Returns the loss of a training batch, a mean over its examples."""
        ...

    def observe(self, outputs: Any, targets: Targets) -> Observations:
        """Returns what is seen of an evaluation batch; its mask is among the targets.

        NaN where an output is not finite.
        """
        ...

    def metrics(self, observations: Mapping[str, Any]) -> dict[str, float]:
        """Returns named numbers from the sums of observations, as NumPy arrays."""
        ...
