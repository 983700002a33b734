"""How alike two rankings of the same architectures are, and how sure that is.

Everything is over pairs of architectures, and a resample of architectures is how often
each was drawn: one product of matrices gives a coefficient for every resample.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import scipy.stats
from jaxtyping import Float, Int
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

RESAMPLES = 10_000
LEVEL = 0.95

Scores = Float[np.ndarray, " architectures"]
Order = Float[np.ndarray, "architectures architectures"]
"""1 where the row's architecture stands above the column's, -1 below, 0 beside it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tau:
    """A coefficient, its interval, and that of every resample.

    Attributes:
      value: Kendall's tau-b, or a mean of several.
      low: of the percentile interval at `LEVEL`.
      high: likewise.
      resampled: one for each resample; those of two taus are of the same resamples.
    """

    value: float
    low: float
    high: float
    resampled: Float[np.ndarray, " resamples"]

    def beats(self, other: "Tau") -> bool:
        """Whether it is above `other` in at least 95 of 100 resamples: paired."""
        return bool(np.mean(self.resampled > other.resampled) >= LEVEL)


def order(scores: Scores) -> Order:
    """Returns how scores order the architectures.

    >>> order(np.array([1.0, 3.0, 3.0])).tolist()
    [[0.0, -1.0, -1.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    """
    return np.sign(np.subtract.outer(scores, scores))


def resamples(number: int, seed: int = 0) -> Int[np.ndarray, "resamples architectures"]:
    """Returns how often each of `number` architectures is drawn, with replacement."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(number, np.full(number, 1 / number), size=RESAMPLES)


def tau(pairs: Sequence[tuple[Order, Order]]) -> Tau:
    """Returns the mean of Kendall's tau-b over pairs of orders, with its interval.

    By the percentile bootstrap over architectures. An order that ties all has 0: it
    tells nothing.
    """
    each = np.ones((1, len(pairs[0][0])))
    drawn = resamples(len(pairs[0][0]))
    value = np.mean([_tau_b(*pair, each) for pair in pairs])
    found = np.mean([_tau_b(*pair, drawn) for pair in pairs], axis=0)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(found, (tail, 1 - tail))
    return Tau(value=float(value), low=float(low), high=float(high), resampled=found)


def _tau_b(one: Order, other: Order, drawn: np.ndarray) -> np.ndarray:
    """Concordant less discordant pairs, over the root of those tied in neither."""

    def over_pairs(values: np.ndarray) -> np.ndarray:
        return ((drawn @ values) * drawn).sum(1)

    both = np.sqrt(over_pairs(one * one) * over_pairs(other * other))
    return np.divide(
        over_pairs(one * other), both, out=np.zeros_like(both), where=both > 0
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reliability:
    """How alike measurements of the same architectures from two seeds are.

    Means over all pairs of seeds. `pearson` of single measurements: the share of their
    variance that is the architectures', not chance.
    """

    pearson: float
    spearman: float
    kendall: float

    def of_means(self, repeats: int) -> float:
        """Returns the correlation of two means over `repeats` seeds each.

        Spearman and Brown's formula, for which a correlation below 0 is one of 0.

        >>> Reliability(pearson=0.5, spearman=0, kendall=0).of_means(2)
        0.6666666666666666
        """
        single = self.pearson if repeats == 1 else max(0.0, self.pearson)
        return repeats * single / (1 + (repeats - 1) * single)


def reliability(
    measured: Float[np.ndarray, "seeds architectures"],
) -> Reliability | None:
    """Returns how reliable measurements are; None of fewer than two seeds."""
    if len(measured) < 2:  # noqa: PLR2004
        return None
    found = [
        (
            _correlation(one, other),
            _correlation(scipy.stats.rankdata(one), scipy.stats.rankdata(other)),
            float(_tau_b(order(one), order(other), np.ones((1, len(one))))[0]),
        )
        for one, other in itertools.combinations(measured, 2)
    ]
    pearson, spearman, kendall = map(float, np.mean(found, axis=0))
    return Reliability(pearson=pearson, spearman=spearman, kendall=kendall)


def _correlation(one: Scores, other: Scores) -> float:
    """Pearson's; 0 where either is constant."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def learnt_order(
    features: Float[np.ndarray, "architectures features"], truth: Scores
) -> Order:
    """Returns how ridge regression on `features` orders architectures unknown to it.

    Each two are ordered by a regression on all others: leave-pair-out. Leaving out one
    at a time is biased: without the best the mean is lower, so that features that tell
    nothing rank it last, with a tau near -1. The strength of the penalty is chosen
    among those left in, on standardized features.
    """
    number = len(truth)
    found = np.zeros((number, number))
    for pair in itertools.combinations(range(number), 2):
        kept = np.delete(np.arange(number), pair)
        model = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-2, 3, 11)))
        model.fit(features[kept], truth[kept])
        one, other = model.predict(features[list(pair)])
        found[pair] = np.sign(one - other)
        found[pair[::-1]] = -found[pair]
    return found
