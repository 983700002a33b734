"""Children trained at several budgets, and scored before they are trained."""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable

from pydantic import ValidationError

from nas.evaluation.evaluators import Evaluate, Place, TrainChildren
from nas.evaluation.fidelity import EvaluateAt
from nas.options.calibration import Budget
from nas.study.metrics import Metric
from search_space.spec import ArchSpec
from trainers import child, proxies
from trainers.child import ChildConfig
from trainers.data.dataset import Dataset
from trainers.data.portion import portion
from trainers.measurement import Infeasible, Measured
from trainers.networks import classifier
from trainers.runtime import compilation

NASWOT = Metric(name="naswot", goal="max")
SYNFLOW = Metric(name="log10_synflow", goal="max")
SCORE_SECONDS = Metric(name="score_seconds", unit="s", goal="min")
"""What the scores took, compilation left out."""

# Of 32 images each: about as many images as NASWOT's authors take.
_SCORED_BATCHES = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainAtBudgets:
    """Trains each child at the budget of its trial: a fidelity is a position in them.

    `children` says how the longest is trained. The scores are of the weights that the
    training begins with, and of the same images for all children.
    """

    children: TrainChildren
    budgets: tuple[Budget, ...]

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """See `Evaluator`."""
        return (*self.children.metrics, NASWOT, SYNFLOW, SCORE_SECONDS)

    @property
    def place(self) -> Place:
        """See `Evaluator`."""
        return "workers"

    def prepare(self) -> Evaluate:
        """Loads the data, to measure at the first budget."""
        evaluate_at = self.prepare_at()
        return lambda spec, seed: evaluate_at(spec, seed, 0)

    def prepare_at(self) -> EvaluateAt:
        """Loads the data; training compiles as it goes, and keeps what it compiled."""
        part = self._parts(self.children.load())

        def evaluate(spec: ArchSpec, seed: int, fidelity: int) -> Measured | Infeasible:
            budget = self.budgets[fidelity]
            dataset = part(budget.share, budget.validation)
            config = budget.config(self.children.config)
            try:
                trained = child.as_trained(spec, dataset, config)
            except ValidationError:  # which the child's evaluation explains
                scores = {}
            else:
                scores = _scores(trained, dataset, config, seed)
            outcome = child.evaluate(spec, dataset=dataset, config=config, seed=seed)
            if isinstance(outcome, Infeasible):
                return outcome
            return dataclasses.replace(outcome, metrics={**outcome.metrics, **scores})

        return evaluate

    def _parts(self, whole: Dataset) -> Callable[[float, int | None], Dataset]:
        """Returns what makes a budget's part of the data, one object for each."""
        seed = self.children.seed

        @functools.cache
        def part(share: float, validation: int | None) -> Dataset:
            same = share == self.children.options.share
            dataset = whole if same else self.children.with_share(share).load()
            return portion(dataset, validation=validation, seed=seed)

        return part


def _scores(
    spec: ArchSpec, dataset: Dataset, config: ChildConfig, seed: int
) -> dict[str, float]:
    loader = child.loader_of(dataset, config.resolution)
    with compilation.measured() as compiling:
        start = time.perf_counter()
        model = classifier.build(spec, seed=seed, dtype=config.dtype)
        images = loader.train_batches(
            batch_size=config.batch_size, steps=config.steps, seed=0
        )
        found = {
            NASWOT.name: proxies.naswot(
                model,
                child.recipe_of(config),
                itertools.islice(images, _SCORED_BATCHES),
            ),
            SYNFLOW.name: proxies.synflow(model, config.resolution),
        }
        taken = time.perf_counter() - start - compiling.seconds
    return {**found, SCORE_SECONDS.name: max(0.0, taken)}
