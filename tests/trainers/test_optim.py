"""Update rules against their equations in NumPy; the schedule by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trainers import optim

RATES = [0.1, 0.3, 0.2, 0.05]
DECAY = 0.01


def gradients():
    rng = np.random.default_rng(0)
    return [
        {"kernel": rng.normal(size=(2, 3)), "bias": rng.normal(size=3)} for _ in RATES
    ]


def start():
    rng = np.random.default_rng(1)
    return {"kernel": rng.normal(size=(2, 3)), "bias": rng.normal(size=3)}


def trained(optimizer, weight_decay):
    rule = optim.chain(optimizer)
    params = jax.tree.map(jnp.float32, start())
    state = rule.init(params)
    for rate, grads in zip(RATES, gradients(), strict=True):
        grads = jax.tree.map(jnp.float32, grads)
        updates, state = rule.update(
            grads,
            state,
            params,
            learning_rate=jnp.float32(rate),
            weight_decay=jnp.float32(weight_decay),
        )
        params = jax.tree.map(jnp.add, params, updates)
    return params


def rmsprop(w, grads, decay):
    square, step = np.ones_like(w), np.zeros_like(w)
    for rate, grad in zip(RATES, grads, strict=True):
        penalized = grad + decay * w
        square = 0.9 * square + 0.1 * penalized**2
        step = 0.8 * step + rate * penalized / np.sqrt(square + 1e-3)
        w = w - step
    return w


def nesterov(w, grads, decay):
    velocity = np.zeros_like(w)
    for rate, grad in zip(RATES, grads, strict=True):
        penalized = grad + decay * w
        velocity = 0.8 * velocity + penalized
        w = w - rate * (penalized + 0.8 * velocity)
    return w


def adamw(w, grads, decay):
    mean, square = np.zeros_like(w), np.zeros_like(w)
    for t, (rate, grad) in enumerate(zip(RATES, grads, strict=True), 1):
        mean = 0.8 * mean + 0.2 * grad
        square = 0.999 * square + 0.001 * grad**2
        normal = mean / (1 - 0.8**t) / (np.sqrt(square / (1 - 0.999**t)) + 1e-8)
        w = w - rate * (normal + decay * w)
    return w


@pytest.mark.parametrize(
    ("name", "rule"), [("rmsprop", rmsprop), ("sgd", nesterov), ("adamw", adamw)]
)
def test_four_updates_follow_the_equations_and_decay_kernels_alone(name, rule):
    got = trained(optim.Optimizer(name=name, momentum=0.8), DECAY)
    for part, decay in (("kernel", DECAY), ("bias", 0.0)):
        want = rule(start()[part], [grads[part] for grads in gradients()], decay)
        np.testing.assert_allclose(got[part], want, rtol=1e-4, atol=1e-6)


def test_the_first_rmsprop_step_by_hand():
    """The accumulator starts at 1: from 0 the step would be 0.1 * 2 / 0.63 = 0.32."""
    rule = optim.chain(optim.Optimizer(name="rmsprop"))
    weight = jnp.zeros(1)
    updates, _ = rule.update(
        jnp.full(1, 2.0),
        rule.init(weight),
        weight,
        learning_rate=jnp.float32(0.1),
        weight_decay=jnp.float32(0.0),
    )
    # 0.9 * 1 + 0.1 * 2 ** 2 = 1.3
    np.testing.assert_allclose(updates, [-0.1 * 2 / 1.301**0.5], rtol=1e-6)


def test_cosine_by_hand():
    """Ten steps: four of warm-up, then half a period of 7 = 11 - 4 steps."""
    rates = optim.Cosine(peak=2.0, warmup=0.4).values(10)
    np.testing.assert_allclose(rates[:5], [0.5, 0.875, 1.25, 1.625, 2.0], rtol=1e-6)
    falling = [1 + np.cos(np.pi * i / 7) for i in range(7)]
    np.testing.assert_allclose(rates[4:], falling[:6], rtol=1e-5)


def test_staircase_by_hand():
    """Halved after every 2.5 steps, counted from the start; two steps of warm-up."""
    stairs = optim.Staircase(peak=2.0, warmup_steps=2, factor=0.5, every=2.5)
    want = [0.0, 1.0, 2.0, 1.0, 1.0, 0.5, 0.5, 0.5]
    np.testing.assert_allclose(stairs.values(8), want)


@pytest.mark.parametrize("num_steps", [1, 2, 50, 1000])
def test_cosine_ends(num_steps):
    rates = optim.Cosine(peak=0.3).values(num_steps)
    assert rates.shape == (num_steps,)
    assert rates.dtype == np.float32
    warmup = max(1, -(-num_steps // 10))
    assert rates[0] == pytest.approx(0.3 / warmup, rel=1e-4)
    assert rates.max() == pytest.approx(0.3)
    # No step is wasted on a rate of 0, and the last is the smallest after the peak.
    assert rates.min() > 0
    assert np.all(np.diff(rates[warmup:]) < 0)
