"""The training loop: whatever trains here trains through `fit`."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from trainers.steps.executables import StepInputs

# Steps that Python may be ahead of the device: enough to keep it busy, few enough that
# their activations fit its memory.
_STEPS_AHEAD = 4

MAX_STEPS = 10**8
"""Of one training: a schedule holds a number for each."""
MAX_BATCH = 2**20
"""Images in a step."""

Images = Float[Array, "batch height width channels"]
Labels = Int[Array, " batch"]
States = TypeVar("States")  # what a step keeps between calls: a network's arrays


class Step(Protocol[States]):
    """A network's training step and evaluation."""

    def __call__(
        self, states: States, images: Images, labels: Labels, inputs: StepInputs
    ) -> tuple[States, Float[Array, ""]]:
        """Returns the states after the step, and the loss before it."""
        ...

    def count_correct(
        self,
        states: States,
        images: Images,
        labels: Labels,
        mask: Bool[Array, " batch"],
    ) -> Float[Array, ""]:
        """Returns how many images with a true mask are classified correctly.

        NaN if a logit is not finite.
        """
        ...


class DivergedError(ArithmeticError):
    """The loss is not finite any more."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """What changes from step to step.

    Attributes:
      learning_rates: one a step.
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
    ema_decay: float = 0.0
    ema_warmup: bool = False
    first_step: int = 0
    seed: int | None = None

    def inputs(self) -> Iterator[StepInputs]:
        """Yields each step's inputs, on the device."""
        norm_momentum = jnp.float32(self.norm_momentum)
        key = None if self.seed is None else jax.random.key(self.seed)
        rates = self.learning_rates[self.first_step :]
        for step, learning_rate in enumerate(rates, self.first_step):
            most = (1 + step) / (10 + step) if self.ema_warmup else 1.0
            yield StepInputs(
                learning_rate=jnp.float32(learning_rate),
                norm_momentum=norm_momentum,
                ema_decay=jnp.float32(min(self.ema_decay, most)),
                key=None if key is None else jax.random.fold_in(key, step),
            )


def fit(
    step: Step[States],
    states: States,
    batches: Iterable[tuple[Images, Labels]],
    schedule: Schedule,
) -> tuple[States, Float[np.ndarray, " steps"]]:
    """Trains on every batch; Python runs a few steps ahead of the device.

    Returns:
      The final states, and the loss of each step.

    Raises:
      DivergedError: at a loss that is not finite.
    """
    losses: list[Array] = []
    for (images, labels), inputs in zip(batches, schedule.inputs(), strict=True):
        states, loss = step(states, images, labels, inputs)
        losses.append(loss)
        if len(losses) > _STEPS_AHEAD:
            _check(losses, len(losses) - 1 - _STEPS_AHEAD)
    for index in range(max(0, len(losses) - _STEPS_AHEAD), len(losses)):
        _check(losses, index)
    return states, np.asarray(losses, np.float32)


def _check(losses: Sequence[Array], index: int) -> None:
    if not np.isfinite(losses[index]):
        raise DivergedError(f"the loss is {losses[index]} at step {index + 1}")


def accuracy(
    step: Step[States],
    states: States,
    batches: Iterable[tuple[Images, Labels, Bool[Array, " batch"]]],
) -> float:
    """Returns the share of the masked images that are classified correctly.

    Raises:
      DivergedError: if a logit is not finite.
    """
    correct, seen = [], []
    for images, labels, mask in batches:
        correct.append(step.count_correct(states, images, labels, mask))
        seen.append(jnp.sum(mask))
    share = sum(map(float, correct)) / sum(map(int, seen))
    if not np.isfinite(share):
        raise DivergedError("the trained network's logits are not finite")
    return share
