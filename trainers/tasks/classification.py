"""Telling classes of images apart: cross-entropy, and the share that is right."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from trainers.phases import Strengths
from trainers.tasks.task import Observations

ACCURACY = "accuracy"


@dataclasses.dataclass(frozen=True)
class Classification:
    """`trainers.tasks.task.Task` of logits and one class for each image.

    Targets of a training batch are labels, or shares of the classes; those of an
    evaluation batch are labels, and a mask that is false where a row is padding.
    """

    def loss(
        self,
        outputs: Float[Array, "batch classes"],
        targets: tuple[Int[Array, " batch"] | Float[Array, "batch classes"]],
        strengths: Strengths,
    ) -> Float[Array, ""]:
        """Returns the mean cross-entropy with smoothed targets."""
        (shares,) = targets
        if shares.ndim == 1:
            shares = jax.nn.one_hot(shares, outputs.shape[-1])
        smooth = optax.smooth_labels(shares, strengths.label_smoothing)
        return optax.softmax_cross_entropy(outputs, smooth).mean()

    def observe(
        self,
        outputs: Float[Array, "batch classes"],
        targets: tuple[Int[Array, " batch"], Bool[Array, " batch"]],
    ) -> Observations:
        """Returns how many images were `seen`, and how many of them `correct`.

        NaN if a logit is not finite.
        """
        labels, mask = targets
        correct = jnp.sum((outputs.argmax(-1) == labels) * mask).astype(jnp.float32)
        return {
            "correct": jnp.where(jnp.isfinite(outputs).all(), correct, jnp.nan),
            "seen": jnp.sum(mask).astype(jnp.float32),
        }

    def metrics(self, observations: Mapping[str, Any]) -> dict[str, float]:
        """Returns the accuracy, from 0 to 1."""
        return {ACCURACY: float(observations["correct"] / observations["seen"])}
