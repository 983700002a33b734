"""Runs a study, whatever is searched: folder, workers, screen, signals, exit status.

What is searched, and what is made of the results, is the program's: `nas.search` looks
for an architecture, `nas.scale` for coefficients, `experiments.scaling` compares.
"""

import contextlib
import dataclasses
import shlex
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from controller.interface import Controller, HasPolicy
from nas.evaluation.evaluators import EvaluationError, Evaluator
from nas.evaluation.run_data import RunData
from nas.execution import in_process, resources, run_start
from nas.execution.interrupts import Interrupted, Interrupts
from nas.execution.resources import ResourceError, WorkerOptions, WorkerResources
from nas.monitoring.display import display
from nas.monitoring.doubt import EarlyDoubt
from nas.monitoring.policy_log import PolicyLog
from nas.monitoring.progress import Progress
from nas.monitoring.scalars import Scalars
from nas.options import command_line, terminal
from nas.options.command_line import NOBODY_READS, UsageError
from nas.runs import journal, store
from nas.runs.run_folder import RunFolder
from nas.runs.store import RunStore
from nas.study.confirmation import Confirm
from nas.study.halving import Halving, Rungs
from nas.study.metrics import COUNTED, Metric
from nas.study.proposals import Proposals
from nas.study.reward import Reward
from nas.study.study import Decoder, Listener, Study
from search_space.space import SearchSpace
from trainers.runtime import compilation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """A study that may start: its parts, checked.

    Attributes:
      kind: what is searched, for the journal: `search`, `grid`, ...
      definition: what defines the study, as a dataclass.
      space: says what tokens stand for.
      controller: proposes tokens.
      reward: of a trial's metrics.
      evaluator: measures trials.
      objectives: names of the metrics that the front is over, the quality first.
      data: what trials are measured on.
      rewards_per_update: the controller learns whenever so many have arrived.
      seed: of the controller and of the trials.
      num_trials: in all, those of an earlier run included.
      workers: who measures.
      batch_size: images in a step of a trial; None where nothing is trained.
      output: where a new run goes; None for a folder under runs/.
      resume: the folder of the run to go on with, or None.
      callbacks: told of every trial that starts and ends, beside the screen.
      confirm: how the best are measured again in the end; None for not at all.
      halving: how the promising go on to longer trainings; None for not at all.
    """

    kind: str
    definition: Any
    space: Decoder
    controller: Controller[Any]
    reward: Reward
    evaluator: Evaluator
    objectives: tuple[str, ...]
    data: RunData
    rewards_per_update: int
    seed: int
    num_trials: int
    workers: WorkerOptions
    batch_size: int | None
    output: Path | None = None
    resume: Path | None = None
    callbacks: tuple[Listener, ...] = ()
    confirm: Confirm | None = None
    halving: Halving | None = None

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What every measured trial has."""
        return (*self.evaluator.metrics, *COUNTED)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Started:
    """A study whose folder is held. `contents` are its journal's, as it was found.

    `note` is about data that cannot be checked, if they cannot.
    """

    setup: Setup
    folder: RunFolder
    contents: journal.Contents
    note: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reporting:
    """What a command says and writes of its study.

    Attributes:
      announce: prints what will be done.
      finish: writes what was found, from the journal on the disk, and says where; also
        after an interruption. May raise OSError.
    """

    announce: Callable[[Started, Console], None]
    finish: Callable[[Started, Console], None]


def main(program: str, prepare: Callable[[], tuple[Setup, Reporting] | int]) -> int:
    """Runs a command's study from its beginning to its exit status.

    Args:
      program: the command, such as `nas.search`; with `--resume` it goes on.
      prepare: returns the study and its reporting; or an exit status, where there is
        no study to run. What is wrong with the command line it raises as ValueError,
        UsageError or OSError.

    Returns:
      0: as many trials as asked for. 2: the command cannot be run as it stands. 1: the
      study had to stop. 130, 143: interrupted. 141: nobody reads what it prints any
      more. After the last three --resume goes on.
    """
    console = terminal.screen()
    interrupts = Interrupts()
    interrupts.install()
    try:
        with contextlib.ExitStack() as stack:
            try:
                # The driver's JAX only runs the controller; accelerators are for
                # the workers.
                jax.config.update("jax_platforms", "cpu")
                prepared = prepare()
                if isinstance(prepared, int):
                    return prepared
                setup, reporting = prepared
                check_workers(setup.workers)
                started = start(setup, stack)
            except (UsageError, ValueError, OSError) as error:
                return command_line.print_error(program, error, 2)
            return _carry_on(started, program, reporting, console, interrupts)
    except Interrupted as interrupt:
        return interrupt.exit_status


def check_workers(options: WorkerOptions) -> None:
    """Refuses workers that cannot be had, as far as can be said before Ray starts.

    Raises:
      ResourceError: if they cannot.
    """
    resources.check(options)
    if not resources.on_cluster() and not options.devices_per_child:
        available = {"CPU": float(resources.local_cores())}
        cores = WorkerResources(cpus=options.cpus_per_child, gpus=0.0, tpus=0)
        resources.count_workers(options, cores, available)


def start(setup: Setup, stack: contextlib.ExitStack) -> Started:
    """Takes the study's folder until `stack` lets go of it.

    Raises:
      ValueError: if the folder cannot be had, its run was started with other data, or
        its trials are none of the space.
      OSError: if it cannot be written.
    """
    folder, note = run_start.take(
        stack,
        output=setup.output,
        resume=setup.resume,
        kind=setup.kind,
        definition=setup.definition,
        num_trials=setup.num_trials,
        metrics=setup.metrics,
        objectives=setup.objectives,
        seed=setup.seed,
        data=setup.data,
    )
    contents = journal.read(folder.journal)
    for trial in contents.trials:
        setup.space.decode(trial.tokens)  # a ValueError here says what does not fit
    return Started(setup=setup, folder=folder, contents=contents, note=note)


def run(started: Started, console: Console, interrupts: Interrupts) -> None:
    """Measures the trials that are left.

    Raises:
      Interrupted: on Ctrl-C or SIGTERM; what is finished is in the journal.
      EvaluationError: if a trial ends in an exception.
      ResourceError: if the cluster cannot hold the workers.
      OSError: if the journal cannot be written.
    """
    setup, num_left = started.setup, _num_left(started)
    if not num_left:
        return
    if setup.evaluator.place == "driver":
        with (
            _study(started) as study,
            _watched(started, study, console),
            interrupts.deferred(),
        ):
            in_process.run(study, setup.evaluator, check=interrupts.check)
        return
    # Workers on this machine will find the same, and nobody reads what they print.
    if reason := compilation.refusal(compilation.default_cache_folder()):
        line(console, "Cache", f"not used: {reason}")
    from nas.execution import ray_workers  # here, because Ray takes seconds to import

    # Ray forks as it starts, which it must do before JAX starts its threads.
    with ray_workers.cluster() as resources_now:
        interrupts.install()  # ray.init takes SIGTERM
        options = setup.workers
        each, num_workers = resources.wait_for_workers(
            options, resources_now, lambda text: line(console, "Waiting", text)
        )
        if setup.batch_size is not None:
            resources.check_batch(setup.batch_size, each)
        num_workers = min(num_workers, num_left)
        line(console, "Workers", f"{num_workers}, with {each} each")
        with (
            _study(started) as study,
            _watched(started, study, console),
            interrupts.deferred(),
        ):
            ray_workers.run(
                study,
                setup.evaluator,
                resources=each,
                num_workers=num_workers,
                time_limit=options.child_time_limit,
                check=interrupts.check,
            )


def _num_left(started: Started) -> int:
    """How many measurements are left, those that are measured again included."""
    setup, contents = started.setup, started.contents
    left = max(0, setup.num_trials - len(contents.trials))
    if setup.halving is not None:
        rungs = Rungs(setup.halving)
        for record in contents.records:
            if not record.repeat:
                rungs.add(record)
        left += len(list(rungs.promotable()))
    if setup.confirm is None:
        return left
    known = {(record.index, record.repeat) for record in contents.again}
    return left + len(setup.confirm.left(contents.completed, known))


def line(console: Console, name: str, text: str) -> None:
    """Prints a name and what it is, in columns."""
    shown = terminal.printable(f"{name:<11} {text}")
    console.print(shown, markup=False, highlight=False)


def _carry_on(
    started: Started,
    program: str,
    reporting: Reporting,
    console: Console,
    interrupts: Interrupts,
) -> int:
    """Announces, runs and finishes a study, whatever happens."""
    num_done = len(started.contents.trials)
    reporting.announce(started, console)
    line(console, "Run folder", str(started.folder.path))
    if started.note:
        line(console, "Unchecked", started.note)
    if num_done:
        line(console, "Resumed", f"with {num_done} children done")
    if not _num_left(started):
        line(console, "Done", f"all {num_done} children are there")
    status = 0
    try:
        run(started, console, interrupts)
    except Interrupted as interrupt:
        console.print("Interrupted: writing what was found; once more to quit at once.")
        status = interrupt.exit_status
    except BrokenPipeError:
        terminal.discard_output()
        status = NOBODY_READS
    except (EvaluationError, ResourceError, OSError) as error:
        status = command_line.print_error(program, error, 1)
    try:
        with interrupts.deferred():
            reporting.finish(started, console)
    except OSError as error:
        status = command_line.print_error(program, error, 1)
    if status != 0:
        path = shlex.quote(str(started.folder.path))
        line(console, "Go on with", f"python -m {program} --resume {path}")
    return status


@contextlib.contextmanager
def _study(started: Started) -> Generator[Study]:
    setup, folder = started.setup, started.folder
    with RunStore(folder, started.contents) as kept:
        study = Study(
            space=setup.space,
            proposals=Proposals(
                setup.controller,
                seed=setup.seed,
                rewards_per_update=setup.rewards_per_update,
                space=setup.space if isinstance(setup.space, SearchSpace) else None,
            ),
            reward=setup.reward,
            metrics=setup.evaluator.metrics,
            seed=setup.seed,
            num_trials=setup.num_trials,
            store=kept,
            known=started.contents.records,
            snapshot=store.load_snapshot(folder),
            confirm=setup.confirm,
            halving=setup.halving,
        )
        yield study
        if not study.num_unassigned:
            kept.drop_all_weights()


@contextlib.contextmanager
def _watched(started: Started, study: Study, console: Console) -> Generator[None]:
    """Shows the study on the screen, logs it, and tells the callbacks of it."""
    progress = Progress(
        num_trials=started.setup.num_trials,
        objectives=started.contents.header.front,
        earlier=started.contents.records,
    )
    study.watch(progress)  # first: the others read it
    scalars = Scalars(started.folder.tensorboard, progress)
    study.watch(scalars)
    with contextlib.ExitStack() as stack:
        stack.callback(scalars.close)
        if isinstance(started.setup.controller, HasPolicy):
            log = PolicyLog(started.folder.policy, progress, study.proposals)
            stack.callback(log.close)
            study.watch(log)
        study.watch(stack.enter_context(display(console, progress)))
        study.watch(EarlyDoubt(console, started.contents))
        for callback in started.setup.callbacks:
            study.watch(callback)
        yield
