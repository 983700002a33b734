"""Scales an architecture up to a family: `python -m nas.scale best.json --phi 0,1,2`.

Coefficients are EfficientNet's, one's own, a published table's, or searched: a grid at
phi 1 whose every point is trained. The folder gets a JSON file for each member,
family.json and family.html.
"""

import dataclasses
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from nas.evaluation import evaluators, run_data
from nas.execution import driver
from nas.execution.driver import Reporting, Setup, Started, line
from nas.execution.resources import WorkerOptions
from nas.options import command_line, definition, scaling, terminal
from nas.options.command_line import UsageError
from nas.options.definition import EvaluationOptions
from nas.options.quantity import format_bytes, format_flops
from nas.options.scaling import (
    CoefficientOptions,
    FamilyDefinition,
    FamilyOptions,
    members_asked,
)
from nas.pages import family_page
from nas.runs import journal, run_folder
from nas.runs.run_folder import RunFolder
from nas.scaling import family, grid
from nas.scaling.family import Family
from nas.scaling.grid import Grid
from nas.training import models
from search_space import cost, files, zoo
from search_space.spec import ArchSpec
from trainers.child import ChildConfig

_PROGRAM = "nas.scale"
_EXAMPLES = """examples:
  python -m nas.scale efficientnet-b0 --phi 0,0.5,1,2
      members by the formula with EfficientNet's coefficients; a folder under runs/
  python -m nas.scale efficientnet-b0 --preset efficientnet
      B0 to B7 as published
  python -m nas.scale best.json --target-flops 1B --target-memory 2GB
      the largest member that keeps to both
  python -m nas.scale best.json --search-coefficients --repeats 3
      coefficients of its own: every point of a grid at phi 1 trained three times
  python -m nas.scale --resume runs/20250101-120000
      go on with such a grid after Ctrl-C, a crash or a power cut
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where to keep it."""

    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """A new or empty folder for the family; by default one under runs/."""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None
    """Go on with the grid in this folder, with the options it was started with."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Scale an architecture up to a family of networks."""

    architecture: Annotated[
        str | None, tyro.conf.Positional, tyro.conf.arg(metavar="ARCHITECTURE")
    ] = None
    """A JSON file such as a search's best.json, a model's or a training run's folder,
    or a name such as efficientnet-b0."""
    run: RunOptions = RunOptions()
    family: FamilyOptions = dataclasses.field(default_factory=FamilyOptions)
    coefficients: CoefficientOptions = dataclasses.field(
        default_factory=CoefficientOptions
    )
    evaluation: EvaluationOptions = dataclasses.field(default_factory=EvaluationOptions)
    child: ChildConfig = dataclasses.field(default_factory=ChildConfig)
    workers: WorkerOptions = dataclasses.field(default_factory=WorkerOptions)

    def of(self, base: ArchSpec) -> FamilyDefinition:
        """Returns the definition of the family of `base`."""
        return FamilyDefinition(
            base=base,
            family=self.family,
            coefficients=self.coefficients,
            evaluation=self.evaluation,
            child=self.child,
        )


def parse(
    arguments: Sequence[str] | None,
) -> tuple[Arguments, FamilyDefinition]:
    """Parses the command line; with --resume, over the options of that grid.

    Raises:
      UsageError: if a value cannot be used, or contradicts the grid to resume.
      ValueError: if there is no such architecture or grid.
      OSError: if the architecture's file cannot be read.
    """
    parsed = _parse(arguments, Arguments())
    if parsed.run.resume is None:
        if parsed.architecture is None:
            raise UsageError(
                "an architecture is needed: a JSON file, or one of "
                f"{', '.join(zoo.names())}"
            )
        scaling.check(parsed.family, parsed.coefficients)
        return parsed, parsed.of(models.architecture(parsed.architecture))
    if parsed.run.output is not None or parsed.architecture is not None:
        raise UsageError(
            "--resume keeps its folder and its architecture; drop "
            f"{parsed.run.output or parsed.architecture}"
        )
    recorded = read_definition(run_folder.open_existing(parsed.run.resume))
    defaults = Arguments(
        family=recorded.family,
        coefficients=recorded.coefficients,
        evaluation=recorded.evaluation,
        child=recorded.child,
    )
    parsed = _parse(arguments, defaults)
    definition.check_kept(recorded, parsed.of(recorded.base), "grid")
    return parsed, recorded


def _parse(arguments: Sequence[str] | None, defaults: Arguments) -> Arguments:
    return command_line.parse(
        arguments,
        defaults,
        program=_PROGRAM,
        description=f"{Arguments.__doc__}\n\n{_EXAMPLES}",
    )


def read_definition(folder: RunFolder) -> FamilyDefinition:
    """Returns the definition in the header of a grid's journal.

    Raises:
      ValueError: if the journal is not a grid's.
    """
    header = journal.read(folder.journal).header
    if header.kind != grid.KIND:
        raise ValueError(
            f"{folder.path} must hold a grid of nas.scale, and holds another run; "
            f"{folder.config.name} there has the command that goes on with it"
        )
    return definition.read(header.definition, FamilyDefinition)


@command_line.command(_PROGRAM)
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, as `driver.main` does."""
    return driver.main(_PROGRAM, lambda: _prepare(arguments))


def _prepare(arguments: Sequence[str] | None) -> tuple[Setup, Reporting] | int:
    """Makes a family by known coefficients at once; else returns the grid to search.

    Raises:
      UsageError: as `parse`.
      ValueError: if something does not fit. One line.
      OSError: if a file cannot be read or written.
    """
    parsed, asked = parse(arguments)
    if not asked.coefficients.search_coefficients:
        made, console = _scale(asked), terminal.screen()
        folder = run_folder.create(parsed.run.output)
        with folder.locked():
            _write(folder, made, console)
        return 0
    searched = grid.plan(asked)
    reporting = Reporting(
        announce=functools.partial(_announce, searched),
        finish=functools.partial(_finish, searched),
    )
    return _setup(parsed, searched), reporting


def _scale(asked: FamilyDefinition) -> Family:
    """Returns the family by coefficients that are known."""
    if asked.family.preset is not None:
        return family.from_preset(asked, asked.family.preset)
    options = asked.coefficients
    own = (options.alpha, options.beta, options.gamma) != (None, None, None)
    return family.from_coefficients(
        asked,
        options.given(),
        found="given by hand" if own else "EfficientNet's (arXiv:1905.11946)",
    )


def _setup(parsed: Arguments, searched: Grid) -> Setup:
    asked, networks = searched.definition, searched.networks
    seed = asked.coefficients.seed
    evaluator, data = evaluators.train_in_proportion(
        asked.base, asked.evaluation, asked.child, seed
    )
    return Setup(
        kind=grid.KIND,
        definition=dataclasses.replace(
            asked, evaluation=run_data.located(asked.evaluation, data)
        ),
        space=networks,
        controller=networks.controller(),
        reward=searched.reward,
        evaluator=evaluator,
        objectives=("accuracy", "num_macs"),
        data=data,
        rewards_per_update=1,  # there is nothing to learn, and nothing to drop
        seed=seed,
        num_trials=networks.size,
        workers=parsed.workers,
        batch_size=asked.child.batch_size,
        output=parsed.run.output,
        resume=parsed.run.resume,
    )


def _announce(searched: Grid, started: Started, console: Console) -> None:
    base, options = searched.definition.base, searched.definition.coefficients
    times = f"{options.repeats} time{'s' if options.repeats > 1 else ''}"
    line(console, "Data set", started.contents.header.dataset)
    line(console, "Baseline", f"{base.name}, {format_flops(cost.num_macs(base))}")
    line(
        console,
        "Grid",
        f"{len(searched.points)} points in steps of {options.grid_step:g}, and the "
        f"baseline, each trained {times}: {searched.networks.size} children",
    )
    target = format_flops(searched.target)
    line(console, "Reward", f"soft, target {target} multiply-adds")


def _finish(searched: Grid, started: Started, console: Console) -> None:
    """Writes what a grid has led to, from the journal on the disk, and says where.

    Raises:
      OSError: if a file cannot be written.
    """
    folder = started.folder
    contents = journal.read(folder.journal)
    found = family_page.write_grid(folder, searched, contents)
    rows = family_page.grid_rows(searched.points, searched.results(contents))
    for row in (family_page.GRID_COLUMNS, *rows):
        columns = (f"{cell:{width}}" for cell, width in zip(row, _WIDTHS, strict=True))
        shown = terminal.printable(" ".join(columns).rstrip())
        console.print(shown, markup=False, highlight=False)
    if found is None:
        line(console, "Best", f"none was measured; {folder.journal} has the reasons")
        return
    line(console, "Best", str(found.coefficients))
    for doubt in searched.doubts(contents):
        line(console, "Doubt", doubt)
    _list_members(folder, found, console)


_WIDTHS = (6, 5, 6, 13, 17, 17, 8)


def _write(folder: RunFolder, made: Family, console: Console) -> None:
    files.write_whole(folder.family_page, family_page.render(made))
    family.write(folder, made)
    _list_members(folder, made, console)


def _list_members(folder: RunFolder, made: Family, console: Console) -> None:
    line(console, "Scaled by", f"{made.coefficients or 'one set a member'}")
    for member in made.members:
        held = family.memory_of(made.definition, member.spec).total
        line(
            console,
            member.label,
            f"{format_flops(cost.num_macs(member.spec))} multiply-adds, "
            f"{format_flops(cost.num_params(member.spec))} parameters, "
            f"{member.spec.resolution} pixels, {format_bytes(held)} for "
            f"{made.definition.family.memory_for}",
        )
    if members_asked(made.definition.family) is None and len(made.members) == 1:
        line(console, "Larger", "none: the next larger network breaks a target")
    line(
        console,
        "Written",
        f"a file for each member, family.json, family.html in {folder.path}",
    )


if __name__ == "__main__":
    sys.exit(main())
