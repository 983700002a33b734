"""A policy in which each choice depends linearly on the choices before it.

The logits of decision d are its biases plus, for each decision before it, the row of a
table that the choice made there selects. It starts uniform, knows pairs of choices, and
samples and learns in NumPy within milliseconds: nothing has to compile.

Shapes: D decisions of K choices in all; a sequence's marks are a row [K] of zeros with
a 1 for each choice made.
"""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from controller import kernel
from controller.conditions import Conditions, active, gates
from controller.interface import PolicySummary

# With more choices the tables of pairs are left out: they would not fit the memory.
_MAX_PAIRED = 2_000
_NUM_SUMMARY_SAMPLES = 64

Tokens = NDArray[np.int32]
Floats = NDArray[np.floating[Any]]


class Params(NamedTuple):
    """Logits `bias` [K], and `pairs` [K, K] from an earlier choice to a later one.

    `pairs` is [0, 0] where there are too many choices for it.
    """

    bias: Floats
    pairs: Floats


def init(num_choices: tuple[int, ...]) -> Params:
    """Returns the uniform policy."""
    total = sum(num_choices)
    size = total if total <= _MAX_PAIRED else 0
    return Params(
        bias=np.zeros(total, np.float32), pairs=np.zeros((size, size), np.float32)
    )


def sample(
    params: Params,
    num_choices: tuple[int, ...],
    rng: np.random.Generator,
    num: int,
    conditions: Conditions = (),
) -> tuple[Tokens, Floats]:
    """Returns canonical tokens int32 [num, D] of the policy, and log-probabilities.

    Those are `log_probs` of the tokens.
    """
    noise = rng.gumbel(size=(num, len(params.bias))).astype(np.float32)
    marks = np.zeros((num, len(params.bias)), np.float32)
    tokens = np.zeros((num, len(num_choices)), np.int32)
    rows = np.arange(num)
    table = gates(num_choices, conditions) if conditions else None
    matters = np.ones((num, len(num_choices)), np.bool_)
    for d, (first, last) in enumerate(_columns(num_choices)):
        logits = params.bias[first:last] + noise[:, first:last]
        if len(params.pairs):
            logits = logits + marks[:, :first] @ params.pairs[:first, first:last]
        drawn = logits.argmax(axis=1)  # with this noise the largest is a draw
        tokens[:, d] = np.where(matters[:, d], drawn, 0)
        if table is not None:
            matters &= table[d, tokens[:, d]]
        marks[rows, first + tokens[:, d]] = 1.0
    return tokens, log_probs(params, num_choices, tokens, conditions)


def log_probs(
    params: Params,
    num_choices: tuple[int, ...],
    tokens: Tokens,
    conditions: Conditions = (),
) -> Floats:
    """Returns the log-probabilities [num] of canonical tokens [num, D]."""
    marks = kernel.one_hot(tokens, num_choices)
    chosen = marks * _weights(num_choices, conditions, tokens)
    return (_log_softmax(params, num_choices, marks) * chosen).sum(axis=1)


def stepped(
    params: Params,
    num_choices: tuple[int, ...],
    tokens: Tokens,
    weights: Floats,
    learning_rate: float,
    forgetting: float,
    conditions: Conditions = (),
) -> Params:
    """Returns the policy after a step up `sum(weights * log_probs(tokens))`.

    Logits shrink by the share `forgetting` first: a step towards the uniform policy.
    """
    marks = kernel.one_hot(tokens, num_choices)
    probs = np.exp(_log_softmax(params, num_choices, marks))
    counted = weights[:, None] * _weights(num_choices, conditions, tokens)
    slope = counted * (marks - probs)
    bias = (1.0 - forgetting) * params.bias + learning_rate * slope.sum(axis=0)
    if not len(params.pairs):
        return params._replace(bias=bias.astype(np.float32))
    # A later decision has a table for each earlier one: together they move as the bias.
    rate = learning_rate / len(num_choices)
    pairs = (1.0 - forgetting) * params.pairs + rate * (marks.T @ slope)
    return Params(bias=bias.astype(np.float32), pairs=_earlier(num_choices) * pairs)


def flattened(params: Params) -> Params:
    """Returns the policy with its logits halved: nearer to the uniform one."""
    return Params(bias=0.5 * params.bias, pairs=0.5 * params.pairs)


def policy_summary(
    params: Params, num_choices: tuple[int, ...], conditions: Conditions = ()
) -> PolicySummary:
    """Returns the policy's marginal probabilities and its entropy, by its samples.

    Always from the same noise, so that two policies differ by what they learned.
    """
    rng = np.random.default_rng(0)
    tokens, _ = sample(params, num_choices, rng, _NUM_SUMMARY_SAMPLES, conditions)
    marks = kernel.one_hot(tokens, num_choices)
    logs = _log_softmax(params, num_choices, marks)
    probs = np.exp(logs)
    table = np.zeros((len(num_choices), max(num_choices)), np.float32)
    counted = _weights(num_choices, conditions, tokens)
    means = (probs * counted).sum(axis=0) / np.maximum(1.0, counted.sum(axis=0))
    for d, (first, last) in enumerate(_columns(num_choices)):
        table[d, : last - first] = means[first:last]
    return PolicySummary(
        probabilities=table, entropy=float(-(probs * logs * counted).sum(axis=1).mean())
    )


def _weights(
    num_choices: tuple[int, ...], conditions: Conditions, tokens: Tokens
) -> Floats:
    """Returns 1 for each choice of a decision that matters in a sequence: [num, K]."""
    matters = active(num_choices, conditions, tokens)
    return np.repeat(matters, num_choices, axis=1).astype(np.float32)


def _log_softmax(params: Params, num_choices: tuple[int, ...], marks: Floats) -> Floats:
    """Returns the log-probability of every choice [num, K], given those before it."""
    logits = np.broadcast_to(params.bias, marks.shape)
    if len(params.pairs):
        logits = logits + marks @ params.pairs
    starts = np.cumsum([0, *num_choices[:-1]])
    counts = np.asarray(num_choices)
    most = np.repeat(np.maximum.reduceat(logits, starts, axis=1), counts, axis=1)
    shifted = logits - most
    sums = np.add.reduceat(np.exp(shifted), starts, axis=1)
    return shifted - np.repeat(np.log(sums), counts, axis=1)


def _columns(num_choices: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Each decision's first column of marks, and that after its last."""
    return itertools.pairwise([0, *itertools.accumulate(num_choices)])


def _earlier(num_choices: tuple[int, ...]) -> Floats:
    """[K, K]: 1 from a choice to those of later decisions."""
    decision = np.repeat(np.arange(len(num_choices)), num_choices)
    return (decision[:, None] < decision[None, :]).astype(np.float32)
