"""Carries out a search that has been checked: workers, screen, signals, exit status.

What is searched, and what is made of the results, is the caller's: `nas.search` looks
for an architecture, `nas.scale` for coefficients.
"""

import contextlib
import dataclasses
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console

from controller.interface import Controller, HasPolicy
from nas.evaluation.evaluators import EvaluationError, Evaluator, PredictChildren
from nas.execution import in_process, resources
from nas.execution.interrupts import Interrupted, Interrupts
from nas.execution.resources import (
    Allotment,
    NotThereError,
    ResourceError,
    WorkerOptions,
)
from nas.monitoring.display import display
from nas.monitoring.policy_log import PolicyLog
from nas.monitoring.progress import Progress
from nas.monitoring.scalars import Scalars
from nas.options import terminal
from nas.options.command_line import NOBODY_READS, complain
from nas.options.objective import MULTIPLY_ADDS, Objective
from nas.runs import journal
from nas.runs.run_folder import RunFolder
from nas.study.proposals import Proposals
from nas.study.session import Decoder, ReplayError, Reward, Session
from trainers.runtime import compilation

# A GPU machine takes minutes to start, and a cloud that has none to give takes longer.
_PATIENCE_SECONDS = 1800.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Undertaking:
    """A search that may start, its folder held. `contents` are its journal's."""

    space: Decoder
    controller: Controller[Any]
    reward: Reward
    evaluator: Evaluator
    rewards_per_update: int
    seed: int
    num_children: int
    workers: WorkerOptions
    batch_size: int
    folder: RunFolder
    contents: journal.Contents
    objective: Objective = MULTIPLY_ADDS


def check_workers(options: WorkerOptions) -> None:
    """Refuses workers that cannot be had, as far as can be said before Ray starts.

    Raises:
      ResourceError: if they cannot.
    """
    resources.check(options)
    if not _on_cluster() and not options.devices_per_child:
        available = {"CPU": float(resources.local_cores())}
        cores = Allotment(cpus=options.cpus_per_child, gpus=0.0, tpus=0)
        resources.count_workers(options, cores, available)


def carry_out(
    undertaking: Undertaking,
    console: Console,
    interrupts: Interrupts,
    *,
    conclude: Callable[[], None],
    resume: str,
) -> int:
    """Evaluates the children that are left, then concludes, whatever happened.

    Args:
      undertaking: the search.
      console: the screen.
      interrupts: installed.
      conclude: writes what was found, from the journal on the disk. May raise OSError.
      resume: the program that resumes such a search, such as `nas.search`.

    Returns:
      The exit status: 0, or as `nas.search.main` lists them.
    """
    status = 0
    try:
        _conduct(undertaking, console, interrupts)
    except Interrupted as interrupt:
        console.print("Interrupted: writing what was found; once more to quit at once.")
        status = interrupt.exit_status
    except BrokenPipeError:
        terminal.discard_output()
        status = NOBODY_READS
    except (EvaluationError, ReplayError, ResourceError, OSError) as error:
        status = complain(resume, error, 1)
    try:
        with interrupts.deferred():
            conclude()
    except OSError as error:
        status = complain(resume, error, 1)
    if status != 0:
        path = shlex.quote(str(undertaking.folder.path))
        line(console, "Go on with", f"python -m {resume} --resume {path}")
    return status


def line(console: Console, name: str, text: str) -> None:
    """Prints a name and what it is, in columns."""
    shown = terminal.printable(f"{name:<11} {text}")
    console.print(shown, markup=False, highlight=False)


def _conduct(
    undertaking: Undertaking, console: Console, interrupts: Interrupts
) -> None:
    """Searches until there are enough children.

    Raises:
      Interrupted: on Ctrl-C or SIGTERM; what is finished is in the journal.
      EvaluationError: if no child can be evaluated at all.
      ReplayError: if the journal does not fit this version of the controller.
      ResourceError: if the cluster cannot hold the workers.
      OSError: if the journal cannot be written.
    """
    num_left = undertaking.num_children - len(undertaking.contents.children)
    if num_left <= 0:
        return
    if isinstance(undertaking.evaluator, PredictChildren):
        with (
            _session(undertaking) as session,
            _watched(undertaking, session, console),
            interrupts.deferred(),
        ):
            in_process.run(session, undertaking.evaluator, check=interrupts.check)
        return
    # Workers on this machine will find the same, and nobody reads what they print.
    if reason := compilation.refusal(compilation.default_cache_folder()):
        line(console, "Cache", f"not used: {reason}")
    from nas.execution import tune  # here, because Ray takes seconds to import

    # Ray forks as it starts, which it must do before JAX starts its threads.
    with tune.cluster() as resources_now:
        interrupts.install()  # ray.init takes SIGTERM
        workers = undertaking.workers
        allotment, num_workers = _enlist(workers, resources_now, console)
        resources.check_batch(undertaking.batch_size, allotment)
        num_workers = min(num_workers, num_left)
        line(console, "Workers", f"{num_workers}, with {allotment} each")
        with (
            _session(undertaking) as session,
            _watched(undertaking, session, console),
            interrupts.deferred(),
        ):
            tune.run(
                session,
                undertaking.evaluator,
                allotment=allotment,
                num_workers=num_workers,
                time_limit=workers.child_time_limit,
                check=interrupts.check,
            )


def _enlist(
    options: WorkerOptions,
    resources_now: Callable[[], Mapping[str, float]],
    console: Console,
) -> tuple[Allotment, int]:
    """Returns what each worker gets, and how many to use.

    The machines of a cluster join when they are up. Where it is known how many workers
    are wanted, the first of them is waited for, and the others are used as they come.

    Raises:
      ResourceError: if there is no room, in time, for a worker.
    """
    wanted = options.workers
    if wanted is None or not _on_cluster():
        allotment = resources.allot(options, resources_now())
        return allotment, resources.count_workers(options, allotment, resources_now())
    first = dataclasses.replace(options, workers=1)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    is_announced = False
    while True:
        try:
            allotment = resources.allot(first, resources_now())
            resources.count_workers(first, allotment, resources_now())
        except NotThereError:
            if time.monotonic() >= deadline:
                raise
        else:
            return allotment, wanted
        if not is_announced:
            line(console, "Waiting", "for a machine with room for a worker to join")
            is_announced = True
        time.sleep(1.0)


def _on_cluster() -> bool:
    return (os.environ.get("RAY_ADDRESS") or "local") != "local"


@contextlib.contextmanager
def _session(undertaking: Undertaking) -> Iterator[Session]:
    contents = undertaking.contents
    with journal.Writer(undertaking.folder.journal, contents) as writer:
        yield Session(
            space=undertaking.space,
            proposals=Proposals(
                undertaking.controller,
                seed=undertaking.seed,
                batch_size=undertaking.rewards_per_update,
            ),
            reward=undertaking.reward,
            seed=undertaking.seed,
            num_children=undertaking.num_children,
            contents=contents,
            writer=writer,
        )


@contextlib.contextmanager
def _watched(
    undertaking: Undertaking, session: Session, console: Console
) -> Iterator[None]:
    """Shows the session on the screen and logs it for TensorBoard."""
    progress = Progress(
        num_children=undertaking.num_children,
        earlier=undertaking.contents.children,
        objective=undertaking.objective,
    )
    session.watch(progress)  # first: the others read it
    scalars = Scalars(undertaking.folder.tensorboard, progress)
    session.watch(scalars)
    with contextlib.ExitStack() as stack:
        stack.callback(scalars.close)
        if isinstance(undertaking.controller, HasPolicy):
            log = PolicyLog(undertaking.folder.policy, progress, session.proposals)
            stack.callback(log.close)
            session.watch(log)
        session.watch(stack.enter_context(display(console, progress)))
        yield
