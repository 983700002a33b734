"""A session's children trained by Ray Tune: workers that live long, no barrier.

Tune asks the `Searcher` for a child whenever a worker is free, runs it in a
`Trainable` that is reused for the next one, and retries children whose worker died.
All state is the session's: Tune's own snapshots go to a temporary folder and are
never read.

Outcomes are passed to the session at the end of Tune's step, where an exception (a
full disk, say) ends the search under its own type. Inside the searcher, Tune would
take it for the child's failure.
"""

import contextlib
import itertools
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ray
from ray import tune
from ray._private import ray_constants
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from nas.evaluation.evaluators import EvaluationError, Evaluator
from nas.execution import cluster_address
from nas.execution.resources import Allotment
from nas.execution.trial_clocks import ChildClocks
from nas.execution.worker import ChildTrainable, Report
from nas.options.quantity import format_duration
from nas.study.session import Session
from search_space import codec
from trainers.measurement import Infeasible
from trainers.runtime import allocator

# A child whose worker died this often is given up: it may be what kills them.
_RETRIES = 3
# How the account of an attempt starts that a dead worker did not end: an exception in
# a worker's method, one while it was set up, one of Tune's own.
_EXCEPTION = re.compile(
    r"(\x1b\[\d+m)*"
    r"(ray::|The actor died because of an error raised in its creation task|Traceback)"
)
# Ray's own exceptions in a worker: what it needed was on a machine that is gone.
_LOST = "ray.exceptions."
_FRAME = re.compile(r'  File "([^"\n]+)", line (\d+), in (\S+)')

_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # six files for each child
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours saves first
    "TUNE_GLOBAL_CHECKPOINT_S": str(10**9),  # the journal is the state
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the reason is journaled
    "RAY_AIR_NEW_OUTPUT": "0",  # which prints even at verbosity 0
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths keep working
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing leaves the machine unasked
}


@contextlib.contextmanager
def cluster() -> Iterator[Callable[[], Mapping[str, float]]]:
    """Connects to RAY_ADDRESS, or starts Ray on this machine.

    Yields what tells its resources, in Ray's names, at any moment.

    On this machine Ray listens to localhost alone and has no dashboard.

    Raises:
      ResourceError: if no cluster answers at RAY_ADDRESS.
    """
    os.environ.update(_SETTINGS)
    logging.getLogger("ray").setLevel(logging.ERROR)
    address = os.environ.get("RAY_ADDRESS") or "local"
    cluster_address.check(address)
    local = address == "local"
    with _kept_to_this_machine() if local else contextlib.nullcontext():
        ray.init(
            # Without it, a file left by a killed Ray would be taken for a cluster.
            address=address,
            num_cpus=os.cpu_count() if local else None,
            include_dashboard=False if local else None,
            _node_ip_address="127.0.0.1" if local else None,
            configure_logging=True,
            logging_level=logging.ERROR,
            log_to_driver=False,
            # A worker on this machine inherits it from the driver, one elsewhere not.
            runtime_env={
                "env_vars": {"RAY_CHDIR_TO_TRIAL_DIR": "0", **allocator.environment()}
            },
        )
    try:
        yield ray.cluster_resources
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _kept_to_this_machine() -> Iterator[None]:
    """Has `ray.init` believe that this system allows no clusters, as on macOS.

    Elsewhere it takes 127.0.0.1 to mean whatever address other machines know this one
    by, and then listens to all of them.
    """
    allowed = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = allowed


def run(
    session: Session,
    evaluator: Evaluator,
    *,
    allotment: Allotment,
    num_workers: int,
    time_limit: float | None,
    check: Callable[[], None],
) -> None:
    """Evaluates the session's children until none is left.

    A child that takes longer than `time_limit` seconds is infeasible, and its worker
    is killed and replaced: what hangs inside XLA hears of nothing gentler. A child
    whose worker dies is tried again elsewhere. An exception is no child's fault: it
    would come again, and ends the search.

    `check` is called ten times a second from the main thread, between two outcomes;
    what it raises ends the search. `cluster` must be open.

    Raises:
      EvaluationError: if a child ends in an exception. One line.
      OSError: if the journal cannot be written.
    """
    trainable = tune.with_resources(
        tune.with_parameters(ChildTrainable, evaluator=evaluator, allotment=allotment),
        allotment.ray_resources,
    )
    outcomes = _Outcomes(session, check, time_limit)
    with tempfile.TemporaryDirectory(prefix="mbconv-nas-tune-") as storage:
        # Not a Tuner, which would pickle the searcher, and with it the session.
        tune.run(
            trainable,
            name="search",
            storage_path=storage,
            search_alg=_SessionSearcher(session, outcomes),
            scheduler=_Forgetful(),
            num_samples=-1,  # the session says when there are enough
            max_concurrent_trials=num_workers,
            reuse_actors=True,
            max_failures=_RETRIES,
            raise_on_failed_trial=False,
            callbacks=[outcomes, _Silent()],
            trial_name_creator=_short_name,
            trial_dirname_creator=_short_name,
            verbose=0,
        )


class _SessionSearcher(Searcher):
    """Hands the session's jobs to Tune."""

    def __init__(self, session: Session, outcomes: "_Outcomes") -> None:
        super().__init__()
        self._session = session
        self._outcomes = outcomes

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # pyright: ignore[reportIncompatibleMethodOverride]  # Tune's annotation leaves FINISHED out
        """Returns the next child. Never waits: a barrier would idle the workers."""
        job = self._session.next_job()
        if job is None:
            return Searcher.FINISHED
        self._outcomes.expect(trial_id, job.index)
        return {"index": job.index, "spec": codec.dumps(job.spec), "seed": job.seed}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing: see `_Outcomes`."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the state."""


class _Forgetful(FIFOScheduler):
    """Has Tune let go of trials that have ended.

    It would keep some 30 KB of each for a snapshot that nobody reads. Which trials have
    ended is in private attributes of its controller alone, hence this reach into them.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Called at the beginning of each of Tune's steps."""
        controller = getattr(tune_controller, "_tune_controller", tune_controller)
        held = controller._trial_to_actor
        ended = {t for t in controller._trials if t.is_finished() and t not in held}
        for trials in (
            controller._stopped_trials,
            controller._failed_trials,
            controller._live_trials,
            controller._trials_to_cache,
        ):
            trials -= ended
        controller._trials[:] = [t for t in controller._trials if t not in ended]
        return super().choose_trial_to_run(tune_controller)


class _Silent(TrialProgressCallback):
    """Stands in for the callback with which Tune prints, which remembers each trial."""

    def log_result(self, *_: Any, **__: Any) -> None:
        """Prints nothing."""

    def on_trial_complete(self, *_: Any, **__: Any) -> None:
        """Prints nothing."""


class _Outcomes(tune.Callback):
    """Collects what trials end with, and passes it on between Tune's steps."""

    def __init__(
        self, session: Session, check: Callable[[], None], time_limit: float | None
    ) -> None:
        self._session = session
        self._check = check
        self._time_limit = time_limit
        self._clocks = ChildClocks(time_limit)
        self._running: dict[str, Trial] = {}
        self._overdue: set[str] = set()
        self._indices: dict[str, int] = {}
        self._arrived: list[tuple[int, Report]] = []
        self._give_up: str | None = None

    def expect(self, trial_id: str, index: int) -> None:
        """Notes which child a trial is."""
        self._indices[trial_id] = index

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Starts a child's clock: its worker is up, with everything loaded."""
        del iteration, trials, info
        self._running[trial.trial_id] = trial
        self._clocks.start(trial.trial_id)

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """Takes the report out of the result, lest Tune keep it for ever."""
        del iteration, trials, info
        self._ended(trial)
        self._arrived.append((self._indices.pop(trial.trial_id), result.pop("report")))

    def on_trial_recover(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """A child is about to be tried again."""
        del iteration, trials, info
        self._ended(trial)
        self._note_exception(trial)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """A child has been tried often enough, or takes too long."""
        del iteration, trials, info
        self._ended(trial)
        if trial.trial_id in self._overdue:
            limit = format_duration(self._time_limit or 0.0)
            outcome = Infeasible(f"took longer than --child-time-limit {limit}")
        elif self._note_exception(trial):
            return
        else:
            outcome = Infeasible(f"its worker died ({_RETRIES + 1} attempts)")
        index = self._indices.pop(trial.trial_id)
        self._arrived.append((index, Report(outcome, worker=None)))

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Passes outcomes on, in order of arrival, and lets the caller interrupt."""
        del iteration, trials, info
        while self._arrived:
            index, report = self._arrived.pop(0)
            self._session.finish(index, report.outcome, report.worker)
        if self._give_up is not None:
            raise EvaluationError(self._give_up)
        self._stop_overdue()
        self._check()

    def _ended(self, trial: Trial) -> None:
        self._running.pop(trial.trial_id, None)
        self._clocks.stop(trial.trial_id)

    def _stop_overdue(self) -> None:
        for trial_id in self._clocks.overdue():
            trial = self._running[trial_id]
            worker = trial.temporary_state.ray_actor
            if worker is None or trial_id in self._overdue:
                continue
            self._overdue.add(trial_id)
            trial.max_failures = 0  # no other worker is to hang on it
            ray.kill(worker)

    def _note_exception(self, trial: Trial) -> bool:
        """Returns whether an exception ended the attempt, which ends the search."""
        reason = None if trial.error_file is None else exception_in(trial.error_file)
        if reason is None:
            return False
        self._give_up = (
            f"child {self._indices[trial.trial_id]} ended in an exception, which is "
            f"not the architecture's fault: {reason}; mend that, then go on"
        )
        return True


def _short_name(trial: Trial) -> str:
    """Names a trial; Tune's default would spell out the architecture."""
    return trial.trial_id


def exception_in(error_file: str) -> str | None:
    """Returns the exception that ended a trial's last attempt, and where it came up.

    Args:
      error_file: Tune's account of the trial's attempts.

    Returns:
      One line; None if the worker died, or what it needed was lost with a machine.
    """
    with open(error_file, encoding="utf-8", errors="replace") as file:
        attempt = file.read().rsplit("Failure # ", maxsplit=1)[-1]
    account = attempt.partition("\n")[2].rstrip()  # the first line says when it was
    if not _EXCEPTION.match(account):
        return None
    # The trace is indented, and the exception that comes after it is not.
    lines = itertools.takewhile(
        lambda line: line and not line[0].isspace(), reversed(account.splitlines())
    )
    exception = " ".join(reversed(list(lines)))
    if exception.startswith(_LOST):
        return None
    frames = _FRAME.findall(account)
    if not frames:
        return exception
    file_name, line, function = frames[-1]
    return f"{exception} ({os.path.basename(file_name)}, line {line}, in {function})"
