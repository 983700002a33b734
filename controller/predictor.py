"""A Gaussian process over token sequences, fitted to a search's own results.

The covariance of two sequences that agree in a share s of their decisions is

    scale * (linear * s + (1 - linear) * exp(-rate * (1 - s)))

and `scale * noise` more for a result with itself: a linear model of the tokens plus
an exponential kernel over Hamming distance, the simplest kernels that see main
effects and interactions of unordered choices (Rasmussen and Williams, "Gaussian
Processes for Machine Learning", sections 2.1 and 4.4). `linear`, `rate` and `noise`
lie on a grid and climb its marginal likelihood; `scale` is at its maximum of the
likelihood for each of them.

NumPy and SciPy, not JAX: the number of results grows, and nothing has to compile.
"""

# SciPy and threadpoolctl have no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

import dataclasses
import math
from typing import Any, Self

import numpy as np
import scipy.linalg.lapack
import threadpoolctl
from numpy.typing import NDArray

_LINEAR = (0.02, 0.1, 0.3, 0.6, 0.85, 0.95)
_RATE = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_NOISE = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_GRID = (_LINEAR, _RATE, _NOISE)
# Keeps the factorization of sequences that are almost the same from failing.
_JITTER = 1e-8
_LEAST_DEVIATION = 1e-30
# `choose` computes the deviations of so many rows at once.
_AT_ONCE = 32

Floats = NDArray[np.floating[Any]]
Tokens = NDArray[np.int32]
Setting = tuple[int, int, int]
"""Positions of `linear`, `rate` and `noise` on the grid."""

START: Setting = (2, 3, 4)

# Matrices this small gain nothing from a second thread, and where workers keep every
# core busy, BLAS threads that wait for each other are a hundred times slower.
_one_thread = threadpoolctl.ThreadpoolController().wrap(limits=1, user_api="blas")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianProcess:
    """What n results say about other sequences; made by `fit`.

    `features` [n, C] marks each token of each sequence; `factor` [n, n] is the lower
    Cholesky factor of the covariance over `scale`; `weights` [n] its inverse times
    the standardized rewards; `mean` and `deviation` undo the standardization.
    """

    num_choices: tuple[int, ...]
    setting: Setting
    features: Floats
    factor: Floats
    weights: Floats
    scale: float
    mean: float
    deviation: float
    log_likelihood: float

    @classmethod
    @_one_thread
    def fit(
        cls,
        tokens: Tokens,
        rewards: NDArray[np.float32],
        num_choices: tuple[int, ...],
        setting: Setting,
    ) -> Self:
        """Returns the predictor for tokens [n, D] with rewards [n], n > 0."""
        features = _one_hot(tokens, num_choices)
        mean = float(rewards.mean(dtype=np.float64))
        deviation = max(float(rewards.std(dtype=np.float64)), _LEAST_DEVIATION)
        standard = (rewards.astype(np.float64) - mean) / deviation
        covariance = _kernel(features @ features.T, len(num_choices), setting)
        num = len(rewards)
        covariance[np.diag_indices(num)] += _NOISE[setting[2]] + _JITTER
        factor = np.linalg.cholesky(covariance)
        white = _solve(factor, standard)
        scale = max(float(white @ white) / num, _LEAST_DEVIATION)
        return cls(
            num_choices=num_choices,
            setting=setting,
            features=features,
            factor=factor,
            weights=_solve(factor, white, transposed=True),
            scale=scale,
            mean=mean,
            deviation=deviation,
            log_likelihood=-0.5 * num * (1.0 + math.log(2.0 * math.pi * scale))
            - float(np.log(np.diag(factor)).sum()),
        )

    @_one_thread
    def predict(self, tokens: Tokens) -> tuple[Floats, Floats]:
        """Returns means [m] and standard deviations [m] of the noiseless rewards."""
        covariance = self._covariance(tokens)
        return self._means(covariance), self._deviations(covariance)

    @_one_thread
    def means(self, tokens: Tokens) -> Floats:
        """Returns means [m] of the rewards, without the time that deviations take."""
        return self._means(self._covariance(tokens))

    @_one_thread
    def choose(self, tokens: Tokens, weights: Floats) -> list[int]:
        """Returns, for each weight k in turn, the row of highest mean + k deviations.

        No row comes twice. What one result alone leaves uncertain is a bound of what
        all of them do, so most deviations need not be known: they are computed for
        the rows that the bound puts in front, until a row in front is among them.
        """
        covariance = self._covariance(tokens)
        means = self._means(covariance)
        one = covariance.max(axis=1) ** 2 / (1.0 + _NOISE[self.setting[2]])
        deviations = self.deviation * np.sqrt(self.scale * np.maximum(1.0 - one, 0.0))
        known = np.zeros(len(tokens), np.bool_)
        chosen: list[int] = []
        for k in weights.tolist():
            while not known[first := int(np.argmax(scores := means + k * deviations))]:
                scores[known] = -np.inf
                front = np.argsort(-scores)[:_AT_ONCE]
                deviations[front] = self._deviations(covariance[front])
                known[front] = True
            means[first] = -np.inf
            chosen.append(first)
        return chosen

    def _covariance(self, tokens: Tokens) -> Floats:
        """Returns covariances [m, n] over scale with the results."""
        shared = _one_hot(tokens, self.num_choices) @ self.features.T
        return _kernel(shared, len(self.num_choices), self.setting)

    def _means(self, covariance: Floats) -> Floats:
        return self.mean + self.deviation * (covariance @ self.weights)

    def _deviations(self, covariance: Floats) -> Floats:
        white = _solve(self.factor, covariance.T)
        variance = self.scale * np.maximum(1.0 - (white * white).sum(axis=0), 0.0)
        return self.deviation * np.sqrt(variance)


def climb(
    tokens: Tokens,
    rewards: NDArray[np.float32],
    num_choices: tuple[int, ...],
    setting: Setting,
) -> Setting:
    """Returns the likeliest of `setting` and its neighbours on the grid."""
    tried = [setting]
    for axis, values in enumerate(_GRID):
        for step in (-1, 1):
            moved = list(setting)
            moved[axis] += step
            if 0 <= moved[axis] < len(values):
                tried.append((moved[0], moved[1], moved[2]))
    # The first of equals: stay where nothing is gained.
    return max(
        tried,
        key=lambda s: (
            GaussianProcess.fit(tokens, rewards, num_choices, s).log_likelihood
        ),
    )


def _one_hot(tokens: Tokens, num_choices: tuple[int, ...]) -> Floats:
    """[n, D] -> [n, C]; products of rows count the decisions that agree."""
    offsets = np.concatenate([[0], np.cumsum(num_choices)])
    # Counts up to 2^24 are exact in half of float64's time.
    features = np.zeros((len(tokens), int(offsets[-1])), np.float32)
    features[np.arange(len(tokens))[:, None], tokens + offsets[:-1]] = 1.0
    return features


def _kernel(shared: Floats, num_decisions: int, setting: Setting) -> Floats:
    """Covariance over scale, without noise, of `shared` decisions that agree."""
    linear, rate = _LINEAR[setting[0]], _RATE[setting[1]]
    share = np.arange(num_decisions + 1) / num_decisions
    by_count = linear * share + (1.0 - linear) * np.exp(-rate * (1.0 - share))
    return by_count[shared.astype(np.intp)]


def _solve(factor: Floats, right: Floats, *, transposed: bool = False) -> Floats:
    # LAPACK's own: checking and batching would take longer than so small a system. It
    # wants columns in a row, and the transpose of `factor` has them.
    solved, _ = scipy.linalg.lapack.dtrtrs(  # pyright: ignore[reportAttributeAccessIssue]
        factor.T, right, lower=0, trans=int(not transposed)
    )
    return np.asarray(solved)
