"""How a child gets its accuracy: the seam between a search and what it measures."""

import dataclasses
import functools
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from pydantic import ValidationError

from nas.evaluation.latency_table import LatencyTable
from nas.evaluation.run_data import RunData
from nas.options import definition
from nas.options.definition import FLOPS, SURROGATE, Definition, EvaluationOptions
from nas.study.confirmation import combined_error, means
from nas.study.metrics import ACCURACY, COUNTED, LATENCY_MS, Metric, by_name
from nas.study.study import trial_seed
from search_space import references, spaces
from search_space.space import SearchSpace
from search_space.spec import ArchSpec, explain
from trainers import baselines, child, surrogate
from trainers.child import ChildConfig
from trainers.data import catalog, fingerprint
from trainers.data.dataset import Dataset
from trainers.data.portion import portion
from trainers.measurement import Infeasible, Measured, Seconds
from trainers.surrogate import Surrogate

Evaluate = Callable[[ArchSpec, int], Measured | Infeasible]
"""(spec, seed) -> what came of it."""


TRAIN = "train"
_MAX_REPEATS = 1_000
SPEED = Metric(name="images_per_second", unit="images/s", goal="max")
"""Of training, compilation left out."""


class EvaluationError(RuntimeError):
    """No child can be evaluated: the fault is not any child's."""


Place = Literal["workers", "driver"]
"""Where trials are measured: by Ray's workers, or at once in the driver's process."""


@runtime_checkable
class Evaluator(Protocol):
    """Says how to measure. It is sent to every worker, so it holds no data."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What every measured trial has, all of it."""
        ...

    @property
    def place(self) -> Place:
        """Where it runs: what takes no time, such as a prediction, in the driver."""
        ...

    def prepare(self) -> Evaluate:
        """Loads what every child needs, once for each worker."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainChildren:
    """Trains each child on the training split, measures it on the validation split.

    `seed` decides the split.
    """

    options: EvaluationOptions
    config: ChildConfig
    seed: int

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """See `Evaluator`."""
        return (ACCURACY, SPEED)

    @property
    def place(self) -> Place:
        """See `Evaluator`."""
        return "workers"

    def load(self) -> Dataset:
        """Loads the data set.

        Raises:
          ValueError: if there is none of that name, or its data are not there.
        """
        dataset = catalog.load(
            self.options.dataset,
            seed=self.seed,
            validation=self.options.validation,
            data_dir=self.options.data_dir,
            download=self.options.download,
        )
        return portion(dataset, share=self.options.share, seed=self.seed)

    def with_share(self, share: float) -> "TrainChildren":
        """Returns one that trains on another share of the training images."""
        options = dataclasses.replace(self.options, share=share)
        return dataclasses.replace(self, options=options)

    def prepare(self) -> Evaluate:
        """Loads the data; training compiles as it goes, and keeps what it compiled."""
        dataset = self.load()

        def evaluate(spec: ArchSpec, seed: int) -> Measured | Infeasible:
            return child.evaluate(spec, dataset=dataset, config=self.config, seed=seed)

        return evaluate


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictChildren:
    """Predicts each child's ImageNet top-1, and its speed if that is the objective.

    A prediction takes a millisecond, so the search runs in one process, without Ray.
    """

    objective: str

    @property
    def place(self) -> Place:
        """See `Evaluator`."""
        return "driver"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """See `Evaluator`."""
        if self.objective == FLOPS:
            return (ACCURACY,)
        return (ACCURACY, definition.speed_metric(self.objective))

    def prepare(self) -> Evaluate:
        """Loads the predictors."""
        found = surrogate.load()
        space = spaces.load(found.about.space)
        accuracy = found.predictors[surrogate.TOP1]
        speed = None if self.objective == FLOPS else found.predictors[self.objective]

        def evaluate(spec: ArchSpec, seed: int) -> Measured:
            del seed  # a prediction has no chance in it
            tokens = np.array([space.encode(spec)], np.int32)
            metrics = {"accuracy": float(accuracy.predict(tokens)[0][0]) / 100.0}
            if speed is not None:
                metrics[self.objective] = float(speed.predict(tokens)[0][0])
            return Measured(metrics=metrics)

        return evaluate


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainInProportion:
    """Trains each network at a resolution in proportion to its own.

    `children` says how, and at which resolution a network of `resolution` pixels is
    trained. A search trains all its children at one resolution, because they are all
    meant for the same; scaled networks are not.
    """

    children: TrainChildren
    resolution: int

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """See `Evaluator`."""
        return self.children.metrics

    @property
    def place(self) -> Place:
        """See `Evaluator`."""
        return "workers"

    def config(self, spec: ArchSpec) -> ChildConfig:
        """Returns the budget for `spec`."""
        config = self.children.config
        resolution = round(config.resolution * spec.resolution / self.resolution)
        return dataclasses.replace(config, resolution=max(1, resolution))

    def prepare(self) -> Evaluate:
        """Loads the data; training compiles as it goes, and keeps what it compiled."""
        dataset = self.children.load()

        def evaluate(spec: ArchSpec, seed: int) -> Measured | Infeasible:
            return child.evaluate(
                spec, dataset=dataset, config=self.config(spec), seed=seed
            )

        return evaluate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repeated:
    """Measures as `evaluator` does, several times from seeds of their own.

    The metrics are means. Their standard errors count what the evaluator states, which
    all measurements share, and the differences between seeds. One that is infeasible
    makes the whole infeasible.
    """

    evaluator: Evaluator
    repeats: int

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """See `Evaluator`."""
        return self.evaluator.metrics

    @property
    def place(self) -> Place:
        """See `Evaluator`."""
        return self.evaluator.place

    def prepare(self) -> Evaluate:
        """Loads what `evaluator` needs."""
        inner = self.evaluator.prepare()

        def evaluate(spec: ArchSpec, seed: int) -> Measured | Infeasible:
            found: list[Measured] = []
            for repeat in range(self.repeats):
                outcome = inner(spec, trial_seed(seed, repeat) if repeat else seed)
                if isinstance(outcome, Infeasible):
                    return outcome
                found.append(outcome)
            return _mean(found)

        return evaluate


def _mean(found: Sequence[Measured]) -> Measured:
    metrics = means([outcome.metrics for outcome in found])
    curves = [outcome.losses for outcome in found]
    alike = len(set(map(len, curves))) == 1
    return Measured(
        metrics=metrics,
        spread={
            name: combined_error(
                [outcome.spread.get(name, 0.0) for outcome in found],
                [outcome.metrics[name] for outcome in found],
            )
            for name in metrics
        },
        repeats=sum(outcome.repeats for outcome in found),
        losses=tuple(map(statistics.fmean, zip(*curves, strict=True))) if alike else (),
        seconds=Seconds(
            compile=sum(outcome.seconds.compile for outcome in found),
            train=sum(outcome.seconds.train for outcome in found),
            eval=sum(outcome.seconds.eval for outcome in found),
        ),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class WithLatency:
    """Measures as `evaluator` does, and weighs accuracy against latency by `table`."""

    evaluator: Evaluator
    table: LatencyTable

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """See `Evaluator`."""
        return (*self.evaluator.metrics, LATENCY_MS)

    @property
    def place(self) -> Place:
        """See `Evaluator`."""
        return self.evaluator.place

    def prepare(self) -> Evaluate:
        """Loads what `evaluator` needs."""
        inner = self.evaluator.prepare()

        def evaluate(spec: ArchSpec, seed: int) -> Measured | Infeasible:
            outcome = inner(spec, seed)
            if isinstance(outcome, Infeasible):
                return outcome
            predicted = {LATENCY_MS.name: self.table.predict(spec)}
            return dataclasses.replace(
                outcome, metrics={**outcome.metrics, **predicted}
            )

        return evaluate


def train_in_proportion(
    base: ArchSpec, options: EvaluationOptions, config: ChildConfig, seed: int
) -> tuple[TrainInProportion, RunData]:
    """Returns what trains `base` and networks scaled from it, and its data set.

    Args:
      base: trained at the resolution that `config` names, the others in proportion.
      options: the data set.
      config: budget and recipe.
      seed: of the validation split.

    Raises:
      ValueError: if `options` name an evaluator that cannot judge scaled networks,
        the data set cannot be had, or `base` does not fit its resolution. One line.
    """
    if options.evaluator == SURROGATE:
        raise ValueError(
            f"--evaluator {SURROGATE} predicts networks of one space at its own widths"
            " and resolution, and no scaled network is among them; drop the flag: "
            "scaled networks are trained"
        )
    children = TrainChildren(options=options, config=config, seed=seed)
    dataset = children.load()
    try:
        child.as_trained(base, dataset, config)
    except ValidationError as error:
        raise ValueError(
            f"--resolution {config.resolution} does not suit {base.name}: "
            f"{explain(error)}"
        ) from None
    evaluator = TrainInProportion(children=children, resolution=base.resolution)
    return evaluator, data_of(dataset)


def build(run: Definition, space: SearchSpace) -> tuple[Evaluator, RunData]:
    """Returns the evaluator that `run` names, and what it measures on.

    Raises:
      ValueError: if what it needs cannot be had, or does not go together. One line.
    """
    if not 1 <= run.search.repeats <= _MAX_REPEATS:
        raise ValueError(
            f"--repeats must be from 1 to {_MAX_REPEATS}, got {run.search.repeats}"
        )
    evaluator, data = _build_once(run, space)
    if run.search.repeats > 1:
        evaluator = Repeated(evaluator=evaluator, repeats=run.search.repeats)
    return evaluator, data


def _build_once(run: Definition, space: SearchSpace) -> tuple[Evaluator, RunData]:
    name = run.evaluation.evaluator
    if name == SURROGATE:
        return _build_surrogate(run, space)
    if references.is_reference(name):
        return _own(name), RunData(description=f"none of ours: {name} measures")
    if name != TRAIN:
        raise ValueError(
            f"--evaluator must be {TRAIN}, {SURROGATE} or module:object of your own, "
            f"got {name[:80]!r}"
        )
    if run.reward.objective != FLOPS:
        raise ValueError(
            f"--objective {run.reward.objective} is predicted, by --evaluator "
            f"{SURROGATE}; add that, or drop --objective"
        )
    return _build_training(run, space)


def _own(name: str) -> Evaluator:
    """Returns a user's evaluator: the object named, or what it returns when called.

    Raises:
      ValueError: if it is none, or its metrics are not metrics.
    """
    found: Any = references.load(name, "evaluator")
    if not hasattr(found, "prepare") or isinstance(found, type):
        if not callable(found):
            raise ValueError(
                f"--evaluator {name} must be an evaluator or return one, got "
                f"{type(found).__name__}"
            )
        found = found()
    lacking = [p for p in ("metrics", "place", "prepare") if not hasattr(found, p)]
    if lacking:
        raise ValueError(
            f"--evaluator {name} must have metrics, place and prepare, and lacks "
            f"{', '.join(lacking)}; nas.evaluation.evaluators.Evaluator says what they "
            "are"
        )
    by_name([*found.metrics, *COUNTED])
    return found


def data_of(dataset: Dataset) -> RunData:
    """Returns how a run's data are told again."""
    return RunData(
        description=dataset.description,
        fingerprint=fingerprint.of(dataset),
        splits=dataset.num_examples,
        chance=dataset.chance,
        baselines=functools.partial(baselines.measure, dataset),
    )


def _build_surrogate(run: Definition, space: SearchSpace) -> tuple[Evaluator, RunData]:
    plain = dataclasses.replace(
        run,
        evaluation=EvaluationOptions(evaluator=SURROGATE),
        child=ChildConfig(),
    )
    if unused := definition.differences(run, plain):
        raise ValueError(
            f"--evaluator {SURROGATE} trains nothing, and {'; '.join(unused)}; drop "
            "these flags"
        )
    found = surrogate.load()
    about = found.about
    if run.search.space != about.space:
        raise ValueError(
            f"--evaluator {SURROGATE} predicts networks of the space {about.space}, "
            f"got --space {run.search.space}; drop --space"
        )
    accuracy = found.predictors[surrogate.TOP1]
    line = (
        f"none is read: accuracies are predictions of top-1 on {about.recipe}, by "
        f"trees fitted to {about.source}; {accuracy.about.error}"
    )
    objective = run.reward.objective
    if objective != FLOPS:
        _check_objective(objective, run.reward.target or math.nan, space, found)
        line += f"; {objective}: {found.predictors[objective].about.error}"
    return PredictChildren(objective=objective), RunData(description=line)


# Among so many random networks the target of an objective has to be, or near.
_NUM_SAMPLES = 2_000
_TARGET_SLACK = 2.0


def _check_objective(
    objective: str, target: float, space: SearchSpace, found: Surrogate
) -> None:
    names = sorted(set(found.predictors) - {surrogate.TOP1})
    if objective not in names:
        raise ValueError(
            f"--objective must be {FLOPS} or one of {', '.join(names)}, got {objective}"
        )
    rng = np.random.default_rng(0)
    drawn = rng.integers(space.num_choices, size=(_NUM_SAMPLES, len(space.num_choices)))
    whole = spaces.load(found.about.space)
    tokens = [whole.encode(space.decode(tuple(row))) for row in drawn.tolist()]
    values, _ = found.predictors[objective].predict(np.array(tokens, np.int32))
    least, most = values.min(), values.max()
    if not least / _TARGET_SLACK <= target <= most * _TARGET_SLACK:
        raise ValueError(
            f"--target must be near what the space reaches, and random networks have "
            f"{objective} from {least:.4g} to {most:.4g}, got {target:g}"
        )


def _build_training(run: Definition, space: SearchSpace) -> tuple[Evaluator, RunData]:
    evaluator = TrainChildren(
        options=run.evaluation, config=run.child, seed=run.search.seed
    )
    dataset = evaluator.load()
    example = space.decode((0,) * len(space.num_choices))
    try:  # strides are the same all over a space, so one of its networks will do
        child.as_trained(example, dataset, run.child)
    except ValidationError as error:
        raise ValueError(
            f"--resolution {run.child.resolution} does not suit the space "
            f"{run.search.space}: {explain(error)}"
        ) from None
    return evaluator, data_of(dataset)
