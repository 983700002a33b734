"""Tests for nas.study.proposals."""

import io
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import controller
from controller.conditions import canonical
from nas.study.proposals import Proposals, SnapshotError
from search_space import spaces


class Scripted:
    """Proposes one fixed sequence for ever, and keeps what it is told."""

    def __init__(self, num_choices, tokens):
        self.num_choices = num_choices
        self._tokens = tokens
        self.told = []
        self.pending = []

    def init(self, seed):
        return np.int64(seed)

    def ask(self, state, num, pending=None):
        self.pending.append(np.asarray(pending).tolist())
        return state, np.array([self._tokens] * num, np.int32)

    def tell(self, state, tokens, rewards):
        self.told.append((tokens.tolist(), rewards.tolist()))
        return state


def start(c, *, seed=0, rewards_per_update=5):
    return Proposals(c, seed=seed, rewards_per_update=rewards_per_update)


def suggest(proposals):
    tokens = proposals.suggest()
    assert tokens is not None
    return tokens


def lists(sequences):
    return [list(tokens) for tokens in sequences]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(1, 12))
@settings(deadline=None)
def test_every_sequence_comes_once_and_then_none(num_choices, rewards_per_update):
    c = controller.build("random", num_choices=tuple(num_choices))
    proposals = start(c, seed=3, rewards_per_update=rewards_per_update)
    suggested = list(iter(proposals.suggest, None))
    assert len(suggested) == len(set(suggested)) == math.prod(num_choices)
    assert proposals.suggest() is None


def test_a_controller_that_repeats_itself_gets_its_nearest_neighbours():
    center = (1, 0, 2, 1, 1)
    proposals = start(Scripted((3, 2, 4, 2, 3), center), rewards_per_update=4)
    # 1 at distance 0, then 2 + 1 + 3 + 1 + 2 = 9 at distance 1.
    distances = [
        int((np.array(suggest(proposals)) != np.array(center)).sum()) for _ in range(10)
    ]
    assert distances == [0] + [1] * 9
    assert (np.array(suggest(proposals)) != np.array(center)).sum() == 2


def test_a_converged_controller_stays_quick():
    proposals = start(Scripted((3,) * 35, (0,) * 35), rewards_per_update=10)
    begun = time.process_time()
    for _ in range(2000):
        proposals.record(suggest(proposals), 1.0)
    # 0.8 s on one busy core, most of it in the fallback.
    assert time.process_time() - begun < 10.0


def test_rewards_are_told_in_batches_in_order_of_arrival():
    c = Scripted((4, 4), (0, 0))
    proposals = start(c, rewards_per_update=3)
    tokens = [suggest(proposals) for _ in range(5)]
    for index, reward in [(4, 0.5), (0, 0.25), (2, 1.0), (1, 2.0)]:
        proposals.record(tokens[index], reward)
    told = lists([tokens[4], tokens[0], tokens[2]])
    assert c.told == [(told, [0.5, 0.25, 1.0])]


def test_the_controller_is_asked_with_what_is_pending():
    c = Scripted((4, 4), (0, 0))
    proposals = start(c, rewards_per_update=1)
    first, second = suggest(proposals), suggest(proposals)
    proposals.record(first, 1.0)
    suggest(proposals)
    assert c.pending[0] == []
    assert c.pending[-1] == [list(second)]
    assert proposals.pending[0] == second


def test_infeasible_counts_as_the_lowest_so_far():
    c = Scripted((4, 4), (0, 0))
    proposals = start(c, rewards_per_update=1)
    for reward in [None, 3.0, None, 2.0, 5.0, None]:
        proposals.record(suggest(proposals), reward)
    flat = [reward for _, rewards in c.told for reward in rewards]
    assert flat == [3.0, 3.0, 3.0, 2.0, 5.0, 2.0]


def test_infeasible_before_any_reward_waits_for_the_first():
    """There is no lowest yet: 0 would beat every negative reward that follows."""
    c = Scripted((4, 4), (0, 0))
    proposals = start(c, rewards_per_update=2)
    tokens = [suggest(proposals) for _ in range(6)]
    for index in range(4):
        proposals.record(tokens[index], None)
    assert c.told == []
    proposals.record(tokens[4], -2.0)
    proposals.record(tokens[5], -1.0)
    assert c.told == [
        (lists(tokens[:2]), [-2.0, -2.0]), (lists(tokens[2:4]), [-2.0, -2.0]),
        (lists(tokens[4:]), [-2.0, -1.0]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "num"),
    [("dyna", 300), ("ppo", 900), ("evolution", 300), ("reinforce", 900)],
)
def test_whole_batches_infeasible_do_not_poison_the_controller(name, num):
    """Eight at the start and four in the middle; then it still finds what pays.

    Rewards are the share of tokens that are 3, less 1: -0.75 at random, 0 at best.
    The mean of 50 random children is above -0.6 with odds below 1e-10; the
    controllers reach -0.30 to -0.35, and plain REINFORCE is slower about it.
    """
    proposals = start(controller.build(name, num_choices=(4,) * 8), seed=1)
    rewards = []
    for index in range(num):
        tokens = suggest(proposals)
        rewards.append(tokens.count(3) / 8 - 1.0)
        broken = index < 40 or 150 <= index < 170
        proposals.record(tokens, None if broken else rewards[-1])
    assert np.mean(rewards[:40]) == pytest.approx(-0.75, abs=0.1)
    assert np.mean(rewards[-50:]) > -0.6


def test_what_record_refuses():
    proposals = start(Scripted((4,), (0,)), rewards_per_update=2)
    tokens = suggest(proposals)
    with pytest.raises(ValueError, match=r"reward of \(0,\) must be finite, got nan"):
        proposals.record(tokens, math.nan)
    with pytest.raises(KeyError, match=r"\(1,\) is not pending"):
        proposals.record((1,), 0.5)
    proposals.record(tokens, 0.5)
    with pytest.raises(KeyError, match=r"\(0,\) is not pending"):
        proposals.record(tokens, 0.5)
    with pytest.raises(ValueError, match="rewards_per_update must be at least 1"):
        start(Scripted((4,), (0,)), rewards_per_update=0)


def test_results_of_anybody_are_learned_at_once_and_never_suggested():
    c = Scripted((2, 2), (0, 0))
    proposals = start(c)
    proposals.learn([((0, 0), None), ((0, 1), 0.5), ((1, 1), 0.25)])
    assert c.told == [([[0, 0], [0, 1], [1, 1]], [0.25, 0.5, 0.25])]
    assert suggest(proposals) == (1, 0)
    assert proposals.suggest() is None


NUM_CHOICES = (3, 2, 4, 2)  # 48 sequences: some examples exhaust it
# A step of a search: suggest, or record the n-th of those pending.
steps = st.lists(
    st.one_of(
        st.none(),
        st.tuples(st.integers(0, 7), st.one_of(st.none(), st.floats(0.0, 1.0))),
    ),
    max_size=60,
)


def play(proposals, steps):
    """Yields what is suggested; and records results, whose tokens it yields negated."""
    for step in steps:
        if step is None:
            yield proposals.suggest()
        elif proposals.pending:
            tokens = proposals.pending[step[0] % len(proposals.pending)]
            proposals.record(tokens, step[1])
            yield tuple(-1 - token for token in tokens)


@given(
    name=st.sampled_from(["random", "dyna", "ppo", "evolution", "reinforce"]),
    steps=steps,
    cut=st.integers(0, 60),
    seed=st.integers(0, 3),
    rewards_per_update=st.integers(1, 5),
)
@settings(max_examples=40, deadline=None)
def test_from_a_snapshot_a_search_goes_on_as_if_it_had_not_stopped(
    name, steps, cut, seed, rewards_per_update
):
    c = controller.build(name, num_choices=NUM_CHOICES)

    def begin():
        return start(c, seed=seed, rewards_per_update=rewards_per_update)

    whole = list(play(begin(), steps))
    stopped = begin()
    before = list(play(stopped, steps[:cut]))
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **stopped.snapshot())
    file.seek(0)
    recorded = [tuple(-1 - t for t in event) for event in before if event and
                event[0] < 0]  # fmt: skip

    resumed = begin()
    with np.load(file, allow_pickle=False) as saved:
        resumed.restore(dict(saved), recorded)
    assert resumed.num_updates == stopped.num_updates
    assert before + list(play(resumed, steps[cut:])) == whole


def test_a_snapshot_of_something_else_changes_nothing():
    proposals = start(controller.build("dyna", num_choices=NUM_CHOICES))
    other = start(controller.build("dyna", num_choices=(2, 2))).snapshot()
    own = proposals.snapshot()
    for wrong in (
        {},
        other,
        {**own, "queue": np.array([[9, 9, 9, 9]], np.int32)},
        {**own, "pending": np.zeros((2, 3), np.int32)},
        {**own, "arrived_rewards": np.zeros(4)},
        {**own, "lowest": np.array("low")},
        {name: value for name, value in own.items() if name != "state_0000"},
    ):
        with pytest.raises(SnapshotError):
            proposals.restore(wrong, [])
    after = proposals.snapshot()
    assert own.keys() == after.keys()
    for name, value in own.items():
        np.testing.assert_array_equal(value, after[name])


def test_what_does_not_matter_makes_no_new_suggestion():
    """Not even of a controller that does not know: it is asked for every architecture.

    The space's own view of what matters and the controllers' agree.
    """
    space = spaces.load("efficientnetv2").restrict(
        {
            "stage[0-5].op": ("fused",),
            "stage[0-5].kernel": (3,),
            "stage[0-5].expansion": (4,),
            "stage[0-2].layers": (1,),
            "stage[34].layers": (4,),
            "stage5.layers": (7,),
        }
    )
    assert space.size == 1 + 2 * 2 * 2 * 3
    for conditions in (space.conditions, ()):
        c = controller.build(
            "random", num_choices=space.num_choices, conditions=conditions
        )
        proposals = Proposals(c, seed=0, rewards_per_update=3, space=space)
        found = list(iter(proposals.suggest, None))
        assert len(found) == len(set(map(space.decode, found))) == space.size
        np.testing.assert_array_equal(
            canonical(space.num_choices, space.conditions, np.array(found)), found
        )
