"""Children at several budgets, on digits at 8 pixels."""

import pickle

import numpy as np
import pytest

from nas.evaluation.budgets import TrainAtBudgets
from nas.evaluation.evaluators import TrainChildren
from nas.evaluation.fidelity import prepare_at
from nas.options.calibration import Budget
from nas.options.definition import EvaluationOptions
from tests.nas.tiny_space import SPACE
from trainers.child import ChildConfig
from trainers.measurement import Infeasible

CHILDREN = TrainChildren(
    options=EvaluationOptions(validation=100),
    config=ChildConfig(steps=6, resolution=8, batch_size=16, norm_batches=1),
    seed=0,
)
BUDGETS = (
    Budget(steps=2, resolution=8, share=0.1, validation=30),
    Budget(steps=6, resolution=8, share=1.0, validation=None),
    Budget(steps=2, resolution=2, share=1.0, validation=None),
)
SPEC = SPACE.decode((0,) * len(SPACE.num_choices))


def test_each_budget_is_what_it_says():
    evaluator = TrainAtBudgets(children=CHILDREN, budgets=BUDGETS)
    assert len(pickle.dumps(evaluator)) < 10_000
    evaluate = prepare_at(evaluator)
    short, longest = (evaluate(SPEC, 7, fidelity) for fidelity in (0, 1))
    assert [len(one.losses) for one in (short, longest)] == [2, 6]
    for outcome, images in ((short, 30), (longest, 100)):
        assert set(outcome.metrics) == {m.name for m in evaluator.metrics}
        right = outcome.metrics["accuracy"] * images
        assert right == pytest.approx(round(right))
    # The same initial weights from the same seed, whatever the budget; other images.
    assert short.metrics["log10_synflow"] == longest.metrics["log10_synflow"]
    assert short.metrics["naswot"] != longest.metrics["naswot"]
    again, other = evaluate(SPEC, 7, 1), evaluate(SPEC, 8, 1)
    assert again.metrics["naswot"] == longest.metrics["naswot"]
    assert np.array_equal(again.losses, longest.losses)
    assert other.metrics["log10_synflow"] != longest.metrics["log10_synflow"]
    assert isinstance(evaluate(SPEC, 7, 2), Infeasible), "strides 4 in 2 pixels"


def test_an_evaluator_of_one_budget_has_no_other():
    class Constant:
        metrics = ()
        place = "driver"

        def prepare(self):
            return lambda spec, seed: (spec.name, seed)

    evaluate = prepare_at(Constant())
    assert evaluate(SPEC, 3, 0) == (SPEC.name, 3)
    with pytest.raises(ValueError, match="prepare_at, got 1 for Constant"):
        evaluate(SPEC, 3, 1)
