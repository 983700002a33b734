"""The task of `search_efficiency`: predicted ImageNet top-1 against multiply-adds."""

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray

from nas import reward
from search_space import cost, spaces
from search_space.space import SearchSpace
from trainers import surrogate

TARGET = 400e6
# How the paper ends a search: the best few are measured again.
_FINALISTS = 15
_MEASUREMENTS = 5

Tokens = NDArray[np.int32]
Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Task:
    """top-1 in points * (multiply-adds / 400M)^-0.07, of networks given by tokens."""

    space: SearchSpace
    top1: surrogate.Predictor

    def costs(self, tokens: Tokens) -> Floats:
        """Returns multiply-adds [n] of tokens [n, D]."""
        specs = (self.space.decode(tuple(row)) for row in tokens.tolist())
        return np.array([cost.num_macs(spec) for spec in specs], np.float64)

    def rewards(self, tokens: Tokens) -> Floats:
        """Returns rewards [n] of tokens [n, D], without noise."""
        accuracies = self.top1.predict(tokens)[0]
        weigh = reward.soft(TARGET)
        pairs = zip(accuracies.tolist(), self.costs(tokens).tolist(), strict=True)
        return np.array([weigh(accuracy, macs) for accuracy, macs in pairs])


@functools.cache
def load() -> Task:
    """Returns the task, with the predictors that come with the package."""
    found = surrogate.load()
    return Task(spaces.load(found.about.space), found.predictors[surrogate.TOP1])


def chosen(observed: Floats, exact: Floats, noise: float, seed: int) -> float:
    """Returns the exact reward of the network that a search would end with.

    `observed` [n] are the rewards that it saw, `exact` [n] those without noise. Under
    noise the 15 that looked best are measured five times more, and the best mean wins.
    """
    if noise == 0.0:
        return float(exact[np.argmax(observed)])
    finalists = np.argsort(-observed, kind="stable")[:_FINALISTS]
    rng = np.random.default_rng([seed, len(observed), 1])
    again = rng.normal(size=(_MEASUREMENTS, len(finalists))).mean(axis=0)
    return float(exact[finalists[np.argmax(exact[finalists] + noise * again)]])
