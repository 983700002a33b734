"""What refitting batch statistics does to children's accuracies and to their ranking.

    python -m experiments.benchmarks.batch_statistics --dataset cifar10/ --lines a.jsonl
    python -m experiments.benchmarks.batch_statistics --lines a.jsonl --output it.json

Trains architectures of a space at several budgets, each from two seeds, and measures
each training with the running batch statistics and with statistics computed anew from
some training batches. A line for each training goes to `--lines`; what is there is not
trained again. `--share I N` takes every N-th training, for N processes side by side,
each with lines of its own beside the others. With `--output` what the lines say is
summed up: means, and Kendall's tau between the two seeds and with the mean of the
longest budget, with 95 % intervals over architectures.

Run on two cores of an EPYC without an accelerator, beside other work, with CIFAR-10 as
JPEG files (results/batch_statistics.json): 16 architectures of `mbconv` from two seeds
reach 10.5 % after 20 steps with running statistics and 16.2 % refit on eight batches;
after 60 and 200 steps both stand at 19.7 and 30.4 %. Neither tells the architectures
apart: tau between the two seeds is -0.14, 0.37 and -0.06, with intervals of 0.4 to
either side. 600 steps: 9 of 32 trainings.

Before children started with `branch_scale` 0 (trained at commit 5bec397,
results/batch_statistics_branch_scale_1.json) it was 10.1 and 13.4 % after 20 steps, and
15.8 % after 60, two, eight and 32 batches alike; 23.3 % after 200, of 15 trainings.
"""

import dataclasses
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from nas.calibration import rank
from nas.runs import provenance
from search_space import cost, files, spaces
from search_space.space import SearchSpace
from trainers import child, loop
from trainers.child import ChildConfig
from trainers.data import catalog
from trainers.data.dataset import Dataset
from trainers.runtime import compilation

_NORM_BATCHES = (0, 2, 8, 32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train architectures at several budgets."""

    dataset: str | None = None
    """A folder of class folders, or a name; without it nothing is trained."""
    lines: Path
    """Lines of JSON are added here; those in files that begin like it are read, too."""
    output: Path | None = None
    """Sum the lines up in this file."""
    space: str = "mbconv"
    """The search space."""
    architectures: int = 16
    """How many, at even quantiles of the multiply-adds of 400 random ones."""
    steps: tuple[int, ...] = (20, 60, 200, 600)
    """Budgets."""
    seeds: int = 2
    """Trainings of each architecture at each budget."""
    validation: int = 2_000
    """Images that measure."""
    share: tuple[int, int] = (0, 1)
    """(I, N): every N-th training, from the I-th on."""


def spread_out(space: SearchSpace, number: int) -> list[tuple[int, ...]]:
    """Returns tokens of random architectures whose costs are spread out."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(space.num_choices, size=(400, len(space.num_choices)))
    rows = sorted(
        map(tuple, drawn.tolist()), key=lambda row: cost.num_macs(space.decode(row))
    )
    positions = np.linspace(0, len(rows) - 1, number + 2)[1:-1].round().astype(int)
    return [rows[position] for position in positions]


def measure(
    tokens: tuple[int, ...],
    space: SearchSpace,
    dataset: Dataset,
    config: ChildConfig,
    seed: int,
) -> dict[str, Any]:
    """Trains one architecture, and measures it with each number of batches."""
    spec = child.as_trained(space.decode(tokens), dataset, config)
    loader = child.loader_of(dataset, config.resolution)
    with compilation.measured() as compiling:
        start = time.perf_counter()
        step, states = child.begin(spec, config, seed)
        states, losses = loop.fit(
            step,
            states,
            loader.train_batches(
                batch_size=config.batch_size, steps=config.steps, seed=seed
            ),
            child.schedule(config),
        )
        seconds = time.perf_counter() - start - compiling.seconds
    accuracies, eval_seconds = {}, 0.0
    for number in _NORM_BATCHES:
        chosen = dataclasses.replace(config, norm_batches=number)
        batches = child.norm_batches(loader, chosen, len(dataset.train), seed)
        refit = loop.refit(step, states, batches)
        began = time.perf_counter()
        metrics = loop.evaluate(
            step, refit, loader.eval_batches(batch_size=config.batch_size)
        )
        eval_seconds = time.perf_counter() - began
        accuracies[str(number)] = metrics["accuracy"]
    whole = space.decode(tokens)
    return {
        "tokens": tokens,
        "steps": config.steps,
        "seed": seed,
        "accuracies": accuracies,
        "loss_mean": statistics.fmean(losses.tolist()),
        "loss_last": statistics.fmean(losses.tolist()[-max(5, len(losses) // 10) :]),
        "num_macs": cost.num_macs(whole),
        "num_params": cost.num_params(whole),
        "train_seconds": round(seconds, 2),
        "eval_seconds": round(eval_seconds, 2),
        "compile_seconds": round(compiling.seconds, 2),
    }


def _read(lines: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in sorted(lines.parent.glob(lines.stem + "*.jsonl"))
        for line in path.read_text().splitlines()
    ]


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns what trainings say of each budget and number of batches.

    Of the architectures that were trained from both seeds.
    """
    accuracies: dict[tuple[int, str], dict[tuple[int, ...], list[float]]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        for number, accuracy in row["accuracies"].items():
            of_budget = accuracies.setdefault((row["steps"], number), {})
            of_budget.setdefault(tuple(row["tokens"]), []).append(accuracy)
    longest = max(steps for steps, _ in accuracies)
    found: list[dict[str, Any]] = []
    for (steps, number), measured in sorted(accuracies.items()):
        truth = accuracies[longest, number]
        both = [t for t, seeds in measured.items() if len(seeds) == 2]  # noqa: PLR2004
        known = [t for t in both if len(truth.get(t, ())) == 2]  # noqa: PLR2004
        every = [a for seeds in measured.values() for a in seeds]
        facts: dict[str, Any] = {
            "steps": steps,
            "norm_batches": int(number),
            "trainings": len(every),
            "mean_accuracy": statistics.fmean(every),
            "architectures": len(both),
        }
        if len(both) > 3:  # noqa: PLR2004
            seeds = np.array([measured[t] for t in both]).T
            facts["tau_between_seeds"] = _tau(seeds[0], seeds[1])
        if steps != longest and len(known) > 3:  # noqa: PLR2004
            facts["tau_with_longest"] = _tau(
                np.array([statistics.fmean(measured[t]) for t in known]),
                np.array([statistics.fmean(truth[t]) for t in known]),
            )
        found.append(facts)
    return found


def _tau(one: np.ndarray, other: np.ndarray) -> list[float]:
    """Kendall's tau-b, and the ends of its interval."""
    found = rank.tau([(rank.order(one), rank.order(other))])
    return [round(value, 3) for value in (found.value, found.low, found.high)]


def _left(arguments: Arguments, rows: list[tuple[int, ...]]) -> Iterator[Any]:
    done = {
        (tuple(record["tokens"]), record["steps"], record["seed"])
        for record in _read(arguments.lines)
    }
    wanted = itertools.product(arguments.steps, range(arguments.seeds), rows)
    index, number = arguments.share
    for position, (steps, seed, tokens) in enumerate(wanted):
        if position % number == index and (tokens, steps, seed) not in done:
            yield tokens, steps, seed


def _train(arguments: Arguments, dataset_name: str) -> None:
    compilation.use_cache(compilation.default_cache_folder())
    space = spaces.load(arguments.space)
    dataset = catalog.load(dataset_name, seed=0, validation=arguments.validation)
    print(dataset.description)
    rows = spread_out(space, arguments.architectures)
    with arguments.lines.open("a") as file:
        for tokens, steps, seed in _left(arguments, rows):
            config = ChildConfig(steps=steps)
            record = measure(tokens, space, dataset, config, seed)
            file.write(json.dumps(record) + "\n")
            file.flush()
            print(steps, seed, record["accuracies"], record["train_seconds"])


def main() -> int:
    """Trains what is left, and sums up."""
    arguments = tyro.cli(Arguments)
    if arguments.dataset is not None:
        _train(arguments, arguments.dataset)
    if arguments.output is not None:
        rows = _read(arguments.lines)
        text = json.dumps(
            {**provenance.of_result(), "budgets": summary(rows), "trainings": rows},
            indent=1,
        )
        files.write_whole(arguments.output, text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
