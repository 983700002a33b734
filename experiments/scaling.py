"""Which way of scaling pays best? Depth, width, resolution, compound, at equal cost.

    python -m experiments.scaling --output runs/scaling \
        --result experiments/results/scaling.json

A tiny network is scaled to about 2, 4 and 8 times its multiply-adds in each of the
four ways, and every network is trained three times on Fashion-MNIST (Debian's package
dataset-fashion-mnist; digits where it is absent): 39 children, each with the same
number of steps. Ctrl-C, a crash or a power cut loses no finished child:

    python -m experiments.scaling --resume runs/scaling --result ...

Channels and resolutions are rounded to whole numbers, not to multiples of 8 and 4:
8 channels could not be scaled by less than a half otherwise. Depth goes in whole
layers. So each network is the one nearest to its cost, and the results give what it
costs in fact. Accuracy is on the validation split.

Fashion-MNIST's images have 28 pixels, and the baseline sees 16 of them: scaling the
resolution adds detail up to 28 pixels, and only larger pixels from there on.

Result on two cores that other work shared, in 18 minutes, at commit 5dfaade; mean and
standard deviation of three seeds, the baseline at 76.46 +- 0.79 %:

    times   depth           width           resolution      compound
    2       75.55 +- 0.93   78.31 +- 0.31   77.59 +- 0.88   77.55 +- 0.97
    4       76.53 +- 0.41   79.83 +- 0.46   78.53 +- 1.36   78.01 +- 0.48
    8       72.90 +- 2.18   81.41 +- 0.24   78.39 +- 1.30   79.61 +- 0.34

Width is best at every size, unlike in the paper, where compound scaling is. Compound
scaling comes second at 8 times. Depth does not pay at all. What may be behind it: 600
steps are a third of an epoch, in which deep networks do not get far; 8 channels are
few, so width is what the baseline lacks; and beyond 28 pixels there is no detail.
"""

import dataclasses
import functools
import html
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import plotly.graph_objects as go
import tyro
from rich.console import Console

from nas.evaluation import evaluators, run_data
from nas.execution import driver
from nas.execution.driver import Reporting, Setup, Started, line
from nas.execution.resources import WorkerOptions
from nas.options import command_line, definition
from nas.options.command_line import UsageError
from nas.options.definition import EvaluationOptions
from nas.options.quantity import format_flops
from nas.pages import page
from nas.runs import journal, run_folder
from nas.scaling.network_list import NetworkList, Result, spread
from nas.study import reward
from search_space import compound, cost, files
from search_space.scaling import ScalingRules, round_resolution, scale
from search_space.spec import ArchSpec, ClassifierHead, MBConvStage, Stem
from trainers.child import ChildConfig
from trainers.data import idx

MULTIPLES = (2, 4, 8)
ROUNDING = ScalingRules(channels=1, pixels=1)
_PROGRAM = "experiments.scaling"

# How far each method is driven: by hundredths, to twelve times one size.
_AMOUNTS = tuple(step / 100 for step in range(1100))

BASELINE = ArchSpec(
    name="tiny",
    resolution=16,
    in_channels=1,
    num_classes=10,
    activation="swish",
    stem=Stem(channels=8, stride=1),
    stages=tuple(
        MBConvStage(
            channels=channels,
            kernel=3,
            stride=stride,
            expansion=3,
            repeats=repeats,
            se_ratio=0.25,
        )
        for channels, stride, repeats in ((8, 1, 1), (12, 2, 3), (20, 2, 4))
    ),
    head=ClassifierHead(channels=64),
)


def _resolution(amount: float) -> ArchSpec:
    pixels = round_resolution(BASELINE.resolution, 1 + amount, ROUNDING.pixels)
    return scale(BASELINE, resolution=pixels)


METHODS: dict[str, Callable[[float], ArchSpec]] = {
    "depth": lambda amount: scale(BASELINE, depth=1 + amount),
    "width": lambda amount: scale(BASELINE, width=1 + amount, rules=ROUNDING),
    "resolution": _resolution,
    "compound": lambda phi: compound.member(
        BASELINE, compound.PUBLISHED, phi, ROUNDING
    ),
}


def scaled(method: str, multiple: float) -> ArchSpec:
    """Returns the baseline scaled as near as can be to a multiple of its multiply-adds.

    >>> [stage.repeats for stage in scaled("depth", 2).stages]
    [2, 6, 8]
    """
    target = multiple * cost.num_macs(BASELINE)
    candidates = map(METHODS[method], _AMOUNTS)
    found = min(candidates, key=lambda spec: abs(cost.num_macs(spec) - target))
    return dataclasses.replace(found, name=f"{method}-x{multiple:g}")


def networks() -> tuple[ArchSpec, ...]:
    """Returns the baseline, and each method's networks by their cost."""
    return (
        BASELINE,
        *(scaled(method, multiple) for multiple in MULTIPLES for method in METHODS),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where to keep it."""

    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """A new or empty folder for the run; by default one under runs/."""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None
    """Go on with the run in this folder, with the options it was started with."""
    result: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the result here as well, and not in the run's folder alone."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparisonOptions:
    """What is compared."""

    repeats: int = 3
    """Times that each network is trained, each with another seed."""
    seed: int = 0
    """Seed of the children and of the validation split."""


def _default_evaluation() -> EvaluationOptions:
    found = idx.has_files(idx.DEBIAN_DIR)
    return EvaluationOptions(dataset="fashion_mnist" if found else "digits")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that defines the comparison."""

    comparison: ComparisonOptions = ComparisonOptions()
    evaluation: EvaluationOptions = dataclasses.field(
        default_factory=_default_evaluation
    )
    child: ChildConfig = dataclasses.field(
        default_factory=lambda: ChildConfig(
            steps=600, batch_size=32, resolution=BASELINE.resolution
        )
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compare ways of scaling a network at equal multiply-adds."""

    run: RunOptions = RunOptions()
    options: Annotated[Comparison, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=Comparison
    )
    workers: WorkerOptions = dataclasses.field(default_factory=WorkerOptions)


def parse(arguments: Sequence[str] | None) -> Arguments:
    """Parses the command line; with --resume, over the options of that run.

    Raises:
      UsageError: if a value cannot be used, or contradicts the run to resume.
      ValueError: if there is no such run.
    """
    parsed = _parse(arguments, Arguments())
    if parsed.run.resume is None:
        return parsed
    if parsed.run.output is not None:
        raise UsageError(
            "--resume writes to the folder it resumes; drop "
            f"--output {parsed.run.output}"
        )
    folder = run_folder.open_existing(parsed.run.resume)
    record = journal.read(folder.journal).header.definition
    recorded = definition.read(record, Comparison)
    parsed = _parse(arguments, Arguments(options=recorded))
    definition.check_kept(recorded, parsed.options, "run")
    return parsed


def _parse(arguments: Sequence[str] | None, defaults: Arguments) -> Arguments:
    return command_line.parse(
        arguments, defaults, program=_PROGRAM, description=str(Arguments.__doc__)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, as `nas.search.main` does."""
    return driver.main(_PROGRAM, lambda: _prepare(arguments))


def _prepare(arguments: Sequence[str] | None) -> tuple[Setup, Reporting]:
    parsed = parse(arguments)
    compared = NetworkList(
        networks=networks(), repeats=parsed.options.comparison.repeats
    )
    reporting = Reporting(
        announce=functools.partial(_announce, compared),
        finish=functools.partial(_finish, compared, parsed.run.result),
    )
    return _setup(parsed, compared), reporting


def _setup(parsed: Arguments, compared: NetworkList) -> Setup:
    options, seed = parsed.options, parsed.options.comparison.seed
    evaluator, data = evaluators.train_in_proportion(
        BASELINE, options.evaluation, options.child, seed
    )
    return Setup(
        kind="comparison",
        definition=dataclasses.replace(
            options, evaluation=run_data.located(options.evaluation, data)
        ),
        space=compared,
        controller=compared.controller(),
        # For the screen's ranking alone.
        reward=reward.soft("num_macs", cost.num_macs(BASELINE)),
        evaluator=evaluator,
        objectives=("accuracy", "num_macs"),
        data=data,
        rewards_per_update=1,
        seed=seed,
        num_trials=compared.size,
        workers=parsed.workers,
        batch_size=options.child.batch_size,
        output=parsed.run.output,
        resume=parsed.run.resume,
    )


def _announce(compared: NetworkList, started: Started, console: Console) -> None:
    line(console, "Data set", started.contents.header.dataset)
    for spec in compared.networks:
        layers = "-".join(str(stage.repeats) for stage in spec.stages)
        channels = "-".join(str(stage.channels) for stage in spec.stages)
        times = cost.num_macs(spec) / cost.num_macs(BASELINE)
        line(
            console,
            spec.name,
            f"{format_flops(cost.num_macs(spec))} multiply-adds ({times:.2f} times), "
            f"layers {layers}, channels {channels}, {spec.resolution} pixels",
        )


def _finish(
    compared: NetworkList, result: Path | None, started: Started, console: Console
) -> None:
    """Writes scaling.json and scaling.html, from the journal on the disk.

    Raises:
      OSError: if a file cannot be written.
    """
    folder = started.folder
    contents = journal.read(folder.journal)
    results = compared.results(contents)
    rows = [
        _row(spec, found)
        for spec, found in zip(compared.networks, results, strict=True)
    ]
    config = json.loads(folder.config.read_text(encoding="utf-8"))
    document = {
        "version": 1,
        "dataset": contents.header.dataset,
        "options": contents.header.definition,
        "complete": len(contents.trials) == compared.size,
        "networks": rows,
        "starts": config["starts"],  # commands, commits, versions, hardware
    }
    text = json.dumps(document, indent=2) + "\n"
    files.write_whole(folder.path / "scaling.json", text)
    if result is not None:
        result.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(result, text)
    options = definition.read(contents.header.definition, Comparison)
    body = [
        "<h1>Ways of scaling, at equal multiply-adds</h1>",
        f"<p>{html.escape(contents.header.dataset)}. Each network trained for "
        f"{options.child.steps:,} steps of {options.child.batch_size} images, with "
        f"{options.comparison.repeats} seeds. Bars: one standard deviation.</p>",
        page.figure(_curves(rows)),
        page.table(_COLUMNS, map(_cells, rows)),
    ]
    whole = page.document("Ways of scaling", body, figures=True)
    files.write_whole(folder.path / "scaling.html", whole)
    for row in rows:
        line(console, row["network"], " ".join(_cells(row)[1:]))
    line(console, "Written", f"scaling.json, scaling.html in {folder.path}")


_COLUMNS = ("network", "multiply-adds", "times", "accuracy", "spread", "children")


def _row(spec: ArchSpec, found: Result) -> dict[str, Any]:
    method, _, multiple = spec.name.partition("-x")
    return {
        "network": spec.name,
        "method": method,
        "multiple": float(multiple) if multiple else 1.0,
        "num_macs": cost.num_macs(spec),
        "times_macs": cost.num_macs(spec) / cost.num_macs(BASELINE),
        "num_params": cost.num_params(spec),
        "accuracies": list(found.accuracies),
        "mean": statistics.fmean(found.accuracies) if found.accuracies else None,
        "standard_deviation": spread(found.accuracies),
        "seconds": [child.seconds.total for child in found.children],
        "failures": list(found.failures),
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    mean, width = row["mean"], row["standard_deviation"]
    return (
        row["network"],
        format_flops(row["num_macs"]),
        f"{row['times_macs']:.2f}",
        "none" if mean is None else f"{mean:.2%}",
        "" if width is None else f"± {width:.2%}",
        str(len(row["accuracies"])),
    )


def _curves(rows: Sequence[dict[str, Any]]) -> go.Figure:
    """Mean accuracy over multiply-adds, a curve for each method from the baseline."""
    layout = {"template": "plotly_white", "height": 460, "margin": {"t": 40}}
    figure = go.Figure(layout=layout)
    measured = [row for row in rows if row["mean"] is not None]
    for method in METHODS:
        curve = [row for row in measured if row["method"] in (method, BASELINE.name)]
        figure.add_scatter(
            x=[row["times_macs"] for row in curve],
            y=[row["mean"] for row in curve],
            error_y={"array": [row["standard_deviation"] or 0.0 for row in curve]},
            mode="lines+markers",
            name=method,
        )
    figure.update_xaxes(
        title="times the baseline's multiply-adds",
        type="log",
        tickvals=(1, *MULTIPLES),
    )
    figure.update_yaxes(title="validation accuracy", tickformat=".1%")
    return figure


if __name__ == "__main__":
    sys.exit(main())
