"""What a calibration says: which budgets rank architectures as the longest does.

The mean of all trainings at the longest budget stands for the truth. A budget is judged
by single trainings, and by means over several of them (`repeats`), whose seeds no
training of the truth has.
"""

import dataclasses
import itertools
import statistics
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from nas.calibration import rank
from nas.calibration.plan import Trainings
from nas.calibration.rank import Order, Reliability, Tau
from nas.evaluation.budgets import NASWOT, SCORE_SECONDS, SYNFLOW
from nas.options.calibration import (
    LEAST_ARCHITECTURES,
    Budget,
    CalibrationDefinition,
    describe,
)
from nas.runs import journal
from nas.study.metrics import NUM_MACS, NUM_PARAMS
from nas.study.trial import CompletedTrial
from search_space.spec import ArchSpec

MULTIPLY_ADDS = "more multiply-adds"

_Table = Float[np.ndarray, "seeds architectures"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """What a child takes at a budget.

    Attributes:
      seconds: the median, of training and measuring, compilation left out.
      trained: images in all training steps.
      measured: images that measure.
    """

    seconds: float
    trained: int
    measured: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged:
    """A budget, so many times each child: its cost, and how it ranks.

    Attributes:
      budget: of one training.
      repeats: trainings that are averaged.
      is_longest: whether it is the truth's own: then tau is that of a training with
        the mean of the others.
      cost: of all repeats.
      tau: with the truth.
      beats_multiply_adds: whether it is above the tau of multiply-adds in at least 95
        of 100 resamples.
      reliability: of single trainings.
      accuracies: of the architectures, means over all seeds.
    """

    budget: Budget
    repeats: int
    is_longest: bool
    cost: Cost
    tau: Tau
    beats_multiply_adds: bool
    reliability: Reliability
    accuracies: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predictor:
    """What ranks architectures without training, or with a short one among others.

    `seconds` are those of a child; 0 for what is counted.
    """

    name: str
    tau: Tau
    beats_multiply_adds: bool
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Analysis:
    """Of `specs`, which were measured every time; `left_out` were not.

    `recommended` is the cheapest budget that passes the bar and beats multiply-adds.
    """

    specs: tuple[ArchSpec, ...]
    left_out: tuple[str, ...]
    judged: tuple[Judged, ...]
    predictors: tuple[Predictor, ...]
    combined: tuple[Predictor, ...]
    recommended: Judged | None

    @property
    def longest(self) -> Judged:
        """A single training at the longest budget."""
        return next(one for one in self.judged if one.is_longest)


def analyze(
    definition: CalibrationDefinition, contents: journal.Contents
) -> Analysis | None:
    """Returns what the journal says; None until it says enough.

    It does once every training is done, and at least four architectures were measured
    every time.
    """
    trainings = Trainings.of(definition)
    if len(contents.trials) < trainings.size:
        return None
    found = {trainings.place(t.tokens): t for t in contents.completed}
    seeds, budgets, number = map(range, trainings.num_choices)
    whole = [
        a for a in number
        if all((s, b, a) in found for s, b in itertools.product(seeds, budgets))
    ]  # fmt: skip
    if len(whole) < LEAST_ARCHITECTURES:
        return None
    trials = [[[found[s, b, a] for a in whole] for s in seeds] for b in budgets]
    specs = trainings.architectures
    evidence = _Evidence(definition, contents, trials)
    judged = tuple(evidence.judge(b, r) for b in budgets for r in evidence.repeats(b))
    return Analysis(
        specs=tuple(specs[a] for a in whole),
        left_out=tuple(specs[a].name for a in number if a not in whole),
        judged=judged,
        predictors=evidence.predictors([specs[a] for a in whole]),
        combined=evidence.combinations([specs[a] for a in whole]),
        recommended=recommend(judged, definition.calibration.bar),
    )


def recommend(judged: Sequence[Judged], bar: float) -> Judged | None:
    """Returns the cheapest budget above the bar that beats multiply-adds, if any."""
    passing = [one for one in judged if one.tau.value > bar and one.beats_multiply_adds]
    return min(passing, key=lambda one: one.cost.seconds, default=None)


class _Evidence:
    """The trials of architectures that were measured every time.

    `trials` are by budget, seed and architecture.
    """

    def __init__(
        self,
        definition: CalibrationDefinition,
        contents: journal.Contents,
        trials: Sequence[Sequence[Sequence[CompletedTrial]]],
    ) -> None:
        self._definition = definition
        self._budgets = definition.budgets()
        self._trials = trials
        data = contents.header.data
        self._held_out = 0 if data is None else data.num_examples["validation"]
        self._accuracies = [_table(one, "accuracy") for one in trials]
        self._longest = len(trials) - 1
        # Other initial weights than the truth's, where there are any.
        resolution = self._budgets[-1].resolution
        self._scored = next(
            trials[b] for b, one in enumerate(self._budgets)
            if one.resolution == resolution
        )  # fmt: skip
        self._truth = self._accuracies[-1].mean(0)
        self._macs = self._against(_table(trials[-1], NUM_MACS.name)[0])

    def repeats(self, budget: int) -> range:
        """Numbers of trainings to average; the longest are the truth, all together."""
        seeds = len(self._trials[budget])
        return range(1, 2 if budget == self._longest else seeds + 1)

    def judge(self, budget: int, repeats: int) -> Judged:
        """Judges means over `repeats` trainings at a budget, of all seeds in turn."""
        measured = self._accuracies[budget]
        is_longest = budget == self._longest
        if is_longest:
            others = [
                np.delete(measured, s, axis=0).mean(0) for s in range(len(measured))
            ]
            pairs = zip(measured, others, strict=True)
        else:
            means = [
                measured[start : start + repeats].mean(0)
                for start in range(0, len(measured) - repeats + 1, repeats)
            ]
            pairs = [(mean, self._truth) for mean in means]
        tau = rank.tau([(rank.order(one), rank.order(other)) for one, other in pairs])
        reliability = rank.reliability(measured)
        assert reliability is not None  # of two seeds at least, as options are checked
        return Judged(
            budget=self._budgets[budget],
            repeats=repeats,
            is_longest=is_longest,
            cost=self._cost(budget, repeats),
            tau=tau,
            beats_multiply_adds=tau.beats(self._macs),
            reliability=reliability,
            accuracies=tuple(measured.mean(0).tolist()),
        )

    def predictors(self, specs: Sequence[ArchSpec]) -> tuple[Predictor, ...]:
        """Judges what needs no training, each alone."""
        seconds = self._score_seconds()
        return tuple(
            self._predictor(name, self._against(values), seconds if scored else 0.0)
            for name, (values, scored) in self._cheap(specs).items()
        )

    def combinations(self, specs: Sequence[ArchSpec]) -> tuple[Predictor, ...]:
        """Judges learnt weights of all that is cheap, without and with a training."""
        cheap = [values for values, _ in self._cheap(specs).values()]
        scoring = self._score_seconds()
        found = [self._combined("counts and scores", cheap, scoring)]
        for budget, trials in enumerate(self._trials[:-1]):
            accuracies = self._accuracies[budget]
            losses = np.array([[_mean_loss(t) for t in row] for row in trials])
            found.append(
                self._combined(
                    f"counts, scores, one training: {describe(self._budgets[budget])}",
                    [*cheap, accuracies[0], losses[0]],
                    scoring + self._cost(budget, 1).seconds,
                )
            )
        return tuple(found)

    def _cheap(self, specs: Sequence[ArchSpec]) -> dict[str, tuple[np.ndarray, bool]]:
        """Predictors by name, and whether they take a pass through the network."""
        first = self._trials[self._longest]
        depth = [sum(stage.repeats for stage in spec.stages) for spec in specs]
        return {
            MULTIPLY_ADDS: (np.log(_table(first, NUM_MACS.name)[0]), False),
            "more parameters": (np.log(_table(first, NUM_PARAMS.name)[0]), False),
            "more layers": (np.array(depth, float), False),
            "NASWOT": (_table(self._scored, NASWOT.name).mean(0), True),
            "synflow": (_table(self._scored, SYNFLOW.name).mean(0), True),
        }

    def _combined(
        self, name: str, features: Sequence[np.ndarray], seconds: float
    ) -> Predictor:
        learnt = rank.learnt_order(np.stack(features, axis=1), self._truth)
        return self._predictor(name, self._with_truth(learnt), seconds)

    def _predictor(self, name: str, tau: Tau, seconds: float) -> Predictor:
        return Predictor(
            name=name,
            tau=tau,
            beats_multiply_adds=tau.beats(self._macs),
            seconds=seconds,
        )

    def _against(self, scores: np.ndarray) -> Tau:
        return self._with_truth(rank.order(scores))

    def _with_truth(self, order: Order) -> Tau:
        return rank.tau([(order, rank.order(self._truth))])

    def _cost(self, budget: int, repeats: int) -> Cost:
        child, one = self._definition.child, self._budgets[budget]
        seconds = [
            t.seconds.train + t.seconds.eval
            for row in self._trials[budget]
            for t in row
        ]
        held_out = self._held_out if one.validation is None else one.validation
        return Cost(
            seconds=repeats * statistics.median(seconds),
            trained=repeats * one.steps * child.batch_size,
            measured=repeats * held_out,
        )

    def _score_seconds(self) -> float:
        values = _table(self._scored, SCORE_SECONDS.name)
        return len(values) * float(np.median(values))  # means over the seeds are used


def verdict(found: Analysis, bar: float) -> str:
    """Returns what to do, in a sentence or two."""
    best, longest = found.recommended, found.longest
    if best is not None:
        share = best.cost.seconds / longest.cost.seconds
        return (
            f"{describe(best.budget, best.repeats)}: the cheapest that ranks with tau "
            f"above {bar:g} and better than multiply-adds do, in {share:.0%} of the "
            "longest budget's time"
        )
    if longest.tau.value <= bar:
        return (
            "none: even two trainings at the longest budget agree with a tau of "
            f"{longest.tau.value:.2f}, and the bar is {bar:g}; the architectures are "
            "alike here, or else --steps and the validation split are too small"
        )
    if any(one.tau.value > bar for one in found.judged):
        return (
            "none: what passes the bar is not surely better than multiply-adds alone, "
            f"over {len(found.specs)} architectures; calibrate with more "
            "--architectures, or take the longest budget"
        )
    return (
        f"none: nothing reaches the bar of {bar:g}; put --try-steps nearer to --steps, "
        "or lower --bar"
    )


def _table(trials: Sequence[Sequence[CompletedTrial]], metric: str) -> _Table:
    return np.array([[t.metrics[metric] for t in row] for row in trials], float)


def _mean_loss(trial: CompletedTrial) -> float:
    return statistics.fmean(trial.losses)
