"""Children trained in rungs: each goes on from the weights of the rung below."""

import dataclasses

from nas.evaluation.evaluators import Evaluate, Evaluator, Place, TrainChildren
from nas.evaluation.fidelity import EvaluateFrom
from nas.options.definition import Definition
from nas.study.metrics import Metric
from search_space.spec import ArchSpec
from trainers import child
from trainers.child import ChildConfig
from trainers.measurement import Infeasible, Measured


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainInRungs:
    """Trains each child to the rung of its trial: a fidelity is a position in `steps`.

    `steps` are those in all at the end of each rung. Every rung has a warm-up and a
    cosine of its own; a child without weights to go on from is trained through all of
    them.
    """

    children: TrainChildren
    steps: tuple[int, ...]

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """See `Evaluator`."""
        return self.children.metrics

    @property
    def place(self) -> Place:
        """See `Evaluator`."""
        return "workers"

    def prepare(self) -> Evaluate:
        """Loads the data, to measure at the first rung."""
        evaluate_from = self.prepare_from()
        return lambda spec, seed: evaluate_from(spec, seed, 0, None)[0]

    def prepare_from(self) -> EvaluateFrom:
        """Loads the data; training compiles as it goes, and keeps what it compiled."""
        dataset = self.children.load()
        below = (0, *self.steps)
        parts = [end - start for start, end in zip(below, self.steps, strict=False)]

        def evaluate(
            spec: ArchSpec, seed: int, fidelity: int, weights: bytes | None
        ) -> tuple[Measured | Infeasible, bytes | None]:
            return child.evaluate_in_parts(
                spec,
                dataset=dataset,
                config=self.children.config,
                seed=seed,
                parts=parts[: fidelity + 1],
                weights=weights,
            )

        return evaluate


def build(run: Definition, evaluator: Evaluator) -> TrainInRungs:
    """Returns the evaluator of a search whose children are trained in rungs.

    Raises:
      ValueError: if `evaluator` does not train by steps, or the rungs are none. One
        line.
    """
    steps = run.search.fidelities
    if len(steps) < 2 or sorted(set(steps)) != list(steps) or steps[0] < 1:  # noqa: PLR2004
        raise ValueError(
            "--fidelities must be two numbers of steps at least, each larger than the "
            f"one before, got {','.join(map(str, steps))}; write 60,180,540"
        )
    if not isinstance(evaluator, TrainChildren):
        raise ValueError(
            "--fidelities is for children that are trained, each once, got "
            f"--evaluator {run.evaluation.evaluator} and --repeats "
            f"{run.search.repeats}; drop one or the other"
        )
    if run.reward.latency_table is not None:
        raise ValueError(
            "--fidelities goes with multiply-adds, got --latency-table "
            f"{run.reward.latency_table}; drop one or the other"
        )
    if run.child.steps not in (ChildConfig().steps, steps[-1]):
        raise ValueError(
            f"--fidelities says how long children are trained, got --steps "
            f"{run.child.steps} as well; drop --steps"
        )
    return TrainInRungs(children=evaluator, steps=steps)
