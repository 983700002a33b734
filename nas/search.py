"""Searches for an architecture: `python -m nas.search --target-flops 400M`.

A controller proposes architectures, workers train each of them for a short while on a
small task, and the reward (accuracy against multiply-adds) teaches the controller.
The run's folder gets a journal as the search goes, and the best architecture, the
Pareto front and a report at its end.
"""

import dataclasses
import functools
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
from nas.monitoring.display import describe
from nas.options import command_line, definition
from nas.options.command_line import UsageError
from nas.options.definition import Definition, EvaluationOptions, SearchOptions
from nas.pages import search_page
from nas.runs import journal, results, run_folder
from search_space.space import SearchSpace

_PROGRAM = "nas.search"
_EXAMPLES = """examples:
  python -m nas.search --target-flops 400M
      digits, the mbconv space, PPO; a folder under runs/
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

    children: Annotated[int, tyro.conf.arg(metavar="N")] = 200
    """Architectures to evaluate, those that turn out infeasible included."""
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
    if changed := definition.differences(recorded, parsed.definition):
        raise UsageError(
            f"a resumed search keeps the options it was started with, and "
            f"{'; '.join(changed)}; drop these flags, or start a new search"
        )
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
    parts = builder.make(parsed.definition)
    reporting = Reporting(
        announce=functools.partial(_announce, parts),
        finish=functools.partial(_finish, parts.space),
    )
    return _setup(parsed, parts), reporting


def _setup(parsed: Arguments, parts: Plan) -> Setup:
    options, search = parsed.run, parsed.definition.search
    return Setup(
        kind="search",
        definition=_located(parsed.definition, parts.data),
        space=parts.space,
        controller=parts.controller,
        reward=parts.reward,
        evaluator=parts.evaluator,
        objectives=definition.objectives(parsed.definition, parts.evaluator.metrics),
        data=parts.data,
        rewards_per_update=search.rewards_per_update,
        seed=search.seed,
        num_trials=options.children,
        workers=parsed.workers,
        batch_size=parsed.definition.child.batch_size,
        output=options.output,
        resume=options.resume,
        callbacks=tuple(map(builder.callback, options.callback)),
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
    line(
        console,
        "Reward",
        f"{definition.describe_reward(options)}; {search.controller} learns from "
        f"every {search.rewards_per_update} rewards",
    )


def _finish(space: SearchSpace, started: Started, console: Console) -> None:
    """Writes what was found, from the journal on the disk, and says where.

    Raises:
      OSError: if a file cannot be written.
    """
    folder = started.folder
    contents = journal.read(folder.journal)
    results.write(folder, contents, space)
    search_page.write(folder, contents, started.setup.definition, space)
    best = results.best(contents.completed)
    if best is None:
        line(console, "Best", f"none was measured; {folder.report} has the reasons")
        return
    line(console, "Best", describe(best, contents.header.front))
    line(console, "Written", f"best.json, pareto.json, report.html in {folder.path}")


@command_line.command(_PROGRAM)
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, as `driver.main` does."""
    return driver.main(_PROGRAM, lambda: _prepare(arguments))


if __name__ == "__main__":
    sys.exit(main())
