"""Tests for nas.execution.ray_workers: real workers of one real Ray, in trouble."""

import dataclasses
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import ray

import controller
from nas.evaluation.evaluators import EvaluationError
from nas.execution import ray_workers
from nas.execution.interrupts import Interrupted
from nas.execution.resources import WorkerResources
from nas.study.metrics import ACCURACY
from nas.study.proposals import Proposals
from nas.study.study import Study, trial_seed
from nas.study.trial import CompletedTrial, InfeasibleTrial
from tests.nas.tiny_space import SPACE
from trainers.measurement import Measured

# Ray forks as it starts, which other tests' JAX complains of.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork")

CORE = WorkerResources(cpus=1, gpus=0.0, tpus=0)


class TwoWordsError(Exception):
    """Cannot be unpickled, as exceptions with several arguments often cannot."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


@dataclasses.dataclass(frozen=True)
class Troubled:
    """Does what a file in the folder says, once, or for ever where it says `always`.

    The file has the name of a trial's seed, or `prepare`.
    """

    folder: Path

    @property
    def metrics(self):
        return (ACCURACY,)

    @property
    def place(self):
        return "workers"

    def prepare(self):
        self.meet("prepare")
        return self.evaluate

    def evaluate(self, spec, seed):
        self.meet(str(seed))
        return Measured(metrics={"accuracy": 1.0 / spec.stages[0].channels})

    def meet(self, name):
        path = self.folder / name
        how = path.read_text() if path.exists() else ""
        if not how.startswith("always"):
            path.unlink(missing_ok=True)
        if "die" in how:
            os.kill(os.getpid(), signal.SIGKILL)
        if "hang" in how:
            os.kill(os.getpid(), signal.SIGSTOP)
        if "raise" in how:
            raise KeyError("no such\nluck")
        if "unpicklable" in how:
            error = OSError("a file")
            error.file = sys.stdout
            raise error
        if "unreadable" in how:
            raise TwoWordsError("two", "words")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """One Ray for all tests here."""
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    # A worker may not be able to import this module: it gets the class itself.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with ray_workers.cluster():
        yield
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    for number, handler in handlers.items():
        signal.signal(number, handler)


class Kept:
    """A store in memory."""

    def __init__(self):
        self.trials = []

    def append(self, trial):
        self.trials.append(trial)

    def save(self, snapshot):
        pass

    def keep_weights(self, index, weights):
        raise AssertionError(f"{index} goes on from {len(weights)} bytes")

    def weights(self, index):
        del index

    def drop_weights(self, index):
        pass


class Run:
    """A study of the folder's troubles, and what came of it."""

    def __init__(self, folder):
        self.folder = folder
        self.store = Kept()

    def trouble(self, place, how):
        name = place if place == "prepare" else str(trial_seed(3, place))
        (self.folder / name).write_text(how)

    def go(self, num_trials, *, num_workers=1, time_limit=None, check=lambda: None):
        proposer = controller.build("random", num_choices=SPACE.num_choices)
        self.study = Study(
            space=SPACE,
            proposals=Proposals(proposer, seed=3, rewards_per_update=2),
            reward=lambda metrics: metrics["accuracy"],
            metrics=(ACCURACY,),
            seed=3,
            num_trials=num_trials,
            store=self.store,
        )
        ray_workers.run(
            self.study,
            Troubled(self.folder),
            resources=CORE,
            num_workers=num_workers,
            time_limit=time_limit,
            check=check,
        )

    @property
    def by_index(self):
        return {trial.index: trial for trial in self.store.trials}


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_two_workers_measure_each_trial_once_and_are_gone(run):
    run.go(20, num_workers=2)
    assert sorted(run.by_index) == list(range(20))
    assert all(isinstance(trial, CompletedTrial) for trial in run.store.trials)
    pids = {trial.worker.pid for trial in run.store.trials}
    assert len(pids) <= 2
    assert os.getpid() not in pids
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, "the workers were to end"
        time.sleep(0.05)


def test_a_death_or_a_hang_costs_one_trial_at_most(run, monkeypatch):
    """One dies once, one kills whoever tries it, one hangs; the others are measured."""
    monkeypatch.setattr(ray_workers, "_RETRIES", 1)
    run.trouble(1, "die")
    run.trouble(2, "always die")
    run.trouble(3, "hang")
    run.go(6, time_limit=2.0)
    assert sorted(run.by_index) == list(range(6))
    reasons = {
        trial.index: trial.infeasible
        for trial in run.store.trials
        if isinstance(trial, InfeasibleTrial)
    }
    assert reasons == {
        2: "its worker died (2 attempts)",
        3: "took longer than --child-time-limit 2s",
    }
    assert run.by_index[2].worker is None
    assert len({run.by_index[index].worker.pid for index in (0, 1, 4)}) == 3


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("raise", r"KeyError: 'no such\nluck'"),
        ("unpicklable", "OSError: a file"),
        ("unreadable", "TwoWordsError: two and words"),
    ],
)
def test_an_exception_ends_the_search_in_a_line_and_keeps_what_was_measured(
    run, how, told
):
    run.trouble(2, f"always {how}")
    with pytest.raises(EvaluationError) as error:
        run.go(6)
    assert "\n" not in str(error.value)
    assert "child 2 ended in an exception" in str(error.value)
    assert told in str(error.value)
    assert "(test_ray_workers.py, line " in str(error.value)
    assert "in meet)" in str(error.value)
    assert sorted(run.by_index) == [0, 1]


def test_a_worker_that_cannot_start_is_told_from_one_that_dies(run, monkeypatch):
    run.trouble("prepare", "die")  # once: the next one starts
    run.go(1)
    assert sorted(run.by_index) == [0]

    run.trouble("prepare", "always raise")
    with pytest.raises(EvaluationError, match="the start of a worker ended in an exc"):
        run.go(1)

    monkeypatch.setattr(ray_workers, "_MAX_STILLBORN", 2)
    run.trouble("prepare", "always die")
    with pytest.raises(EvaluationError, match="2 workers in a row died") as error:
        run.go(1)
    assert "\n" not in str(error.value)
    assert len(run.store.trials) == 1


def test_what_check_raises_ends_it_between_two_outcomes(run):
    def check():
        if len(run.store.trials) >= 3:
            raise Interrupted(signal.SIGINT)

    with pytest.raises(Interrupted):
        run.go(1000, check=check)
    done = len(run.store.trials)
    assert 3 <= done < 20
    assert sorted(run.by_index) == list(range(done))
    pending = 1000 - done - run.study.num_unassigned
    assert 0 <= pending <= 2
