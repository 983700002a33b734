"""Evaluators with several budgets: which one a trial is measured at, it says itself."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from nas.evaluation.evaluators import Evaluator
from search_space.spec import ArchSpec
from trainers.measurement import Infeasible, Measured

EvaluateAt = Callable[[ArchSpec, int, int], Measured | Infeasible]
"""(spec, seed, fidelity) -> what came of it; the fidelity says which of the budgets."""

EvaluateFrom = Callable[
    [ArchSpec, int, int, bytes | None], tuple[Measured | Infeasible, bytes | None]
]
"""(spec, seed, fidelity, weights) -> what came of it, and weights to go on from.

The weights given are those of the fidelity below; None to start anew.
"""


@runtime_checkable
class HasBudgets(Evaluator, Protocol):
    """An evaluator that measures at one of several budgets, by a trial's fidelity."""

    def prepare_at(self) -> EvaluateAt:
        """Loads what every child needs, as `prepare`, which is of fidelity 0."""
        ...


@runtime_checkable
class GoesOn(Evaluator, Protocol):
    """An evaluator whose children go on from one fidelity to the next."""

    def prepare_from(self) -> EvaluateFrom:
        """Loads what every child needs."""
        ...


def prepare_from(evaluator: Evaluator) -> EvaluateFrom:
    """Prepares an evaluator, whether it has one budget or several."""
    if isinstance(evaluator, GoesOn):
        return evaluator.prepare_from()
    evaluate_at = prepare_at(evaluator)

    def evaluate_anew(
        spec: ArchSpec, seed: int, fidelity: int, weights: bytes | None
    ) -> tuple[Measured | Infeasible, bytes | None]:
        del weights
        return evaluate_at(spec, seed, fidelity), None

    return evaluate_anew


def prepare_at(evaluator: Evaluator) -> EvaluateAt:
    """Prepares an evaluator whose children start anew at every budget."""
    if isinstance(evaluator, HasBudgets):
        return evaluator.prepare_at()
    evaluate = evaluator.prepare()

    def evaluate_at(spec: ArchSpec, seed: int, fidelity: int) -> Measured | Infeasible:
        if fidelity != 0:
            raise ValueError(
                f"a fidelity is for an evaluator with prepare_at, got {fidelity} for"
                f" {type(evaluator).__name__}"
            )
        return evaluate(spec, seed)

    return evaluate_at
