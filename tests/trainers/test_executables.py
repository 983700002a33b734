"""Shared executables against the plainly jitted network."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from search_space import spaces
from search_space.spec import (
    ArchSpec,
    BottleneckStage,
    ClassifierHead,
    ConvStage,
    FusedMBConvStage,
    MBConvStage,
    SepConvStage,
    Stem,
)
from trainers import loop, optim
from trainers.networks import classifier
from trainers.networks.units import Mode
from trainers.phases import Strengths
from trainers.steps import executables
from trainers.steps.chained import ChainedStep
from trainers.tasks.classification import Classification

STEPS = 50
BATCH = 32
PEAK = 0.01
RECIPE = executables.Recipe(task=Classification())
STRENGTHS = Strengths(weight_decay=1e-5, label_smoothing=0.1)


def every_kind():
    """Every skip and unit there is, small."""
    return ArchSpec(
        name="every-kind",
        resolution=16,
        in_channels=2,
        num_classes=5,
        activation="swish",
        stem=Stem(channels=8),
        stages=(
            ConvStage(channels=12, kernel=3, stride=1, repeats=2, skip="pool"),
            ConvStage(
                channels=12,
                kernel=3,
                stride=2,
                repeats=2,
                skip="identity",
                se_ratio=0.25,
            ),
            SepConvStage(channels=8, kernel=3, stride=1, repeats=1),
            MBConvStage(
                channels=8, kernel=5, stride=1, expansion=1, repeats=1, skip="none"
            ),
            MBConvStage(
                channels=16,
                kernel=5,
                stride=2,
                expansion=3,
                repeats=2,
                se_ratio=0.25,
                skip="pool",
            ),
            BottleneckStage(channels=24, bottleneck=8, kernel=3, stride=2, repeats=2),
        ),
        head=ClassifierHead(channels=32, dropout=0.2),
        drop_path=0.3,
    )


def fused():
    """Fused stages of two convolutions and of one."""
    sizes = {"channels": 12, "repeats": 2, "se_ratio": 0.25}
    stages = (
        FusedMBConvStage(kernel=3, stride=2, expansion=2, **sizes),
        FusedMBConvStage(kernel=5, stride=1, expansion=1, **sizes),
    )
    return dataclasses.replace(every_kind(), stages=stages)


def batches(spec):
    rng = np.random.default_rng(0)
    shape = (STEPS, BATCH, spec.resolution, spec.resolution, spec.in_channels)
    images = rng.normal(size=shape).astype(np.float32)
    labels = rng.integers(0, spec.num_classes, (STEPS, BATCH))
    return list(zip(images, labels, strict=True))


def chained(spec):
    model = classifier.build(spec, seed=1)
    network, states = executables.split(model, RECIPE)
    step = ChainedStep(network, RECIPE)
    schedule = loop.Schedule(
        learning_rates=optim.Cosine(peak=PEAK).values(STEPS),
        norm_momentum=0.9,
        strengths=STRENGTHS,
        seed=3,
    )
    states, losses = loop.fit(step, states, batches(spec), schedule)
    return step, network, states, losses


class Plain:
    """The same training, written down with NNX and optax, jitted as one program."""

    def __init__(self, spec):
        self.spec = spec
        model = classifier.build(spec, seed=1)
        self.graphdef, *arrays = nnx.split(model, nnx.Param, nnx.BatchStat)
        self.params, self.stats = jax.tree.map(jnp.asarray, tuple(arrays))
        rates = jnp.asarray(optim.Cosine(peak=PEAK).values(STEPS))
        self.rule = optax.chain(
            optax.add_decayed_weights(
                STRENGTHS.weight_decay,
                mask=lambda tree: jax.tree.map(lambda p: p.ndim > 1, tree),
            ),
            optax.sgd(lambda step: rates[step], momentum=0.9, nesterov=True),
        )
        self.smoothing = STRENGTHS.label_smoothing
        self.step = jax.jit(self._step)

    def _loss(self, params, stats, images, labels, key):
        model = nnx.merge(self.graphdef, params, stats, copy=True)
        logits = model(images, Mode(train=True, momentum=0.9, key=key))
        classes = self.spec.num_classes
        targets = jax.nn.one_hot(labels, classes) * (1 - self.smoothing)
        targets = targets + self.smoothing / classes
        loss = -(targets * jax.nn.log_softmax(logits)).sum(-1).mean()
        return loss, nnx.state(model, nnx.BatchStat)

    def _step(self, params, stats, optimizer, images, labels, key):
        (loss, stats), grads = jax.value_and_grad(self._loss, has_aux=True)(
            params, stats, images, labels, key
        )
        updates, optimizer = self.rule.update(grads, optimizer, params)
        params = optax.apply_updates(params, updates)
        return params, stats, optimizer, loss

    def train(self, *, scale=1.0):
        """Trains from the initial weights times `scale`."""
        params, stats = jax.tree.map(lambda p: p * scale, self.params), self.stats
        optimizer, losses = self.rule.init(params), []
        for i, (images, labels) in enumerate(batches(self.spec)):
            key = jax.random.fold_in(jax.random.key(3), i)
            params, stats, optimizer, loss = self.step(
                params, stats, optimizer, images, labels, key
            )
            losses.append(float(loss))
        return params, stats, np.asarray(losses)


def assert_equal_up_to_rounding(got, want, nudged):
    """Training is chaotic: how far rounding leads is measured, not assumed.

    `nudged` are the losses of the same run from weights changed in their last digit.
    """
    np.testing.assert_allclose(got[0], want[0], rtol=2e-6)
    drift = np.maximum.accumulate(np.abs(nudged - want))
    assert np.all(np.abs(got - want) <= 30 * drift + 1e-5)
    assert drift[10] < 1e-3  # else the bound above would say nothing


@pytest.fixture(scope="module")
def trained():
    plain = Plain(every_kind())
    return chained(plain.spec), plain.train(), plain.train(scale=1 + 2e-7), plain


def test_fifty_steps_are_those_of_the_plain_network(trained):
    (_, network, states, got), (params, stats, want), (*_, nudged), _ = trained
    assert_equal_up_to_rounding(got, want, nudged)
    assert want[-5:].mean() < want[:5].mean()
    stem, layout = states[0], network.units[0]

    def assert_close(ours, theirs):
        leaves = jax.tree.leaves(theirs["backbone"]["blocks"][0])
        for mine, plain in zip(jax.tree.leaves(ours), leaves, strict=True):
            np.testing.assert_allclose(mine, plain, rtol=1e-2, atol=1e-3)

    assert_close(layout.params.split(stem.trained.params), params)
    assert_close(layout.stats.split(stem.stats), stats)


def test_evaluation_is_the_plain_network_with_running_statistics(trained):
    (step, _, states, _), (params, stats, _), _, plain = trained
    images, labels = batches(plain.spec)[0]
    logits = nnx.merge(plain.graphdef, params, stats)(jnp.asarray(images))
    for kept in (BATCH, BATCH - 5):
        mask = np.arange(BATCH) < kept
        want = int(((logits.argmax(-1) == labels) & mask).sum())
        got = step.observe(states, (images, labels, mask))
        assert got["seen"] == kept
        assert abs(int(got["correct"]) - want) <= 1


def test_fused_stages_train_like_the_plain_network():
    plain = Plain(fused())
    *_, want = plain.train()
    *_, nudged = plain.train(scale=1 + 2e-7)
    assert_equal_up_to_rounding(chained(plain.spec)[-1], want, nudged)


@pytest.mark.slow
@pytest.mark.parametrize("name", spaces.names())
def test_random_children_train_like_the_plain_network(name):
    space = spaces.load(name)
    rng = np.random.default_rng(7)
    child = space.decode([int(rng.integers(n)) for n in space.num_choices])
    spec = dataclasses.replace(child, resolution=32, in_channels=1, num_classes=10)
    plain = Plain(spec)
    *_, want = plain.train()
    *_, nudged = plain.train(scale=1 + 2e-7)
    assert_equal_up_to_rounding(chained(spec)[-1], want, nudged)


def test_equal_units_of_different_networks_share_their_executable():
    small = every_kind()
    other = dataclasses.replace(small, stages=(small.stages[0], *small.stages[:2]))
    networks = [
        executables.split(classifier.build(spec, seed=seed), RECIPE)[0]
        for seed, spec in enumerate((small, other))
    ]
    first, second = (set(network.units) for network in networks)
    assert len(first & second) >= 4
    assert hash(networks[0].units[0]) == hash(networks[1].units[0])


@pytest.mark.parametrize("change", [{"padding": "symmetric"}, {"norm_epsilon": 1e-5}])
def test_units_of_another_convention_share_nothing_compiled(change):
    """Neither in the process, by equality, nor on the disk, by what they print as."""
    spec = every_kind()
    plain, other = (
        executables.split(classifier.build(s, seed=0), RECIPE)[0]
        for s in (spec, dataclasses.replace(spec, **change))
    )
    normed = [
        pair
        for pair in zip(plain.units, other.units, strict=True)
        if pair[0].stats.shapes
    ]
    assert len(normed) > 5
    for mine, theirs in normed:
        assert mine != theirs
        assert repr(mine) != repr(theirs)
