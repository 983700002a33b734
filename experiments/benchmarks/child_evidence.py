"""What tells children apart: how well measurements of children rank them.

    python -m experiments.benchmarks.child_evidence --dataset cifar10/ --share 0 2

Trains architectures of a space at several budgets, each twice from different seeds, and
measures each with running batch statistics and with statistics that were refit on some
training batches. A line for each training goes to `--output`; what is there is not
measured again. `--share I N` takes every N-th training, for N processes side by side.
The longest budget stands for the truth.
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

from search_space import cost, spaces
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

    dataset: str
    """A folder of class folders, or a data set's name."""
    output: Path
    """Lines of JSON are added here."""
    space: str = "mbconv"
    """The search space."""
    architectures: int = 16
    """How many, at even quantiles of the multiply-adds of 400 random ones."""
    steps: tuple[int, ...] = (20, 60, 200, 600, 1800)
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


def _left(arguments: Arguments, rows: list[tuple[int, ...]]) -> Iterator[Any]:
    done = set()
    for path in arguments.output.parent.glob(arguments.output.stem + "*.jsonl"):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            done.add((tuple(record["tokens"]), record["steps"], record["seed"]))
    wanted = itertools.product(arguments.steps, range(arguments.seeds), rows)
    index, number = arguments.share
    for position, (steps, seed, tokens) in enumerate(wanted):
        if position % number == index and (tokens, steps, seed) not in done:
            yield tokens, steps, seed


def main() -> int:
    """Runs what is left."""
    arguments = tyro.cli(Arguments)
    compilation.use_cache(compilation.default_cache_folder())
    space = spaces.load(arguments.space)
    dataset = catalog.load(arguments.dataset, seed=0, validation=arguments.validation)
    print(dataset.description)
    rows = spread_out(space, arguments.architectures)
    with arguments.output.open("a") as file:
        for tokens, steps, seed in _left(arguments, rows):
            config = ChildConfig(steps=steps)
            record = measure(tokens, space, dataset, config, seed)
            file.write(json.dumps(record) + "\n")
            file.flush()
            print(steps, seed, record["accuracies"], record["train_seconds"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
