"""Finds the cheapest budget that can be trusted: `python -m nas.calibrate`.

A search ranks architectures by short trainings. Whether those rank as long ones do
depends on the data and the space, and is measured here: a dozen architectures, spread
out over the space, are trained at several budgets, each several times.
"""

import dataclasses
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import ValidationError
from rich.console import Console

from nas.calibration import plan, record
from nas.calibration.plan import Trainings
from nas.evaluation import evaluators, run_data
from nas.evaluation.budgets import TrainAtBudgets
from nas.evaluation.evaluators import TrainChildren
from nas.execution import driver
from nas.execution.driver import Reporting, Setup, Started, line
from nas.execution.resources import WorkerOptions
from nas.options import calibration, command_line, definition, terminal
from nas.options.calibration import (
    Architectures,
    CalibrationDefinition,
    CalibrationOptions,
)
from nas.options.command_line import UsageError
from nas.options.definition import EvaluationOptions
from nas.options.quantity import format_flops
from nas.pages import calibration_page
from nas.runs import journal, run_folder
from nas.runs.run_folder import RunFolder
from nas.study.metrics import ACCURACY
from nas.study.reward import WeightedProduct
from search_space import cost, spaces
from search_space.decisions import parse_restrictions
from search_space.spec import explain
from trainers import child
from trainers.child import ChildConfig
from trainers.data.dataset import Dataset

_PROGRAM = "nas.calibrate"
_EXAMPLES = """--steps, --resolution, --share and --validation are the longest budget,
which stands for the truth; every combination of what is tried below it is trained too.

examples:
  python -m nas.calibrate --dataset cifar10
      12 architectures at 20, 60, 200 and 600 steps, each twice: 96 trainings
  python -m nas.calibrate --dataset cifar10 --steps 1800 --try-steps 60 200 600
      a truth that can be trusted more
  python -m nas.calibrate --dataset cifar10 --try-resolution 16 --try-validation 500
      smaller images, and fewer of them to measure on
  python -m nas.calibrate --resume runs/20250101-120000
      go on after Ctrl-C, a crash or a power cut
  python -m nas.search --dataset cifar10 --budget auto
      search at what was recommended
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where to keep it."""

    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """A new or empty folder for the run; by default one under runs/."""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None
    """Go on with the calibration in this folder, with its options."""


def _longest() -> ChildConfig:
    return ChildConfig(steps=600)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Find the cheapest budget that ranks architectures as a long training does."""

    run: RunOptions = RunOptions()
    calibration: CalibrationOptions = dataclasses.field(
        default_factory=CalibrationOptions
    )
    evaluation: EvaluationOptions = dataclasses.field(default_factory=EvaluationOptions)
    child: ChildConfig = dataclasses.field(default_factory=_longest)
    workers: WorkerOptions = dataclasses.field(default_factory=WorkerOptions)

    def of(self, architectures: Architectures) -> CalibrationDefinition:
        """Returns what these arguments define with such architectures."""
        return CalibrationDefinition(
            calibration=self.calibration,
            evaluation=self.evaluation,
            child=self.child,
            architectures=architectures,
        )


def parse(
    arguments: Sequence[str] | None,
) -> tuple[Arguments, CalibrationDefinition]:
    """Parses the command line; with --resume, over the options of that calibration.

    Raises:
      UsageError: if a value cannot be used, or contradicts the run to resume.
      ValueError: if there is no such space or run.
    """
    parsed = _parse(arguments, Arguments())
    if parsed.run.resume is None:
        options = parsed.calibration
        calibration.check(options, parsed.evaluation)
        space = spaces.load(options.space)
        space = space.restrict(parse_restrictions(options.restrict))
        specs = plan.spread_out(space, options.architectures, options.seed)
        return parsed, parsed.of(Architectures(specs=specs))
    if parsed.run.output is not None:
        raise UsageError(
            "--resume writes to the folder it resumes; drop "
            f"--output {parsed.run.output}"
        )
    recorded = read_definition(run_folder.open_existing(parsed.run.resume))
    parsed = _parse(
        arguments,
        Arguments(
            calibration=recorded.calibration,
            evaluation=recorded.evaluation,
            child=recorded.child,
        ),
    )
    definition.check_kept(recorded, parsed.of(recorded.architectures), "calibration")
    return parsed, recorded


def _parse(arguments: Sequence[str] | None, defaults: Arguments) -> Arguments:
    return command_line.parse(
        arguments,
        defaults,
        program=_PROGRAM,
        description=f"{Arguments.__doc__}\n\n{_EXAMPLES}",
    )


def read_definition(folder: RunFolder) -> CalibrationDefinition:
    """Returns the definition in the header of a calibration's journal.

    Raises:
      ValueError: if the journal is not a calibration's.
    """
    header = journal.read(folder.journal).header
    if header.kind != plan.KIND:
        raise ValueError(
            f"{folder.path} must hold a calibration of nas.calibrate, and holds another"
            f" run; {folder.config.name} there has the command that goes on with it"
        )
    found = definition.read(header.definition, CalibrationDefinition)
    calibration.check(found.calibration, found.evaluation)
    return found


@command_line.command(_PROGRAM)
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, as `driver.main` does."""
    return driver.main(_PROGRAM, lambda: _prepare(arguments))


def _prepare(arguments: Sequence[str] | None) -> tuple[Setup, Reporting]:
    """Parses, builds and checks everything.

    Raises:
      UsageError: as `parse`.
      ValueError: if something does not fit. One line.
    """
    parsed, asked = parse(arguments)
    trainings = Trainings.of(asked)
    children = TrainChildren(
        options=asked.evaluation, config=asked.child, seed=asked.calibration.seed
    )
    dataset = children.load()
    _check(asked, trainings, dataset)
    for share in asked.calibration.try_share:
        children.with_share(share).load()  # a ValueError here says what is missing
    data = evaluators.data_of(dataset)
    located = dataclasses.replace(
        asked, evaluation=run_data.located(asked.evaluation, data)
    )
    setup = Setup(
        kind=plan.KIND,
        definition=located,
        space=trainings,
        controller=trainings.controller(),
        reward=WeightedProduct(costs=()),
        evaluator=TrainAtBudgets(children=children, budgets=trainings.budgets),
        objectives=(ACCURACY.name,),
        data=data,
        rewards_per_update=1,  # there is nothing to learn, and nothing to drop
        seed=asked.calibration.seed,
        num_trials=trainings.size,
        workers=parsed.workers,
        batch_size=asked.child.batch_size,
        output=parsed.run.output,
        resume=parsed.run.resume,
    )
    reporting = Reporting(
        announce=functools.partial(_announce, trainings),
        finish=functools.partial(_finish, located),
    )
    return setup, reporting


def _check(
    asked: CalibrationDefinition, trainings: Trainings, dataset: Dataset
) -> None:
    """Refuses budgets that do not suit the space or the data.

    Raises:
      ValueError: if one does not. One line.
    """
    held_out = len(dataset.validation)
    if large := [n for n in asked.calibration.try_validation if n >= held_out]:
        raise ValueError(
            f"--try-validation must be below the {held_out:,} images of the validation"
            f" split, got {large[0]:,}"
        )
    for budget in trainings.budgets:
        config = budget.config(asked.child)
        for spec in trainings.architectures:
            try:
                child.as_trained(spec, dataset, config)
            except ValidationError as error:
                raise ValueError(
                    f"a resolution of {budget.resolution} does not suit the space"
                    f" {asked.calibration.space}: {explain(error)}"
                ) from None


def _announce(trainings: Trainings, started: Started, console: Console) -> None:
    specs, budgets = trainings.architectures, trainings.budgets
    least, most = (format_flops(cost.num_macs(spec)) for spec in (specs[0], specs[-1]))
    line(console, "Data set", started.contents.header.dataset)
    line(console, "Trained", f"{len(specs)} architectures, {least} to {most}")
    line(
        console,
        "Budgets",
        f"{len(budgets)}, up to {calibration.describe(budgets[-1])}; each"
        f" {trainings.seeds} times: {trainings.size} trainings",
    )


def _finish(asked: CalibrationDefinition, started: Started, console: Console) -> None:
    """Writes and prints what was found, from the journal on the disk.

    Raises:
      OSError: if a file cannot be written.
    """
    folder = started.folder
    contents = journal.read(folder.journal)
    found = calibration_page.write(folder, asked, contents)
    if found is None:
        left = started.setup.num_trials - len(contents.trials)
        why = f"{left} trainings are left" if left else _TOO_FEW
        line(console, "Undecided", why)
        return
    made = record.of(asked, contents, found)
    rows = [calibration_page.COLUMNS, *map(calibration_page.row, found.judged)]
    others = map(calibration_page.predictor_row, (*found.predictors, *found.combined))
    rows += [(name, seconds, "", "", *rest) for name, seconds, *rest in others]
    for row in rows:
        columns = (f"{cell:{width}}" for cell, width in zip(row, _WIDTHS, strict=True))
        shown = terminal.printable(" ".join(columns).rstrip())
        console.print(shown, markup=False, highlight=False, soft_wrap=True)
    line(console, "Recommended", made.verdict)
    if made.flags is not None:
        line(console, "Flags", made.flags)
    line(console, "Written", f"calibration.json, report.html in {folder.path}")


_TOO_FEW = (
    f"fewer than {calibration.LEAST_ARCHITECTURES} architectures were measured every"
    " time; journal.jsonl has the reasons"
)
_WIDTHS = (58, 9, 16, 11, 5, 13, 0)


if __name__ == "__main__":
    sys.exit(main())
