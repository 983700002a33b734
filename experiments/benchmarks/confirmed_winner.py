"""What a search's winner is worth: by its claim, and by the means that confirm it.

    python -m experiments.benchmarks.confirmed_winner

Searches the ImageNet surrogate under noise whose size is known, so that what a network
is worth is known too: its accuracy without noise. In each search the highest reward
seen is set against its worth, and so is the best of the means that `--confirm` ends
with. Writes experiments/results/confirmed_winner.json.
"""

import dataclasses
import io
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console

from experiments.benchmarks import imagenet_task
from experiments.benchmarks.imagenet_task import Task
from nas.api import search
from nas.evaluation.evaluators import Evaluate, Place
from nas.runs import provenance
from nas.study import confirmation
from nas.study.metrics import ACCURACY, Metric
from nas.study.trial import CompletedTrial
from nas.training.retrained import standard_error
from search_space.files import write_whole
from search_space.spec import ArchSpec
from trainers.measurement import Measured

_POINTS = 100  # in an accuracy of 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How many searches, and of what."""

    searches: int = 20
    """Searches, each with a seed of its own."""
    children: int = 200
    """Children of each."""
    noise: float = 1.0
    """Standard deviation of a measurement, in points of top-1."""
    output: Path = Path("experiments/results/confirmed_winner.json")
    """Where the figures go."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noisy:
    """The surrogate's top-1, as a training measures it whose luck is normal."""

    task: Task
    noise: float
    metrics: tuple[Metric, ...] = (ACCURACY,)

    @property
    def place(self) -> Place:
        """See `Evaluator`."""
        return "driver"

    def prepare(self) -> Evaluate:
        """See `Evaluator`."""

        def evaluate(spec: ArchSpec, seed: int) -> Measured:
            tokens = np.array([self.task.space.encode(spec)], np.int32)
            exact = float(self.task.accuracies(tokens)[0])
            luck = self.noise * np.random.default_rng(seed).normal()
            return Measured(
                metrics={ACCURACY.name: (exact + luck) / _POINTS},
                spread={ACCURACY.name: self.noise / _POINTS},
            )

        return evaluate


def measure(seed: int, options: Options) -> dict[str, Any]:
    """Runs one search; returns claims and worths, as rewards in points."""
    task = imagenet_task.soft()
    with tempfile.TemporaryDirectory() as folder:
        found = search(
            task.space,
            Noisy(task=task, noise=options.noise),
            reward=task.weigh,
            num_trials=options.children,
            seed=seed,
            output=Path(folder) / "run",
            console=Console(file=io.StringIO()),
        )
    luckiest = max(found.contents.completed, key=lambda trial: trial.reward)
    best = confirmation.best(found.standings)
    if best is None:
        raise RuntimeError("no child was measured")

    def worth(trial: CompletedTrial) -> float:
        return float(task.rewards(np.array([trial.tokens], np.int32))[0])

    return {
        "seed": seed,
        "claimed": _POINTS * luckiest.reward,
        "claimed_worth": worth(luckiest),
        "confirmed": _POINTS * best.reward,
        "confirmed_worth": worth(best.trial),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    options = tyro.cli(Options, args=arguments, description=__doc__)
    rows = []
    for seed in range(options.searches):
        rows.append(measure(seed, options))
        print(json.dumps(rows[-1]), flush=True)
    figures = {
        "claim above its worth": [r["claimed"] - r["claimed_worth"] for r in rows],
        "mean above its worth": [r["confirmed"] - r["confirmed_worth"] for r in rows],
        "worth of the highest claim": [r["claimed_worth"] for r in rows],
        "worth of the confirmed": [r["confirmed_worth"] for r in rows],
        "gained by confirming": [
            r["confirmed_worth"] - r["claimed_worth"] for r in rows
        ],
    }
    found = {
        name: {
            "mean": statistics.fmean(values),
            "standard_error": standard_error(values),
        }
        for name, values in figures.items()
    }
    for name, one in found.items():
        error = one["standard_error"]
        shown = "unknown" if error is None else f"{error:.2f}"
        print(f"{name:<28} {one['mean']:7.2f} +- {shown}")
    document = {
        **provenance.of_result(),
        "options": {
            name: value
            for name, value in dataclasses.asdict(options).items()
            if name != "output"
        },
        "figures": found,
        "searches": rows,
    }
    write_whole(options.output, json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
