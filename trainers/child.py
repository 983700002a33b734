"""One child network: a spec, a budget and a seed in; a measurement or a reason out."""

import dataclasses
import functools
import math
import re
import time
from collections.abc import Iterator, Sequence
from typing import Literal

import jax
import numpy as np
from pydantic import ValidationError

from search_space.spec import MAX_RESOLUTION, ArchSpec, explain, with_dropout
from trainers import loop, optim
from trainers.data.dataset import Dataset
from trainers.data.loader import DataLoader
from trainers.data.placement import data_loader
from trainers.measurement import Infeasible, Measured, Seconds
from trainers.networks import classifier
from trainers.phases import Strengths
from trainers.runtime import compilation, devices
from trainers.steps import unit_weights
from trainers.steps.chained import ChainedStep
from trainers.steps.executables import Recipe, UnitState, split
from trainers.tasks.classification import ACCURACY, Classification
from trainers.tasks.task import Batch

# XLA's own status; what CUDA, cuDNN and cuBLAS say, which it passes on as INTERNAL.
_OUT_OF_MEMORY = re.compile(
    "RESOURCE_EXHAUSTED|out of memory|OUT_OF_MEMORY|ALLOC_FAILED|failed to allocate",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChildConfig:
    """The budget and recipe of every child."""

    steps: int = 60
    """Training steps."""
    batch_size: int = 32
    """Images in a step."""
    resolution: int = 32
    """Side in pixels that images are resized to for children."""
    optimizer: Literal["sgd", "rmsprop", "adamw"] = "adamw"
    """Update rule: Nesterov momentum, TensorFlow 1's RMSProp, or AdamW."""
    learning_rate: float = 0.003
    """Highest learning rate: a warm-up leads to it and a half cosine away from it."""
    warmup: float = 0.1
    """Share of the steps that warm up."""
    weight_decay: float = 1e-5
    """L2 penalty on kernels (decoupled for adamw)."""
    label_smoothing: float = 0.1
    """Share of each target that is spread over all classes."""
    norm_momentum: float = 0.9
    """Of batch normalization's running statistics; 0.99 is for long training."""
    norm_batches: int = 8
    """Training batches that batch normalization's statistics are computed anew from,
    before a child is measured; 0 measures with the running ones."""
    branch_scale: float = 0.0
    """Initial scale of the last batch normalization in every block with a shortcut: at
    0 a child starts as a shallow network and learns sooner; EfficientNet's is 1."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of feature maps; weights stay in float32."""

    def __post_init__(self) -> None:
        """Rejects budgets that train nothing."""
        limits = {
            "steps": loop.MAX_STEPS,
            "batch_size": loop.MAX_BATCH,
            "resolution": MAX_RESOLUTION,
        }
        for name, most in limits.items():
            if not 1 <= (value := getattr(self, name)) <= most:
                raise ValueError(
                    f"{name} must be at least 1 and at most {most}, got {value}"
                )
        if not 0 <= self.norm_batches <= loop.MAX_STEPS:
            raise ValueError(
                f"norm_batches must be from 0 to {loop.MAX_STEPS}, got"
                f" {self.norm_batches}"
            )
        if not 0 <= self.branch_scale <= 1:
            raise ValueError(
                f"branch_scale must be from 0 to 1, got {self.branch_scale}"
            )
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(
                f"learning_rate must be above 0 and finite, got {self.learning_rate}"
            )
        for name in ("warmup", "label_smoothing", "norm_momentum", "weight_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")


def as_trained(spec: ArchSpec, dataset: Dataset, config: ChildConfig) -> ArchSpec:
    """Returns `spec` at the proxy resolution, for the data set's images and classes.

    Without dropout and stochastic depth: a child's few steps are too few to overfit.

    Raises:
      ValidationError: if it strides further than the proxy resolution reaches.
    """
    return dataclasses.replace(
        spec,
        resolution=config.resolution,
        in_channels=dataset.channels,
        num_classes=dataset.num_classes,
        drop_path=0.0,
        head=with_dropout(spec.head, 0.0),
    )


def evaluate(
    spec: ArchSpec, *, dataset: Dataset, config: ChildConfig, seed: int
) -> Measured | Infeasible:
    """Trains `spec` on the training split and measures it on the validation split.

    Every step's batch is split over all of this process's devices.

    Args:
      spec: the child at its deployment resolution.
      dataset: prepared once for all children of a process.
      config: budget and recipe.
      seed: of the initial weights and the order of the images.
    """
    outcome, _ = _guarded(spec, dataset, config, seed, parts=(config.steps,))
    return outcome


def evaluate_in_parts(
    spec: ArchSpec,
    *,
    dataset: Dataset,
    config: ChildConfig,
    seed: int,
    parts: Sequence[int],
    weights: bytes | None = None,
) -> tuple[Measured | Infeasible, bytes | None]:
    """Trains `spec` in several parts, each with a warm-up and a cosine of its own.

    Args:
      spec: the child at its deployment resolution.
      dataset: prepared once for all children of a process.
      config: recipe; `steps` does not count.
      seed: of the initial weights and the order of the images.
      parts: the steps of each part.
      weights: those after all parts but the last, to go on from. With None, or what
        are no weights of this network, all parts are trained.

    Returns:
      What came of it, with the losses of the parts that were trained; and the weights
      after the last part, None where there are none.
    """
    outcome, states = _guarded(
        spec, dataset, config, seed, parts=parts, weights=weights
    )
    return outcome, None if states is None else unit_weights.dump(states)


def _guarded(
    spec: ArchSpec,
    dataset: Dataset,
    config: ChildConfig,
    seed: int,
    *,
    parts: Sequence[int],
    weights: bytes | None = None,
) -> tuple[Measured | Infeasible, list[UnitState] | None]:
    """Trains and measures; what is the child's fault is a reason, not an exception."""
    try:
        trained = as_trained(spec, dataset, config)
    except ValidationError as error:
        return Infeasible(f"does not fit: {explain(error)}"), None
    try:
        return _evaluate(trained, dataset, config, seed, parts, weights)
    except loop.DivergedError as error:
        return Infeasible(f"diverged: {error}"), None
    except MemoryError:
        return Infeasible("out of memory on the host"), None
    except jax.errors.JaxRuntimeError as error:
        if not _OUT_OF_MEMORY.search(str(error)):
            raise
        reason = str(error).splitlines()[0]
        return Infeasible(f"out of memory: {reason}"), None


def _evaluate(
    spec: ArchSpec,
    dataset: Dataset,
    config: ChildConfig,
    seed: int,
    parts: Sequence[int],
    weights: bytes | None,
) -> tuple[Measured, list[UnitState]]:
    loader = loader_of(dataset, config.resolution)
    with compilation.measured() as compiling:
        start = time.perf_counter()
        step, states = begin(spec, config, seed)
        done = 0
        if weights is not None and (found := unit_weights.load(states, weights)):
            states, done = step.place(found), len(parts) - 1
        curves: list[np.ndarray] = []
        for before, steps in _spans(parts)[done:]:
            if curves:  # as one that goes on from its weights: a new optimizer
                weights = unit_weights.dump(states)
                step, fresh = begin(spec, config, seed)
                states = step.place(unit_weights.load(fresh, weights) or fresh)
            batches = loader.train_batches(
                batch_size=config.batch_size,
                steps=before + steps,
                seed=seed,
                start=before,
            )
            plan = schedule(dataclasses.replace(config, steps=steps))
            states, curve = loop.fit(step, states, batches, plan)
            curves.append(curve)
        losses = np.concatenate(curves)
        trained = time.perf_counter()
        compiled_in_training = compiling.seconds
        whole = dataclasses.replace(config, steps=sum(parts))
        refit = loop.refit(
            step, states, norm_batches(loader, whole, len(dataset.train), seed)
        )
        metrics = loop.evaluate(
            step, refit, loader.eval_batches(batch_size=config.batch_size)
        )
        evaluated = time.perf_counter()
    train_seconds = trained - start - compiled_in_training
    accuracy = metrics[ACCURACY]
    measured = Measured(
        metrics={
            "accuracy": accuracy,
            "images_per_second": len(losses) * config.batch_size / train_seconds,
        },
        spread={"accuracy": binomial_error(accuracy, len(dataset.validation))},
        losses=tuple(losses.tolist()),
        seconds=Seconds(
            compile=compiling.seconds,
            train=train_seconds,
            eval=evaluated - trained - (compiling.seconds - compiled_in_training),
        ),
    )
    return measured, states


def _spans(parts: Sequence[int]) -> list[tuple[int, int]]:
    """The steps before each part, and its own."""
    return [(sum(parts[:position]), steps) for position, steps in enumerate(parts)]


def begin(
    spec: ArchSpec, config: ChildConfig, seed: int
) -> tuple[ChainedStep, list[UnitState]]:
    """Returns a child's training step, and the states that it starts from."""
    recipe = recipe_of(config)
    model = classifier.build(spec, seed=seed, dtype=config.dtype)
    classifier.scale_branches(model, config.branch_scale)
    network, states = split(model, recipe)
    several = devices.local() if jax.local_device_count() > 1 else None
    step = ChainedStep(network, recipe, devices=several)
    return step, step.place(states)


def recipe_of(config: ChildConfig) -> Recipe:
    """Returns what is compiled into a child's training step."""
    return Recipe(
        task=Classification(), optimizer=optim.Optimizer(name=config.optimizer)
    )


def schedule(config: ChildConfig) -> loop.Schedule:
    """Returns what changes from step to step of a child's training."""
    return loop.Schedule(
        learning_rates=optim.Cosine(
            peak=config.learning_rate, warmup=config.warmup
        ).values(config.steps),
        norm_momentum=config.norm_momentum,
        strengths=Strengths(
            weight_decay=config.weight_decay,
            label_smoothing=config.label_smoothing,
        ),
    )


def norm_batches(
    loader: DataLoader, config: ChildConfig, num_examples: int, seed: int
) -> Iterator[Batch]:
    """Yields training batches to refit batch statistics on: the next ones in order.

    No image comes twice.
    """
    most = max(1, num_examples // config.batch_size)
    end = config.steps + min(config.norm_batches, most)
    return loader.train_batches(
        batch_size=config.batch_size, steps=end, seed=seed, start=config.steps
    )


def binomial_error(share: float, number: int) -> float:
    """Returns the standard error of a share that was counted over `number` images.

    `sqrt(p (1 - p) / (n - 1))`, the unbiased estimate.

    >>> round(binomial_error(0.5, 101), 6)
    0.05
    """
    return math.sqrt(share * (1.0 - share) / max(1, number - 1))


@functools.lru_cache(maxsize=2)
def loader_of(dataset: Dataset, resolution: int) -> DataLoader:
    """Returns the loader of a data set, kept for the children to come."""
    return data_loader(dataset, resolution)
