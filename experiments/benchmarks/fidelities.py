"""A search that trains all children alike beside one that lets the promising go on.

    python -m experiments.benchmarks.fidelities --dataset cifar10/ --folder runs/f

For each seed, two searches of about the same number of training steps in `mbconv` with
expansions of 1 and 3: `--steps 180`, and `--fidelities 60,180,540`. The best three of
each are trained anew, from fresh seeds, for the longest of these budgets; what the best
of their means is worth is what the search is worth. Everything is kept in `--folder`:
what is there is not done again, so the command can be stopped at any moment and given
again.

Writes experiments/results/fidelities.json.
"""

import concurrent.futures
import dataclasses
import functools
import json
import multiprocessing
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from nas.runs import journal, provenance
from nas.study import reward
from nas.study.trial import CompletedTrial
from nas.training.retrained import standard_error
from search_space import codec, cost, spaces
from search_space.files import write_whole
from search_space.spec import ArchSpec
from trainers import child
from trainers.child import ChildConfig
from trainers.data import catalog
from trainers.data.dataset import Dataset
from trainers.measurement import Measured
from trainers.runtime import compilation

# Small children, so that more of them can be trained in the same time.
_RESTRICT = {"*.expansion": (1, 3)}
_SPACE = spaces.load("mbconv").restrict(_RESTRICT)
_TARGET = 400e6
_LONGEST = 540
_FINALISTS, _FRESH_SEEDS = 3, 2
# 60 steps for all, 120 more for a third, 360 more for a ninth: 140 a child.
_SEARCHES = {
    "alike": ("--steps", "180", "--children", "30"),
    "rungs": ("--fidelities", "60,180,540", "--children", "38"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """On what, and where."""

    dataset: str
    """As of nas.search."""
    folder: Path
    """Where searches and trainings are kept."""
    seeds: int = 3
    """Searches of each kind."""
    validation: int = 2_000
    """Images that measure."""
    output: Path = Path("experiments/results/fidelities.json")
    """Where the figures go."""


class Training(NamedTuple):
    """A finalist's training: of which search, which child, and which seed."""

    search: str
    child: int
    seed: int
    spec: ArchSpec


def search(kind: str, seed: int, options: Options) -> journal.Contents:
    """Runs a search, or goes on with it; returns its journal."""
    folder = options.folder / f"{kind}-{seed}"
    command = [sys.executable, "-m", "nas.search"]
    if (folder / "journal.jsonl").exists():
        command += ["--resume", str(folder)]
    else:
        command += [
            *("--dataset", options.dataset, "--validation", str(options.validation)),
            *("--target-flops", "400M", "--confirm", "0", "--seed", str(seed)),
            *("--restrict", "*.expansion=1,3"),
            *(*_SEARCHES[kind], "--output", str(folder)),
        ]
    subprocess.run(command, check=True)
    return journal.read(folder / "journal.jsonl")


def finalists(contents: journal.Contents) -> list[CompletedTrial]:
    """Returns the best few: those trained for longest, then by reward."""
    ranked = sorted(contents.completed, key=lambda t: (-t.fidelity, -t.reward))
    return ranked[:_FINALISTS]


@functools.cache
def _dataset(name: str, validation: int) -> Dataset:
    compilation.use_cache(compilation.default_cache_folder())
    return catalog.load(name, seed=0, validation=validation)


def train(training: Training, options: Options) -> dict[str, Any]:
    """Trains a finalist for the longest budget; returns what it is worth."""
    measured = child.evaluate(
        training.spec,
        dataset=_dataset(options.dataset, options.validation),
        config=ChildConfig(steps=_LONGEST),
        seed=1_000 + training.seed,
    )
    if not isinstance(measured, Measured):
        raise TypeError(f"{training.search}, child {training.child}: {measured}")
    metrics = {
        "accuracy": measured.metrics["accuracy"],
        "num_macs": cost.num_macs(training.spec),
    }
    return {
        "search": training.search,
        "child": training.child,
        "seed": training.seed,
        **metrics,
        "reward": reward.soft("num_macs", _TARGET)(metrics),
        "architecture": codec.to_json(training.spec),
    }


def train_all(wanted: Sequence[Training], options: Options) -> list[dict[str, Any]]:
    """Trains those whose lines are not there yet; returns all lines."""
    path = options.folder / "finalists.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    done = {(row["search"], row["child"], row["seed"]) for row in rows}
    left = [one for one in wanted if one[:3] not in done]
    spawn = multiprocessing.get_context("spawn")
    with (
        concurrent.futures.ProcessPoolExecutor(2, mp_context=spawn) as pool,
        path.open("a") as file,
    ):
        running = [pool.submit(train, one, options) for one in left]
        for future in concurrent.futures.as_completed(running):
            rows.append(future.result())
            file.write(json.dumps(rows[-1]) + "\n")
            file.flush()
            print(f"{len(rows)} of {len(wanted)} trainings of finalists", flush=True)
    return rows


def worth(rows: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """Returns the best mean of a search's finalists."""
    by_child: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        if row["search"] == name:
            by_child.setdefault(row["child"], []).append(row)
    best = max(by_child, key=lambda one: _mean(by_child[one], "reward"))
    return {
        "child": best,
        "reward": _mean(by_child[best], "reward"),
        "accuracy": _mean(by_child[best], "accuracy"),
        "num_macs": by_child[best][0]["num_macs"],
        "of_all_finalists": statistics.fmean(
            _mean(rows, "reward") for rows in by_child.values()
        ),
    }


def _mean(rows: Sequence[dict[str, Any]], key: str) -> float:
    return statistics.fmean(row[key] for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    options = tyro.cli(Options, args=arguments, description=__doc__)
    options.folder.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    wanted: list[Training] = []
    for seed in range(options.seeds):
        for kind in _SEARCHES:
            name = f"{kind}-{seed}"
            contents = search(kind, seed, options)
            completed = contents.completed
            found.append(
                {
                    "search": name,
                    "kind": kind,
                    "seed": seed,
                    "children": len(contents.trials),
                    "steps": sum(trial.num_steps for trial in completed),
                    "images_measured": options.validation * len(completed),
                    "claimed": max(t.reward for t in finalists(contents)),
                }
            )
            wanted += [
                Training(name, trial.index, fresh, _SPACE.decode(trial.tokens))
                for fresh in range(_FRESH_SEEDS)
                for trial in finalists(contents)
            ]
    rows = train_all(wanted, options)
    for one in found:
        one |= worth(rows, one["search"])
        print(
            f"{one['kind']:<6} seed {one['seed']}: {one['steps']} steps, confirmed"
            f" {one['reward']:.4f} ({one['accuracy']:.2%}, claimed"
            f" {one['claimed']:.4f}), finalists {one['of_all_finalists']:.4f}"
        )
    rewards = {
        kind: [one["reward"] for one in found if one["kind"] == kind]
        for kind in _SEARCHES
    }
    summary = {
        kind: {
            "confirmed_reward": statistics.fmean(values),
            "standard_error": standard_error(values),
        }
        for kind, values in rewards.items()
    }
    for kind, one in summary.items():
        error = one["standard_error"]
        shown = "unknown" if error is None else f"{error:.4f}"
        print(
            f"{kind:<6} {one['confirmed_reward']:.4f} +- {shown} over"
            f" {options.seeds} seeds"
        )
    document = {
        **provenance.of_result(),
        "summary": summary,
        "searches": found,
        "trainings": rows,
    }
    write_whole(options.output, json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
