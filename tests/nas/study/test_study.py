"""Tests for nas.study.study: what a search leads to, however it is cut and resumed."""

import contextlib
import dataclasses
import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import controller
from nas.runs import journal, store
from nas.runs.run_folder import RunFolder
from nas.runs.store import RunStore
from nas.study.metrics import ACCURACY, NUM_MACS, NUM_PARAMS, Metric
from nas.study.proposals import Proposals
from nas.study.study import Study, trial_seed
from nas.study.trial import InfeasibleTrial, Worker
from search_space import cost, spaces
from trainers.measurement import Infeasible, Measured, Seconds

SPACE = spaces.load("mbconv")
MEASURED = (ACCURACY, Metric(name="speed", unit="images/s", goal="max"))
HEADER = journal.Header(
    kind="search",
    created=0.0,
    num_trials=8,
    definition={},
    metrics=(*MEASURED, NUM_MACS, NUM_PARAMS),
    objectives=("accuracy", "num_macs"),
    dataset="none",
    versions={},
)
GOOD = Measured(
    metrics={"accuracy": 0.9, "speed": 10.0},
    spread={"accuracy": 0.01},
    losses=(2.0, 1.0),
    seconds=Seconds(compile=1.0, train=2.0, eval=0.5),
)


def with_metrics(**changes):
    return dataclasses.replace(GOOD, metrics={**GOOD.metrics, **changes})


def outcome(trial):
    """A stand-in for training: depends on what training depends on."""
    if trial.seed % 5 == 0:
        return Infeasible("diverged")
    return with_metrics(accuracy=trial.seed % 1000 / 1000)


class Run:
    """A run's folder of its own, and studies that continue what is in it."""

    def __init__(self, folder, *, num_trials=8, name="random", space=SPACE):
        self.folder = RunFolder(folder)
        self.num_trials = num_trials
        self.name = name
        self.space = space
        self.reward = lambda m: m["accuracy"] * (m["num_macs"] / 4e8) ** -0.07
        journal.create(self.folder.journal, HEADER)

    @contextlib.contextmanager
    def study(self):
        contents = journal.read(self.folder.journal)
        proposer = controller.build(self.name, num_choices=self.space.num_choices)
        with RunStore(self.folder, contents) as kept:
            yield Study(
                space=self.space,
                proposals=Proposals(proposer, seed=7, rewards_per_update=2),
                reward=self.reward,
                metrics=MEASURED,
                seed=7,
                num_trials=self.num_trials,
                store=kept,
                known=contents.trials,
                snapshot=store.load_snapshot(self.folder),
            )

    def play(self, order):
        with self.study() as study:
            play(study, order)

    def one_by_one(self, number=100):
        with self.study() as study:
            one_by_one(study, number)

    def trials(self):
        return journal.read(self.folder.journal).trials


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """New folders; a module's, because Hypothesis runs many examples in one test."""
    return lambda: tmp_path_factory.mktemp("run")


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def play(study, order):
    """Keeps two trials pending; `order` says which of them finishes, if any does.

    Returns when `order` ends (the search is killed) or nothing is left.
    """
    flying = []
    for which in order:
        while len(flying) < 2 and (trial := study.next_trial()) is not None:
            flying.append(trial)
        if not flying:
            return
        trial = flying.pop(which % len(flying))
        study.finish(trial, outcome(trial), None)


def facts(trials):
    return [trial.model_copy(update={"finished": 0.0}) for trial in trials]


@settings(deadline=None, max_examples=25)
@given(
    order=st.lists(st.integers(0, 1), min_size=8, max_size=8),
    kills=st.lists(st.integers(0, 8), max_size=3),
)
def test_every_trial_finishes_once_however_often_it_is_killed(folders, order, kills):
    run = Run(folders())
    for number in kills:
        run.play(order[:number])
    run.play(itertools.cycle(order))
    trials = run.trials()
    assert sorted(trial.index for trial in trials) == list(range(8))
    assert len({trial.tokens for trial in trials}) == 8
    with run.study() as study:
        assert study.num_unassigned == 0
        assert study.next_trial() is None


@pytest.mark.parametrize(
    ("name", "kills"),
    [("random", [0, 1, 5]), ("evolution", [3, 2]), ("dyna", [1, 4]), ("ppo", [2])],
)
def test_one_worker_killed_and_resumed_is_as_if_never_killed(folders, name, kills):
    whole, cut = Run(folders(), name=name), Run(folders(), name=name)
    whole.one_by_one()
    for number in kills:
        cut.one_by_one(number)
    cut.one_by_one()
    assert facts(cut.trials()) == facts(whole.trials())


def one_by_one(study, number=100):
    for _ in range(number):
        trial = study.next_trial()
        if trial is None:
            return
        study.finish(trial, outcome(trial), None)


def test_a_kill_between_the_journal_and_the_snapshot_changes_nothing(folders):
    """The snapshot is some trials older than the journal, as after a kill."""
    whole, cut = Run(folders(), name="dyna"), Run(folders(), name="dyna")
    whole.one_by_one()
    cut.one_by_one(3)
    old = cut.folder.controller.read_bytes()
    with cut.study() as study:
        one_by_one(study, 3)
    cut.folder.controller.write_bytes(old)
    cut.one_by_one()
    assert facts(cut.trials()) == facts(whole.trials())


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 no archive", b"x" * 1000])
def test_without_a_snapshot_the_controller_is_told_of_the_journal(run, content):
    run.name = "ppo"
    run.one_by_one(5)
    if content is None:
        run.folder.controller.unlink()
    else:
        run.folder.controller.write_bytes(content)
    with run.study() as study:
        assert study.proposals.num_updates == 1  # of all five at once
        assert study.num_unassigned == 3
        one_by_one(study)
    assert [trial.index for trial in run.trials()] == list(range(8))
    assert len({trial.tokens for trial in run.trials()}) == 8


@pytest.mark.parametrize(("first", "then"), [("random", "dyna"), ("dyna", "ppo")])
def test_another_controller_goes_on(run, first, then):
    run.name = first
    run.one_by_one(5)
    run.name = then
    run.one_by_one()
    assert len({trial.tokens for trial in run.trials()}) == 8


def test_a_snapshot_of_another_run_is_of_no_use(folders):
    run, other = Run(folders()), Run(folders())
    run.one_by_one(3)
    other.num_trials = 5
    other.reward = lambda m: m["accuracy"]
    other.one_by_one(3)
    other.folder.controller.rename(run.folder.controller)
    with run.study() as study:
        assert study.proposals.num_updates == 1


def test_trials_that_somebody_else_measured_count(run):
    """Any indices, no suggestions: those left out are used first."""
    run.one_by_one(3)
    brought = [t.model_copy(update={"asked": None, "index": 10 * t.index + 1})
               for t in run.trials()]  # fmt: skip
    run.folder.journal.unlink()
    run.folder.controller.unlink()
    journal.create(run.folder.journal, HEADER)
    with journal.Writer(run.folder.journal, journal.read(run.folder.journal)) as file:
        for trial in brought:
            file.append(trial)
    run.one_by_one()
    assert [trial.index for trial in run.trials()] == [1, 11, 21, 0, 2, 3, 4, 5]
    assert len({trial.tokens for trial in run.trials()}) == 8


def test_trials_pending_at_a_kill_are_handed_out_again_first(run):
    with run.study() as study:
        first, second = study.next_trial(), study.next_trial()
        study.finish(second, GOOD, None)
    with run.study() as resumed:
        assert resumed.num_unassigned == 7
        assert resumed.next_trial() == first
        assert resumed.next_trial().index == 2


def test_more_trials_can_be_asked_for_later(run):
    run.num_trials = 3
    run.one_by_one()
    run.num_trials = 5
    run.one_by_one()
    assert [trial.index for trial in run.trials()] == [0, 1, 2, 3, 4]


def finish_one(run, outcome, worker=None):
    with run.study() as study:
        study.finish(study.next_trial(), outcome, worker)
    (trial,) = run.trials()
    return trial


def test_costs_are_those_of_the_full_network_and_the_reward_uses_them(run):
    run.reward = lambda metrics: metrics["accuracy"] + metrics["num_macs"]
    trial = finish_one(run, GOOD, Worker(host="h", pid=3))
    counted = cost.profile(SPACE.decode(trial.tokens))
    assert trial.metrics == {
        "accuracy": 0.9,
        "speed": 10.0,
        "num_macs": counted.num_macs,
        "num_params": counted.num_params,
    }
    assert trial.reward == 0.9 + counted.num_macs
    assert trial.spread == {"accuracy": 0.01}
    assert trial.worker == Worker(host="h", pid=3)
    assert trial.seconds == Seconds(compile=1.0, train=2.0, eval=0.5)


def test_listeners_hear_of_a_trial_once_it_is_on_the_disk(run):
    events = []

    class Watcher:
        def started(self, trial):
            events.append(("started", trial.index, len(run.trials())))

        def finished(self, trial):
            assert run.trials()[-1] == trial
            events.append(("finished", trial.index, len(run.trials())))

    with run.study() as study:
        study.watch(Watcher())
        one_by_one(study, 2)
    assert events == [
        ("started", 0, 0), ("finished", 0, 1), ("started", 1, 1), ("finished", 1, 2)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("measured", "told"),
    [
        (with_metrics(accuracy=math.nan), "accuracy must be finite"),
        (with_metrics(accuracy=1.01), r"accuracy must be in \[0, 1\]"),
        (with_metrics(accuracy=-0.1), r"accuracy must be in \[0, 1\]"),
        (with_metrics(speed=math.inf), "speed must be finite"),
        (with_metrics(heat=1.0), "heat is no metric of this search"),
        (Measured(metrics={"accuracy": 0.5}), "speed was not measured"),
        (dataclasses.replace(GOOD, spread={"accuracy": -1.0}), "accuracy must be"),
        (dataclasses.replace(GOOD, seconds=Seconds(train=-1.0)), "train must be"),
        (dataclasses.replace(GOOD, losses=(1.0, math.nan)), "loss"),
    ],
)
def test_nonsense_is_infeasible_and_never_rewarded(run, measured, told):
    trial = finish_one(run, measured)
    assert isinstance(trial, InfeasibleTrial)
    assert re.search(told, trial.infeasible)
    run.one_by_one()
    assert len(run.trials()) == 8


@pytest.mark.parametrize("reason", ["", "x" * 10**6, "\ud800 lone", "a\nb"])
def test_any_reason_can_be_journaled(run, reason):
    trial = finish_one(run, Infeasible(reason))
    assert 0 < len(trial.infeasible) <= 10_000


def test_a_long_loss_curve_keeps_its_ends(run):
    losses = tuple(np.linspace(5.0, 1.0, 1000).tolist())
    trial = finish_one(run, dataclasses.replace(GOOD, losses=losses))
    assert trial.num_steps == 1000
    assert len(trial.losses) <= 40
    assert (trial.losses[0], trial.losses[-1]) == (5.0, 1.0)
    assert list(trial.losses) == sorted(trial.losses, reverse=True)


def test_a_trial_finishes_once(run):
    with run.study() as study:
        trial = study.next_trial()
        study.finish(trial, GOOD, None)
        with pytest.raises(KeyError):
            study.finish(trial, GOOD, None)


def test_an_exhausted_space_ends_the_search(tmp_path):
    first_choices = {d.name: d.choices[:1] for d in SPACE.decisions[:-1]}
    run = Run(tmp_path, num_trials=100, space=SPACE.restrict(first_choices))
    run.one_by_one()
    assert len(run.trials()) == len(SPACE.decisions[-1].choices)


def test_trial_seeds_differ_between_trials_and_runs():
    seeds = {trial_seed(run, index) for run in range(20) for index in range(50)}
    assert len(seeds) == 1000
    assert trial_seed(3, 4) == trial_seed(3, 4)
