"""Conditional decisions: what does not matter counts for nothing, anywhere."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import controller
from controller import linear_policy, policy
from controller.conditions import active, canonical

# The second matters under 1 or 2 of the first, the third under 0 of the second besides.
NUM_CHOICES = (3, 2, 4, 2)
CONDITIONS = ((), ((0, (1, 2)),), ((1, (0,)),), ())
EVERY = np.array(list(itertools.product(*map(range, NUM_CHOICES))), np.int32)
# By hand: 0; or 1 or 2 with either 0 and four, or 1; times the last.
NUM_CANONICAL = (1 + 2 * (4 + 1)) * 2
NAMES = ("dyna", "evolution", "ppo", "random", "reinforce")


def all_canonical():
    return np.unique(canonical(NUM_CHOICES, CONDITIONS, EVERY), axis=0)


@pytest.fixture(scope="module")
def params():
    """Of a policy that is far from uniform."""
    drawn = policy.init(3, NUM_CHOICES, hidden_size=8)
    return jax.tree.map(lambda leaf: 20 * leaf, drawn)


def test_what_matters_by_hand():
    tokens = np.array([[0, 1, 3, 1], [1, 0, 3, 0], [2, 1, 3, 1]], np.int32)
    assert active(NUM_CHOICES, CONDITIONS, tokens).astype(int).tolist() == [
        [1, 0, 0, 1],
        [1, 1, 1, 1],
        [1, 1, 0, 1],
    ]
    assert canonical(NUM_CHOICES, CONDITIONS, tokens).tolist() == [
        [0, 0, 0, 1],
        [1, 0, 3, 0],
        [2, 1, 0, 1],
    ]
    assert len(all_canonical()) == NUM_CANONICAL


def test_canonical_sequences_share_the_whole_probability(params):
    log_probs, entropies = policy.evaluate(
        params, NUM_CHOICES, jnp.asarray(all_canonical()), CONDITIONS
    )
    probs = np.exp(np.asarray(log_probs, np.float64))
    assert probs.sum() == pytest.approx(1, abs=1e-5)
    assert probs.max() > 3 / NUM_CANONICAL  # else any distribution would do
    # The policy's entropy is the mean of the entropies along its sequences.
    by_definition = -(probs * np.log(probs)).sum()
    assert (probs * np.asarray(entropies)).sum() == pytest.approx(
        by_definition, rel=1e-4
    )


def test_samples_have_the_stated_probabilities(params):
    """By chance off by more than five standard deviations once in 10^5 runs."""
    num = 20_000
    rng = np.random.default_rng(0)
    tokens = policy.sample(params, NUM_CHOICES, rng, num, CONDITIONS)
    np.testing.assert_array_equal(tokens, canonical(NUM_CHOICES, CONDITIONS, tokens))
    every = all_canonical()
    log_probs, _ = policy.evaluate(params, NUM_CHOICES, jnp.asarray(every), CONDITIONS)
    for sequence, p in zip(every, np.exp(np.asarray(log_probs)), strict=True):
        count = (tokens == sequence).all(axis=1).sum()
        assert abs(count - num * p) < 5 * math.sqrt(num * p * (1 - p)) + 1


def test_what_does_not_matter_has_no_gradient(params):
    """Where the first is 0, the heads of the second and the third are never asked."""
    tokens = jnp.asarray([[0, 0, 0, 1]])

    def log_prob(params):
        return policy.evaluate(params, NUM_CHOICES, tokens, CONDITIONS)[0][0]

    grads = jax.grad(log_prob)(params)
    moved = np.abs(np.asarray(grads.head_bias)).sum(axis=1) > 0
    assert moved.tolist() == [True, False, False, True]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_a_summary_is_of_what_matters(params):
    summary = policy.policy_summary(params, NUM_CHOICES, CONDITIONS)
    sums = summary.probabilities.sum(axis=1)
    np.testing.assert_allclose(sums, 1, atol=1e-5)
    assert summary.entropy < math.log(NUM_CANONICAL)


@pytest.fixture
def linear():
    """Dyna's policy with random logits."""
    total = sum(NUM_CHOICES)
    rng = np.random.default_rng(3)
    decision = np.repeat(np.arange(len(NUM_CHOICES)), NUM_CHOICES)
    earlier = decision[:, None] < decision
    return linear_policy.Params(
        bias=rng.normal(size=total).astype(np.float32),
        pairs=(rng.normal(size=(total, total)) * earlier).astype(np.float32),
    )


def test_the_linear_policys_canonical_sequences_share_all_probability(linear):
    own = all_canonical()
    logs = linear_policy.log_probs(linear, NUM_CHOICES, own, CONDITIONS)
    assert np.exp(logs.astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)
    rng = np.random.default_rng(4)
    drawn, said = linear_policy.sample(linear, NUM_CHOICES, rng, 20_000, CONDITIONS)
    positions = {tuple(row): i for i, row in enumerate(own.tolist())}
    where = [positions[tuple(row)] for row in drawn.tolist()]
    np.testing.assert_allclose(said, logs[where], atol=1e-5)
    shares = np.bincount(where, minlength=len(own)) / len(drawn)
    # Five standard errors of a share of 20,000 draws.
    np.testing.assert_allclose(shares, np.exp(logs), atol=5 * 0.5 / math.sqrt(20_000))


def test_the_linear_policy_steps_up_the_slope(linear):
    tokens = canonical(
        NUM_CHOICES,
        CONDITIONS,
        np.random.default_rng(5).integers(NUM_CHOICES, size=(6, 4)).astype(np.int32),
    )
    weights = np.linspace(-1, 1, 6, dtype=np.float32)

    def worth(bias):
        params = linear._replace(bias=bias)
        logs = linear_policy.log_probs(params, NUM_CHOICES, tokens, CONDITIONS)
        return float((weights * logs).sum())

    moved = linear_policy.stepped(
        linear, NUM_CHOICES, tokens, weights, 1.0, 0.0, CONDITIONS
    )
    for choice in range(sum(NUM_CHOICES)):
        nudge = np.zeros_like(linear.bias)
        nudge[choice] = 1e-2
        slope = (worth(linear.bias + nudge) - worth(linear.bias - nudge)) / 2e-2
        found = moved.bias[choice] - linear.bias[choice]
        assert found == pytest.approx(slope, abs=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_every_controller_proposes_canonical_sequences_and_learns_of_any(name):
    c = controller.build(name, num_choices=NUM_CHOICES, conditions=CONDITIONS)
    state = c.init(0)
    rng = np.random.default_rng(1)
    for _ in range(5):
        state, tokens = c.ask(state, 10)
        np.testing.assert_array_equal(
            tokens, canonical(NUM_CHOICES, CONDITIONS, tokens)
        )
        # Strangers' sequences are not canonical.
        told = np.concatenate([tokens, rng.integers(NUM_CHOICES, size=(10, 4))])
        state = c.tell(state, told, told.sum(axis=1).astype(np.float32))
    for leaf in jax.tree.leaves(state):
        assert np.isfinite(np.asarray(leaf)).all()


@pytest.mark.parametrize("name", ["ppo", "reinforce"])
def test_policies_learn_to_leave_out_and_to_take_in(name):
    """The best sequence is where the conditional decisions do not matter, or do."""
    for best in ((0, 0, 0, 1), (2, 0, 3, 0)):
        c = controller.build(
            name, num_choices=NUM_CHOICES, conditions=CONDITIONS, learning_rate=0.05
        )
        state = c.init(0)
        for _ in range(40):
            state, tokens = c.ask(state, 10)
            rewards = (tokens == best).mean(axis=1).astype(np.float32)
            state = c.tell(state, tokens, rewards)
        probabilities = c.policy_summary(state).probabilities
        assert probabilities[0, best[0]] > 0.6


def test_evolution_changes_what_matters_alone():
    c = controller.build(
        "evolution",
        num_choices=NUM_CHOICES,
        conditions=CONDITIONS,
        population=4,
        tournament=4,
    )
    parents = np.array([[0, 0, 0, 1]] * 4, np.int32)
    state = c.tell(c.init(0), parents, np.ones(4, np.float32))
    _, children = c.ask(state, 200)
    assert (children != parents[0]).any(axis=1).all()  # none is its parent again
    # Where the first was changed, what it brings into play is drawn anew.
    brought = children[children[:, 0] > 0]
    assert {tuple(row) for row in brought[:, 1:3].tolist()} == {
        (0, 0), (0, 1), (0, 2), (0, 3), (1, 0)
    }  # fmt: skip


def test_evolution_where_nothing_that_matters_is_free():
    c = controller.build(
        "evolution", num_choices=(1, 3), conditions=((), ((0, ()),)), population=1
    )
    state = c.tell(c.init(0), [[0, 2]], [1.0])
    assert c.ask(state, 3)[1].tolist() == [[0, 0]] * 3


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (((),), "conditions must be of all 4 decisions, got 1"),
        (((), ((1, (0,)),), (), ()), "decision 1 must need decisions before it, got 1"),
        (((), ((0, (3,)),), (), ()), r"decision 0 in \[0, 3\), got \(3,\)"),
    ],
)
def test_impossible_conditions_are_refused(conditions, message):
    with pytest.raises(ValueError, match=message):
        controller.build("random", num_choices=NUM_CHOICES, conditions=conditions)
