"""Covariance of token sequences, and what its parameters are by a search's results.

Of two sequences, over the scale:

    linear * sum(share_d [a_d = b_d]) + (1 - linear) * exp(-sum(rate_d [a_d != b_d]))

and `noise` more for a result with itself: a linear model of the tokens plus an
exponential kernel over Hamming distance, with a relevance for each decision (Rasmussen
and Williams, "Gaussian Processes for Machine Learning", sections 2.1, 4.4 and 5.1).
`share_d` is `rate_d` over the sum of all rates: a decision that matters does so in
both parts.

NumPy and SciPy, not JAX: the number of results grows, and nothing has to compile.
"""

# SciPy has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

import math
from typing import Any

import numpy as np
import scipy.linalg.lapack
import scipy.optimize
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Tokens = NDArray[np.int32]
Parameters = NDArray[np.float64]
"""[3 + D]: the logit of `linear`, the logarithms of `noise` and of the sum of rates,
and of each decision's rate over the mean."""

# Keeps the factorization of sequences that are almost the same from failing.
JITTER = 1e-6
# Where the parameters start, which is also where their priors have their means: a third
# linear, a tenth noise, and two sequences that agree nowhere have e^-4 in common.
_START = (-0.85, math.log(0.1), math.log(4.0))
# Priors' standard deviations: wide, but for the relevances, of which there are many.
_SPREAD = (2.0, 2.0, 1.0)
_RELEVANCE_SPREAD = 1.0
# No parameter is further from its start than so many standard deviations.
_MOST = 3.0
_MAX_ITERATIONS = 12
_LEAST = 1e-30


def start(num_decisions: int) -> Parameters:
    """Returns the parameters before any result is known."""
    return np.array([*_START, *[0.0] * num_decisions])


def noise(parameters: Parameters) -> float:
    """Returns the variance of a result's noise over the scale."""
    return math.exp(parameters[1])


def one_hot(tokens: Tokens, num_choices: tuple[int, ...]) -> NDArray[np.float32]:
    """[n, D] -> [n, K], K the sum of `num_choices`: 1 where a choice was made."""
    offsets = np.concatenate([[0], np.cumsum(num_choices)])
    marks = np.zeros((len(tokens), int(offsets[-1])), np.float32)
    marks[np.arange(len(tokens))[:, None], tokens + offsets[:-1]] = 1.0
    return marks


def covariance(
    left: Floats, right: Floats, num_choices: tuple[int, ...], parameters: Parameters
) -> Floats:
    """Returns covariances [n, m] over scale, without noise, of marks [n, K], [m, K]."""
    linear, rates = _unpacked(parameters)
    shares = np.repeat(rates / rates.sum(), num_choices).astype(left.dtype)
    agree = (left * shares) @ right.T
    return linear * agree + (1.0 - linear) * np.exp(rates.sum() * (agree - 1.0))


def likelier(
    tokens: Tokens,
    values: Floats,
    num_choices: tuple[int, ...],
    parameters: Parameters,
) -> Parameters:
    """Returns parameters that make standardized `values` [n] likelier, by some steps.

    The scale is at its maximum of the likelihood for each of them.
    """
    marks = one_hot(tokens, num_choices).astype(np.float64)
    center = start(len(num_choices))
    spread = np.array([*_SPREAD, *[_RELEVANCE_SPREAD] * len(num_choices)])
    found = scipy.optimize.minimize(
        _loss,
        parameters,
        args=(marks, values, num_choices, center, spread),
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(center - _MOST * spread, center + _MOST * spread, strict=True)),
        options={"maxiter": _MAX_ITERATIONS},
    )
    return np.asarray(found.x) if np.isfinite(found.fun) else parameters


def _loss(
    parameters: Parameters,
    marks: Floats,
    values: Floats,
    num_choices: tuple[int, ...],
    center: Parameters,
    spread: Parameters,
) -> tuple[float, Parameters]:
    """Minus the logarithm of likelihood times prior, and its gradient [3 + D]."""
    linear, rates = _unpacked(parameters)
    total, num = rates.sum(), len(values)
    shares = rates / total
    agree = (marks * np.repeat(shares, num_choices)) @ marks.T
    near = np.exp(total * (agree - 1.0))
    kernel = linear * agree + (1.0 - linear) * near
    added = noise(parameters)
    kernel[np.diag_indices(num)] += added + JITTER
    factor = np.linalg.cholesky(kernel)
    inverse = inverse_of(factor)
    weights = inverse @ values
    scale = max(float(values @ weights) / num, _LEAST)
    log_likelihood = -0.5 * num * math.log(scale) - np.log(np.diag(factor)).sum()

    # Half of what an entry of the covariance adds to the loss.
    slope = 0.5 * (inverse - np.outer(weights, weights) / scale)
    slope_near = (1.0 - linear) * slope * near
    # d kernel / d agree, but for the total rate's own effect; per decision.
    through = linear * slope + total * slope_near
    per_choice = ((through @ marks) * marks).sum(axis=0)
    starts = np.cumsum([0, *num_choices[:-1]])
    by_decision = shares * np.add.reduceat(per_choice, starts)
    gradient = np.concatenate(
        [
            [
                linear * (1.0 - linear) * float((slope * (agree - near)).sum()),
                added * float(np.trace(slope)),
                total * float((slope_near * (agree - 1.0)).sum()),
            ],
            # The shares sum to 1: raising one lowers the others.
            by_decision - shares * by_decision.sum(),
        ]
    )
    away = (parameters - center) / spread
    return 0.5 * float(away @ away) - log_likelihood, gradient + away / spread


def _unpacked(parameters: Parameters) -> tuple[float, Floats]:
    """Returns `linear` and the rates [D]."""
    relevance = np.exp(parameters[3:] - parameters[3:].max())
    rates = math.exp(parameters[2]) * relevance / relevance.sum()
    return 1.0 / (1.0 + math.exp(-parameters[0])), rates


def inverse_of(factor: Floats) -> Floats:
    """Returns the inverse [n, n] of what has the lower Cholesky factor [n, n]."""
    half, _ = scipy.linalg.lapack.dpotri(factor.T, lower=0)  # pyright: ignore[reportAttributeAccessIssue]
    return np.triu(half) + np.triu(half, 1).T
