"""Rungs: who goes on, what the controller is told of them, and resuming."""

import itertools

import numpy as np
import pytest

import controller
from nas.study.confirmation import Confirm, best, standings
from nas.study.halving import Halving, Rungs, latest
from nas.study.metrics import ACCURACY
from nas.study.proposals import Proposals
from nas.study.study import Study
from nas.study.trial import CompletedTrial
from search_space import spaces
from trainers.measurement import Infeasible, Measured

SPACE = spaces.load("mbconv")
STEPS = (60, 180, 540)


def completed(index, reward, *, rung=0):
    return CompletedTrial(
        index=index,
        fidelity=rung,
        tokens=(index,),
        metrics={"accuracy": reward, "num_macs": 1, "num_params": 1},
        finished=0.0,
        reward=reward,
    )


def rungs_of(*records, num_rungs=3, factor=3):
    rungs = Rungs(Halving(num_rungs=num_rungs, factor=factor))
    for record in records:
        rungs.add(record)
    return rungs


def test_the_best_third_of_a_rung_goes_on_the_highest_rung_first():
    """Of seven, two: children 6 and 5. Of three at rung 1, one: child 4."""
    first = [completed(i, i / 10) for i in range(7)]
    assert list(rungs_of(*first).promotable()) == [(6, 1), (5, 1)]
    second = [completed(i, r, rung=1) for i, r in ((6, 0.6), (5, 0.5), (4, 0.7))]
    assert list(rungs_of(*first, *second).promotable()) == [(4, 2)]
    third = completed(4, 0.9, rung=2)
    assert list(rungs_of(*first, *second, third).promotable()) == []


def test_nobody_goes_on_twice_at_a_time():
    rungs = rungs_of(*(completed(i, i / 10) for i in range(7)))
    rungs.begin(6, 1)
    assert list(rungs.promotable()) == [(5, 1)]


def test_what_longer_training_adds_does_not_count_against_the_others():
    """Children 2 and 1 gain 0.2 and 0.4, 0.3 on the average: 0.8 - 0.3, 0.9 - 0.3."""
    rungs = rungs_of(
        completed(0, 0.4),
        completed(1, 0.5),
        completed(2, 0.6),
        completed(2, 0.8, rung=1),
        completed(1, 0.9, rung=1),
    )
    assert rungs.comparable(0) == pytest.approx(0.4)
    assert rungs.comparable(2) == pytest.approx(0.5)
    assert rungs.comparable(1) == pytest.approx(0.6)


def test_weights_are_kept_of_those_that_may_still_go_on():
    """Of nine children twice a third are kept; at the highest rung none."""
    first = [completed(i, i / 10) for i in range(9)]
    assert sorted(rungs_of(*first).expendable()) == [0, 1, 2]
    rungs = rungs_of(*first, *(completed(i, 0.9, rung=1) for i in (6, 7, 8)))
    assert sorted(rungs.expendable()) == [0, 1, 2, 8]


class Memory:
    """A store in memory that counts the weights it keeps."""

    def __init__(self):
        self.records = []
        self.kept = {}

    def append(self, trial):
        self.records.append(trial)

    def keep_weights(self, index, weights):
        self.kept[index] = weights

    def weights(self, index):
        return self.kept.get(index)

    def drop_weights(self, index):
        self.kept.pop(index, None)

    def save(self, snapshot):
        pass


class Told:
    """Random proposals; remembers what it was told, in order."""

    def __init__(self):
        self.num_choices = SPACE.num_choices
        self.rewards = []
        self._random = controller.build("random", num_choices=SPACE.num_choices)

    def init(self, seed):
        return self._random.init(seed)

    def ask(self, state, num, pending=None):
        return self._random.ask(state, num, pending)

    def tell(self, state, tokens, rewards):
        self.rewards += zip(map(tuple, tokens.tolist()), rewards.tolist(), strict=True)
        return state


def study_of(known=(), *, num_trials=27, proposer=None, confirm=None):
    store = Memory()
    return store, Study(
        space=SPACE,
        proposals=Proposals(proposer or Told(), seed=4, rewards_per_update=3),
        reward=lambda metrics: metrics["accuracy"],
        metrics=[ACCURACY],
        seed=4,
        num_trials=num_trials,
        store=store,
        known=known,
        confirm=confirm,
        halving=Halving(num_rungs=len(STEPS)),
    )


def worth(tokens):
    return 0.4 + 0.2 * float(np.mean(np.array(tokens) / np.array(SPACE.num_choices)))


def measured(trial):
    """Better with every rung, and surer."""
    luck = np.random.default_rng([trial.seed, trial.fidelity]).normal()
    accuracy = (
        worth(trial.tokens) + 0.1 * trial.fidelity + 0.05 * luck / 3**trial.fidelity
    )
    return Measured(metrics={"accuracy": accuracy}, spread={"accuracy": 0.01})


def play(study, *, workers=1, stop_after=None):
    flying = []
    for _ in itertools.count() if stop_after is None else range(stop_after):
        while len(flying) < workers and (trial := study.next_trial()) is not None:
            flying.append(trial)
        if not flying:
            return
        trial = flying.pop(0)
        if trial.weights is not None:  # they are this child's, of the rung below
            assert trial.weights == f"{trial.index} {trial.fidelity - 1}".encode()
        weights = f"{trial.index} {trial.fidelity}".encode()
        study.finish(trial, measured(trial), None, weights)


def at(records, rung):
    return [record for record in records if record.fidelity == rung]


@pytest.mark.parametrize("workers", [1, 4])
def test_a_third_of_each_rung_goes_on_at_least(workers):
    """Those that were among the best of fewer have gone on, too."""
    store, study = study_of()
    play(study, workers=workers)
    counts = [len(at(store.records, rung)) for rung in range(3)]
    assert counts[0] == 27
    assert 9 <= counts[1] <= 18
    assert counts[1] // 3 <= counts[2] <= counts[1]
    ranked = sorted(at(store.records, 0), key=lambda record: -record.reward)
    promoted = {record.index for record in at(store.records, 1)}
    assert {record.index for record in ranked[:9]} <= promoted
    assert len({record.key for record in store.records}) == len(store.records)


def test_the_highest_rung_decides():
    store, study = study_of()
    play(study)
    top = max(at(store.records, 2), key=lambda record: record.reward)
    found = standings(latest(store.records))
    assert best(found).trial == top
    assert len(found) == 27


def test_weights_that_nobody_needs_are_not_kept():
    store, study = study_of()
    play(study)
    assert len(store.kept) <= 2 * 27 // 3


@pytest.mark.parametrize("stop_after", [0, 5, 12, 20, 33])
def test_killed_and_resumed_measures_nothing_twice(stop_after):
    whole, study = study_of()
    play(study)
    store, study = study_of()
    play(study, stop_after=stop_after)
    cut = store.records
    store, study = study_of(known=cut)
    play(study)
    together = [*cut, *store.records]
    assert len({record.key for record in together}) == len(together)
    assert len(at(together, 0)) == 27
    assert len(at(together, 1)) >= 9
    assert len(whole.records) >= 27 + 9 + 3


def test_the_controller_is_told_again_of_those_that_went_on():
    told = Told()
    store, study = study_of(proposer=told)
    play(study)
    times = {}
    for tokens, _ in told.rewards:
        times[tokens] = times.get(tokens, 0) + 1
    once = {r.tokens for r in at(store.records, 0)}
    assert sum(times.values()) >= len(store.records) - 2  # some wait for a batch
    assert set(times) <= once
    assert max(times.values()) == 3
    # On the lowest rung's scale: no reward of 0.5 and more, which higher rungs give.
    low = [record.reward for record in at(store.records, 0)]
    assert max(reward for _, reward in told.rewards) <= max(low) + 0.1


def test_a_child_that_fails_on_its_way_keeps_what_it_had():
    store, study = study_of(num_trials=3)
    for _ in range(3):
        trial = study.next_trial()
        study.finish(trial, measured(trial), None, b"")
    trial = study.next_trial()
    assert trial.fidelity == 1
    study.finish(trial, Infeasible("diverged"), None)
    assert study.next_trial() is None
    kept = latest(store.records)
    assert [record.fidelity for record in kept] == [0, 0, 0]


def test_the_best_are_measured_again_at_the_highest_rung_from_nothing():
    confirm = Confirm(number=4, repeats=2, quality=ACCURACY)
    store, study = study_of(confirm=confirm)
    play(study)
    again = [record for record in store.records if record.repeat]
    assert len(again) == 8
    assert {record.fidelity for record in again} == {2}
    assert {record.repeat for record in again} == {1, 2}


@pytest.mark.parametrize(("num_rungs", "factor"), [(1, 3), (3, 1)])
def test_rungs_that_are_none_are_refused(num_rungs, factor):
    with pytest.raises(ValueError, match="two rungs at least"):
        Halving(num_rungs=num_rungs, factor=factor)
