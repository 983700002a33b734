"""Measuring the best again: what they are worth, apart from their luck.

The best of many noisy measurements is in part the luckiest. A few candidates are
measured again from fresh seeds, and the means of those measurements decide; what a
candidate had claimed before does not count towards them.
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from nas.study.metrics import Metric
from nas.study.trial import CompletedTrial, FinishedTrial, InfeasibleTrial

# Of the candidates, one in so many is there for the best quality within the limit.
_SHARE_WITHIN = 3
# Of all trials, one in so many at most is measured again, but a few at least.
_MOST_SHARE = 4
_FEWEST = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limit:
    """What a network must not exceed, such as a target of multiply-adds.

    Of a metric whose goal is `max`, it is what a network must reach.
    """

    metric: Metric
    value: float

    def holds(self, metrics: Mapping[str, float]) -> bool:
        """Whether a network is within it."""
        sign = self.metric.sign
        return sign * metrics[self.metric.name] >= sign * self.value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Confirm:
    """How a study measures its best again.

    Attributes:
      number: of candidates at most; a quarter of the trials, where that is less, but
        two at least. 0 measures nothing again.
      repeats: measurements of each.
      quality: the metric that counts within the limit.
      limit: a third of the candidates are the best in quality within it.
    """

    number: int
    repeats: int
    quality: Metric
    limit: Limit | None = None

    def candidates(self, trials: Iterable[CompletedTrial]) -> list[CompletedTrial]:
        """Returns the trials to measure again: by reward, then within the limit.

        None where no trial states an error of its quality: they are exact then.
        """
        ranked = sorted(trials, key=lambda t: (-t.fidelity, -t.reward, t.index))
        is_exact = not any(trial.spread.get(self.quality.name) for trial in ranked)
        if is_exact or not self.number:
            return []
        number = min(self.number, max(_FEWEST, len(ranked) // _MOST_SHARE))
        within = [t for t in ranked if self.limit and self.limit.holds(t.metrics)]
        num_within = min(number // _SHARE_WITHIN, len(within))
        chosen = ranked[: number - num_within]
        known = {trial.index for trial in chosen}
        within = [trial for trial in within if trial.index not in known]
        name, sign = self.quality.name, self.quality.sign
        within.sort(key=lambda t: (-t.fidelity, -sign * t.metrics[name], t.index))
        chosen += within[:num_within]
        known = {trial.index for trial in chosen}
        rest = (trial for trial in ranked if trial.index not in known)
        return [*chosen, *itertools.islice(rest, number - len(chosen))]

    def left(
        self,
        trials: Iterable[CompletedTrial],
        known: Container[tuple[int, int]],
    ) -> list[tuple[CompletedTrial, int]]:
        """Returns what is to be measured again: every candidate once, then once more.

        Args:
          trials: of a search that has ended.
          known: index and repeat of what was measured again, or is being measured.

        Returns:
          Trials and the repeats that they are to be measured as.
        """
        wanted = itertools.product(range(1, self.repeats + 1), self.candidates(trials))
        return [(t, repeat) for repeat, t in wanted if (t.index, repeat) not in known]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standing:
    """An architecture with all that is known of it.

    Attributes:
      trial: what it was found by.
      again: its later measurements, from seeds of their own.
      num_failed: how often it could not be measured again.
    """

    trial: CompletedTrial
    again: tuple[CompletedTrial, ...] = ()
    num_failed: int = 0

    @property
    def is_confirmed(self) -> bool:
        """Whether it was measured again, and never failed to be."""
        return bool(self.again) and not self.num_failed

    @property
    def counted(self) -> tuple[CompletedTrial, ...]:
        """The measurements that count: the later ones, where there are any."""
        return self.again or (self.trial,)

    @property
    def reward(self) -> float:
        """The mean reward of the measurements that count."""
        return statistics.fmean(trial.reward for trial in self.counted)

    @property
    def mean_of_all(self) -> float:
        """The mean reward of every measurement, the first one too."""
        return statistics.fmean(t.reward for t in (self.trial, *self.again))

    @property
    def metrics(self) -> dict[str, int | float]:
        """The means of the metrics; what never differs stays a whole number."""
        return means([trial.metrics for trial in self.counted])

    @property
    def spread(self) -> dict[str, float]:
        """The standard errors of the metrics' means.

        That of the validation split's size, which all measurements share, and that of
        the seeds: its square is added, where there are several.
        """
        return {
            name: combined_error(
                [trial.spread.get(name, 0.0) for trial in self.counted],
                [trial.metrics[name] for trial in self.counted],
            )
            for name in self.trial.spread
        }

    @property
    def num_trainings(self) -> int:
        """How many trainings the means are of."""
        return sum(trial.repeats for trial in self.counted)


def standings(
    trials: Iterable[CompletedTrial], again: Iterable[FinishedTrial] = ()
) -> list[Standing]:
    """Returns each architecture with its measurements, in the order of the trials."""
    later: dict[int, list[FinishedTrial]] = {}
    for record in again:
        later.setdefault(record.index, []).append(record)
    return [_standing(trial, later.get(trial.index, ())) for trial in trials]


def _standing(trial: CompletedTrial, later: Sequence[FinishedTrial]) -> Standing:
    return Standing(
        trial=trial,
        again=tuple(t for t in later if isinstance(t, CompletedTrial)),
        num_failed=sum(isinstance(t, InfeasibleTrial) for t in later),
    )


def best(found: Sequence[Standing]) -> Standing | None:
    """Returns the highest mean reward of those confirmed, if any is, else of all.

    Where some were trained for longer than others, of those.
    """
    return max(
        _deciding(found),
        key=lambda standing: (standing.trial.fidelity, standing.reward),
        default=None,
    )


def best_within(
    found: Sequence[Standing], limit: Limit, quality: Metric
) -> Standing | None:
    """Returns the best quality within the limit; of those confirmed, if any is."""
    within = [standing for standing in found if limit.holds(standing.trial.metrics)]
    return max(
        _deciding(within),
        key=lambda standing: (
            standing.trial.fidelity,
            quality.sign * standing.metrics[quality.name],
        ),
        default=None,
    )


def _deciding(found: Sequence[Standing]) -> list[Standing]:
    confirmed = [standing for standing in found if standing.is_confirmed]
    return confirmed or list(found)


def reward_error(found: Sequence[Standing]) -> float | None:
    """Returns the standard deviation of a reward between seeds, over all confirmed.

    Pooled, because each of them has few; None where none was measured twice.
    """
    squares, freedom = 0.0, 0
    for standing in found:
        if len(standing.again) > 1:
            rewards = [trial.reward for trial in standing.again]
            squares += statistics.variance(rewards) * (len(rewards) - 1)
            freedom += len(rewards) - 1
    return math.sqrt(squares / freedom) if freedom else None


def means(rows: Sequence[Mapping[str, int | float]]) -> dict[str, int | float]:
    """Returns the mean of each metric; that of equal numbers is exact."""
    return {name: _mean([row[name] for row in rows]) for name in rows[0]}


def _mean(values: Sequence[int | float]) -> int | float:
    first = values[0]
    same = all(value == first for value in values)
    return first if same else statistics.fmean(values)


def combined_error(errors: Sequence[float], values: Sequence[float]) -> float:
    """Returns the standard error of a mean over seeds, on one validation split.

    Args:
      errors: of each value, by the split's size; the split is the same for all.
      values: one a seed.

    >>> combined_error([0.03, 0.03], [0.70, 0.78])  # sqrt(0.03^2 + 0.04^2)
    0.05
    """
    split = statistics.fmean(errors)
    seeds = statistics.variance(values) / len(values) if len(values) > 1 else 0.0
    return round(math.sqrt(split**2 + seeds), 12)


def within_noise(found: Sequence[Standing]) -> Iterator[Standing]:
    """Yields the confirmed that the best of them is not certainly better than.

    Two standard errors of a difference of means: 2 * sqrt(2 / n) standard deviations.
    """
    leader, deviation = best(found), reward_error(found)
    if leader is None or deviation is None:
        return
    for standing in found:
        if standing is leader or not standing.is_confirmed:
            continue
        error = deviation * math.sqrt(1 / len(leader.again) + 1 / len(standing.again))
        if leader.reward - standing.reward < 2 * error:
            yield standing
