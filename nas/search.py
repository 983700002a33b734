"""Searches for an architecture: `python -m nas.search --target-flops 400M`.

A controller proposes architectures, workers train each of them for a short while on a
small task, and the reward (accuracy against multiply-adds) teaches the controller.
The run's folder gets a journal as the search goes, and the best architecture, the
Pareto front and a report at its end.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import jax
import tyro
from rich.console import Console

from nas import builder
from nas.builder import Plan
from nas.evaluation import run_data
from nas.evaluation.run_data import RunData
from nas.execution import driver, run_start
from nas.execution.driver import Undertaking, line
from nas.execution.interrupts import Interrupted, Interrupts
from nas.execution.resources import WorkerOptions
from nas.monitoring.display import describe
from nas.options import command_line, definition, terminal
from nas.options.command_line import UsageError
from nas.options.definition import Definition, EvaluationOptions, SearchOptions
from nas.pages import search_page
from nas.runs import journal, results, run_folder
from nas.runs.run_folder import RunFolder

_PROGRAM = "nas.search"
_EXAMPLES = """examples:
  python -m nas.search --target-flops 400M
      digits, the mbconv space, PPO; a folder under runs/
  python -m nas.search --dataset cifar10 --steps 2000 --devices-per-child 0.5
      two children on each GPU
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
        if parsed.definition.evaluation.evaluator == definition.SURROGATE:
            return _parse(arguments, _SURROGATE_DEFAULTS)
        return parsed
    if parsed.run.output is not None:
        raise UsageError(
            "--resume writes to the folder it resumes, and --output "
            f"{parsed.run.output} names another; drop --output, or copy the folder "
            "and resume the copy"
        )
    contents = journal.read(run_folder.open_existing(parsed.run.resume).journal)
    recorded = definition.from_json(contents.header.definition)
    space = recorded.search.space
    if ":" in space and parsed.definition.search.space != space:
        raise UsageError(
            f"the search's space {space} is a module, and importing it runs it; add "
            f"--space {space} if you trust it"
        )
    defaults = Arguments(
        run=RunOptions(children=contents.header.num_children), definition=recorded
    )
    parsed = _parse(arguments, defaults)
    if changed := definition.differences(recorded, parsed.definition):
        raise UsageError(
            f"a resumed search keeps the options it was started with, and "
            f"{'; '.join(changed)}; drop these flags, or start a new search"
        )
    return parsed


def _parse(arguments: Sequence[str] | None, defaults: Arguments) -> Arguments:
    return command_line.parse(
        arguments,
        defaults,
        program=_PROGRAM,
        description=f"{Arguments.__doc__}\n\n{_EXAMPLES}",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Run:
    """A search that may start: checked, and its folder held.

    `note` is about data that cannot be checked, if they cannot.
    """

    parts: Plan
    folder: RunFolder
    arguments: Arguments
    contents: journal.Contents
    note: str | None


def _prepare(arguments: Arguments, stack: contextlib.ExitStack) -> _Run:
    """Checks everything, then takes the run's folder; `stack` lets go of it.

    Raises:
      ValueError: if something does not fit. One line.
      OSError: if the folder cannot be written.
    """
    # The driver's JAX only runs the controller; the accelerators are for the workers.
    jax.config.update("jax_platforms", "cpu")
    options = arguments.run
    if options.children < 1:
        raise ValueError(f"--children must be at least 1, got {options.children}")
    driver.check_workers(arguments.workers)
    parts = builder.make(arguments.definition)
    arguments = dataclasses.replace(
        arguments, definition=_located(arguments.definition, parts.data)
    )
    folder, note = run_start.take(
        stack,
        output=options.output,
        resume=options.resume,
        defined=arguments.definition,
        num_children=options.children,
        seed=arguments.definition.search.seed,
        data=parts.data,
    )
    contents = journal.read(folder.journal)
    for child in contents.children:
        parts.space.decode(child.tokens)  # a ValueError here says what does not fit
    return _Run(
        parts=parts,
        folder=folder,
        arguments=arguments,
        contents=contents,
        note=note,
    )


def _located(asked: Definition, data: RunData) -> Definition:
    """Returns the definition with absolute paths, which hold wherever it is resumed."""
    table = run_data.absolute(asked.reward.latency_table)
    return dataclasses.replace(
        asked,
        reward=dataclasses.replace(asked.reward, latency_table=table),
        evaluation=run_data.located(asked.evaluation, data),
    )


def _announce(run: _Run, console: Console) -> None:
    options, parts = run.arguments.definition, run.parts
    search = options.search
    dataset = parts.data.description
    if options.evaluation == EvaluationOptions():
        dataset += " (the default; name your own with --dataset)"
    restricted = (
        f", restricted: {'; '.join(search.restrict)}" if search.restrict else ""
    )
    num_decisions = len(parts.space.num_choices)
    lines = [
        ("Data set", dataset),
        (
            "Space",
            f"{search.space}, {parts.space.size:.2g} architectures from "
            f"{num_decisions} decisions{restricted}",
        ),
        (
            "Reward",
            f"{definition.describe_reward(options)}; {search.controller} learns from "
            f"every {search.rewards_per_update} rewards",
        ),
        ("Run folder", str(run.folder.path)),
    ]
    if run.note:
        lines.append(("Unchecked", run.note))
    if run.contents.children:
        lines.append(("Resumed", f"with {len(run.contents.children)} children done"))
    for name, text in lines:
        line(console, name, text)


def _conclude(run: _Run, console: Console) -> None:
    """Writes what was found, from the journal on the disk, and says where.

    Raises:
      OSError: if a file cannot be written.
    """
    contents = journal.read(run.folder.journal)
    results.write(run.folder, contents, run.parts.space)
    search_page.write(run.folder, contents, run.arguments.definition, run.parts.space)
    best = results.best(contents.trained)
    if best is None:
        line(console, "Best", f"none was measured; {run.folder.report} has the reasons")
        return
    objective = definition.objective(run.arguments.definition)
    line(console, "Best", describe(best, objective))
    line(
        console, "Written", f"best.json, pareto.json, report.html in {run.folder.path}"
    )


def _undertaking(run: _Run) -> Undertaking:
    options, parts = run.arguments.definition.search, run.parts
    return Undertaking(
        space=parts.space,
        controller=parts.controller,
        reward=parts.reward,
        evaluator=parts.evaluator,
        rewards_per_update=options.rewards_per_update,
        seed=options.seed,
        num_children=run.arguments.run.children,
        workers=run.arguments.workers,
        batch_size=run.arguments.definition.child.batch_size,
        folder=run.folder,
        contents=run.contents,
        objective=definition.objective(run.arguments.definition),
    )


@command_line.command(_PROGRAM)
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status.

    0: as many children as asked for. 2: the command cannot be carried out as it
    stands. 1: the search had to stop. 130, 143: interrupted. 141: nobody reads what it
    prints any more. After the last three --resume goes on.
    """
    console = terminal.screen()
    interrupts = Interrupts()
    interrupts.install()
    try:
        with contextlib.ExitStack() as stack:
            try:
                run = _prepare(parse(arguments), stack)
            except (UsageError, ValueError, OSError) as error:
                return command_line.complain(_PROGRAM, error, 2)
            _announce(run, console)
            num_done = len(run.contents.children)
            if num_done >= run.arguments.run.children:
                console.print(
                    f"All {num_done} children are there; --children N asks for more."
                )
            return driver.carry_out(
                _undertaking(run),
                console,
                interrupts,
                conclude=lambda: _conclude(run, console),
                resume=_PROGRAM,
            )
    except Interrupted as interrupt:
        return interrupt.exit_status


if __name__ == "__main__":
    sys.exit(main())
