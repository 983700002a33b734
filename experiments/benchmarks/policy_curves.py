"""Plain PPO and REINFORCE at the papers' scale: 8,000 children, and 20,000 once.

    python -m experiments.benchmarks.policy_curves [--seeds 3] [--children 8000]

The task is `search_efficiency`'s exact one: predicted ImageNet top-1 in points *
(multiply-adds / 400M)^-0.07; the best that any search found is 66.98. Controllers are
told of 20 rewards at a time, as in NASNet (https://arxiv.org/abs/1707.07012, appendix
A.2). `ppo-nasnet` and `reinforce` have NASNet's numbers, `ppo` a larger learning rate.
A policy that has become sure proposes the same network again: that counts as a child,
as in the papers, and has the reward that it had.

Means of three seeds at 8,000 children, reward of the last 100 and best: ppo 66.94 and
66.96, ppo-nasnet 66.89 and 66.93, reinforce 66.60 and 66.92. With a learning rate of
3e-3, tried on one seed, ppo was sure too early: 66.73 and 66.78.

After every 100 children: the mean reward of the last 100, the best reward so far, and
the policy's entropy in nats (25.4 where it is uniform). Every finished (method, seed)
is kept in experiments/results/policy_curves.json; run again, only what is missing is
run.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro

import controller
from controller.interface import HasPolicy
from experiments.benchmarks import imagenet_task
from nas.runs import provenance
from search_space.files import write_whole

METHODS = ("ppo", "ppo-nasnet", "reinforce")
_RESULTS = Path(__file__).parents[1] / "results" / "policy_curves.json"
_BATCH_SIZE = 20
_EVERY = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Follow plain policy gradients for thousands of children."""

    methods: tuple[str, ...] = METHODS
    """Which controllers."""
    seeds: int = 3
    """Searches of each."""
    children: int = 8_000
    """Children of each."""
    output: Path = _RESULTS
    """The file of the results."""


def run(method: str, seed: int, num_children: int) -> dict[str, Any]:
    """Returns the curves of one search, a point for every 100 children."""
    task = imagenet_task.soft()
    c = controller.build(method, num_choices=task.space.num_choices)
    if not isinstance(c, HasPolicy):
        raise ValueError(f"{method} has no policy to follow; {', '.join(METHODS)} do")
    state, rewards, memory = c.init(seed), [], imagenet_task.Memory(task)
    curves: dict[str, list[float]] = {"mean": [], "best": [], "entropy": []}
    seconds = 0.0
    while len(rewards) < num_children:
        started = time.process_time()
        state, tokens = c.ask(state, _BATCH_SIZE)
        seconds += time.process_time() - started
        found = memory.rewards(tokens)
        started = time.process_time()
        state = c.tell(state, tokens, found)
        seconds += time.process_time() - started
        rewards += found.tolist()
        if len(rewards) % _EVERY == 0:
            curves["mean"].append(round(float(np.mean(rewards[-_EVERY:])), 3))
            curves["best"].append(round(max(rewards), 3))
            curves["entropy"].append(round(c.policy_summary(state).entropy, 3))
    return curves | {"controller_seconds": round(seconds, 1)}


def _key(method: str, num_children: int, seed: int) -> str:
    return f"{method}, {num_children} children, seed {seed}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parsed = tyro.cli(Arguments, args=arguments, prog="policy_curves")
    path = parsed.output
    runs = json.loads(path.read_text())["runs"] if path.exists() else {}
    for seed in range(parsed.seeds):
        for method in parsed.methods:
            key = _key(method, parsed.children, seed)
            if key not in runs:
                made = {"commit": provenance.git_commit()}
                runs[key] = run(method, seed, parsed.children) | made
                document = {"every": _EVERY, "batch_size": _BATCH_SIZE, "runs": runs}
                write_whole(path, json.dumps(document) + "\n")
            row = runs[key]
            ends = ", ".join(f"{n} {row[n][-1]}" for n in ("mean", "best", "entropy"))
            print(f"{key}: {ends}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
