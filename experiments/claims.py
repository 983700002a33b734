"""What the papers claim, shown on predicted ImageNet accuracies: writes docs/claims.md.

    pip install '.[pictures]'        # and Chrome or Chromium, which draws the pictures
    python -m experiments.claims

Each search is the default controller's, 1,000 children, seed 0, in one process.
"""

import dataclasses
import json
import math
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import tyro
from numpy.typing import ArrayLike, NDArray

from controller.dyna import Dyna, DynaState
from controller.interface import Controller
from experiments.benchmarks import imagenet_task, search_tables
from experiments.benchmarks.imagenet_task import Task
from nas.loop import optimize
from nas.options.quantity import format_flops
from nas.pages import drawing
from nas.study import reward
from search_space import cost, zoo
from search_space.spec import ArchSpec

_ROOT = Path(__file__).parents[1]
_RESULTS = _ROOT / "experiments" / "results" / "search_efficiency.json"
_TARGETS = (200e6, 400e6, 600e6)
_EXPONENTS = (0.0, -0.07, -0.15)
_BATCH_SIZE = 5  # as `nas.search` does by default
# A decision with less of its greatest entropy than this counts as sure.
_SURE = 0.2
# Of a line of text, a full stop aside.
_WIDTH = 87

_INTRODUCTION = """# What the papers claim, shown

Made by `python -m experiments.claims`: searches with the default controller, {children}
children each, seed 0. Accuracies are **predictions** of ImageNet top-1 under
Accel-NASBench's shortened recipe
({error}). FLOPS are multiply-adds.
Networks have EfficientNet-B0's layout, widths and resolution; kernel, expansion,
squeeze-and-excitation and layers of each stage are searched.
"""


_TARGET = """The soft reward is ACC * (FLOPS / T)^-0.07. T multiplies the rewards of all
networks alike, so the best network, and here the whole search, is the same for every T.
The hard reward, ACC * min(T / FLOPS, 1), depends on T.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """The best network of a search."""

    spec: ArchSpec
    top1: float
    num_macs: int

    @property
    def num_params(self) -> int:
        """Number of trainable parameters."""
        return cost.num_params(self.spec)


@dataclasses.dataclass(frozen=True)
class Watched:
    """Dyna, and after each `tell` the entropy of each decision, in shares of its most.

    An entropy is that of the policy's choices, whatever the other decisions are.
    """

    inner: Dyna
    entropies: list[NDArray[np.float64]]

    @property
    def num_choices(self) -> tuple[int, ...]:
        """Number of values of each token, in order."""
        return self.inner.num_choices

    def init(self, seed: int) -> DynaState:
        """See `Controller.init`."""
        return self.inner.init(seed)

    def ask(
        self, state: DynaState, num: int, pending: ArrayLike | None = None
    ) -> tuple[DynaState, NDArray[np.int32]]:
        """See `Controller.ask`."""
        return self.inner.ask(state, num, pending)

    def tell(
        self, state: DynaState, tokens: ArrayLike, rewards: ArrayLike
    ) -> DynaState:
        """See `Controller.tell`."""
        state = self.inner.tell(state, tokens, rewards)
        found = self.inner.policy_summary(state).probabilities
        self.entropies.append(entropy_shares(found, self.num_choices))
        return state


def entropy_shares(
    probabilities: NDArray[np.float32], num_choices: tuple[int, ...]
) -> NDArray[np.float64]:
    """Returns the entropy [D] of `PolicySummary.probabilities` over the uniform one.

    A decision with one choice was sure all along: 0.
    """
    given = probabilities.astype(np.float64)
    logs = np.log(given, where=given > 0.0, out=np.zeros_like(given))
    most = [math.log(max(count, 2)) for count in num_choices]
    return -(given * logs).sum(axis=-1) / most


def search(task: Task, searcher: Controller[Any], num_children: int) -> Found:
    """Returns the network with the best reward of a search."""
    trials = optimize(
        searcher, task.rewards, num_children, batch_size=_BATCH_SIZE, seed=0
    )
    best = max(trials, key=lambda trial: trial.reward)
    spec = task.space.decode(best.tokens)
    return Found(
        spec=spec,
        top1=float(task.accuracies(best.tokens[None])[0]),
        num_macs=cost.num_macs(spec),
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _cells(found: Found) -> list[str]:
    return [
        f"{found.top1:.2f} %",
        format_flops(found.num_macs),
        f"{found.num_params / 1e6:.2f}M",
    ]


def _beside_b0(found: Found) -> str:
    b0 = zoo.load("efficientnet-b0")
    known = Found(spec=b0, top1=imagenet_task.b0()[0], num_macs=cost.num_macs(b0))
    kept = ["predicted top-1", "multiply-adds", "parameters"]
    rows = [list(row) for row in zip(kept, _cells(found), _cells(known), strict=True)]
    stages = zip(found.spec.stages, b0.stages, strict=True)
    for number, pair in enumerate(stages):
        rows.append([f"stage {number}", *map(drawing.describe_stage, pair)])
    return _table(["", "found at T = 400M", "EfficientNet-B0"], rows)


def entropy_picture(
    names: Sequence[str], entropies: Sequence[NDArray[np.float64]]
) -> go.Figure:
    """Children told of to the right, a row for each decision, dark where it is sure."""
    figure = go.Figure(layout={"template": "plotly_white", "width": 900, "height": 620})
    figure.add_heatmap(
        x=_BATCH_SIZE * np.arange(1, len(entropies) + 1),
        y=list(names),
        z=np.stack(entropies).T,
        zmin=0.0,
        zmax=1.0,
        colorscale="Viridis",
        colorbar={"title": "entropy"},
    )
    figure.update_xaxes(title="children")
    figure.update_yaxes(autorange="reversed", dtick=1)
    return figure


def sure_from(
    names: Sequence[str], entropies: Sequence[NDArray[np.float64]]
) -> list[tuple[str, int]]:
    """Returns the decisions that ended sure, with the children it took, first first.

    It took as many as were told of when the entropy fell below `_SURE` for good.
    """
    sure = np.stack(entropies) < _SURE  # [updates, D]
    found: list[tuple[str, int]] = []
    for name, column in zip(names, sure.T, strict=True):
        if column[-1]:
            unsure = np.flatnonzero(~column)
            first = int(unsure[-1]) + 1 if len(unsure) else 0
            found.append((name, _BATCH_SIZE * (first + 1)))
    return sorted(found, key=lambda pair: pair[1])


def _sureness(names: Sequence[str], watched: Watched) -> str:
    sure = sure_from(names, watched.entropies)
    listed = ", ".join(f"{name} ({children})" for name, children in sure)
    ended = f"{len(sure)} of {len(names)} decisions ended below {_SURE:g}"
    if sure:
        ended += f", in this order (children told of by then): {listed}"
    return (
        "The entropy of each decision under the policy, 1 being a uniform choice, "
        "after each\nupdate of the 400M search:\n\n"
        "![Entropy of each decision](claims/entropy.svg)\n\n"
        f"{textwrap.fill(ended, _WIDTH)}.\n"
    )


def write(output: Path, num_children: int) -> None:
    """Writes claims.md and its pictures into the folder `output`."""
    task = imagenet_task.soft()
    watched = Watched(Dyna(num_choices=task.space.num_choices), [])
    found = search(task, watched, num_children)
    by_target = [
        [
            format_flops(target),
            name,
            *_cells(_best(weigh("num_macs", target), num_children)),
        ]
        for name, weigh in (("soft", reward.soft), ("hard", reward.hard))
        for target in _TARGETS
    ]
    by_exponent = [
        [
            f"{exponent:g}",
            *_cells(_best(reward.soft("num_macs", 400e6, exponent), num_children)),
        ]
        for exponent in _EXPONENTS
    ]
    names = [decision.name for decision in task.space.decisions]
    measures = ["predicted top-1", "multiply-adds", "parameters"]
    parts = [
        _INTRODUCTION.format(children=f"{num_children:,}", error=task.top1.about.error),
        "## The best network at 400M multiply-adds, beside EfficientNet-B0\n",
        "Found, then B0:\n",
        "![Layers of the network found](claims/found.svg)\n",
        "![Layers of EfficientNet-B0](claims/b0.svg)\n",
        _beside_b0(found),
        "## The target T\n",
        _TARGET,
        _table(["T", "reward", *measures], by_target),
        "## The exponent w, at T = 400M\n",
        _table(["w", *measures], by_exponent),
        "## Which decisions the controller became sure of, and when\n",
        _sureness(names, watched),
    ]
    pictures = output / "claims"
    pictures.mkdir(parents=True, exist_ok=True)
    for name, spec in (("found", found.spec), ("b0", zoo.load("efficientnet-b0"))):
        drawing.architecture(spec).write_image(pictures / f"{name}.svg", width=1000)
    entropy_picture(names, watched.entropies).write_image(pictures / "entropy.svg")
    if _RESULTS.exists():
        parts += _efficiency(pictures)
    (output / "claims.md").write_text("\n".join(parts), encoding="utf-8")


def _best(weigh: reward.WeightedProduct, num_children: int) -> Found:
    task = dataclasses.replace(imagenet_task.soft(), weigh=weigh)
    return search(task, Dyna(num_choices=task.space.num_choices), num_children)


_SECTIONS = {
    "exact": "Best reward so far, without noise",
    "noise": "The same with N(0, 0.5) added to each evaluation",
    "constraint": "Best top-1 with at most EfficientNet-B0's multiply-adds",
}


def _efficiency(pictures: Path) -> list[str]:
    """The tables of `search_efficiency`, and the curves of the first."""
    document = json.loads(_RESULTS.read_text(encoding="utf-8"))
    parts = [
        "## Fewer children\n",
        "From `python -m experiments.benchmarks.search_efficiency`, whose docstring "
        "says how:\nmeans ± standard deviations over the seeds.\n",
        "![Best reward so far](claims/search_efficiency.svg)\n",
    ]
    for name, title in _SECTIONS.items():
        if rows := document["sections"].get(name):
            parts += [
                f"### {title}\n",
                search_tables.table(rows, document["marks"]) + "\n",
            ]
    curves = search_tables.curves(document["sections"]["exact"], 10)
    curves.write_image(pictures / "search_efficiency.svg", width=1000)
    return parts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write the page of what the papers claim, shown on predicted accuracies."""

    output: Path = _ROOT / "docs"
    """The folder of claims.md and its pictures."""
    children: int = 1000
    """Networks evaluated in each search."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parsed = tyro.cli(Arguments, args=arguments, prog="experiments.claims")
    try:
        if parsed.children < _BATCH_SIZE:
            raise ValueError(
                f"--children must be {_BATCH_SIZE} or more, got {parsed.children}"
            )
        write(parsed.output, parsed.children)
    except (ImportError, RuntimeError, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[:1]
        sys.stderr.write(f"experiments.claims: {''.join(first)}\n")
        return 2
    print(parsed.output / "claims.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
