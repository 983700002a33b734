"""How a child gets its accuracy: the seam between a search and what it measures."""

import dataclasses
from collections.abc import Callable
from typing import Protocol

from pydantic import ValidationError

from nas.definition import Definition, EvaluationOptions
from search_space.space import SearchSpace
from search_space.spec import ArchSpec, explain
from trainers import child
from trainers.child import ChildConfig
from trainers.data import catalog
from trainers.data.dataset import Dataset
from trainers.measurement import Infeasible, Measurement

Evaluate = Callable[[ArchSpec, int], Measurement | Infeasible]
"""(spec, seed) -> what came of it."""


class EvaluationError(RuntimeError):
    """No child can be evaluated: the fault is not any child's."""


class Evaluator(Protocol):
    """Says how to measure. It is sent to every worker, so it holds no data."""

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

    def load(self) -> Dataset:
        """Loads the data set.

        Raises:
          ValueError: if there is none of that name, or its data are not there.
        """
        return catalog.load(
            self.options.dataset,
            seed=self.seed,
            validation=self.options.validation,
            data_dir=self.options.data_dir,
            download=self.options.download,
        )

    def prepare(self) -> Evaluate:
        """Loads the data; training compiles as it goes, and keeps what it compiled."""
        dataset = self.load()

        def evaluate(spec: ArchSpec, seed: int) -> Measurement | Infeasible:
            return child.evaluate(spec, dataset=dataset, config=self.config, seed=seed)

        return evaluate


def build(run: Definition, space: SearchSpace) -> tuple[Evaluator, str]:
    """Returns the evaluator that `run` names, and its data set in one line.

    Raises:
      ValueError: if the data set cannot be had, or the space's networks do not fit
        the resolution that children are trained at.
    """
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
    return evaluator, dataset.description
