"""The whole-network step against the chained units, and laws of its options."""

import dataclasses

import jax
import numpy as np
import pytest

from search_space.spec import ArchSpec, ClassifierHead, MBConvStage, Stem
from trainers import loop, optim
from trainers.deploy import saved
from trainers.networks import classifier
from trainers.networks.units import EVALUATION, Mode
from trainers.phases import Strengths
from trainers.runtime import devices
from trainers.steps.chained import ChainedStep
from trainers.steps.executables import Recipe, split
from trainers.steps.jitted import JittedStep, averaged
from trainers.tasks.classification import Classification

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
    head=ClassifierHead(channels=16),
)
RECIPE = Recipe(task=Classification(), optimizer=optim.Optimizer(name="sgd"))
STRENGTHS = Strengths(weight_decay=1e-4, label_smoothing=0.1)


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
    return loop.Schedule(
        learning_rates=rates, norm_momentum=0.9, strengths=STRENGTHS, **options
    )


def jitted(dtype="float32", **options):
    network = classifier.build(SPEC, seed=0, dtype=dtype)
    return JittedStep(network, RECIPE, devices=devices.local(1), ema=True, **options)


def test_it_trains_as_the_chained_units_do():
    """Two ways to the same losses and accuracies."""
    network, states = split(classifier.build(SPEC, seed=0), RECIPE)
    chained, whole = ChainedStep(network, RECIPE), jitted()
    plan = schedule(8)
    states, want = loop.fit(chained, states, batches(8), plan)
    own, got = loop.fit(whole, whole.initial(), batches(8), plan)
    np.testing.assert_allclose(got, want, rtol=1e-4)
    batch = (*batches(1)[0], np.arange(16) < 11)
    observed = [step.observe(s, batch) for step, s in ((chained, states), (whole, own))]
    assert observed[0] == observed[1]
    assert observed[0]["seen"] == 11


def test_averages_are_of_every_steps_weights_and_statistics():
    """From the start w0: 0.64 w0 + 0.16 w1 + 0.2 w2 after two steps at 0.8."""
    step = jitted()
    state, kept = step.initial(), []
    for i in range(3):
        kept.append(jax.device_get((state.params, state.stats)))
        last = averaged(state)
        if i < 2:
            plan = dataclasses.replace(schedule(i + 1, ema_decay=0.8), first_step=i)
            state, _ = loop.fit(step, state, batches(i + 1)[i:], plan)
    want = jax.tree.map(lambda a, b, c: 0.64 * a + 0.16 * b + 0.2 * c, *kept)
    for got, value in zip(
        jax.tree.leaves((last.params, last.stats)), jax.tree.leaves(want), strict=True
    ):
        np.testing.assert_allclose(got, value, rtol=1e-5, atol=1e-7)


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
    optimizer = optim.Optimizer(name="sgd", momentum=0.0)
    strengths = Strengths(weight_decay=weight_decay, label_smoothing=0.1)
    step = JittedStep(
        biased_network(),
        Recipe(task=Classification(), optimizer=optimizer),
        devices=devices.local(1),
        decay_biases=decay_biases,
    )
    plan = dataclasses.replace(schedule(1), strengths=strengths)
    state, _ = loop.fit(step, step.initial(), batches(1), plan)
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


def test_statistics_that_were_refit_on_a_batch_give_its_training_outputs():
    """Batch norm then takes off what it would take off in training."""
    whole = jitted()
    images, _ = batch = batches(1)[0]
    state = loop.refit(whole, whole.initial(), [batch])
    got = whole.network(state)(images, EVALUATION)
    want = classifier.build(SPEC, seed=0)(images, Mode(train=True, momentum=1.0))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_statistics_that_were_refit_are_means_over_batches_and_nothing_else_moves():
    whole = jitted()
    start = whole.initial()
    alone = [loop.refit(whole, start, [batch]).stats for batch in batches(3)]
    together = loop.refit(whole, start, batches(3))
    for mean, *each in zip(together.stats, *alone, strict=True):
        np.testing.assert_allclose(mean, np.mean(each, axis=0), rtol=1e-5, atol=1e-7)
    assert together.params is start.params
    assert together.optimizer is start.optimizer


def test_refitting_is_the_same_unit_by_unit():
    network, states = split(classifier.build(SPEC, seed=0), RECIPE)
    chained, whole = ChainedStep(network, RECIPE), jitted()
    refit = loop.refit(chained, states, batches(3))
    own = loop.refit(whole, whole.initial(), batches(3))
    got = np.sort(np.concatenate([a for state in refit for a in state.stats]))
    want = np.sort(np.concatenate(own.stats))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
