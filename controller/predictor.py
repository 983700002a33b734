"""What a search's own results say about other sequences: a Gaussian process.

Exact while there are at most `MAX_EXACT` results. Beyond that every result still
counts, through its covariances with a few of them, the inducing ones (Titsias,
"Variational learning of inducing variables in sparse Gaussian processes", 2009; his
equation 6): the best, and others spread over all the rest.

Rewards are warped first: from the median down, distances are taken by their logarithm,
so that how bad the bad ones are (infeasible ones, or beyond a hard constraint) does not
drown the differences between good ones.
"""

# SciPy has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

import dataclasses
import math
from typing import NamedTuple, Self

import numpy as np
import scipy.linalg.lapack
from numpy.typing import NDArray

from controller import kernel
from controller.kernel import Floats, Parameters, Tokens

# Results that are all kept apart, and inducing ones where there are more.
MAX_EXACT = 256
# Of the inducing results, the share that are the best.
_SHARE_BEST = 0.5
_LEAST = 1e-12
# Rewards are float32: what differs by less than this share is equal.
_RESOLUTION = 1e-7
_TINY = 1e-30


class Warp(NamedTuple):
    """Rewards to standardized values and back; `center` and `spread` float64 []."""

    center: NDArray[np.float64]
    spread: NDArray[np.float64]

    @classmethod
    def of(cls, rewards: Floats) -> Self:
        """Returns the warp for rewards [n], n > 0: median, and deviation above it."""
        exact = rewards.astype(np.float64)
        center = np.median(exact)
        above = exact[exact >= center] - center
        spread = math.sqrt(float((above * above).mean()))
        least = max(_RESOLUTION * abs(float(center)), _TINY)
        return cls(center=np.asarray(center), spread=np.asarray(max(spread, least)))

    def values(self, rewards: Floats) -> Floats:
        """Returns the values of rewards."""
        raw = (rewards.astype(np.float64) - self.center) / self.spread
        return np.where(raw < 0.0, -np.log1p(np.maximum(-raw, 0.0)), raw)

    def rewards(self, values: Floats) -> Floats:
        """The inverse of `values`."""
        raw = np.where(values < 0.0, -np.expm1(np.maximum(-values, 0.0)), values)
        return self.center + self.spread * raw


class Sums(NamedTuple):
    """What all results come to, where not each is kept apart.

    `inducing` int32 [m, D]; `gram` [m, m] and `cross` [m] are sums over the results of
    their covariances with the inducing ones, multiplied with each other and with the
    results' values.
    """

    inducing: Tokens
    gram: NDArray[np.float64]
    cross: NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predictor:
    """Means and deviations of sequences' values (see `Warp`), without noise.

    `marks` [m, K] are the sequences that it knows by, `weights` [m] and `root` [m, m]
    give the mean and what is known of the variance from covariances with them.
    """

    num_choices: tuple[int, ...]
    parameters: Parameters
    marks: NDArray[np.float32]
    weights: NDArray[np.float32]
    root: NDArray[np.float32]
    scale: float

    def predict(self, tokens: Tokens) -> tuple[Floats, Floats]:
        """Returns means [n] and standard deviations [n] for tokens [n, D]."""
        marks = kernel.one_hot(tokens, self.num_choices)
        near = kernel.covariance(marks, self.marks, self.num_choices, self.parameters)
        known = near @ self.root
        left = np.maximum(1.0 - (known * known).sum(axis=1), 0.0)
        return near @ self.weights, np.sqrt(self.scale * left)


def exact(
    tokens: Tokens,
    values: Floats,
    num_choices: tuple[int, ...],
    parameters: Parameters,
    pending: Tokens,
) -> Predictor:
    """Returns the predictor by tokens [n, D] with values [n].

    Those pending have no values yet: they only make their surroundings more certain.
    """
    num = len(values)
    marks = kernel.one_hot(np.concatenate([tokens, pending]), num_choices)
    doubled = marks.astype(np.float64)
    matrix = kernel.covariance(doubled, doubled, num_choices, parameters)
    matrix[np.diag_indices(len(marks))] += kernel.noise(parameters) + kernel.JITTER
    factor = np.linalg.cholesky(matrix)
    half = _inverse_factor(factor)
    white = half[:num, :num] @ values
    weights = np.zeros(len(marks))
    weights[:num] = half[:num, :num].T @ white
    return Predictor(
        num_choices=num_choices,
        parameters=parameters,
        marks=marks,
        weights=weights.astype(np.float32),
        root=half.T.astype(np.float32),
        scale=max(float(white @ white) / num, _LEAST),
    )


def chosen(worth: Floats) -> NDArray[np.intp]:
    """Returns which `MAX_EXACT` of the results are the inducing ones, in order.

    Those of the highest `worth` [n], and of the rest the same share of every stretch
    of the search.
    """
    order = np.argsort(-worth, kind="stable")
    num_best = int(_SHARE_BEST * MAX_EXACT)
    rest = np.sort(order[num_best:])
    spread = np.linspace(0, len(rest) - 1, MAX_EXACT - num_best).astype(np.intp)
    return np.sort(np.concatenate([order[:num_best], rest[spread]]))


def no_sums(inducing: Tokens) -> Sums:
    """Returns the sums over no results."""
    num = len(inducing)
    return Sums(inducing=inducing, gram=np.zeros((num, num)), cross=np.zeros(num))


def added(
    sums: Sums,
    tokens: Tokens,
    values: Floats,
    num_choices: tuple[int, ...],
    parameters: Parameters,
) -> Sums:
    """Returns the sums with tokens [n, D] and values [n] among the results."""
    known = kernel.one_hot(sums.inducing, num_choices)
    gram, cross = sums.gram, sums.cross
    for first in range(0, len(values), 1024):
        rows = slice(first, first + 1024)
        marks = kernel.one_hot(tokens[rows], num_choices)
        near = kernel.covariance(marks, known, num_choices, parameters)
        gram = gram + near.T @ near
        cross = cross + values[rows] @ near
    return sums._replace(gram=gram, cross=cross)


def sparse(
    sums: Sums,
    scale: float,
    num_choices: tuple[int, ...],
    parameters: Parameters,
    pending: Tokens,
) -> Predictor:
    """Returns the predictor by all results that `sums` are of; `pending` as `exact`."""
    marks = kernel.one_hot(sums.inducing, num_choices)
    doubled = marks.astype(np.float64)
    matrix = kernel.covariance(doubled, doubled, num_choices, parameters)
    matrix[np.diag_indices(len(marks))] += kernel.JITTER
    half = _inverse_factor(np.linalg.cholesky(matrix))
    noise = kernel.noise(parameters) + kernel.JITTER
    identity = np.eye(len(marks))
    # In coordinates where the inducing values are independent: what results tell.
    unknown = _inverse(half @ sums.gram @ half.T / noise + identity)
    weights = half.T @ (unknown @ (half @ sums.cross)) / noise
    if len(pending):
        seen = added(sums, pending, np.zeros(len(pending)), num_choices, parameters)
        unknown = _inverse(half @ seen.gram @ half.T / noise + identity)
    learned = np.linalg.cholesky(identity * (1.0 + kernel.JITTER) - unknown)
    return Predictor(
        num_choices=num_choices,
        parameters=parameters,
        marks=marks,
        weights=weights.astype(np.float32),
        root=(half.T @ learned).astype(np.float32),
        scale=scale,
    )


def _inverse(matrix: Floats) -> Floats:
    return kernel.inverse_of(np.linalg.cholesky(matrix))


def _inverse_factor(factor: Floats) -> Floats:
    """Returns the inverse [n, n] of a lower triangular factor."""
    found, _ = scipy.linalg.lapack.dtrtri(factor.T, lower=0)  # pyright: ignore[reportAttributeAccessIssue]
    return found.T
