"""Tests for sessions: what a search leads to, however it is cut and resumed."""

import contextlib
import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import controller
from nas.runs import journal
from nas.study.proposals import Proposals
from nas.study.session import ReplayError, Session, child_seed
from search_space import cost, spaces
from trainers.measurement import Infeasible, Measurement

SPACE = spaces.load("mbconv")
HEADER = journal.Header(
    created=0.0, num_children=8, definition={}, dataset="none", versions={}
)
GOOD = Measurement(
    accuracy=0.9,
    losses=(2.0, 1.0),
    images_per_second=10.0,
    compile_seconds=1.0,
    train_seconds=2.0,
    eval_seconds=0.5,
    num_params=1,
    num_macs=2,
)


def outcome(job):
    """A stand-in for training: depends on what training depends on."""
    if job.seed % 5 == 0:
        return Infeasible("diverged")
    return dataclasses.replace(GOOD, accuracy=job.seed % 1000 / 1000)


class Run:
    """A journal in a folder of its own, and sessions that continue it."""

    def __init__(self, folder, *, num_children=8, name="random", space=SPACE):
        self.path = folder / "journal.jsonl"
        self.num_children = num_children
        self.name = name
        self.space = space
        self.reward = lambda accuracy, macs: accuracy * (macs / 4e8) ** -0.07
        journal.create(self.path, HEADER)

    @contextlib.contextmanager
    def session(self):
        contents = journal.read(self.path)
        proposer = controller.build(self.name, num_choices=self.space.num_choices)
        with journal.Writer(self.path, contents) as writer:
            yield Session(
                space=self.space,
                proposals=Proposals(proposer, seed=7, batch_size=2),
                reward=self.reward,
                seed=7,
                num_children=self.num_children,
                contents=contents,
                writer=writer,
            )

    def play(self, order):
        with self.session() as session:
            play(session, order)

    def one_by_one(self, number=100):
        with self.session() as session:
            one_by_one(session, number)

    def children(self):
        return journal.read(self.path).children


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """New folders; a module's, because Hypothesis runs many examples in one test."""
    return lambda: tmp_path_factory.mktemp("run")


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def play(session, order):
    """Keeps two children in flight; `order` says which of them finishes, if any does.

    Returns when `order` ends (the search is killed) or nothing is left.
    """
    flying = []
    for which in order:
        while len(flying) < 2 and (job := session.next_job()) is not None:
            flying.append(job)
        if not flying:
            return
        job = flying.pop(which % len(flying))
        session.finish(job.index, outcome(job), None)


def facts(children):
    return [child.model_copy(update={"finished": 0.0}) for child in children]


@settings(deadline=None, max_examples=25)
@given(
    order=st.lists(st.integers(0, 1), min_size=8, max_size=8),
    kills=st.lists(st.integers(0, 8), max_size=3),
)
def test_every_child_finishes_once_however_often_it_is_killed(folders, order, kills):
    run = Run(folders())
    for number in kills:
        run.play(order[:number])
    run.play(itertools.cycle(order))
    children = run.children()
    assert sorted(child.index for child in children) == list(range(8))
    assert len({child.tokens for child in children}) == 8
    with run.session() as session:
        assert session.num_left == 0


@pytest.mark.parametrize(
    ("name", "kills"),
    [("random", [0, 1, 5]), ("evolution", [3, 2]), ("ppo", [1, 4]), ("ppo", [2])],
)
def test_one_worker_killed_and_resumed_is_as_if_never_killed(folders, name, kills):
    whole, cut = Run(folders(), name=name), Run(folders(), name=name)
    whole.one_by_one()
    for number in kills:
        cut.one_by_one(number)
    cut.one_by_one()
    assert facts(cut.children()) == facts(whole.children())


def one_by_one(session, number=100):
    for _ in range(number):
        job = session.next_job()
        if job is None:
            return
        session.finish(job.index, outcome(job), None)


def test_children_in_flight_at_a_kill_are_handed_out_again_first(run):
    with run.session() as session:
        first, second = session.next_job(), session.next_job()
        session.finish(second.index, GOOD, None)
    with run.session() as resumed:
        assert resumed.num_left == 7
        assert resumed.next_job() == first
        assert resumed.next_job().index == 2


def test_more_children_can_be_asked_for_later(run):
    run.num_children = 3
    run.one_by_one()
    run.num_children = 5
    run.one_by_one()
    assert [child.index for child in run.children()] == [0, 1, 2, 3, 4]


def finish_one(run, outcome, worker=None):
    with run.session() as session:
        session.finish(session.next_job().index, outcome, worker)
    (child,) = run.children()
    return child


def test_costs_are_those_of_the_full_network_and_the_reward_uses_them(run):
    run.reward = lambda accuracy, macs: accuracy + macs
    child = finish_one(run, GOOD, journal.Worker(host="h", pid=3))
    counted = cost.profile(SPACE.decode(child.tokens))
    assert (child.num_macs, child.num_params) == (counted.num_macs, counted.num_params)
    assert child.reward == 0.9 + counted.num_macs
    assert child.worker == journal.Worker(host="h", pid=3)
    assert child.seconds == journal.Seconds(compile=1.0, train=2.0, eval=0.5)


def test_listeners_hear_of_a_child_once_it_is_on_the_disk(run):
    events = []

    class Watcher:
        def started(self, job):
            events.append(("started", job.index, len(run.children())))

        def finished(self, child):
            assert run.children()[-1] == child
            events.append(("finished", child.index, len(run.children())))

    with run.session() as session:
        session.watch(Watcher())
        one_by_one(session, 2)
    assert events == [
        ("started", 0, 0), ("finished", 0, 1), ("started", 1, 1), ("finished", 1, 2)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"accuracy": math.nan}, "accuracy"),
        ({"accuracy": 1.01}, "accuracy"),
        ({"accuracy": -0.1}, "accuracy"),
        ({"train_seconds": -1.0}, "train_seconds"),
        ({"images_per_second": math.inf}, "images_per_second"),
        ({"losses": (1.0, math.nan)}, "loss"),
    ],
)
def test_nonsense_is_infeasible_and_never_rewarded(run, change, told):
    child = finish_one(run, dataclasses.replace(GOOD, **change))
    assert isinstance(child, journal.Failed)
    assert told in child.infeasible
    run.one_by_one()
    assert len(run.children()) == 8


@pytest.mark.parametrize("reason", ["", "x" * 10**6, "\ud800 lone", "a\nb"])
def test_any_reason_can_be_journaled(run, reason):
    child = finish_one(run, Infeasible(reason))
    assert 0 < len(child.infeasible) <= 10_000


def test_a_long_loss_curve_keeps_its_ends(run):
    losses = tuple(np.linspace(5.0, 1.0, 1000).tolist())
    child = finish_one(run, dataclasses.replace(GOOD, losses=losses))
    assert child.num_steps == 1000
    assert len(child.losses) <= 40
    assert (child.losses[0], child.losses[-1]) == (5.0, 1.0)
    assert list(child.losses) == sorted(child.losses, reverse=True)


def test_a_child_finishes_once(run):
    with run.session() as session:
        index = session.next_job().index
        session.finish(index, GOOD, None)
        with pytest.raises(KeyError):
            session.finish(index, GOOD, None)


def test_a_foreign_journal_is_refused(run):
    run.one_by_one()
    run.name = "ppo"
    with (
        pytest.raises(ReplayError, match=r"child 0 .*config\.json"),
        run.session() as _,
    ):
        pass


def test_an_exhausted_space_ends_the_search(tmp_path):
    first_choices = {d.name: d.choices[:1] for d in SPACE.decisions[:-1]}
    run = Run(tmp_path, num_children=100, space=SPACE.restrict(first_choices))
    run.one_by_one()
    assert len(run.children()) == len(SPACE.decisions[-1].choices)


def test_child_seeds_differ_between_children_and_runs():
    seeds = {child_seed(run, index) for run in range(20) for index in range(50)}
    assert len(seeds) == 1000
    assert child_seed(3, 4) == child_seed(3, 4)
