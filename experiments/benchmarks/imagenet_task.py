"""The tasks of `search_efficiency`: predicted ImageNet top-1 against multiply-adds."""

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray

from nas.study import reward
from nas.study.reward import Reward
from search_space import cost, spaces, zoo
from search_space.space import SearchSpace
from trainers import surrogate

TARGET = 400e6
# How the paper ends a search: the best few are measured again.
_FINALISTS = 15
_MEASUREMENTS = 5

Tokens = NDArray[np.int32]
Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """What a search maximizes, and what its networks are worth in the end.

    Accuracies are predicted top-1 in points; `weigh(metrics)` is the
    reward. Networks above `limit` multiply-adds are worth nothing, others their reward.
    """

    space: SearchSpace
    top1: surrogate.Predictor
    weigh: Reward
    limit: float = float("inf")

    def accuracies(self, tokens: Tokens) -> Floats:
        """Returns predicted top-1 [n] of tokens [n, D]."""
        return self.top1.predict(tokens)[0]

    def costs(self, tokens: Tokens) -> Floats:
        """Returns multiply-adds [n] of tokens [n, D]."""
        specs = (self.space.decode(tuple(row)) for row in tokens.tolist())
        return np.array([cost.num_macs(spec) for spec in specs], np.float64)

    def rewards(self, tokens: Tokens) -> Floats:
        """Returns rewards [n] of tokens [n, D], without noise."""
        accuracies, costs = self.accuracies(tokens), self.costs(tokens)
        pairs = zip(accuracies.tolist(), costs.tolist(), strict=True)
        return np.array(
            [self.weigh({"accuracy": top1, "num_macs": macs}) for top1, macs in pairs]
        )

    def worths(self, tokens: Tokens, rewards: Floats) -> Floats:
        """Returns what tokens [n, D] with `rewards` [n], without noise, are worth."""
        if self.limit == float("inf"):
            return rewards
        return np.where(self.costs(tokens) <= self.limit, rewards, 0.0)


class Memory:
    """A task's exact rewards, each network's found once."""

    def __init__(self, task: Task) -> None:
        """Knows nothing yet."""
        self._task = task
        self._known: dict[bytes, float] = {}

    def rewards(self, tokens: Tokens) -> Floats:
        """Returns rewards [n] of tokens [n, D]."""
        names = [row.tobytes() for row in tokens]
        new = {n: r for n, r in zip(names, tokens, strict=True) if n not in self._known}
        if new:
            found = self._task.rewards(np.stack([*new.values()])).tolist()
            self._known |= dict(zip(new, found, strict=True))
        return np.array([self._known[name] for name in names])


@functools.cache
def soft() -> Task:
    """top-1 * (multiply-adds / 400M)^-0.07, with the predictors of the package."""
    found = surrogate.load()
    return Task(
        space=spaces.load(found.about.space),
        top1=found.predictors[surrogate.TOP1],
        weigh=reward.soft("num_macs", TARGET),
    )


@functools.cache
def constrained() -> Task:
    """top-1 with at most EfficientNet-B0's multiply-adds: MnasNet's hard reward.

    What a network has too many multiply-adds, in shares, its reward is less, but it
    is worth nothing.
    """
    limit = float(cost.num_macs(zoo.load("efficientnet-b0")))
    return dataclasses.replace(
        soft(), weigh=reward.hard("num_macs", limit), limit=limit
    )


@functools.cache
def b0() -> tuple[float, float]:
    """Returns EfficientNet-B0's predicted top-1 and its multiply-adds."""
    task = soft()
    tokens = np.array([task.space.encode(zoo.load("efficientnet-b0"))], np.int32)
    return float(task.accuracies(tokens)[0]), float(task.costs(tokens)[0])


def count_beyond_b0(task: Task, tokens: Tokens) -> int:
    """Returns how many of tokens [n, D] are as accurate as B0, and no costlier."""
    accuracy, macs = b0()
    good = (task.accuracies(tokens) >= accuracy) & (task.costs(tokens) <= macs)
    return int(good.sum())


def chosen(observed: Floats, worths: Floats, noise: float, seed: int) -> float:
    """Returns the worth of the network that a search would end with.

    `observed` [n] are the rewards that it saw, `worths` [n] the exact ones. Under
    noise the 15 that looked best are measured five times more, and the best mean wins.
    """
    if noise == 0.0:
        return float(worths.max())
    finalists = np.argsort(-observed, kind="stable")[:_FINALISTS]
    rng = np.random.default_rng([seed, len(observed), 1])
    again = rng.normal(size=(_MEASUREMENTS, len(finalists))).mean(axis=0)
    return float(worths[finalists[np.argmax(worths[finalists] + noise * again)]])
