"""An autoregressive policy over token sequences: NASNet's one-layer LSTM.

One hundred hidden units, weights from U(-0.1, 0.1) (https://arxiv.org/abs/1707.07012,
appendix A.2, whose text leaves biases open: zero here). The input at decision d is
the embedding of token d - 1 in a table of that decision's own; the logits come from
a head of that decision's own. Decisions differ in their number of choices: tables
and heads are padded to the largest, and the padding has probability zero.

Shapes: D decisions, at most C choices each, H hidden units. `lax.scan` runs over
decisions, so that the time to compile does not depend on D; what does not depend on
the state is computed outside of it, in one product for all decisions.
"""

# JAX leaves parts of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from controller.conditions import Conditions, gates
from controller.interface import PolicySummary

HIDDEN_SIZE = 100
_INIT_RANGE = 0.1
# Samples that summaries are averaged over. Each contributes its distributions, not its
# draws, so that few do.
_NUM_BELIEF_SAMPLES = 32


class Params(NamedTuple):
    """Weights of the policy.

    `embed` [D, C, H]: its entry [d, t] is the input at d when token d - 1 is t (the
    first decision's is [0, 0]). `kernel` [H, 4H] of the input, `recurrent` [H, 4H] of
    the hidden state and `bias` [4H]: the LSTM's gates (input, forget, cell, output).
    `head` [D, H, C] and `head_bias` [D, C]: logits.
    """

    embed: jax.Array
    kernel: jax.Array
    recurrent: jax.Array
    bias: jax.Array
    head: jax.Array
    head_bias: jax.Array


def init(
    seed: int, num_choices: tuple[int, ...], hidden_size: int = HIDDEN_SIZE
) -> Params:
    """Returns the weights of a policy that is nearly uniform."""
    decisions, choices = len(num_choices), max(num_choices)
    # Drawn by NumPy: JAX would compile a program for each shape.
    rng = np.random.default_rng(seed)

    def uniform(*shape: int) -> jax.Array:
        return jnp.asarray(rng.uniform(-_INIT_RANGE, _INIT_RANGE, shape))

    return Params(
        embed=uniform(decisions, choices, hidden_size),
        kernel=uniform(hidden_size, 4 * hidden_size),
        recurrent=uniform(hidden_size, 4 * hidden_size),
        bias=jnp.asarray(np.zeros(4 * hidden_size)),
        head=uniform(decisions, hidden_size, choices),
        head_bias=jnp.asarray(np.zeros((decisions, choices))),
    )


def sample(
    params: Params,
    num_choices: tuple[int, ...],
    rng: np.random.Generator,
    num: int,
    conditions: Conditions = (),
) -> NDArray[np.int32]:
    """Returns canonical tokens int32 [num, D] drawn from the policy."""
    # The Gumbel-max trick: with this noise added, the largest logit is a draw. JAX's
    # own random numbers would take longer to compile than all the rest.
    shape = (len(num_choices), num, max(num_choices))
    noise = rng.gumbel(size=shape).astype(np.float32)
    return np.asarray(_largest(num_choices, conditions, params, noise))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _largest(
    num_choices: tuple[int, ...],
    conditions: Conditions,
    params: Params,
    noise: jax.Array,
) -> jax.Array:
    """Returns tokens [num, D], each of the largest logit plus noise [D, num, C]."""

    def step(carry: Any, weights: Any) -> tuple[Any, jax.Array]:
        cell, hidden, token, matters = carry
        inputs, head, head_bias, valid, noise, position, gate = weights
        cell, hidden = _lstm(params.recurrent, cell, hidden, inputs[token])
        logits = jnp.where(valid[None], hidden @ head + head_bias[None], -jnp.inf)
        token = jnp.argmax(logits + noise, axis=-1).astype(jnp.int32)
        if conditions:
            token = jnp.where(matters[:, position], token, 0)
            matters = matters & gate[token]
        return (cell, hidden, token, matters), token

    num, decisions = noise.shape[1], len(num_choices)
    inputs = params.embed @ params.kernel + params.bias
    weights = (
        inputs,
        params.head,
        params.head_bias,
        _valid(num_choices),
        jnp.asarray(noise),
        jnp.arange(decisions),
        jnp.asarray(gates(num_choices, conditions)) if conditions else None,
    )
    zeros = _zero_state(params.recurrent, num)
    matters = jnp.ones((num, decisions), bool) if conditions else None
    start = (zeros, zeros, jnp.zeros(num, jnp.int32), matters)
    return jax.lax.scan(step, start, weights)[1].T


def conditionals(
    params: Params,
    num_choices: tuple[int, ...],
    tokens: jax.Array,
    conditions: Conditions = (),
) -> jax.Array:
    """Returns the log-probabilities of each decision's choices: [num, D, C].

    Those of decision d are given canonical tokens [num, D] before d; padding has -inf.
    Where a decision does not matter its token is 0 for certain.
    """
    before = jnp.pad(tokens[:, :-1], ((0, 0), (1, 0))).T
    table = params.embed @ params.kernel + params.bias
    inputs = table[jnp.arange(len(num_choices))[:, None], before]
    hidden = _hidden(params.recurrent, inputs)
    logits = jnp.einsum("dnh,dhc->ndc", hidden, params.head) + params.head_bias
    logits = jnp.where(_valid(num_choices), logits, -jnp.inf)
    log_probs = jax.nn.log_softmax(logits)
    if not conditions:
        return log_probs
    certain = jnp.where(jnp.arange(max(num_choices)) == 0, 0.0, -jnp.inf)
    matters = _matters(num_choices, conditions, tokens)
    return jnp.where(matters[..., None], log_probs, certain)


def _scanned(recurrent: jax.Array, inputs: jax.Array) -> jax.Array:
    """Returns the hidden states [D, num, H] for the gates' inputs [D, num, 4H]."""

    def step(
        carry: tuple[jax.Array, jax.Array], inputs: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        cell, hidden = _lstm(recurrent, *carry, inputs)
        return (cell, hidden), hidden

    zeros = _zero_state(recurrent, inputs.shape[1])
    return jax.lax.scan(step, (zeros, zeros), inputs)[1]


# The transpose of a scan adds up the gradient of `recurrent` step by step. Here it is
# one product over all steps, which halves the time of an update.
@jax.custom_vjp
def _hidden(recurrent: jax.Array, inputs: jax.Array) -> jax.Array:
    return _scanned(recurrent, inputs)


def _hidden_forward(recurrent: jax.Array, inputs: jax.Array) -> tuple[jax.Array, Any]:
    hidden, pull_back = jax.vjp(functools.partial(_scanned, recurrent), inputs)
    return hidden, (hidden, pull_back)


def _hidden_backward(saved: Any, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    hidden, pull_back = saved
    (of_inputs,) = pull_back(gradient)
    return jnp.einsum("dnh,dng->hg", hidden[:-1], of_inputs[1:]), of_inputs


_hidden.defvjp(_hidden_forward, _hidden_backward)


def evaluate(
    params: Params,
    num_choices: tuple[int, ...],
    tokens: jax.Array,
    conditions: Conditions = (),
) -> tuple[jax.Array, jax.Array]:
    """Returns log-probabilities [num] and entropies [num] of canonical tokens [num, D].

    A sequence's entropy is the sum over decisions of the entropy of the decision's
    distribution given the tokens before it; its mean over the policy's own samples
    is the policy's entropy, in nats.
    """
    log_probs = conditionals(params, num_choices, tokens, conditions)
    chosen = jnp.take_along_axis(log_probs, tokens[..., None], axis=-1)[..., 0]
    return jnp.sum(chosen, axis=-1), _entropies(log_probs)


def padded_size(num: int) -> int:
    """Returns to how many rows `num` are padded: 8, 16, 32, 64 and so on.

    Few sizes, so that few programs are compiled; near, so that little is computed in
    vain.
    """
    return max(8, 1 << (num - 1).bit_length())


def log_probs(
    params: Params,
    num_choices: tuple[int, ...],
    tokens: NDArray[np.int32],
    conditions: Conditions = (),
) -> NDArray[np.float32]:
    """Returns the log-probabilities [num] of canonical tokens [num, D]."""
    unused = padded_size(len(tokens)) - len(tokens)
    padded = np.pad(tokens, ((0, unused), (0, 0)))
    found = _log_probs(num_choices, conditions, params, padded)
    return np.asarray(found)[: len(tokens)]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _log_probs(
    num_choices: tuple[int, ...],
    conditions: Conditions,
    params: Params,
    tokens: NDArray[np.int32],
) -> jax.Array:
    return evaluate(params, num_choices, jnp.asarray(tokens), conditions)[0]


def policy_summary(
    params: Params, num_choices: tuple[int, ...], conditions: Conditions = ()
) -> PolicySummary:
    """Returns the policy's marginal probabilities and its entropy.

    Always from the same noise, so that two policies differ by what they learned.
    """
    rng = np.random.default_rng(0)
    tokens = sample(params, num_choices, rng, _NUM_BELIEF_SAMPLES, conditions)
    probabilities, entropy = _beliefs(num_choices, conditions, params, tokens)
    return PolicySummary(
        probabilities=np.asarray(probabilities), entropy=float(entropy)
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _beliefs(
    num_choices: tuple[int, ...],
    conditions: Conditions,
    params: Params,
    tokens: NDArray[np.int32],
) -> tuple[jax.Array, jax.Array]:
    log_probs = conditionals(params, num_choices, jnp.asarray(tokens), conditions)
    matters = _matters(num_choices, conditions, jnp.asarray(tokens))[..., None]
    found = jnp.sum(jnp.exp(log_probs), axis=0, where=matters)
    probabilities = found / jnp.maximum(jnp.sum(matters, axis=0), 1)
    return probabilities, jnp.mean(_entropies(log_probs))


def _matters(
    num_choices: tuple[int, ...], conditions: Conditions, tokens: jax.Array
) -> jax.Array:
    """Returns `controller.conditions.active`."""
    if not conditions:
        return jnp.ones(tokens.shape, bool)
    table = jnp.asarray(gates(num_choices, conditions))
    return table[jnp.arange(len(num_choices)), tokens].all(axis=1)


def _entropies(log_probs: jax.Array) -> jax.Array:
    """Returns entropies [num] of sequences with these conditionals [num, D, C]."""
    # exp(-inf) is 0, but 0 * -inf is not: what is impossible is left out of the sum.
    finite = jnp.where(jnp.isneginf(log_probs), 0.0, log_probs)
    return -jnp.sum(jnp.exp(log_probs) * finite, axis=(-1, -2))


def _lstm(
    recurrent: jax.Array, cell: jax.Array, hidden: jax.Array, inputs: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """One step; `inputs` [num, 4H] are the gates' share of the input, with biases."""
    gates = inputs + hidden @ recurrent
    insert, forget, update, output = jnp.split(gates, 4, axis=-1)
    cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(insert) * jnp.tanh(update)
    return cell, jax.nn.sigmoid(output) * jnp.tanh(cell)


def _zero_state(recurrent: jax.Array, num: int) -> jax.Array:
    return jnp.zeros((num, recurrent.shape[0]), recurrent.dtype)


def _valid(num_choices: tuple[int, ...]) -> jax.Array:
    """Which entries of [D, C] are choices, not padding."""
    counts = np.asarray(num_choices)[:, None]
    return jnp.asarray(np.arange(max(num_choices)) < counts)
