"""The default search beside a random one: what it finds, and where its time goes.

    python -m experiments.benchmarks.default_search

Runs `python -m nas.search --target-flops 400M` with each controller and seed. A
controller's first search starts from an empty compilation cache, and the later ones
find what the earlier left behind; "cold" runs start from an empty one each.

Prints a row for each search and saves all of them to
experiments/results/default_search.json: mean reward of the first and the last quarter
of the children, the best child, seconds to the first reward and in all, the share of
the workers' time spent on compiling and tracing, and the seconds that a worker waits
between two children, for Ray, the controller and the journal.
"""

import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import tyro

from nas.runs import journal, provenance
from nas.runs.run_folder import RunFolder
from nas.study.trial import CompletedTrial
from search_space.files import write_whole
from trainers.runtime import compilation

RESULTS = Path("experiments/results/default_search.json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which searches."""

    children: int | None = None
    """Children of each; the default search's own number if not given."""
    controllers: tuple[str, ...] = ("dyna", "random")
    """Controllers to compare."""
    seeds: int = 3
    """Searches with each controller."""
    cold: bool = False
    """Start every search from an empty compilation cache."""
    output: Path = RESULTS
    """Where the figures go."""


def search(controller: str, seed: int, options: Options, cache: Path) -> dict[str, Any]:
    """Runs one search; returns its figures."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = RunFolder(Path(temporary) / "run")
        command = [
            *(sys.executable, "-m", "nas.search", "--target-flops", "400M"),
            *("--controller", controller, "--seed", str(seed)),
            *("--output", str(folder.path)),
        ]
        if options.children is not None:
            command += ["--children", str(options.children)]
        found_cache = cache.exists()
        start = time.perf_counter()
        subprocess.run(
            command,
            check=True,
            env=os.environ | {compilation.CACHE_VARIABLE: str(cache)},
            stdout=subprocess.DEVNULL,
        )
        seconds = time.perf_counter() - start
        read = journal.read(folder.journal)
    return {
        "controller": controller,
        "seed": seed,
        "cache": "warm" if found_cache else "cold",
        "seconds": seconds,
        **summary(read),
    }


def summary(read: journal.Contents) -> dict[str, Any]:
    """Returns the figures that follow from a journal."""
    children = read.completed
    quarter = max(1, len(children) // 4)
    best = max(children, key=lambda child: child.reward)
    spent = [child.seconds for child in children]
    worked = sum(s.total for s in spent)
    return {
        "children": len(read.trials),
        "infeasible": len(read.infeasible),
        "first_reward_s": children[0].finished - read.header.created,
        "first_quarter": statistics.mean(c.reward for c in children[:quarter]),
        "last_quarter": statistics.mean(c.reward for c in children[-quarter:]),
        "best": {
            "reward": best.reward,
            "accuracy": best.metrics["accuracy"],
            "num_macs": best.metrics["num_macs"],
        },
        "compile_share": sum(s.compile for s in spent) / worked,
        "wait_s": statistics.mean(_waits(children)),
    }


def _waits(children: tuple[CompletedTrial, ...]) -> list[float]:
    """Seconds of each worker between two children in which it did not work."""
    by_worker = defaultdict(list)
    for child in children:
        by_worker[child.worker].append(child)
    return [
        later.finished - earlier.finished - (later.seconds.total)
        for finished in by_worker.values()
        for earlier, later in itertools.pairwise(finished)
    ]


def main(options: Options) -> None:
    """Runs all searches and saves after each."""
    record: dict[str, Any] = provenance.of_result() | {"searches": []}
    options.output.parent.mkdir(parents=True, exist_ok=True)  # before hours of work
    with tempfile.TemporaryDirectory() as caches:
        for controller in options.controllers:
            for seed in range(options.seeds):
                name = f"{controller}-{seed}" if options.cold else controller
                found = search(controller, seed, options, Path(caches) / name)
                record["searches"].append(found)
                print(json.dumps(found), flush=True)
                write_whole(options.output, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
