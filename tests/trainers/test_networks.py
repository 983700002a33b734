"""Networks against the cost model, hand calculations and laws."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from search_space import cost, layers, spaces, zoo
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
from trainers.deploy import saved
from trainers.networks import classifier
from trainers.networks.units import (
    EVALUATION,
    ClassifierUnit,
    Convention,
    ConvUnit,
    DepthwiseUnit,
    Mode,
    PoolShortcut,
    SqueezeExciteUnit,
    max_pool,
)
from trainers.runtime import compilation

BATCH = 6
SIZE = {"channels": 6, "kernel": 3, "stride": 2, "repeats": 2}
STAGES = {
    "conv": ConvStage(**SIZE),
    "conv-identity": ConvStage(**SIZE, skip="identity"),
    "conv-se-pool": ConvStage(**SIZE, skip="pool", se_ratio=0.5),
    "sepconv": SepConvStage(**SIZE),
    "mbconv-none": MBConvStage(**SIZE, expansion=3, skip="none"),
    "mbconv-se": MBConvStage(**SIZE, expansion=1, se_ratio=0.25),
    "mbconv-pool": MBConvStage(**SIZE, expansion=3, skip="pool"),
    "bottleneck": BottleneckStage(**SIZE, bottleneck=2),
    "fused-se": FusedMBConvStage(**SIZE, expansion=3, se_ratio=0.25),
    "fused-one-se-pool": FusedMBConvStage(
        **SIZE, expansion=1, se_ratio=0.5, skip="pool"
    ),
    "fused-edgetpu": FusedMBConvStage(
        **SIZE, expansion=3, stride_on="projection", expansion_of="output", skip="none"
    ),
}


def tiny(*stages, **changes):
    spec = ArchSpec(
        name="tiny",
        resolution=16,
        in_channels=2,
        num_classes=5,
        activation="swish",
        stem=Stem(channels=4),
        stages=stages,
        head=ClassifierHead(channels=None),
    )
    return dataclasses.replace(spec, **changes)


def images_for(spec, *, batch=BATCH, seed=0):
    shape = (batch, spec.resolution, spec.resolution, spec.in_channels)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def call(graphdef, params, stats, args, mode):
    module = nnx.merge(graphdef, params, stats, copy=True)
    y = module(*args, mode)
    return y, nnx.state(module, nnx.BatchStat)


def run(module, *args, mode=EVALUATION, stats=None):
    graphdef, params, initial = nnx.split(module, nnx.Param, nnx.BatchStat)
    return call(graphdef, params, stats or initial, args, mode)


def training(momentum=0.5, key=None):
    return Mode(train=jnp.asarray(True), momentum=jnp.float32(momentum), key=key)  # noqa: FBT003


def evaluation(key=None):
    return Mode(train=jnp.asarray(False), momentum=jnp.float32(1), key=key)  # noqa: FBT003


def assert_parameters_counted(spec):
    with compilation.measured() as compiling:
        model = classifier.build(spec, seed=0)
        arrays = jax.tree.leaves(nnx.state(model, nnx.Param))
    assert sum(array.size for array in arrays) == cost.num_params(spec)
    assert {type(array) for array in arrays} == {np.ndarray}
    assert {array.dtype for array in arrays} == {np.dtype("float32")}
    assert compiling.seconds == 0


def _zoo_names():
    """Those of over 100 million weights, which take seconds to draw, are slow."""
    return [
        pytest.param(
            name, marks=[pytest.mark.slow] if name.endswith(("v2-l", "v2-xl")) else []
        )
        for name in zoo.names()
    ]


@pytest.mark.parametrize("name", _zoo_names())
def test_zoo_networks_have_the_parameters_that_the_cost_model_counts(name):
    assert_parameters_counted(zoo.load(name))


@pytest.mark.parametrize("name", spaces.names())
def test_random_networks_have_the_parameters_that_the_cost_model_counts(name):
    space = spaces.load(name)
    rng = np.random.default_rng(1)
    for _ in range(5):
        assert_parameters_counted(space.decode(rng.integers(space.num_choices)))


@pytest.mark.parametrize("kind", STAGES)
def test_statistics_are_updated_in_training_and_used_in_evaluation(kind):
    spec = tiny(dataclasses.replace(STAGES[kind], repeats=1))
    model, images = classifier.build(spec, seed=2), images_for(spec)
    logits, of_batch = run(model, images, mode=training(momentum=0))
    assert logits.shape == (BATCH, 5)
    assert logits.dtype == np.float32
    # Momentum 0 keeps the batch's own statistics, so evaluating this batch with them
    # is training on it.
    again, kept = run(model, images, mode=evaluation(), stats=of_batch)
    np.testing.assert_allclose(again, logits, rtol=1e-3, atol=1e-4)
    # A plain evaluation compiles another program, without the batch's statistics.
    plain, _ = run(model, images, stats=of_batch)
    np.testing.assert_allclose(plain, logits, rtol=1e-3, atol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, kept, of_batch)
    _, updated = run(model, images, mode=training(momentum=0.75))
    initial = nnx.state(model, nnx.BatchStat)
    changed = []
    for old, new, batch in zip(
        *map(jax.tree.leaves, (initial, updated, of_batch)), strict=True
    ):
        changed.append(not np.allclose(batch, old, atol=1e-4))
        np.testing.assert_allclose(new, 0.75 * old + 0.25 * batch, rtol=1e-5, atol=1e-6)
    # All variances; the mean stays 0 behind two linear layers in a row.
    assert sum(changed) >= len(changed) / 2


def test_the_stem_normalizes_with_the_mean_and_biased_variance_of_the_batch():
    spec = tiny(STAGES["sepconv"], stem=Stem(channels=4, kernel=1, stride=1))
    model, images = classifier.build(spec, seed=3), images_for(spec)
    _, stats = run(model.blocks[0], images, mode=training(momentum=0.9))
    kernel = np.asarray(model.blocks[0].units[0].kernel[...])[0, 0]
    maps = (images @ kernel).reshape(-1, 4).astype(np.float64)
    norm = stats["units"][0]["norm"]
    np.testing.assert_allclose(norm["mean"][...], 0.1 * maps.mean(0), rtol=1e-3)
    variance = 0.9 + 0.1 * maps.var(0)
    np.testing.assert_allclose(norm["variance"][...], variance, rtol=1e-5)


def average_2x2(x):
    n, height, width, channels = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def widened(x):
    return np.pad(x, ((0, 0), (0, 0), (0, 0), (0, 2)))


def nothing(x):
    del x
    return 0


def itself(x):
    return x


def pooled(x):
    return widened(average_2x2(x))


# What the first layer (stride 2, wider) and the second add to their branches.
SHORTCUTS = {
    "conv": (nothing, nothing),
    "conv-identity": (nothing, itself),
    "conv-se-pool": (pooled, itself),
    "sepconv": (nothing, nothing),
    "mbconv-none": (nothing, nothing),
    "mbconv-se": (nothing, itself),
    "mbconv-pool": (pooled, itself),
    # The projection's norm is silenced as well; ResNet activates after the addition.
    "bottleneck": (nothing, lambda x: x / (1 + np.exp(-x))),
    "fused-se": (nothing, itself),
    "fused-one-se-pool": (pooled, itself),
    "fused-edgetpu": (nothing, nothing),
}


@pytest.mark.parametrize("kind", SHORTCUTS)
def test_with_a_silent_branch_only_the_shortcut_is_left(kind):
    """A last norm of scale 0 gives 0, which every activation and gate leaves 0."""
    model = classifier.build(tiny(STAGES[kind]), seed=4)
    rng = np.random.default_rng(4)
    for block, channels, want in (
        (model.blocks[1], 4, SHORTCUTS[kind][0]),
        (model.blocks[2], 6, SHORTCUTS[kind][1]),
    ):
        x = rng.normal(size=(2, 8, 8, channels)).astype(np.float32)
        norms = [unit for unit in block.units if hasattr(unit, "norm")][-1:]
        for unit in [*norms, *([block.shortcut] if kind == "bottleneck" else [])]:
            if unit is not None:
                unit.norm.scale.set_value(np.zeros_like(unit.norm.scale[...]))
        got, _ = run(block, x)
        side = 4 if block is model.blocks[1] else 8
        assert got.shape == (2, side, side, 6)
        expected = np.broadcast_to(want(x), got.shape)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_a_fused_layer_may_stride_in_either_convolution_under_symmetric_padding():
    """The windows that a strided projection reads are those of a strided expansion."""
    early, late = (
        tiny(
            FusedMBConvStage(**SIZE, expansion=3, stride_on=where), padding="symmetric"
        )
        for where in ("expansion", "projection")
    )
    images = images_for(early)
    want, _ = run(classifier.build(early, seed=0), images)
    got, _ = run(classifier.build(late, seed=0), images)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    same = dataclasses.replace(late, padding="same")
    other, _ = run(classifier.build(same, seed=0), images)
    assert np.abs(other - want).max() > 1e-3  # so the law can fail


def test_pool_shortcut_by_hand():
    x = np.stack([np.arange(9.0), 10 * np.arange(9.0)], -1).reshape(1, 3, 3, 2)
    # SAME windows of 2 over 3 start at 0 and 2; what is past the edge does not count.
    means = np.array([[(0 + 1 + 3 + 4) / 4, (2 + 5) / 2], [(6 + 7) / 2, 8]])
    wide, _ = run(PoolShortcut(out_channels=3, stride=2), x, None)
    np.testing.assert_allclose(wide[0, ..., 0], means)
    np.testing.assert_allclose(wide[0, ..., 1], 10 * means)
    np.testing.assert_array_equal(wide[0, ..., 2], np.zeros((2, 2)))
    narrow, _ = run(PoolShortcut(out_channels=1, stride=1), x, None)
    np.testing.assert_array_equal(narrow, x[..., :1])


@pytest.mark.parametrize(
    ("padding", "convolved", "pooled"),
    [
        # Windows of the even row start at 0 and 2, padded after it alone.
        ("same", [521.0, 35.0], [5.0, 5.0]),
        # At -1 and 1: [0, 1, 2] and [2, 5, 3].
        ("symmetric", [210.0, 352.0], [2.0, 5.0]),
    ],
)
def test_padding_and_epsilon_of_a_convolution_by_hand(padding, convolved, pooled):
    row = np.array([1.0, 2.0, 5.0, 3.0], np.float32)
    unit = ConvUnit(
        np.random.default_rng(0),
        in_channels=1,
        out_channels=1,
        kernel=3,
        stride=2,
        activation=None,
        convention=Convention(padding=padding, norm_epsilon=3.0),
    )
    kernel = np.zeros((3, 3, 1, 1), np.float32)
    kernel[1, :, 0, 0] = [1, 10, 100]
    unit.kernel.set_value(kernel)
    x = np.broadcast_to(row[:, None], (1, 4, 4, 1))
    got, _ = run(unit, np.ascontiguousarray(x), None)
    # A variance of 1 and 3 more: the standard deviation is 2.
    np.testing.assert_allclose(got[0, 0, :, 0], np.array(convolved) / 2, rtol=1e-6)
    maps = max_pool(jnp.asarray(x), (3, 2), padding)
    np.testing.assert_array_equal(maps[0, 0, :, 0], pooled)


def test_squeeze_excite_by_hand():
    unit = SqueezeExciteUnit(
        np.random.default_rng(0), channels=2, hidden=1, activation="relu"
    )
    unit.reduce.set_value(np.array([[1.0], [-2.0]], np.float32))
    unit.reduce_bias.set_value(np.array([0.5], np.float32))
    unit.expand.set_value(np.array([[1.0, -1.0]], np.float32))
    unit.expand_bias.set_value(np.array([0.0, 0.25], np.float32))
    # Two images of two pixels, with means (4, 1) and (0, 3).
    x = np.array([[[[3, 0], [5, 2]]], [[[-1, 2], [1, 4]]]], np.float32)
    # 4 - 2 * 1 + 0.5 = 2.5 passes the ReLU; 0 - 2 * 3 + 0.5 does not.
    gates = [[sigmoid(2.5), sigmoid(0.25 - 2.5)], [sigmoid(0), sigmoid(0.25)]]
    got, _ = run(unit, x, None)
    np.testing.assert_allclose(got, x * np.array(gates)[:, None, None], rtol=1e-6)
    added, _ = run(unit, x, np.ones_like(x))
    np.testing.assert_allclose(added, got + 1, rtol=1e-6)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


NUM_IMAGES = 4000
RATE = 0.3
# Five standard deviations of a count of drops: by chance once in 1.7 million seeds.
SLACK = 5 * math.sqrt(NUM_IMAGES * RATE * (1 - RATE))


def test_stochastic_depth_drops_branches_and_scales_up_the_others():
    rng = np.random.default_rng(5)
    shape = {"in_channels": 3, "out_channels": 2, "kernel": 1, "stride": 1}
    unit, certain = (
        ConvUnit(np.random.default_rng(5), **shape, activation=None, drop_rate=rate)
        for rate in (RATE, 0.0)
    )
    x = rng.normal(size=(NUM_IMAGES, 2, 1, 3)).astype(np.float32)
    shortcut = rng.normal(size=(NUM_IMAGES, 2, 1, 2)).astype(np.float32)
    key = jax.random.key(6)
    branch, _ = run(certain, x, None, mode=training(key=key))
    total, _ = run(unit, x, shortcut, mode=training(key=key))
    dropped = np.all(np.asarray(total) == shortcut, axis=(1, 2, 3))
    assert abs(dropped.sum() - RATE * NUM_IMAGES) < SLACK
    scaled = np.where(dropped[:, None, None, None], 0, branch / (1 - RATE))
    np.testing.assert_allclose(total, scaled + shortcut, rtol=1e-5, atol=1e-5)
    other, _ = run(unit, x, shortcut, mode=training(key=jax.random.key(7)))
    assert np.any(np.all(np.asarray(other) == shortcut, axis=(1, 2, 3)) != dropped)

    plain, _ = run(certain, x, shortcut)
    for mode in (EVALUATION, evaluation(key=key), Mode(train=False, key=key)):
        evaluated, _ = run(unit, x, shortcut, mode=mode)
        np.testing.assert_allclose(evaluated, plain, rtol=1e-5, atol=1e-5)
    keyless, _ = run(unit, x, shortcut, mode=training())
    np.testing.assert_allclose(keyless, branch + shortcut, rtol=1e-5, atol=1e-5)


def test_dropout_drops_features_and_scales_up_the_others():
    unit = ClassifierUnit(np.random.default_rng(0), channels=8, classes=8, dropout=RATE)
    unit.kernel.set_value(np.eye(8, dtype=np.float32))
    x = np.ones((NUM_IMAGES // 8, 1, 1, 8), np.float32)
    features, _ = run(unit, x, None, mode=training(key=jax.random.key(8)))
    values, counts = np.unique(np.asarray(features), return_counts=True)
    np.testing.assert_allclose(values, [0, 1 / (1 - RATE)], rtol=1e-6)
    assert abs(counts[0] - RATE * NUM_IMAGES) < SLACK
    evaluated, _ = run(unit, x, None, mode=evaluation(key=jax.random.key(8)))
    np.testing.assert_array_equal(evaluated, x[:, 0, 0])


def test_the_drop_rate_grows_with_depth_and_stands_where_the_shortcut_is_added():
    spec = tiny(
        ConvStage(**SIZE | {"stride": 1}, skip="identity", se_ratio=0.5),
        MBConvStage(**SIZE | {"stride": 1}, expansion=3, se_ratio=0.5),
        FusedMBConvStage(**SIZE | {"stride": 1}, expansion=3, se_ratio=0.5),
        FusedMBConvStage(**SIZE | {"stride": 1}, expansion=1),
        drop_path=0.8,
    )
    model = classifier.build(spec, seed=0)
    rates = [
        [unit.drop_rate for unit in block.units if hasattr(unit, "drop_rate")]
        for block in model.blocks[1:-1]
    ]
    # 0.8 * i / 8; the first conv layer widens the map, and so has no shortcut. An
    # mbconv's rate is that of its projection, behind expansion and gate.
    assert rates == [
        [0, 0], [0, 0.1], [0, 0, 0.2], [0, 0, pytest.approx(0.3)],
        [0, 0, 0.4], [0, 0, 0.5], [pytest.approx(0.6)], [pytest.approx(0.7)],
    ]  # fmt: skip


def units_of(model, kind):
    return [u for block in model.blocks for u in block.units if isinstance(u, kind)]


def test_initial_weights_have_the_standard_deviations_of_the_reference():
    """Each within five standard deviations of its estimate: odds below 1e-6 each."""
    model = classifier.build(zoo.load("efficientnet-b0"), seed=9)
    unit_normals = {
        "conv": [
            w / math.sqrt(2 / (w.shape[0] * w.shape[1] * w.shape[3]))
            for w in (unit.kernel[...] for unit in units_of(model, ConvUnit))
        ],
        "depthwise": [
            w / (math.sqrt(2) / w.shape[0])
            for w in (unit.kernel[...] for unit in units_of(model, DepthwiseUnit))
        ],
        "squeeze-excite": [
            w / math.sqrt(2 / w.shape[1])
            for unit in units_of(model, SqueezeExciteUnit)
            for w in (unit.reduce[...], unit.expand[...])
        ],
    }
    for kernels in unit_normals.values():
        drawn = np.concatenate([np.ravel(kernel) for kernel in kernels])
        assert abs(drawn.mean()) < 5 / math.sqrt(drawn.size)
        assert abs(drawn.std() - 1) < 5 / math.sqrt(2 * drawn.size)
        # Normal, not uniform: 4.55 % are beyond two standard deviations.
        beyond = 0.0455 * drawn.size
        assert abs((np.abs(drawn) > 2).sum() - beyond) < 5 * math.sqrt(beyond)
    dense = np.asarray(units_of(model, ClassifierUnit)[0].kernel[...]) * math.sqrt(1280)
    assert np.abs(dense).max() <= 1
    # A uniform variable's fourth moment is 1.8 of its squared variance.
    relative_error = dense.std() * math.sqrt(3) - 1
    assert abs(relative_error) < 5 * math.sqrt(0.8 / dense.size) / 2


def test_the_seed_decides_the_initial_weights():
    first, same, other = (
        np.asarray(
            classifier.build(tiny(STAGES["conv"]), seed=seed)
            .blocks[1]
            .units[0]
            .kernel[...]
        )
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, same)
    assert not np.any(first == other)


def test_a_bfloat16_network_is_near_the_float32_network():
    """A rounding to 8 binary digits changes 0.4 %; measured over the network: 0.8 %."""
    kinds = ("conv-se-pool", "mbconv-se", "bottleneck")
    spec = tiny(
        *(dataclasses.replace(STAGES[kind], stride=1, repeats=1) for kind in kinds)
    )
    images = images_for(spec, batch=16)
    exact, rounded = (
        np.asarray(run(classifier.build(spec, seed=0, dtype=dtype), images)[0])
        for dtype in ("float32", "bfloat16")
    )
    assert rounded.dtype == np.float32
    difference = np.abs(rounded - exact).max() / exact.std()
    assert 1e-4 < difference < 0.05  # equal to the last digit, it would be float32


@pytest.mark.parametrize("num_classes", [10, 1000])
def test_training_begins_near_chance(num_classes):
    """Few classes or many, an untrained network is not sure of any."""
    spec = tiny(
        STAGES["mbconv-se"], num_classes=num_classes, head=ClassifierHead(channels=1280)
    )
    network = classifier.build(spec, seed=0)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(64, 16, 16, 2)).astype(np.float32)
    graphdef, state = nnx.split(network)
    logits = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x, Mode(train=True)))(
        state, images
    )
    chances = jax.nn.log_softmax(logits)[np.arange(64), np.arange(64) % num_classes]
    # Swish of unit normals has a mean square of 0.36, weights a variance of
    # 1 / (3 * 1280): logits of variance 0.12 cost about half of that over chance.
    assert -float(chances.mean()) == pytest.approx(math.log(num_classes), abs=0.25)


@pytest.mark.parametrize("name", ["efficientnet-b0", "mobilenet-v1", "resnet-50"])
def test_a_backbone_returns_the_maps_of_the_spec(name):
    spec = dataclasses.replace(zoo.load(name), resolution=72)
    backbone = classifier.build(spec, seed=0).backbone
    graphdef, state = nnx.split(backbone)
    maps = jax.eval_shape(
        lambda state, x: nnx.merge(graphdef, state)(x, EVALUATION),
        state,
        jnp.zeros((2, 72, 72, 3)),
    )
    assert {stride: found.shape for stride, found in maps.items()} == {
        stride: (2, block.out_size, block.out_size, block.out_channels)
        for stride, block in layers.feature_maps(spec).items()
    }


def test_a_map_is_what_the_network_cut_off_there_makes():
    """Weights are drawn from the image on: the shorter network has the same."""
    stages = (STAGES["mbconv-se"], STAGES["conv-identity"], STAGES["bottleneck"])
    images = images_for(tiny(*stages))
    whole = classifier.build(tiny(*stages), seed=0)
    maps, _ = run(whole.backbone, images)
    assert list(maps) == [2, 4, 8, 16]
    for i, stride in enumerate((4, 8, 16), 1):
        short = classifier.build(tiny(*stages[:i]), seed=0)
        cut, _ = run(short.backbone, images)
        np.testing.assert_allclose(maps[stride], cut[stride], rtol=1e-5, atol=1e-6)
    logits, _ = run(whole, images)
    (dense,) = units_of(whole, ClassifierUnit)
    by_hand = maps[16].mean((1, 2)) @ dense.kernel[...] + dense.bias[...]
    np.testing.assert_allclose(logits, by_hand, rtol=1e-5, atol=1e-6)


def test_weights_keep_the_names_that_saved_files_have():
    """Earlier versions wrote these files; a network of theirs must still load."""
    spec = tiny(
        dataclasses.replace(STAGES["mbconv-se"], repeats=1),
        dataclasses.replace(STAGES["bottleneck"], repeats=1),
        head=ClassifierHead(channels=8),
    )
    norm = ("bias", "mean", "scale", "variance")
    conv = ["kernel", *(f"norm.{name}" for name in norm)]
    squeeze = ["expand", "expand_bias", "reduce", "reduce_bias"]
    units = {
        "blocks.0.units.0": conv,  # the stem
        "blocks.1.units.0": conv,  # depthwise
        "blocks.1.units.1": squeeze,
        "blocks.1.units.2": conv,
        "blocks.2.shortcut": conv,
        **{f"blocks.2.units.{i}": conv for i in range(3)},
        "blocks.3.units.0": conv,  # the head
        "blocks.3.units.1": ["bias", "kernel"],
    }
    found = saved.arrays(classifier.build(spec, seed=0))
    assert sorted(found) == sorted(
        f"{unit}.{name}" for unit, names in units.items() for name in names
    )
