"""Searches for an architecture: `python -m nas.search --target-flops 400M`.

A controller proposes architectures, workers train each of them for a short while on a
small task, and the reward (accuracy against multiply-adds) teaches the controller.
The run's folder gets a journal as the search goes, and the best architecture, the
Pareto front and a report at its end.
"""

import contextlib
import dataclasses
import io
import itertools
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import jax
import tyro
from rich.console import Console

from nas import (
    definition,
    in_process,
    journal,
    plan,
    provenance,
    report,
    resources,
    results,
    run_folder,
)
from nas.definition import (
    Definition,
    EvaluationOptions,
    SearchOptions,
    UsageError,
)
from nas.display import describe, display
from nas.evaluators import EvaluationError, PredictChildren
from nas.interrupts import Interrupted, Interrupts
from nas.plan import Plan
from nas.progress import Progress
from nas.proposals import Proposals
from nas.resources import ResourceError, WorkerOptions
from nas.run_folder import RunFolder
from nas.scalars import Scalars
from nas.session import ReplayError, Session

_EXAMPLES = """examples:
  python -m nas.search --target-flops 400M
      digits, the mbconv space, PPO; a folder under runs/
  python -m nas.search --dataset cifar10 --steps 2000 --gpus-per-child 0.5
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

    children: Annotated[int, tyro.conf.arg(metavar="N")] = 64
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
    parsed = _cli(arguments, Arguments())
    if parsed.run.resume is None:
        if parsed.definition.evaluation.evaluator == definition.SURROGATE:
            return _cli(arguments, _SURROGATE_DEFAULTS)
        return parsed
    if parsed.run.output is not None:
        raise UsageError(
            "--resume writes to the folder it resumes, and --output "
            f"{parsed.run.output} names another; drop --output, or copy the folder "
            "and resume the copy"
        )
    contents = journal.read(run_folder.open_existing(parsed.run.resume).journal)
    recorded = definition.from_json(contents.header.definition)
    defaults = Arguments(
        run=RunOptions(children=contents.header.num_children), definition=recorded
    )
    parsed = _cli(arguments, defaults)
    if changed := definition.differences(recorded, parsed.definition):
        raise UsageError(
            f"a resumed search keeps the options it was started with, and "
            f"{'; '.join(changed)}; drop these flags, or start a new search"
        )
    return parsed


def _cli(arguments: Sequence[str] | None, defaults: Arguments) -> Arguments:
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(
                Arguments,
                args=arguments,
                default=defaults,
                prog="python -m nas.search",
                description=f"{Arguments.__doc__}\n\n{_EXAMPLES}",
                config=(tyro.conf.OmitArgPrefixes,),
            )
    except SystemExit:
        if message := _value_error(errors.getvalue()):
            raise UsageError(message) from None
        sys.stderr.write(errors.getvalue())  # an unknown flag, with suggestions
        raise


def _value_error(box: str) -> str | None:
    """The message in the box that tyro draws around a bad value; None if none."""
    title, *lines = box.splitlines() or [""]
    if "Value error" not in title:
        return None
    inside = [line.strip("│ ") for line in lines]
    message = itertools.takewhile(lambda line: not line.startswith("─"), inside)
    return " ".join(message).removeprefix("Error parsing definition.child: ")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Run:
    """A search that may start: checked, and its folder held."""

    parts: Plan
    folder: RunFolder
    arguments: Arguments
    contents: journal.Contents


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
    allotment = resources.allot(arguments.workers)  # as far as can be said before Ray
    if _on_this_machine() and set(allotment.ray_resources) == {"CPU"}:
        available = {"CPU": float(resources.local_cores())}
        resources.count_workers(arguments.workers, allotment, available)
    parts = plan.make(arguments.definition)
    if options.resume is None:
        folder = run_folder.create(options.output)
        stack.enter_context(folder.locked())
        journal.create(
            folder.journal,
            journal.Header(
                created=time.time(),
                num_children=options.children,
                definition=definition.to_json(arguments.definition),
                dataset=parts.dataset,
                versions=provenance.versions(),
            ),
        )
    else:
        folder = run_folder.open_existing(options.resume)
        stack.enter_context(folder.locked())
    provenance.write_config(
        folder,
        command=provenance.command_line(),
        options=definition.to_json(arguments.definition),
        seed=arguments.definition.search.seed,
    )
    return _Run(
        parts=parts,
        folder=folder,
        arguments=arguments,
        contents=journal.read(folder.journal),
    )


def _on_this_machine() -> bool:
    return os.environ.get("RAY_ADDRESS", "local") == "local"


def _conduct(run: _Run, console: Console, interrupts: Interrupts) -> None:
    """Searches until there are enough children.

    Raises:
      Interrupted: on Ctrl-C or SIGTERM; what is finished is in the journal.
      EvaluationError: if no child can be evaluated at all.
      ReplayError: if the journal does not fit this version of the controller.
      ResourceError: if the cluster cannot hold the workers.
      OSError: if the journal cannot be written.
    """
    num_children, num_done = run.arguments.run.children, len(run.contents.children)
    if num_done >= num_children:
        console.print(f"All {num_done} children are there; --children N asks for more.")
        return
    if isinstance(run.parts.evaluator, PredictChildren):
        with (
            _session(run) as session,
            _watched(run, session, console),
            interrupts.deferred(),
        ):
            in_process.run(session, run.parts.evaluator, check=interrupts.check)
        return
    from nas import tune  # here, because Ray takes seconds to import

    # Ray forks as it starts, which it must do before JAX starts its threads.
    with tune.cluster() as available:
        interrupts.install()  # ray.init takes SIGTERM
        workers = run.arguments.workers
        allotment = resources.allot(workers, available)
        num_workers = resources.count_workers(workers, allotment, available)
        num_workers = min(num_workers, num_children - num_done)
        _line(console, "Workers", f"{num_workers}, with {allotment} each")
        with (
            _session(run) as session,
            _watched(run, session, console),
            interrupts.deferred(),
        ):
            tune.run(
                session,
                run.parts.evaluator,
                allotment=allotment,
                num_workers=num_workers,
                check=interrupts.check,
            )


@contextlib.contextmanager
def _session(run: _Run) -> Iterator[Session]:
    options, parts = run.arguments.definition.search, run.parts
    with journal.Writer(run.folder.journal, run.contents) as writer:
        yield Session(
            space=parts.space,
            proposals=Proposals(
                parts.controller,
                seed=options.seed,
                batch_size=options.rewards_per_update,
            ),
            reward=parts.reward,
            seed=options.seed,
            num_children=run.arguments.run.children,
            contents=run.contents,
            writer=writer,
        )


@contextlib.contextmanager
def _watched(run: _Run, session: Session, console: Console) -> Iterator[None]:
    """Shows the session on the screen and logs it for TensorBoard."""
    progress = Progress(
        num_children=run.arguments.run.children, earlier=run.contents.children
    )
    session.watch(progress)  # first: the others read it
    scalars = Scalars(run.folder.tensorboard, progress)
    session.watch(scalars)
    with contextlib.closing(scalars), display(console, progress) as screen:
        session.watch(screen)
        yield


def _announce(run: _Run, console: Console) -> None:
    options, parts = run.arguments.definition, run.parts
    search = options.search
    dataset = parts.dataset
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
    if run.contents.children:
        lines.append(("Resumed", f"with {len(run.contents.children)} children done"))
    for name, text in lines:
        _line(console, name, text)


def _line(console: Console, name: str, text: str) -> None:
    console.print(f"{name:<11} {text}", markup=False, highlight=False)


def _conclude(run: _Run, console: Console) -> None:
    """Writes what was found, from the journal on the disk, and says where.

    Raises:
      OSError: if a file cannot be written.
    """
    contents = journal.read(run.folder.journal)
    results.write(run.folder, contents, run.parts.space)
    report.write(run.folder, contents, run.arguments.definition, run.parts.space)
    best = results.best(contents.trained)
    if best is None:
        _line(
            console, "Best", f"none was measured; {run.folder.report} has the reasons"
        )
        return
    _line(console, "Best", describe(best))
    _line(
        console, "Written", f"best.json, pareto.json, report.html in {run.folder.path}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status.

    0: as many children as asked for. 2: the command cannot be carried out as it
    stands. 1: the search had to stop. 130, 143: interrupted. After the last two
    --resume goes on.
    """
    console = Console(soft_wrap=True)
    interrupts = Interrupts()
    interrupts.install()
    try:
        with contextlib.ExitStack() as stack:
            try:
                run = _prepare(parse(arguments), stack)
            except (UsageError, ValueError, OSError) as error:
                return _complain(error, 2)
            _announce(run, console)
            return _search(run, console, interrupts)
    except Interrupted as interrupt:
        return interrupt.exit_status


def _search(run: _Run, console: Console, interrupts: Interrupts) -> int:
    status = 0
    try:
        _conduct(run, console, interrupts)
    except Interrupted as interrupt:
        console.print("Interrupted: writing what was found; once more to quit at once.")
        status = interrupt.exit_status
    except (EvaluationError, ReplayError, ResourceError, OSError) as error:
        status = _complain(error, 1)
    try:
        with interrupts.deferred():
            _conclude(run, console)
    except OSError as error:
        status = _complain(error, 1)
    if status != 0:
        path = shlex.quote(str(run.folder.path))
        _line(console, "Go on with", f"python -m nas.search --resume {path}")
    return status


def _complain(error: BaseException, status: int) -> int:
    sys.stderr.write(f"nas.search: {' '.join(str(error).split())}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
