"""An autoregressive policy over token sequences: NASNet's one-layer LSTM.

One hundred hidden units, weights from U(-0.1, 0.1) (https://arxiv.org/abs/1707.07012,
appendix A.2, whose text leaves biases open: zero here). The input at decision d is
the embedding of token d - 1 in a table of that decision's own; the logits come from
a head of that decision's own. Decisions differ in their number of choices: tables
and heads are padded to the largest, and the padding has probability zero.

`lax.scan` runs over decisions, so that the time to compile does not depend on their
number.
"""

# JAX leaves parts of its own signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

HIDDEN_SIZE = 100
_INIT_RANGE = 0.1

_Carry = tuple[jax.Array, jax.Array, jax.Array]


class Params(NamedTuple):
    """Weights of the policy; D decisions, at most C choices, H hidden units.

    `embed` [D, C, H]: its entry [d, t] is the input at d when token d - 1 is t (the
    first decision's is [0, 0]). `kernel` [2H, 4H] and `bias` [4H]: the LSTM's gates
    (input, forget, cell, output) of the input and the hidden state. `head` [D, H, C]
    and `head_bias` [D, C]: logits.
    """

    embed: jax.Array
    kernel: jax.Array
    bias: jax.Array
    head: jax.Array
    head_bias: jax.Array


def init(
    key: jax.Array, num_choices: tuple[int, ...], hidden_size: int = HIDDEN_SIZE
) -> Params:
    """Returns the weights of a policy that is nearly uniform."""
    decisions, choices = len(num_choices), max(num_choices)
    embed, kernel, head = jax.random.split(key, 3)

    def uniform(key: jax.Array, *shape: int) -> jax.Array:
        return jax.random.uniform(key, shape, minval=-_INIT_RANGE, maxval=_INIT_RANGE)

    return Params(
        embed=uniform(embed, decisions, choices, hidden_size),
        kernel=uniform(kernel, 2 * hidden_size, 4 * hidden_size),
        bias=jnp.zeros(4 * hidden_size),
        head=uniform(head, decisions, hidden_size, choices),
        head_bias=jnp.zeros((decisions, choices)),
    )


def sample(
    params: Params, num_choices: tuple[int, ...], key: jax.Array, num: int
) -> tuple[jax.Array, jax.Array]:
    """Returns tokens int32 [num, D] and their log-probabilities [num]."""

    def step(
        carry: tuple[_Carry, jax.Array], inputs: tuple[jax.Array, ...]
    ) -> tuple[tuple[_Carry, jax.Array], jax.Array]:
        cell, total = carry
        *weights, key = inputs
        cell, log_probs = _decide(params, cell, weights)
        token = jax.random.categorical(key, log_probs).astype(jnp.int32)
        return ((*cell[:2], token), total + _chosen(log_probs, token)), token

    keys = jax.random.split(key, len(num_choices))
    start = (_start(params, num), jnp.zeros(num, params.bias.dtype))
    (_, total), tokens = jax.lax.scan(
        step, start, (*_per_decision(params, num_choices), keys)
    )
    return tokens.T, total


def evaluate(
    params: Params, num_choices: tuple[int, ...], tokens: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns log-probabilities [num] and entropies [num] of tokens [num, D].

    A sequence's entropy is the sum over decisions of the entropy of the decision's
    distribution given the tokens before it; its mean over the policy's own samples
    is the policy's entropy, in nats.
    """

    def step(
        carry: tuple[_Carry, jax.Array, jax.Array], inputs: tuple[jax.Array, ...]
    ) -> tuple[tuple[_Carry, jax.Array, jax.Array], None]:
        cell, total, entropy = carry
        *weights, token = inputs
        cell, log_probs = _decide(params, cell, weights)
        # exp(-inf) is 0, but 0 * -inf is not: padding is left out of the sum.
        finite = jnp.where(jnp.isfinite(log_probs), log_probs, 0.0)
        surprise = -jnp.sum(jnp.exp(log_probs) * finite, axis=-1)
        cell = (*cell[:2], token)
        return (cell, total + _chosen(log_probs, token), entropy + surprise), None

    zeros = jnp.zeros(tokens.shape[0], params.bias.dtype)
    (_, total, entropy), _ = jax.lax.scan(
        step,
        (_start(params, tokens.shape[0]), zeros, zeros),
        (*_per_decision(params, num_choices), tokens.T),
    )
    return total, entropy


def _start(params: Params, num: int) -> _Carry:
    """Cell and hidden state, [num, H] each, and the token before the first."""
    zeros = jnp.zeros((num, params.bias.shape[0] // 4), params.bias.dtype)
    return zeros, zeros, jnp.zeros(num, jnp.int32)


def _per_decision(
    params: Params, num_choices: tuple[int, ...]
) -> tuple[jax.Array, ...]:
    """What `_decide` needs of each decision, stacked along the first axis."""
    counts = np.asarray(num_choices)[:, None]
    valid = jnp.asarray(np.arange(max(num_choices)) < counts)
    return params.embed, params.head, params.head_bias, valid


def _decide(
    params: Params, carry: _Carry, weights: list[jax.Array]
) -> tuple[_Carry, jax.Array]:
    """One step of the LSTM: the new carry, and log-probabilities [num, C]."""
    cell, hidden, token = carry
    embed, head, head_bias, valid = weights
    joined = jnp.concatenate([embed[token], hidden], axis=-1)
    gates = joined @ params.kernel + params.bias[None]
    insert, forget, update, output = jnp.split(gates, 4, axis=-1)
    cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(insert) * jnp.tanh(update)
    hidden = jax.nn.sigmoid(output) * jnp.tanh(cell)
    logits = jnp.where(valid[None], hidden @ head + head_bias[None], -jnp.inf)
    return (cell, hidden, token), jax.nn.log_softmax(logits)


def _chosen(log_probs: jax.Array, token: jax.Array) -> jax.Array:
    """[num] out of [num, C]."""
    return jnp.take_along_axis(log_probs, token[:, None], axis=-1)[:, 0]
