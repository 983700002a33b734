"""Searches for an architecture: `python -m nas.search --target-flops 400M`.

A controller proposes architectures, workers train each of them for a short while on a
small task, and the reward (accuracy against multiply-adds) teaches the controller.
The run's folder gets a journal as the search goes, and the best architecture, the
Pareto front and a report at its end.
"""

import dataclasses
import functools
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from nas import builder
from nas.builder import Plan
from nas.calibration import record
from nas.evaluation import run_data
from nas.evaluation.run_data import RunData
from nas.execution import driver
from nas.execution.driver import Reporting, Setup, Started, line
from nas.execution.resources import WorkerOptions
from nas.monitoring.display import describe_standing
from nas.options import command_line, definition
from nas.options.command_line import UsageError
from nas.options.definition import Definition, EvaluationOptions, SearchOptions
from nas.options.limit import limit_of
from nas.options.quantity import format_metric
from nas.pages import search_page
from nas.runs import beside as baselines_file
from nas.runs import doubts, journal, results, run_folder
from nas.study import confirmation
from nas.study.confirmation import Confirm, best_within
from nas.study.halving import Halving
from nas.study.metrics import by_name
from trainers.baselines import Baselines

_PROGRAM = "nas.search"
_MAX_CONFIRM = 1_000
_EXAMPLES = """examples:
  python -m nas.search --target-flops 400M
      patterns, the mbconv space, dyna; a folder under runs/
  python -m nas.search --dataset cifar10 --steps 2000 --devices-per-child 0.5
      two children on each GPU
  python -m nas.search --dataset cifar10 --budget auto
      children at the budget that nas.calibrate recommended for these data
  python -m nas.search --evaluator imagenet-surrogate
      predicted ImageNet accuracies, 1,000 children in seconds, no data set
  python -m nas.search --space mnasnet --restrict "*.se_ratio=0" --children 500
      the paper's space without squeeze-and-excitation
  python -m nas.search --resume runs/20250101-120000
      go on after Ctrl-C, a crash or a power cut; --children N to search further
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How long to search, and where to keep it."""

    children: Annotated[int, tyro.conf.arg(metavar="N")] = 40
    """Architectures to evaluate, those that turn out infeasible included."""
    confirm: Annotated[int, tyro.conf.arg(metavar="N")] = 10
    """Measure so many of the best again in the end, from fresh seeds: best.json is the
    best of those means. A third of them are the most accurate within the target. At
    most a quarter of the children; 0 for none."""
    confirm_repeats: Annotated[int, tyro.conf.arg(metavar="N")] = 3
    """How often each of those is measured again."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """A new or empty folder for the run; by default one under runs/."""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None
    """Go on with the search in this folder, with the options it was started with."""
    budget: Annotated[str | None, tyro.conf.arg(metavar="auto|DIR")] = None
    """Take the budget that nas.calibrate recommended, from its folder, or from the
    newest one under runs/ of the same data and space. Flags given here override it."""
    callback: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]],
        tyro.conf.arg(metavar="MODULE:OBJECT"),
    ] = ()
    """Tell an object of your own of every child that starts and ends. Repeatable."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Search for an architecture near a number of multiply-adds."""

    run: RunOptions = RunOptions()
    definition: Annotated[Definition, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=Definition
    )
    workers: WorkerOptions = dataclasses.field(default_factory=WorkerOptions)


# Predictions are for one space, and cost nothing.
_SURROGATE_DEFAULTS = Arguments(
    run=RunOptions(children=1_000),
    definition=Definition(search=SearchOptions(space="accel-nasbench")),
)


def parse(arguments: Sequence[str] | None) -> Arguments:
    """Parses the command line; with --resume, over the options of that search.

    Raises:
      UsageError: if a value cannot be used, or contradicts the search to resume.
      ValueError: if the folder to resume is not one.
    """
    parsed = _parse(arguments, Arguments())
    if parsed.run.resume is None:
        if parsed.run.budget is not None:
            return _parse(arguments, _calibrated(parsed))
        if parsed.definition.evaluation.evaluator == definition.SURROGATE:
            return _parse(arguments, _SURROGATE_DEFAULTS)
        return parsed
    if parsed.run.budget is not None:
        raise UsageError(
            "a resumed search keeps the budget it was started with; drop "
            f"--budget {parsed.run.budget}"
        )
    if parsed.run.output is not None:
        raise UsageError(
            "--resume writes to the folder it resumes, and --output "
            f"{parsed.run.output} names another; drop --output, or copy the folder "
            "and resume the copy"
        )
    contents = journal.read(run_folder.open_existing(parsed.run.resume).journal)
    recorded = definition.from_json(contents.header.definition)
    named = definition.references_in(parsed.definition)
    for flag, name in definition.references_in(recorded).items():
        if named.get(flag) != name:
            raise UsageError(
                f"the search's {flag} {name} is a module, and importing it runs it;"
                f" add {flag} {name} if you trust it"
            )
    defaults = Arguments(
        run=RunOptions(children=contents.header.num_trials), definition=recorded
    )
    parsed = _parse(arguments, defaults)
    definition.check_kept(recorded, parsed.definition, "search")
    return parsed


def _calibrated(parsed: Arguments) -> Arguments:
    """Returns defaults with the budget of a calibration.

    Raises:
      UsageError: if nothing is trained by us.
      ValueError: if there is no calibration that suits, or it recommends nothing.
    """
    run, where = parsed.definition, parsed.run.budget or ""
    if run.evaluation.evaluator != EvaluationOptions().evaluator:
        raise UsageError(
            f"--budget {where} is for children that are trained, got --evaluator "
            f"{run.evaluation.evaluator}; drop one of them"
        )
    return Arguments(definition=record.find(run, where).applied(Definition()))


def _parse(arguments: Sequence[str] | None, defaults: Arguments) -> Arguments:
    return command_line.parse(
        arguments,
        defaults,
        program=_PROGRAM,
        description=f"{Arguments.__doc__}\n\n{_EXAMPLES}",
    )


def _prepare(arguments: Sequence[str] | None) -> tuple[Setup, Reporting]:
    """Parses, builds and checks everything.

    Raises:
      UsageError: as `parse`.
      ValueError: if something does not fit. One line.
    """
    parsed = parse(arguments)
    if parsed.run.children < 1:
        raise ValueError(f"--children must be at least 1, got {parsed.run.children}")
    if not 0 <= parsed.run.confirm <= _MAX_CONFIRM:
        raise ValueError(
            f"--confirm must be from 0 to {_MAX_CONFIRM}, got {parsed.run.confirm}"
        )
    if not 1 <= parsed.run.confirm_repeats <= _MAX_CONFIRM:
        raise ValueError(
            f"--confirm-repeats must be from 1 to {_MAX_CONFIRM}, got "
            f"{parsed.run.confirm_repeats}"
        )
    parts = builder.make(parsed.definition)
    reporting = Reporting(
        announce=functools.partial(_announce, parts),
        finish=functools.partial(_finish, parts),
    )
    return _setup(parsed, parts), reporting


def _setup(parsed: Arguments, parts: Plan) -> Setup:
    options, search = parsed.run, parsed.definition.search
    named = definition.objectives(parsed.definition, parts.evaluator.metrics)
    return Setup(
        kind="search",
        definition=_located(parsed.definition, parts.data),
        space=parts.space,
        controller=parts.controller,
        reward=parts.reward,
        evaluator=parts.evaluator,
        objectives=named,
        data=parts.data,
        rewards_per_update=search.rewards_per_update,
        seed=search.seed,
        num_trials=options.children,
        workers=parsed.workers,
        batch_size=parsed.definition.child.batch_size,
        output=options.output,
        resume=options.resume,
        callbacks=tuple(map(builder.callback, options.callback)),
        confirm=Confirm(
            number=options.confirm,
            repeats=options.confirm_repeats,
            quality=by_name(parts.evaluator.metrics)[named[0]],
            limit=limit_of(parsed.definition),
        ),
        halving=Halving(num_rungs=len(search.fidelities))
        if search.fidelities
        else None,
    )


def _located(asked: Definition, data: RunData) -> Definition:
    """Returns the definition with absolute paths, which hold wherever it is resumed."""
    table = run_data.absolute(asked.reward.latency_table)
    return dataclasses.replace(
        asked,
        reward=dataclasses.replace(asked.reward, latency_table=table),
        evaluation=run_data.located(asked.evaluation, data),
    )


def _announce(parts: Plan, started: Started, console: Console) -> None:
    del started
    options, space = parts.definition, parts.space
    search, dataset = options.search, parts.data.description
    if options.evaluation == EvaluationOptions():
        dataset += " (the default; name your own with --dataset)"
    restricted = (
        f", restricted: {'; '.join(search.restrict)}" if search.restrict else ""
    )
    line(console, "Data set", dataset)
    line(
        console,
        "Space",
        f"{search.space}, {space.size:.2g} architectures from "
        f"{len(space.num_choices)} decisions{restricted}",
    )
    if splits := parts.data.splits:
        train, validation = splits["train"], splits["validation"]
        error = math.sqrt(0.25 / validation)
        line(
            console,
            "Splits",
            f"{train:,} images to train children on, {validation:,} to measure them "
            f"(--validation N), which tells accuracies to {error:.1%} at one half",
        )
    line(
        console,
        "Reward",
        f"{definition.describe_reward(options)}; {search.controller} learns from "
        f"every {search.rewards_per_update} rewards",
    )
    if options.reward.reward == "soft":
        shown = format_metric(definition.objective(options), definition.target(options))
        line(
            console,
            "Target",
            f"{shown}: with the soft reward a unit, not a limit; at_target.json will be"
            " the most accurate within it, and --reward hard or absolute aim at it",
        )


def _finish(parts: Plan, started: Started, console: Console) -> None:
    """Writes what was found, from the journal on the disk, and says where.

    Raises:
      OSError: if a file cannot be written.
    """
    folder, space = started.folder, parts.space
    contents = journal.read(folder.journal)
    limit = limit_of(parts.definition)
    results.write(folder, contents, space, limit)
    beside = _beside(parts, started, contents)
    search_page.write(folder, contents, started.setup.definition, space)
    found = contents.standings
    best = confirmation.best(found)
    if best is None:
        line(console, "Best", f"none was measured; {folder.report} has the reasons")
        return
    front = contents.header.front
    line(console, "Best", describe_standing(best, front))
    written = "best.json"
    if limit is not None and (within := best_within(found, limit, front[0])):
        shown = format_metric(limit.metric, limit.value)
        line(
            console, "At target", f"{describe_standing(within, front)}; within {shown}"
        )
        written += ", at_target.json"
    if beside is not None:
        line(console, "Beside", baselines_file.describe(beside))
    for doubt in doubts.of(contents):
        line(console, "Doubt", doubt)
    line(console, "Written", f"{written}, pareto.json, report.html in {folder.path}")


def _beside(
    parts: Plan, started: Started, contents: journal.Contents
) -> Baselines | None:
    """What takes no network reaches: measured once, when all children are there."""
    known = baselines_file.read(started.folder)
    measure = parts.data.baselines
    is_over = len(contents.trials) >= started.setup.num_trials
    if known is not None or measure is None or not is_over:
        return known
    found = measure()
    baselines_file.write(started.folder, found)
    return found


@command_line.command(_PROGRAM)
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, as `driver.main` does."""
    return driver.main(_PROGRAM, lambda: _prepare(arguments))


if __name__ == "__main__":
    sys.exit(main())
