"""The whole-network step against the chained units, and laws of its options."""

import jax
import numpy as np
import pytest

from search_space.spec import ArchSpec, Head, MBConvStage, Stem
from trainers import loop, optim
from trainers.deploy import saved
from trainers.networks import classifier
from trainers.runtime import devices
from trainers.steps.chained import ChainedStep
from trainers.steps.executables import Recipe, split
from trainers.steps.jitted import JittedStep, averaged

SPEC = ArchSpec(
    name="small",
    resolution=8,
    num_classes=5,
    activation="swish",
    stem=Stem(channels=8, stride=1),
    stages=(
        MBConvStage(
            channels=8, kernel=3, stride=2, expansion=2, repeats=2, se_ratio=0.25
        ),
    ),
    head=Head(channels=16),
)
RECIPE = Recipe(
    optimizer=optim.Optimizer(name="sgd", weight_decay=1e-4),
    label_smoothing=0.1,
    ema=True,
)


def batches(number, size=16):
    rng = np.random.default_rng(0)
    return [
        (
            rng.normal(size=(size, 8, 8, 3)).astype(np.float32),
            rng.integers(5, size=size).astype(np.int32),
        )
        for _ in range(number)
    ]


def schedule(number, **options):
    rates = np.full(number, 0.05, np.float32)
    return loop.Schedule(learning_rates=rates, norm_momentum=0.9, **options)


def jitted(dtype="float32", **options):
    network = classifier.build(SPEC, seed=0, dtype=dtype)
    return JittedStep(network, RECIPE, devices=devices.local(1), **options)


def test_it_trains_as_the_chained_units_do():
    """Two ways to the same losses, averages and accuracies."""
    network, states = split(classifier.build(SPEC, seed=0), RECIPE)
    chained, whole = ChainedStep(network, RECIPE), jitted()
    plan = schedule(8, ema_decay=0.8)
    states, want = loop.fit(chained, states, batches(8), plan)
    own, got = loop.fit(whole, whole.initial(), batches(8), plan)
    np.testing.assert_allclose(got, want, rtol=1e-4)
    norms = [
        np.linalg.norm([np.linalg.norm(array) for array in jax.tree.leaves(arrays)])
        for arrays in ([s.trained.ema for s in states], own.ema)
    ]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    averages = averaged(own)
    assert averages.params is own.ema[0]
    images, labels = batches(1)[0]
    mask = np.arange(16) < 11
    counts = [
        float(step.count_correct(s, images, labels, mask))
        for step, s in ((chained, states), (whole, own))
    ]
    assert counts[0] == counts[1]


def test_parts_that_are_alike_train_as_one_of_them_does():
    """Gradients are averaged over the parts: images given twice change nothing."""
    (images, labels), *_ = batches(1)
    twice = np.repeat(images, 2, axis=0), np.repeat(labels, 2)
    once, parts = jitted(), jitted(accumulation=2)
    one, want = loop.fit(once, once.initial(), [(images, labels)], schedule(1))
    two, got = loop.fit(parts, parts.initial(), [twice], schedule(1))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    for a, b in zip(one.params, two.params, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_bfloat16_stays_close_and_keeps_weights_in_float32():
    half, full = jitted("bfloat16"), jitted()
    states, got = loop.fit(half, half.initial(), batches(4), schedule(4))
    _, want = loop.fit(full, full.initial(), batches(4), schedule(4))
    np.testing.assert_allclose(got, want, rtol=0.03)  # eight bits of mantissa
    assert not np.array_equal(got, want)
    assert {array.dtype.name for array in states.params} == {"float32"}


def test_a_run_in_two_parts_is_the_run_in_one():
    """Averages warm up, and keys go on, by the step's index."""
    plan = schedule(6, ema_decay=0.99, ema_warmup=True, seed=3)
    step = jitted()
    whole, want = loop.fit(step, step.initial(), batches(6), plan)
    states, first = loop.fit(
        step,
        step.initial(),
        batches(6)[:4],
        schedule(4, ema_decay=0.99, ema_warmup=True, seed=3),
    )
    rest = schedule(6, ema_decay=0.99, ema_warmup=True, seed=3, first_step=4)
    states, second = loop.fit(step, states, batches(6)[4:], rest)
    np.testing.assert_array_equal([*first, *second], want)
    assert jax.tree.all(jax.tree.map(np.array_equal, states, whole))


def test_averages_forget_the_first_weights_by_tensorflows_rule():
    """decay = min(0.99, (1 + t) / (10 + t)): 0.1 at the first step, 2/11 then."""
    decays = [
        float(inputs.ema_decay)
        for inputs in schedule(3, ema_decay=0.15, ema_warmup=True).inputs()
    ]
    assert decays == pytest.approx([0.1, 0.15, 0.15])


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(ValueError, match="ask for fewer"):
        devices.local(10_000)


def biased_network():
    """Biases start at zero, where a penalty would not show."""
    network = classifier.build(SPEC, seed=0)
    for name, variable in saved.variables(network).items():
        if name.endswith("bias"):
            variable.set_value(np.full(variable.shape, 0.5, np.float32))
    return network


def after_one_step(*, weight_decay, decay_biases):
    optimizer = optim.Optimizer(name="sgd", momentum=0.0, weight_decay=weight_decay)
    step = JittedStep(
        biased_network(),
        Recipe(optimizer=optimizer),
        devices=devices.local(1),
        decay_biases=decay_biases,
    )
    state, _ = loop.fit(step, step.initial(), batches(1), schedule(1))
    return saved.arrays(step.network(state))


@pytest.mark.parametrize("decay_biases", [False, True])
def test_what_decays_is_what_efficientnets_code_penalizes(decay_biases):
    """There: every variable but batch norm's, by half the decay times its square.

    One step of 0.05 against a penalty of 0.2 takes a hundredth off a weight.
    """
    before = saved.arrays(biased_network())
    plain = after_one_step(weight_decay=0.0, decay_biases=decay_biases)
    decayed = after_one_step(weight_decay=0.2, decay_biases=decay_biases)
    taken = {name: plain[name] - decayed[name] for name in before}
    kernels = {name for name, array in before.items() if array.ndim > 1}
    biases = {
        *("blocks.1.units.2.reduce_bias", "blocks.1.units.2.expand_bias"),
        *("blocks.2.units.2.reduce_bias", "blocks.2.units.2.expand_bias"),
        "blocks.3.units.1.bias",  # the classifier's
    }
    assert biases < before.keys()
    for name, array in before.items():
        shrinks = name in kernels or (decay_biases and name in biases)
        want = 0.01 * array if shrinks else np.zeros_like(array)
        np.testing.assert_allclose(taken[name], want, atol=1e-6, err_msg=name)
