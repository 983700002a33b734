"""What evaluators and rewards promise, as tests for those who write their own.

    from nas.testing import EvaluatorContract

    class TestMine(EvaluatorContract):
        def build(self):
            return MyEvaluator()

        def spec(self):
            return zoo.load("mnasnet-a1")

and pytest runs what is here on it. Nothing here needs pytest itself.
"""

import abc
import math
import pickle

from nas.evaluation.evaluators import Evaluator
from nas.study.metrics import COUNTED, by_name
from nas.study.reward import Reward
from search_space.spec import ArchSpec
from trainers.measurement import Infeasible, Measured


class EvaluatorContract(abc.ABC):
    """Subclass it in a test file, and say how the evaluator is built."""

    @abc.abstractmethod
    def build(self) -> Evaluator:
        """Returns the evaluator."""

    @abc.abstractmethod
    def spec(self) -> ArchSpec:
        """Returns an architecture that it can measure, soon."""

    def test_its_metrics_have_names_of_their_own(self) -> None:
        """And are not those that follow from the architecture."""
        metrics = self.build().metrics
        assert metrics
        by_name([*metrics, *COUNTED])

    def test_it_says_where_it_runs(self) -> None:
        """On workers, or in the driver."""
        assert self.build().place in ("workers", "driver")

    def test_it_can_be_sent_to_a_worker(self) -> None:
        """Where it runs on workers it goes there as a pickle, without the data."""
        evaluator = self.build()
        if evaluator.place == "workers":
            assert len(pickle.dumps(evaluator)) < 10**6

    def test_it_measures_what_it_says(self) -> None:
        """Every metric, finite; or it says why it cannot."""
        evaluator = self.build()
        outcome = evaluator.prepare()(self.spec(), 0)
        if isinstance(outcome, Infeasible):
            assert outcome.reason
            return
        assert isinstance(outcome, Measured)
        assert set(outcome.metrics) == {metric.name for metric in evaluator.metrics}
        assert all(map(math.isfinite, outcome.metrics.values()))
        assert set(outcome.spread) <= set(outcome.metrics)
        for metric in evaluator.metrics:
            if metric.unit == "share":
                assert 0.0 <= outcome.metrics[metric.name] <= 1.0


class RewardContract(abc.ABC):
    """Subclass it in a test file, and say what the reward is."""

    @abc.abstractmethod
    def build(self) -> Reward:
        """Returns the reward."""

    @abc.abstractmethod
    def metrics(self) -> dict[str, float]:
        """Returns metrics of a trial, `accuracy` below 1 among them."""

    def test_it_is_a_finite_number(self) -> None:
        """Of metrics by name."""
        assert math.isfinite(float(self.build()(self.metrics())))

    def test_more_accuracy_is_never_worse(self) -> None:
        """All else being equal."""
        reward, metrics = self.build(), self.metrics()
        better = {**metrics, "accuracy": (1.0 + metrics["accuracy"]) / 2.0}
        assert reward(better) >= reward(metrics)
