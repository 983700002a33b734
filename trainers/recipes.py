"""How one network is trained at length: typed recipes, and what they come to.

`SHORT` is for small data and a few epochs. `EFFICIENTNET` is that of EfficientNet's
TensorFlow code (arXiv:1905.11946, section 5; tensorflow/tpu): the update rule and what
decays, the learning rates, smoothing, averages of weights and of batch norm's
statistics, the evaluation crop, flips, crops of 8 to 100 % of the area at an aspect of
3/4 to 4/3, ten tries each, and the central crop where none fits. Batch norm's epsilon,
initialisation, dropout and stochastic depth are the architecture's.

Departures from the source:

- RandAugment stands in for AutoAugment, as the source offers too, with its two
  operations of magnitude 10. `randaugment.py` says where they depart.
- The evaluation crop is 0.875 of the shorter side at every resolution, as in the code's
  last version, and not rounded to whole pixels. Its first versions left 32 pixels round
  the image: 0.875 at 224 too, but 0.904 for B3 and 0.949 for B7, whose published
  accuracies are so measured (`eval_crop`), and half of an image of 32 pixels.
- Bicubic resizing is antialiased, with Pillow's filter (a = -0.5); TensorFlow's is not,
  and has a = -0.75. The source resizes for its Lite and EdgeTPU networks bilinearly
  (`interpolation`).
- The area of random crops is uniform, as in arXiv:1409.4842, and so is the logarithm of
  the aspect; TensorFlow's sampler draws the aspect and then the height uniformly, and
  as the source calls it takes no crop of less than a tenth of the image.
- Images that fit in memory are cropped as for evaluation and then shifted by up to an
  eighth: a small data set's objects fill its images. Larger sets are cropped at random.
- Pixels are standardised by the training split, not by ImageNet's constants.
- Batch norm sees the whole batch, or one part of it with `accumulation`; there a group
  of TPU cores' share. Feature maps are float32 (`dtype`); bfloat16 there.
- Batch norm's statistics are computed anew for the weights that are measured or kept,
  from some training batches (`norm_batches`); there they are the running or averaged
  ones.
- Averages warm up by min(decay, (1 + t) / (10 + t)) from t = 0; there from t = 1.

Mixup and CutMix follow EfficientNetV2's code: `mixing.py`.

`EFFICIENTNETV2` and its M and L are progressive learning as EfficientNetV2's paper has
it (arXiv:2104.00298, table 6): four stages, from 128 pixels, a magnitude of 5, a
dropout of 0.1 and no mixup, to 300 pixels with 15, 0.3 and none for S, and to 380 with
20, 0.4 and 0.2 for M, 25, 0.5 and 0.4 for L. They are evaluated at the architecture's
resolution. The released code differs: a `growth` of `code`, magnitudes of 10, 15 and
20, mixup of 0, 0.2 and 0.5 with as much CutMix, the architecture's dropout throughout,
a momentum of 0.9 of batch norm, and 384 pixels for M and L. It crops 5 to 100 % of the
area; here the data set says how much. The rest is EfficientNet's, without its
evaluation crop, and nothing but kernels decays.
"""

import dataclasses
import math
from typing import Literal

import jax
import numpy as np
from jaxtyping import Array, Float

from search_space.spec import ArchSpec
from trainers import loop, optim
from trainers.augment import mixing, randaugment
from trainers.data.framing import WHOLE, Framing
from trainers.data.pixels import Interpolation
from trainers.phases import Growth, Phase, Strengths, growing
from trainers.steps.executables import Recipe
from trainers.steps.jitted import Prepare
from trainers.tasks.classification import Classification
from trainers.tasks.task import Batch

_REFERENCE_BATCH = 256  # that the learning rate is given for
_FIRST_SHARE = 128 / 300  # of the last resolution: EfficientNetV2-S's
_MAX_STAGES = 1_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Budget and recipe of one network's training."""

    epochs: float
    """Passes over the training split."""
    batch_size: int
    """Images in a step, over all devices."""
    resolution: int | Literal["architecture", "data"]
    """Side in pixels of the images, the architecture's own, or, with `data`, that of
    the data's images where all have one size: at least 32, at most the architecture's.
    """
    optimizer: Literal["sgd", "rmsprop", "adamw"]
    """Update rule: Nesterov momentum, TensorFlow 1's RMSProp, or AdamW."""
    learning_rate: float
    """Highest learning rate for a batch of 256; others get it in proportion."""
    schedule: Literal["cosine", "staircase"]
    """Half a cosine to zero, or a factor of 0.97 after every 2.4 epochs."""
    warmup_epochs: float
    """Epochs of linear warm-up."""
    weight_decay: float = 1e-5
    """L2 penalty on kernels (decoupled for adamw)."""
    decay_biases: bool = False
    """Penalize biases as well, all but batch normalization's."""
    label_smoothing: float = 0.1
    """Share of each target that is spread over all classes."""
    norm_momentum: float = 0.99
    """Of batch normalization's running statistics."""
    norm_batches: int = 16
    """Training batches that batch normalization's statistics are computed anew from,
    before weights are measured or kept; 0 takes the running ones."""
    ema_decay: float = 0.0
    """Of the averaged weights; 0 keeps none."""
    randaugment_ops: int = 0
    """Operations of RandAugment on each image; 0 for none."""
    randaugment_magnitude: float = 10.0
    """Their magnitude, from 0 to 30."""
    mixup: float = 0.0
    """Alpha of mixup; 0 for none. With cutmix, half of each batch gets either."""
    cutmix: float = 0.0
    """Alpha of CutMix; 0 for none."""
    dropout: float | None = None
    """Of the classifier; by default the architecture's own."""
    train_share: float = 1.0
    """Side of the images that are trained on at most, as a share of `resolution`, at
    which they are evaluated."""
    progressive: bool = False
    """Train in stages, from small images and weak regularization to what is said above:
    resolution, randaugment_magnitude, mixup, cutmix and dropout grow."""
    growth: Growth = "paper"
    """As EfficientNetV2's paper has it, or as its code: larger first stages, and a
    dropout that does not grow."""
    stages: int = 4
    """Of progressive training, equally long."""
    first_resolution: int | None = None
    """Side in pixels that they grow from; by default 128 of 300 in proportion, or the
    network's total stride if that is more."""
    first_magnitude: float = 5.0
    """Of RandAugment, in the first stage."""
    first_dropout: float = 0.1
    """Of the classifier, in the first stage."""
    eval_crop: float = WHOLE.crop
    """Side of the central square that is evaluated, as a share of an image's shorter
    side."""
    interpolation: Interpolation = WHOLE.interpolation
    """Of every resizing of images."""
    accumulation: int = 1
    """Parts that a batch is cut into where it does not fit the memory."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of feature maps; weights stay in float32."""

    def __post_init__(self) -> None:
        """Rejects what trains nothing, with the name of the flag."""
        for name in ("epochs", "learning_rate"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be above 0 and finite, got {value}")
        for name in ("batch_size", "accumulation"):
            if not 1 <= (value := getattr(self, name)) <= loop.MAX_BATCH:
                raise ValueError(
                    f"{name} must be at least 1 and at most {loop.MAX_BATCH}, got"
                    f" {value}"
                )
        for name in ("weight_decay", "label_smoothing", "norm_momentum", "ema_decay"):
            if not 0 <= (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {value}")
        for name in ("warmup_epochs", "mixup", "cutmix", "randaugment_ops"):
            if not 0 <= (value := getattr(self, name)) < math.inf:
                raise ValueError(f"{name} must be 0 or more, got {value}")
        self._check_parts()
        self._check_stages()

    def _check_stages(self) -> None:
        if not 0 < self.train_share <= 1:
            raise ValueError(
                f"train_share must be above 0 and at most 1, got {self.train_share}"
            )
        if not 2 <= self.stages <= _MAX_STAGES:  # noqa: PLR2004
            raise ValueError(
                f"stages must be from 2 to {_MAX_STAGES}, got {self.stages}; without"
                " progressive there is one"
            )
        if not 0 <= self.first_magnitude <= randaugment.MAX_MAGNITUDE:
            raise ValueError(
                f"first_magnitude must be from 0 to {randaugment.MAX_MAGNITUDE:.0f},"
                f" got {self.first_magnitude}"
            )
        for name in ("dropout", "first_dropout"):
            if not 0 <= (getattr(self, name) or 0.0) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")

    def _check_parts(self) -> None:
        if not 0 <= self.norm_batches <= loop.MAX_STEPS:
            raise ValueError(
                f"norm_batches must be from 0 to {loop.MAX_STEPS}, got"
                f" {self.norm_batches}"
            )
        if isinstance(self.resolution, int) and self.resolution < 1:
            raise ValueError(
                "resolution must be at least 1 pixel, or architecture, or data, got"
                f" {self.resolution}"
            )
        if not 0 <= self.randaugment_magnitude <= randaugment.MAX_MAGNITUDE:
            raise ValueError(
                "randaugment_magnitude must be from 0 to"
                f" {randaugment.MAX_MAGNITUDE:.0f}, got {self.randaugment_magnitude}"
            )
        if not 0 < self.eval_crop <= 1:
            raise ValueError(
                f"eval_crop must be above 0 and at most 1, got {self.eval_crop}; 1 is"
                " the largest central square"
            )
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"accumulation must divide the batch_size {self.batch_size}, got"
                f" {self.accumulation}"
            )

    def num_steps(self, num_examples: int) -> int:
        """Returns the steps that `epochs` come to, at least one.

        Raises:
          ValueError: if they are more than any schedule holds. One line.
        """
        steps = self.epochs * num_examples / self.batch_size
        if steps > loop.MAX_STEPS:
            raise ValueError(
                f"epochs must come to at most {loop.MAX_STEPS:,} steps, got"
                f" {self.epochs:g} epochs of {num_examples / self.batch_size:.3g};"
                " train for fewer"
            )
        return max(1, round(steps))

    def learning_rates(self, num_examples: int) -> np.ndarray:
        """Returns the learning rate of each step."""
        steps, per_epoch = self.num_steps(num_examples), num_examples / self.batch_size
        peak = self.learning_rate * self.batch_size / _REFERENCE_BATCH
        match self.schedule:
            case "cosine":
                warmup = min(1.0, self.warmup_epochs / self.epochs)
                return optim.Cosine(peak=peak, warmup=warmup).values(steps)
            case "staircase":
                return optim.Staircase(
                    peak=peak,
                    warmup_steps=int(self.warmup_epochs * per_epoch),
                    factor=0.97,
                    every=2.4 * per_epoch,
                ).values(steps)

    @property
    def framing(self) -> Framing:
        """How images are cropped for evaluation, and resized."""
        return Framing(crop=self.eval_crop, interpolation=self.interpolation)

    def step_recipe(self) -> Recipe:
        """Returns what is compiled into a step."""
        return Recipe(
            task=Classification(), optimizer=optim.Optimizer(name=self.optimizer)
        )

    def phases(self, num_examples: int, spec: ArchSpec) -> tuple[Phase, ...]:
        """Returns what the training of `spec` is made of: one phase, or its stages.

        Raises:
          ValueError: if a resolution is below the network's total stride, stages have
            no step, or the network has no dropout to be set. One line.
        """
        strengths = Strengths(
            weight_decay=self.weight_decay,
            label_smoothing=self.label_smoothing,
            dropout=self._dropout_share(spec, self.dropout),
            randaugment=self.randaugment_magnitude,
            mixup=self.mixup,
            cutmix=self.cutmix,
        )
        side = round(spec.resolution * self.train_share)
        steps = self.num_steps(num_examples)
        last = Phase(resolution=side, steps=steps, strengths=strengths)
        if side < spec.total_stride:
            raise ValueError(
                f"train_share must leave at least {spec.total_stride} pixels, the total"
                f" stride of {spec.name}, and leaves {side} of {spec.resolution}; raise"
                " it, or resolution"
            )
        if not self.progressive:
            return (last,)
        if steps < self.stages:
            raise ValueError(
                f"stages must have a step each, and {self.epochs:g} epochs have"
                f" {steps} for {self.stages}; train for longer, or in fewer"
            )
        first = Phase(
            resolution=self._first_resolution(spec, side),
            steps=0,
            strengths=dataclasses.replace(
                strengths,
                dropout=self._first_dropout(spec, strengths),
                randaugment=self.first_magnitude,
                mixup=0.0,
                cutmix=0.0,
            ),
        )
        return growing(first, last, stages=self.stages, growth=self.growth)

    def _first_resolution(self, spec: ArchSpec, last: int) -> int:
        least = spec.total_stride
        if self.first_resolution is None:
            return max(least, round(last * _FIRST_SHARE))
        if not least <= self.first_resolution <= last:
            raise ValueError(
                f"first_resolution must be from {least}, the total stride of"
                f" {spec.name}, to {last}, where training ends, got"
                f" {self.first_resolution}; give one between them"
            )
        return self.first_resolution

    def _first_dropout(self, spec: ArchSpec, last: Strengths) -> float | Array:
        """Returns the share of the network's own rate that training begins with."""
        own = spec.head.dropout
        if self.growth == "code" or own == 0:
            return last.dropout
        return self._dropout_share(spec, min(self.first_dropout, self.dropout or own))

    def _dropout_share(self, spec: ArchSpec, rate: float | None) -> float:
        """Returns which share of the network's own rate of dropout `rate` is."""
        own = spec.head.dropout
        if rate is None or rate == own:
            return 1.0
        if own == 0:
            raise ValueError(
                f"dropout must be 0 for {spec.name}, which has none, got {rate}; give"
                " its head a dropout above 0"
            )
        return rate / own

    def prepare(
        self,
        mean: Float[np.ndarray, " channels"],
        std: Float[np.ndarray, " channels"],
        num_classes: int,
    ) -> Prepare | None:
        """Returns what is done to each batch on the device; None for nothing.

        What has no strength in this recipe is left out, and has none in any phase.

        Args:
          mean: what was subtracted from the pixels.
          std: what they were divided by.
          num_classes: of the data set.
        """
        if not (self.randaugment_ops or self.mixup or self.cutmix):
            return None
        mean, std = mean.astype(np.float32), std.astype(np.float32)

        def prepare(key: Array, batch: Batch, strengths: Strengths) -> Batch:
            images, labels = batch
            augment_key, mix_key = jax.random.split(key)
            if self.randaugment_ops:
                pixels = randaugment.augment(
                    augment_key,
                    images * std + mean,
                    num_ops=self.randaugment_ops,
                    magnitude=strengths.randaugment,
                )
                images = (pixels - mean) / std
            return mixing.mix(
                mix_key,
                images,
                jax.nn.one_hot(labels, num_classes),
                mixup=strengths.mixup if self.mixup else None,
                cutmix=strengths.cutmix if self.cutmix else None,
            )

        return prepare


EFFICIENTNET = TrainingConfig(
    epochs=350,
    batch_size=4096,
    resolution="architecture",
    optimizer="rmsprop",
    learning_rate=0.016,
    schedule="staircase",
    warmup_epochs=5,
    decay_biases=True,
    norm_batches=4,
    ema_decay=0.9999,
    randaugment_ops=2,
    eval_crop=0.875,
    interpolation="bicubic",
)
SHORT = TrainingConfig(
    epochs=10,
    batch_size=128,
    resolution="data",
    optimizer="adamw",
    learning_rate=0.006,
    schedule="cosine",
    warmup_epochs=0.5,
    norm_momentum=0.9,
    ema_decay=0.999,
)
EFFICIENTNETV2 = dataclasses.replace(
    EFFICIENTNET,
    decay_biases=False,
    eval_crop=WHOLE.crop,
    randaugment_magnitude=15.0,
    dropout=0.3,
    train_share=300 / 384,
    progressive=True,
    first_resolution=128,
)
EFFICIENTNETV2_M = dataclasses.replace(
    EFFICIENTNETV2,
    randaugment_magnitude=20.0,
    mixup=0.2,
    dropout=0.4,
    train_share=380 / 480,
)
EFFICIENTNETV2_L = dataclasses.replace(
    EFFICIENTNETV2_M, randaugment_magnitude=25.0, mixup=0.4, dropout=0.5
)
RecipeName = Literal[
    "short", "efficientnet", "efficientnetv2", "efficientnetv2-m", "efficientnetv2-l"
]
RECIPES: dict[RecipeName, TrainingConfig] = {
    "short": SHORT,
    "efficientnet": EFFICIENTNET,
    "efficientnetv2": EFFICIENTNETV2,
    "efficientnetv2-m": EFFICIENTNETV2_M,
    "efficientnetv2-l": EFFICIENTNETV2_L,
}
