"""How good a network each controller finds for so many children.

    python -m experiments.benchmarks.search_efficiency [--methods ppo evolution-20-5]
    python -m experiments.benchmarks.search_efficiency --noise 0.5

Reward: predicted ImageNet top-1 in points * (multiply-adds / 400M)^-0.07; no network is
evaluated twice. The table has the best reward so far, mean and standard deviation over
the seeds, and a page beside the results has the curves. With noise each evaluation has
N(0, noise) added, and at each mark the 15 networks that look best are measured five
times more; the winner's exact reward counts.

Every finished (method, seed) is kept in experiments/results, with the commit and the
command that made it; run again, only what is missing is run. Peers that are not
installed (`pip install '.[peers]'`) are named and left out.
"""

import dataclasses
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import tyro

import controller
from experiments.benchmarks import imagenet_task, peers
from experiments.benchmarks.imagenet_task import Floats, Task, Tokens
from nas.loop import optimize

RESULTS = Path(__file__).parents[1] / "results"
MARKS = (100, 250, 500, 1000)
# The curves have a point for so many children each.
_EVERY = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """One of our controllers, told of `batch_size` rewards at a time."""

    name: str
    batch_size: int
    options: Mapping[str, float | bool] = dataclasses.field(default_factory=dict)


# PPO learns from every five rewards, as `nas.search` does by default; evolution from
# each, as in its paper.
_OURS: dict[str, Method] = {
    "ppo": Method(name="ppo", batch_size=5),
    "reinforce": Method(name="reinforce", batch_size=10),
    "evolution-20-5": Method(name="evolution", batch_size=1),
    "evolution-50-12": Method(
        name="evolution", batch_size=1, options={"population": 50, "tournament": 12}
    ),
    "evolution-100-25": Method(
        name="evolution", batch_size=1, options={"population": 100, "tournament": 25}
    ),
    "random": Method(name="random", batch_size=10),
}
_ABLATIONS: dict[str, Method] = {
    f"ppo without {aid}": Method(
        name="ppo", batch_size=5, options={aid: 0 if aid == "replay" else False}
    )
    for aid in ("rank_advantages", "replay", "neighbours", "screen")
}


class _Recorder:
    """Evaluates, remembers everything in order, and keeps its own time apart."""

    def __init__(self, task: Task, noise: float, seed: int) -> None:
        self._task = task
        self._noise = noise
        self._rng = np.random.default_rng([seed, 0])
        self.exact: list[float] = []
        self.observed: list[float] = []
        self.seconds = 0.0

    def __call__(self, tokens: Tokens) -> Floats:
        started = time.perf_counter()
        exact = self._task.rewards(tokens)
        observed = exact + self._noise * self._rng.normal(size=len(exact))
        self.exact += exact.tolist()
        self.observed += observed.tolist()
        self.seconds += time.perf_counter() - started
        return observed


def run(method: str, seed: int, noise: float) -> dict[str, Any]:
    """Returns what one search came to: rewards at the marks, and its own seconds."""
    task = imagenet_task.load()
    evaluate = _Recorder(task, noise, seed)
    started = time.perf_counter()
    if method in peers.PEERS:
        peers.PEERS[method].search(task.space.num_choices, evaluate, MARKS[-1], seed)
    else:
        ours = (_OURS | _ABLATIONS)[method]
        optimize(
            controller.build(
                ours.name, num_choices=task.space.num_choices, **ours.options
            ),
            evaluate,
            num_trials=MARKS[-1],
            batch_size=ours.batch_size,
            seed=seed,
        )
    seconds = time.perf_counter() - started - evaluate.seconds
    observed, exact = np.array(evaluate.observed), np.array(evaluate.exact)
    return {
        "controller_seconds": round(seconds, 3),
        "marks": [
            round(imagenet_task.chosen(observed[:n], exact[:n], noise, seed), 4)
            for n in MARKS
        ],
        "best_so_far": np.maximum.accumulate(exact)[_EVERY - 1 :: _EVERY]
        .round(3)
        .tolist(),
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compare controllers on predicted ImageNet accuracies."""

    methods: tuple[str, ...] = ()
    """Which to run; by default all but the ablations."""
    ablations: bool = False
    """Also PPO with each of its aids off in turn."""
    seeds: int = 10
    """Searches of each."""
    noise: float = 0.0
    """Standard deviation of what is added to each evaluation, in points."""
    again: bool = False
    """Forget what was found before for these methods."""
    output: Path = RESULTS
    """The folder of the results."""


def _names(parsed: Arguments) -> list[str]:
    known = [*_OURS, *_ABLATIONS, *peers.PEERS]
    if unknown := [name for name in parsed.methods if name not in known]:
        raise ValueError(f"--methods must be of {', '.join(known)}, got {unknown}")
    names = list(parsed.methods or [*_OURS, *peers.PEERS])
    names += [name for name in _ABLATIONS if parsed.ablations and name not in names]
    for name in list(names):
        if name in peers.PEERS and not _installed(peers.PEERS[name].package):
            print(f"{name}: {peers.PEERS[name].package} is not installed; left out")
            names.remove(name)
    return names


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    heads = "".join(f"{mark:>14}" for mark in MARKS)
    lines = [f"{'children':<28}{heads}{'seeds':>7}{'controller':>13}"]
    for name, seeds in rows.items():
        marks = np.array([row["marks"] for row in seeds.values()])
        cells = "".join(
            f"{mean:>8.2f} ±{spread:>4.2f}"
            for mean, spread in zip(marks.mean(axis=0), marks.std(axis=0), strict=True)
        )
        own = np.mean([row["controller_seconds"] for row in seeds.values()])
        lines.append(f"{name:<28}{cells}{len(seeds):>7}{own:>11.2f} s")
    return "\n".join(lines)


def _curves(rows: Mapping[str, Mapping[str, Any]]) -> go.Figure:
    """Best exact reward so far: means over the seeds, and a standard deviation."""
    figure = go.Figure(layout={"template": "plotly_white", "height": 520})
    for name, seeds in rows.items():
        curves = np.array([row["best_so_far"] for row in seeds.values()])
        mean, spread = curves.mean(axis=0), curves.std(axis=0)
        children = _EVERY * np.arange(1, len(mean) + 1)
        figure.add_scatter(
            x=np.concatenate([children, children[::-1]]),
            y=np.concatenate([mean + spread, (mean - spread)[::-1]]),
            fill="toself",
            opacity=0.2,
            line={"width": 0},
            legendgroup=name,
            showlegend=False,
            hoverinfo="skip",
        )
        figure.add_scatter(x=children, y=mean, name=name, legendgroup=name)
    figure.update_xaxes(title="children", type="log")
    figure.update_yaxes(title="best reward so far")
    return figure


def _commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parsed = tyro.cli(Arguments, args=arguments, prog="search_efficiency")
    try:
        names = _names(parsed)
    except ValueError as error:
        sys.stderr.write(f"search_efficiency: {error}\n")
        return 2
    suffix = f"_noise_{parsed.noise:g}" if parsed.noise else ""
    path = parsed.output / f"search_efficiency{suffix}.json"
    parsed.output.mkdir(parents=True, exist_ok=True)
    rows: dict[str, dict[str, Any]] = {}
    if path.exists():
        rows = json.loads(path.read_text())["rows"]
    if parsed.again:
        rows = {name: seeds for name, seeds in rows.items() if name not in names}
    made = {"commit": _commit(), "command": " ".join(sys.argv)}
    for name in names:
        for seed in range(parsed.seeds):
            if str(seed) not in rows.setdefault(name, {}):
                rows[name][str(seed)] = run(name, seed, parsed.noise) | made
                document = {"marks": MARKS, "noise": parsed.noise, "rows": rows}
                path.write_text(json.dumps(document) + "\n")
        print(_table({name: rows[name]}).splitlines()[-1], flush=True)
    print(_table(rows))
    _curves(rows).write_html(path.with_suffix(".html"))
    print(f"{path}, {path.with_suffix('.html').name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
