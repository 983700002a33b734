"""The training loop: whatever trains here trains through `fit`."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from trainers.phases import Strengths
from trainers.steps.executables import StepInputs
from trainers.tasks.task import Batch, Observations, Task

# Steps that Python may be ahead of the device: enough to keep it busy, few enough that
# their activations fit its memory.
_STEPS_AHEAD = 4

MAX_STEPS = 10**8
"""Of one training: a schedule holds a number for each."""
MAX_BATCH = 2**20
"""Images in a step."""

States = TypeVar("States")  # what a step keeps between calls: a network's arrays


class Step(Protocol[States]):
    """A network's training step and evaluation, for a task."""

    task: Task

    def __call__(
        self, states: States, batch: Batch, inputs: StepInputs
    ) -> tuple[States, Float[Array, ""]]:
        """Returns the states after the step, and the loss before it."""
        ...

    def observe(self, states: States, batch: Batch) -> Observations:
        """Returns what the task sees of the outputs for an evaluation batch."""
        ...

    def refit(self, states: States, batch: Batch, momentum: float) -> States:
        """Returns the states with batch statistics moved towards those of `batch`.

        Each becomes `momentum * old + (1 - momentum) * batch`; nothing else changes.
        """
        ...


class DivergedError(ArithmeticError):
    """The loss is not finite any more."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """What changes from step to step.

    Attributes:
      learning_rates: one a step.
      strengths: of regularization, the same in all steps.
      norm_momentum: of batch normalization's running statistics.
      ema_decay: of the averaged weights, where they are kept.
      ema_warmup: decay by at most (1 + step) / (10 + step), as TensorFlow's averages
        do when they are told the step: the first weights are soon forgotten.
      first_step: index of the first step to train, for a run that goes on; random
        keys are by the step's index.
      seed: of dropout and stochastic depth; None switches both off.
    """

    learning_rates: Float[np.ndarray, " steps"]
    norm_momentum: float
    strengths: Strengths = dataclasses.field(default_factory=Strengths)
    ema_decay: float = 0.0
    ema_warmup: bool = False
    first_step: int = 0
    seed: int | None = None

    def inputs(self) -> Iterator[StepInputs]:
        """Yields each step's inputs, on the device."""
        norm_momentum = jnp.float32(self.norm_momentum)
        strengths = jax.tree.map(jnp.float32, self.strengths)
        key = None if self.seed is None else jax.random.key(self.seed)
        rates = self.learning_rates[self.first_step :]
        for step, learning_rate in enumerate(rates, self.first_step):
            most = (1 + step) / (10 + step) if self.ema_warmup else 1.0
            yield StepInputs(
                learning_rate=jnp.float32(learning_rate),
                norm_momentum=norm_momentum,
                ema_decay=jnp.float32(min(self.ema_decay, most)),
                strengths=strengths,
                key=None if key is None else jax.random.fold_in(key, step),
            )


def fit(
    step: Step[States],
    states: States,
    batches: Iterable[Batch],
    schedule: Schedule,
) -> tuple[States, Float[np.ndarray, " steps"]]:
    """Trains on every batch; Python runs a few steps ahead of the device.

    Returns:
      The final states, and the loss of each step.

    Raises:
      DivergedError: at a loss that is not finite.
    """
    losses: list[Array] = []
    for batch, inputs in zip(batches, schedule.inputs(), strict=True):
        states, loss = step(states, batch, inputs)
        losses.append(loss)
        if len(losses) > _STEPS_AHEAD:
            _check(losses, len(losses) - 1 - _STEPS_AHEAD)
    for index in range(max(0, len(losses) - _STEPS_AHEAD), len(losses)):
        _check(losses, index)
    return states, np.asarray(losses, np.float32)


def _check(losses: Sequence[Array], index: int) -> None:
    if not np.isfinite(losses[index]):
        raise DivergedError(f"the loss is {losses[index]} at step {index + 1}")


def refit(step: Step[States], states: States, batches: Iterable[Batch]) -> States:
    """Returns the states with batch statistics that fit the weights.

    Running statistics lag behind weights that move fast: after 20 steps most networks
    stand at chance with them. These are the means of the batches' own, with the weights
    as they are, without dropout.
    """
    for index, batch in enumerate(batches):
        states = step.refit(states, batch, index / (index + 1))
    return states


def evaluate(
    step: Step[States], states: States, batches: Iterable[Batch]
) -> dict[str, float]:
    """Returns the metrics of the step's task over all batches.

    Raises:
      DivergedError: if an output is not finite.
    """
    # All are under way before the first is waited for.
    observed = jax.device_get([step.observe(states, batch) for batch in batches])
    sums = jax.tree.map(
        lambda *values: np.sum(values, axis=0, dtype=np.float64), *observed
    )
    metrics = step.task.metrics(sums)
    if not all(map(math.isfinite, metrics.values())):
        raise DivergedError("the trained network's outputs are not finite")
    return metrics
