"""What a training run is made of: phases, each with its resolution and strengths.

A run of one phase trains alike from beginning to end. Progressive learning
(arXiv:2104.00298, section 4) has several, from small images and weak regularization to
large ones and strong.
"""

import dataclasses

import jax
from jaxtyping import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Strengths:
    """How strongly training regularizes: numbers, or scalars on the device.

    A compiled step takes them as arguments, so phases share it.

    Attributes:
      weight_decay: L2 penalty, as `optim.chain` has it.
      label_smoothing: share of each target that is spread over all classes.
      dropout: share of the network's own rate that is applied.
      drop_path: share of its rates of stochastic depth that is applied.
      randaugment: magnitude of RandAugment's operations.
      mixup: alpha; 0 leaves the images as they are.
      cutmix: alpha; 0 leaves the images as they are.
    """

    weight_decay: float | Array = 0.0
    label_smoothing: float | Array = 0.0
    dropout: float | Array = 1.0
    drop_path: float | Array = 1.0
    randaugment: float | Array = 0.0
    mixup: float | Array = 0.0
    cutmix: float | Array = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of a run: steps at one resolution, in pixels, and with one strength."""

    resolution: int
    steps: int
    strengths: Strengths
