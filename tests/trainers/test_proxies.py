"""Scores of untrained networks: by hand, by autodiff, by laws."""

import dataclasses
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from search_space.spec import ArchSpec, ClassifierHead, ConvStage, MBConvStage, Stem
from trainers import child, proxies
from trainers.networks import classifier

SPEC = ArchSpec(
    name="proxied",
    resolution=9,
    in_channels=1,
    num_classes=3,
    activation="swish",
    stem=Stem(channels=4),
    stages=(
        MBConvStage(channels=4, kernel=3, stride=1, expansion=2, repeats=1),
        ConvStage(channels=6, kernel=3, stride=2, repeats=1),
    ),
    head=ClassifierHead(channels=5),
)


def test_codes_that_were_counted_by_hand():
    """Of 3 images with 4 bits: agreements 4 of itself, 3, 1 and 0 of the others."""
    codes = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1]], bool)
    expected = [[4, 3, 0], [3, 4, 1], [0, 1, 4]]
    assert proxies.agreements([codes]).tolist() == expected
    layers = [codes[:, :1], codes[:, 1:]]
    assert proxies.agreements(layers).tolist() == expected
    # With 1 on the diagonal: 5 * (25 - 1) - 3 * 15 = 75.
    assert proxies.log_determinant([codes]) == pytest.approx(math.log(75))


def test_images_of_one_code_are_worse_than_any_others():
    rng = np.random.default_rng(0)
    codes = rng.random((6, 40)) < 0.5
    alike = np.repeat(codes[:1], 6, axis=0)
    assert proxies.log_determinant([alike]) < proxies.log_determinant([codes])


def images(number, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.standard_normal((number, 9, 9, 1)), jnp.float32)


def naswot(spec, batches, seed=0):
    recipe = child.recipe_of(child.ChildConfig())
    model = classifier.build(spec, seed=seed)
    return proxies.naswot(model, recipe, [(batch,) for batch in batches])


def test_naswot_is_that_of_the_whole_network():
    """Codes from a plain pass: stem, expanded, depthwise; conv stage; head."""
    batch = images(6)
    found = naswot(SPEC, [batch])
    model = classifier.build(SPEC, seed=0)

    def normed(x):
        return (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-3)

    def conv(unit, x, groups=1):
        kernel = unit.kernel[...]
        if groups > 1:
            kernel = kernel[:, :, None, :]
        return np.asarray(normed(_conv(x, jnp.asarray(kernel), unit.stride, groups)))

    def swish(z):
        return jnp.asarray(z / (1 + np.exp(-z)))

    stem, mbconv, stage, head = model.blocks
    z = [conv(stem.units[0], batch)]
    entry = swish(z[-1])
    z.append(conv(mbconv.units[0], entry))
    z.append(conv(mbconv.units[1], swish(z[-1]), groups=8))
    x = conv(mbconv.units[2], swish(z[-1])) + entry
    z.append(conv(stage.units[0], x))
    z.append(conv(head.units[0], swish(z[-1])))
    codes = np.concatenate([part.reshape(6, -1) > 0 for part in z], axis=1)
    kernel = codes @ codes.T.astype(float) + ~codes @ (~codes).T.astype(float)
    expected = np.linalg.slogdet(kernel + np.eye(6))[1]
    # A few of 2,000 bits are of numbers near 0, and may differ.
    assert found == pytest.approx(expected, abs=0.05)


def test_naswot_does_not_depend_on_the_order_of_images_or_batches():
    one, other = images(4), images(4, seed=1)
    found = naswot(SPEC, [one, other])
    assert naswot(SPEC, [other, one]) == pytest.approx(found, rel=1e-9)
    assert naswot(SPEC, [one[::-1], other]) == pytest.approx(found, abs=0.05)
    assert naswot(SPEC, [one, one]) < found, "images seen twice tell nothing new"


def _conv(x, kernel, stride, groups=1):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def positive_network(kernels, x):
    """The sum of SPEC's logits, without normalization, of absolute weights."""
    stem, expand, depthwise, project, conv, head, dense = map(jnp.abs, kernels)
    x = _conv(x, stem, 2)
    inside = _conv(_conv(x, expand, 1), depthwise[:, :, None, :], 1, groups=8)
    x = x + _conv(inside, project, 1)
    x = _conv(_conv(x, conv, 2), head, 1)
    return (x.mean((1, 2)) @ dense).sum()


def kernels_of(model):
    units = [unit for block in model.blocks for unit in block.units]
    return [jnp.asarray(unit.kernel[...]) for unit in units]


def test_synflow_is_what_autodiff_finds():
    """The sum of |w dR/dw| over all weights, by jax.grad: no law is used."""
    model = classifier.build(SPEC, seed=3)
    kernels = kernels_of(model)
    ones = jnp.ones((1, 9, 9, 1))
    grads = jax.grad(positive_network)(kernels, ones)
    total = sum(
        float(jnp.abs(k * g).sum()) for k, g in zip(kernels, grads, strict=True)
    )
    assert proxies.synflow(model, 9) == pytest.approx(math.log10(total), abs=1e-5)
    # And the law: layers that every path crosses have R each, whatever their size.
    whole = float(positive_network(kernels, ones))
    for position in (0, 4, 5, 6):
        own = float(jnp.abs(kernels[position] * grads[position]).sum())
        assert own == pytest.approx(whole, rel=1e-4)


def test_synflow_scales_with_a_layers_weights():
    """A layer that every path crosses, ten times as large: ten times the score."""
    model = classifier.build(SPEC, seed=0)
    before = proxies.synflow(model, 9)
    unit = model.blocks[0].units[0]
    unit.kernel[...] = -10.0 * unit.kernel[...]
    assert proxies.synflow(model, 9) == pytest.approx(before + 1.0, abs=1e-9)


def test_synflow_of_more_layers_than_float64_has_room_for():
    stage = ConvStage(channels=64, kernel=3, stride=1, repeats=256)
    deep = dataclasses.replace(SPEC, stages=(stage,))
    found = proxies.synflow(classifier.build(deep, seed=0), 9)
    # A layer passes on 576 weights of mean 0.059 * sqrt(2 / pi): 27 times, 256 times.
    assert found == pytest.approx(256 * math.log10(27), abs=40)
    assert found > math.log10(sys.float_info.max)


@pytest.mark.parametrize("activation", ["relu", "swish"])
def test_gates_and_activations_do_not_count_in_synflow(activation):
    gated = dataclasses.replace(
        SPEC,
        activation=activation,
        stages=(dataclasses.replace(SPEC.stages[0], se_ratio=0.25), *SPEC.stages[1:]),
    )
    model, plain = classifier.build(gated, seed=0), classifier.build(SPEC, seed=0)
    for theirs, block in zip(plain.blocks, model.blocks, strict=True):
        units = [unit for unit in block.units if hasattr(unit, "kernel")]
        for unit, other in zip(units, theirs.units, strict=True):
            unit.kernel[...] = other.kernel[...]
    assert proxies.synflow(model, 9) == proxies.synflow(plain, 9)
