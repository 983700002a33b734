"""A search in one process: ask, evaluate, tell."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from controller.interface import Controller
from nas.study.proposals import Proposals, Tokens
from search_space.space import SearchSpace

Evaluate = Callable[[NDArray[np.int32]], ArrayLike]
"""Tokens int32 [n, num_decisions] -> rewards, float [n], higher is better."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """One evaluation; `tokens` int32 [num_decisions]."""

    tokens: NDArray[np.int32]
    reward: float


def optimize(
    controller: Controller[Any],
    evaluate: Evaluate,
    num_trials: int = 1000,
    batch_size: int = 10,
    seed: int = 0,
    space: SearchSpace | None = None,
) -> list[Trial]:
    """Returns the trials of a search, in order of evaluation.

    The same tokens are never evaluated twice, nor others that differ only where `space`
    says that they do not matter. The controller learns after each
    `batch_size` evaluations. There are fewer than `num_trials` trials only where the
    space has fewer sequences.

    Raises:
      ValueError: if a number is out of range, or `evaluate` returns anything but
        one finite reward for each sequence.
    """
    if num_trials < 0:
        raise ValueError(f"num_trials must be 0 or more, got {num_trials}")
    proposals = Proposals(
        controller, seed=seed, rewards_per_update=batch_size, space=space
    )
    trials: list[Trial] = []
    while batch := _suggest(proposals, min(batch_size, num_trials - len(trials))):
        rewards = np.asarray(evaluate(np.array(batch, np.int32)))
        if rewards.shape != (len(batch),):
            raise ValueError(
                f"evaluate must return one reward for each of {len(batch)} "
                f"sequences, got shape {rewards.shape}"
            )
        for tokens, reward in zip(batch, rewards.tolist(), strict=True):
            proposals.record(tokens, reward)
            trials.append(Trial(tokens=np.array(tokens, np.int32), reward=reward))
    return trials


def _suggest(proposals: Proposals, num: int) -> list[Tokens]:
    """Returns `num` suggestions, or as many as there are left."""
    batch: list[Tokens] = []
    while len(batch) < num and (tokens := proposals.suggest()) is not None:
        batch.append(tokens)
    return batch
