"""A study's trials measured by Ray actors: workers that live long, no barrier.

Plain actors rather than Tune. A study needs of Ray just this: processes with resources
of their own, anywhere in a cluster; calls to them; and to be told when one has died.
What Tune adds (trial states, schedulers, snapshots) a study keeps itself, and Tune
offers no public way to pass outcomes on one at a time under their own exceptions, to
forget trials that have ended, or to stop one that hangs. Nothing private of Ray's is
used but what keeps a Ray of this machine's to this machine (`cluster`).

A worker gets its next trial the moment it is idle. One that dies has its trial tried
again by another; one whose trial takes too long is killed.
"""

import collections
import contextlib
import dataclasses
import logging
import os
import re
from collections.abc import Callable, Generator, Mapping
from typing import Any

import ray
from ray._private import ray_constants
from ray.exceptions import RayError, RayTaskError, UnserializableException

from nas.evaluation.evaluators import EvaluationError, Evaluator
from nas.execution import cluster_address
from nas.execution.resources import ResourceError, WorkerResources
from nas.execution.trial_clocks import TrialClocks
from nas.execution.worker import TrialWorker
from nas.options.quantity import format_duration
from nas.study.study import Study
from nas.study.trial import Key, Trial
from search_space import codec
from trainers.measurement import Infeasible
from trainers.runtime import allocator

# A trial whose worker died this often is given up: it may be what kills them.
_RETRIES = 3
# Workers that died one after another before they were ready.
_MAX_STILLBORN = 5
_SECONDS_BETWEEN_CHECKS = 0.1
_FRAME = re.compile(r'  File "([^"\n]+)", line (\d+), in (\S+)')


@contextlib.contextmanager
def cluster() -> Generator[Callable[[], Mapping[str, float]]]:
    """Connects to RAY_ADDRESS, or starts Ray on this machine.

    Yields what tells its resources, in Ray's names, at any moment.

    On this machine Ray listens to localhost alone and has no dashboard.

    Raises:
      ResourceError: if no cluster answers at RAY_ADDRESS, or Ray does not start here.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing leaves the machine unasked
    logging.getLogger("ray").setLevel(logging.ERROR)
    address = os.environ.get("RAY_ADDRESS") or "local"
    cluster_address.check(address)
    local = address == "local"
    with _kept_to_this_machine() if local else contextlib.nullcontext():
        try:
            ray.init(
                # Without it, a file left by a killed Ray would be taken for a cluster.
                address=address,
                num_cpus=os.cpu_count() if local else None,
                include_dashboard=False if local else None,
                _node_ip_address="127.0.0.1" if local else None,
                configure_logging=True,
                logging_level=logging.ERROR,
                log_to_driver=False,
                # A worker on this machine inherits it, one elsewhere does not.
                runtime_env={"env_vars": dict(allocator.environment())},
            )
        except Exception as error:
            # Where its processes do not come up, Ray raises a bare Exception, which
            # no narrower clause can name. All others go on as they are.
            if type(error) is not Exception:
                raise
            raise ResourceError(
                f"Ray did not start: {' '.join(str(error).split())}; try again when "
                "the machine is less busy"
            ) from None
    try:
        yield ray.cluster_resources
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _kept_to_this_machine() -> Generator[None]:
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


@dataclasses.dataclass(eq=False)
class _Worker:
    """An actor, and what it is at: getting ready, a trial, or nothing."""

    actor: Any
    call: Any  # the reference to the result of what it was asked last; None when idle
    trial: Trial | None = None
    overdue: bool = False


def run(
    study: Study,
    evaluator: Evaluator,
    *,
    resources: WorkerResources,
    num_workers: int,
    time_limit: float | None,
    check: Callable[[], None],
) -> None:
    """Measures the study's trials until none is left.

    A trial that takes longer than `time_limit` seconds is infeasible, and its worker
    is killed and replaced: what hangs inside XLA hears of nothing gentler. A trial
    whose worker dies is tried again elsewhere. An exception is no trial's fault: it
    would come again, and ends the search.

    `check` is called ten times a second, between two outcomes; what it raises ends
    the search. Ray must be connected.

    Raises:
      EvaluationError: if a trial, or the start of a worker, ends in an exception. One
        line.
      OSError: if a trial cannot be stored.
    """
    pool = _Pool(study, evaluator, resources, num_workers, time_limit)
    try:
        while pool.assign():
            pool.collect()
            check()
    finally:
        pool.close()


class _Pool:
    """The workers of one study."""

    def __init__(
        self,
        study: Study,
        evaluator: Evaluator,
        resources: WorkerResources,
        num_workers: int,
        time_limit: float | None,
    ) -> None:
        self._study = study
        self._num_workers = num_workers
        self._time_limit = time_limit
        self._clocks = TrialClocks(time_limit)
        self._workers: list[_Worker] = []
        self._again: collections.deque[Trial] = collections.deque()
        self._deaths: collections.Counter[Key] = collections.Counter()
        self._num_stillborn = 0
        self._evaluator = ray.put(evaluator)
        self._resources = resources
        actor_class: Any = ray.remote(TrialWorker)
        self._actor_class = actor_class.options(
            **resources.ray_options, max_restarts=0, max_task_retries=0
        )

    def assign(self) -> bool:
        """Gives every idle worker a trial; whether anything is under way then."""
        is_more = True
        for worker in self._workers:
            if worker.call is None and is_more:
                is_more = self._give(worker)
        at_work = sum(worker.trial is not None for worker in self._workers)
        left = len(self._again) + self._study.num_unassigned
        while is_more and len(self._workers) < min(self._num_workers, at_work + left):
            self._start_worker()
        return any(worker.call is not None for worker in self._workers)

    def collect(self) -> None:
        """Waits a moment for outcomes, and takes those that have arrived."""
        calls = {worker.call: worker for worker in self._workers if worker.call}
        arrived, _ = ray.wait(
            list(calls), num_returns=1, timeout=_SECONDS_BETWEEN_CHECKS
        )
        more, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
        for call in dict.fromkeys([*arrived, *more]):
            self._take(calls[call])
        self._stop_overdue()

    def close(self) -> None:
        """Ends the workers."""
        for worker in self._workers:
            with contextlib.suppress(RayError):
                ray.kill(worker.actor)
        self._workers.clear()

    def _start_worker(self) -> None:
        actor = self._actor_class.remote()
        call = actor.prepare.remote(self._evaluator, self._resources)
        self._workers.append(_Worker(actor=actor, call=call))

    def _give(self, worker: _Worker) -> bool:
        trial = self._again.popleft() if self._again else self._study.next_trial()
        if trial is None:
            return False
        worker.trial = trial
        worker.call = worker.actor.measure.remote(
            codec.dumps(trial.spec), trial.seed, trial.fidelity, trial.weights
        )
        self._clocks.start(trial.key)
        return True

    def _take(self, worker: _Worker) -> None:
        trial = worker.trial
        if trial is not None:
            self._clocks.stop(trial.key)
        try:
            report: Any = ray.get(worker.call)
        except (RayTaskError, UnserializableException) as error:
            if _is_of_the_evaluator(error):
                raise EvaluationError(_explain(error, trial)) from None
            self._bury(worker, error)  # what it needed was on a machine that is gone
        except RayError as error:
            self._bury(worker, error)
        else:
            worker.call, worker.trial = None, None
            self._num_stillborn = 0
            if trial is not None:
                self._study.finish(trial, report.outcome, report.worker, report.weights)

    def _bury(self, worker: _Worker, error: RayError) -> None:
        """Lets a dead worker go; its trial is tried again, or given up."""
        self._workers.remove(worker)
        with contextlib.suppress(RayError):
            ray.kill(worker.actor)  # it may only be out of reach
        trial = worker.trial
        if trial is None:
            self._note_stillborn(error)
            return
        if worker.overdue:
            limit = format_duration(self._time_limit or 0.0)
            self._give_up(trial, f"took longer than --child-time-limit {limit}")
            return
        self._deaths[trial.key] += 1
        if self._deaths[trial.key] > _RETRIES:
            self._give_up(trial, f"its worker died ({_RETRIES + 1} attempts)")
        else:
            self._again.append(trial)

    def _note_stillborn(self, error: RayError) -> None:
        self._num_stillborn += 1
        if self._num_stillborn >= _MAX_STILLBORN:
            raise EvaluationError(
                f"{_MAX_STILLBORN} workers in a row died as they started: "
                f"{' '.join(str(error).split())}"
            )

    def _give_up(self, trial: Trial, reason: str) -> None:
        self._study.finish(trial, Infeasible(reason), None)

    def _stop_overdue(self) -> None:
        overdue = set(self._clocks.overdue())
        for worker in self._workers:
            if worker.trial is None or worker.overdue:
                continue
            if worker.trial.key in overdue:
                worker.overdue = True
                ray.kill(worker.actor)


def _is_of_the_evaluator(error: RayTaskError | UnserializableException) -> bool:
    """Whether an exception was raised there, rather than by Ray.

    What cannot be pickled arrives as a plain RayError that holds the text, and what
    cannot be unpickled as an UnserializableException.
    """
    if isinstance(error, UnserializableException):
        return True
    return not isinstance(error.cause, RayError) or type(error.cause) is RayError


def _explain(error: RayTaskError | UnserializableException, trial: Trial | None) -> str:
    """Returns the exception in a worker and where it came up, in one line."""
    what = "the start of a worker" if trial is None else f"child {trial.index}"
    text = str(error).strip()
    cause = getattr(error, "cause", None)
    if cause is None or isinstance(cause, RayError):
        shown = text.splitlines()[-1]
    else:
        shown = f"{type(cause).__name__}: {cause}".strip(" :")
    place = ""
    if frames := _FRAME.findall(text):
        file_name, line, function = frames[-1]
        place = f" ({os.path.basename(file_name)}, line {line}, in {function})"
    return (
        f"{what} ended in an exception, which is not the architecture's fault: "
        f"{' '.join(shown.split())}{place}; mend that, then go on"
    )
