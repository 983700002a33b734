"""How good a network each controller finds for so many children.

    python -m experiments.benchmarks.search_efficiency [--sections exact noise]

Three sections, each a table and a picture:

exact: reward is predicted ImageNet top-1 in points * (multiply-adds / 400M)^-0.07. The
  table has the best reward so far, mean and standard deviation over the seeds.
noise: each evaluation has N(0, 0.5) added. At each mark the 15 networks that look best
  are measured five times more, and the exact reward of the best mean counts. Which look
  best, a controller with a predictor says by its means, others by what they observed.
constraint: the best top-1 with at most EfficientNet-B0's multiply-adds, and how many of
  the networks evaluated are at least as accurate as B0 and no costlier.

In each is the default controller, `dyna`, with its policy's learning off as well, and
with its predictor off.

The best reward that any search found without noise is 66.98; that of EfficientNet-B0
is 66.02. Plain policy gradients at the papers' scale are in `policy_curves`.

No network is evaluated twice. Controller seconds are CPU time of asking and telling, of
the whole process less what evaluating takes, so that other programs hardly count;
imports and compilation come before, in a short search that is not counted.

No seed of these tables was used to choose the default controller's numbers: that was
done on seeds from 100 on, and on other exponents, limits and noise.

Every finished (section, method, seed) is kept in experiments/results, with the commit
that made it; run again, only what is missing is run. Peers that are
not installed (`pip install '.[peers]'`) are named and left out.
"""

import concurrent.futures
import dataclasses
import functools
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from experiments.benchmarks import contenders, imagenet_task, peers, search_tables
from experiments.benchmarks.imagenet_task import Floats, Task, Tokens
from nas.runs import provenance

RESULTS = Path(__file__).parents[1] / "results"
MARKS = (25, 50, 100, 250, 500, 1000)
_NOISE = 0.5
# The curves have a point for so many children each.
_EVERY = 10
# Enough for every program to be compiled.
_WARM_UP = 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A task, with the standard deviation of its noise, and who is compared on it."""

    task: Callable[[], Task]
    noise: float
    methods: tuple[str, ...]


_ALL = (*contenders.OURS, *contenders.ABLATIONS, *peers.PEERS)
# PyGlove takes some 12 ms to propose: thirty searches take it ten minutes.
_QUICK = tuple(name for name in _ALL if not name.startswith("pyglove"))
SECTIONS: Mapping[str, Section] = {
    "exact": Section(task=imagenet_task.soft, noise=0.0, methods=_ALL),
    "noise": Section(task=imagenet_task.soft, noise=_NOISE, methods=_QUICK),
    "constraint": Section(task=imagenet_task.constrained, noise=0.0, methods=_QUICK),
}


class _Recorder:
    """Evaluates, remembers everything in order, and keeps its own CPU time apart."""

    def __init__(self, task: Task, noise: float, seed: int) -> None:
        self._task = task
        self._noise = noise
        self._rng = np.random.default_rng([seed, 0])
        self.tokens: list[list[int]] = []
        self.exact: list[float] = []
        self.observed: list[float] = []
        self.seconds = 0.0

    def __call__(self, tokens: Tokens) -> Floats:
        started = time.process_time()
        exact = self._task.rewards(tokens)
        observed = exact + self._noise * self._rng.normal(size=len(exact))
        self.tokens += tokens.tolist()
        self.exact += exact.tolist()
        self.observed += observed.tolist()
        self.seconds += time.process_time() - started
        return observed


def run(section: str, method: str, seed: int, num_children: int) -> dict[str, Any]:
    """Returns what one search came to: worths at the marks, and its own seconds."""
    chosen = SECTIONS[section]
    task = chosen.task()
    _warm_up(section, method)
    evaluate = _Recorder(task, chosen.noise, seed)
    started = time.process_time()
    contenders.search(method, task.space.num_choices, evaluate, num_children, seed)
    seconds = time.process_time() - started - evaluate.seconds
    observed, tokens = np.array(evaluate.observed), np.array(evaluate.tokens, np.int32)
    worths = task.worths(tokens, np.array(evaluate.exact))
    best = np.maximum.accumulate(worths)
    best = np.pad(best, (0, max(0, num_children - len(best))), mode="edge")
    return {
        "controller_seconds": round(seconds, 3),
        "marks": {
            str(n): round(
                imagenet_task.chosen(
                    contenders.judged(
                        method, task.space.num_choices, tokens[:n], observed[:n]
                    )
                    if chosen.noise
                    else observed[:n],
                    worths[:n],
                    chosen.noise,
                    seed,
                ),
                4,
            )
            for n in MARKS
            if n <= num_children
        },
        "best_so_far": best[_EVERY - 1 : num_children : _EVERY].round(3).tolist(),
        "num_beyond_b0": imagenet_task.count_beyond_b0(task, tokens),
    }


@functools.cache
def _warm_up(section: str, method: str) -> None:
    """Imports and compiles what `method` needs, once in each process."""
    task = SECTIONS[section].task()
    evaluate = _Recorder(task, 0.0, 0)
    contenders.search(method, task.space.num_choices, evaluate, _WARM_UP, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compare controllers on predicted ImageNet accuracies."""

    sections: tuple[Literal["exact", "noise", "constraint"], ...] = (
        "exact",
        "noise",
        "constraint",
    )
    """Which tables to make."""
    methods: tuple[str, ...] = ()
    """Which to run; by default all of a section."""
    seeds: int = 20
    """Searches of each."""
    children: int = MARKS[-1]
    """Networks evaluated in each search."""
    workers: int = 1
    """Processes that search at the same time."""
    again: bool = False
    """Forget what was found before for these sections and methods."""
    output: Path = RESULTS
    """The folder of the results."""


@dataclasses.dataclass(frozen=True)
class _Job:
    section: str
    method: str
    seed: int


def _jobs(parsed: Arguments) -> list[_Job]:
    """Returns what was asked for, a seed of everything before the next."""
    known = {name for section in SECTIONS.values() for name in section.methods}
    if unknown := [name for name in parsed.methods if name not in known]:
        raise ValueError(
            f"--methods must be of {', '.join(sorted(known))}, got {', '.join(unknown)}"
        )
    for name, least in (("seeds", 1), ("workers", 1), ("children", MARKS[0])):
        if (value := getattr(parsed, name)) < least:
            raise ValueError(f"--{name} must be {least} or more, got {value}")
    for name in sorted(known):
        if (package := contenders.lacking(name)) is not None:
            print(f"{name}: {package} is not installed; left out")
    return [
        _Job(section, method, seed)
        for section in dict.fromkeys(parsed.sections)
        for seed in range(parsed.seeds)
        for method in SECTIONS[section].methods
        if contenders.lacking(method) is None
        and (not parsed.methods or method in parsed.methods)
    ]


Results = dict[str, dict[str, dict[str, dict[str, Any]]]]
"""Section, method, seed -> what `run` returned, and how it was made."""


def _load(path: Path) -> Results:
    return json.loads(path.read_text())["sections"] if path.exists() else {}


def _save(path: Path, results: Results) -> None:
    document = {"marks": MARKS, "noise": _NOISE, "sections": _in_order(results)}
    path.write_text(json.dumps(document) + "\n")


def _in_order(results: Results) -> Results:
    """Returns the results with methods as the sections list them, seeds ascending."""
    return {
        name: {
            method: dict(sorted(found[method].items(), key=lambda row: int(row[0])))
            for method in section.methods
            if method in found
        }
        for name, section in SECTIONS.items()
        if (found := results.get(name)) is not None
    }


def _is_done(row: Mapping[str, Any] | None, num_children: int) -> bool:
    """Whether a search was run, to so many children at least, for all the marks."""
    wanted = {str(n) for n in MARKS if n <= num_children}
    return row is not None and wanted <= row["marks"].keys()


def _carry_out(jobs: Sequence[_Job], parsed: Arguments, path: Path) -> Results:
    """Runs the jobs that are not in the file yet, and adds them to it one by one."""
    results = _load(path)
    if parsed.again:
        for job in jobs:
            results.get(job.section, {}).pop(job.method, None)
    left = [
        job
        for job in jobs
        if not _is_done(
            results.get(job.section, {}).get(job.method, {}).get(str(job.seed)),
            parsed.children,
        )
    ]
    made = {"commit": provenance.git_commit()}
    # JAX's threads do not survive a fork.
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(parsed.workers, spawn) as pool:
        running = {
            pool.submit(run, job.section, job.method, job.seed, parsed.children): job
            for job in left
        }
        for done in concurrent.futures.as_completed(running):
            job, row = running[done], done.result() | made
            methods = results.setdefault(job.section, {})
            methods.setdefault(job.method, {})[str(job.seed)] = row
            _save(path, results)
            print(
                f"{job.section}, {job.method}, seed {job.seed}: {row['marks']}, "
                f"{row['controller_seconds']:.2f} s",
                flush=True,
            )
    return _in_order(results)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parsed = tyro.cli(Arguments, args=arguments, prog="search_efficiency")
    path = parsed.output / "search_efficiency.json"
    try:
        jobs = _jobs(parsed)
        parsed.output.mkdir(parents=True, exist_ok=True)
        results = _carry_out(jobs, parsed, path)
    except (ValueError, KeyError, OSError) as error:
        sys.stderr.write(f"search_efficiency: {error}\n")
        return 2
    for name in dict.fromkeys(parsed.sections):
        if name not in results:
            continue
        print(f"\n{name}\n{search_tables.table(results[name], MARKS)}")
        page = path.with_name(f"search_efficiency_{name}.html")
        search_tables.curves(results[name], _EVERY).write_html(page)
        print(page.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
