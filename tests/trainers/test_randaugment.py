"""RandAugment's operations against Pillow's, and the laws of mixing."""

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageOps
import pytest
import sklearn.datasets

from trainers import mixing, randaugment


@pytest.fixture(scope="module")
def picture():
    image = sklearn.datasets.load_sample_images().images[1][100:164, 200:280]
    return PIL.Image.fromarray(np.ascontiguousarray(image))


FULL = {
    "autocontrast": PIL.ImageOps.autocontrast,
    "equalize": PIL.ImageOps.equalize,
    "invert": PIL.ImageOps.invert,
    "posterize": lambda p: PIL.ImageOps.posterize(p, 4),
    "solarize": lambda p: PIL.ImageOps.solarize(p, 0),
    "color": lambda p: PIL.ImageEnhance.Color(p).enhance(1.9),
    "contrast": lambda p: PIL.ImageEnhance.Contrast(p).enhance(1.9),
    "brightness": lambda p: PIL.ImageEnhance.Brightness(p).enhance(1.9),
    "sharpness": lambda p: PIL.ImageEnhance.Sharpness(p).enhance(1.9),
}


@pytest.mark.parametrize("name", FULL)
def test_full_level_is_what_pillow_does(picture, name):
    pixels = jnp.asarray(np.asarray(picture), jnp.float32)
    got = np.asarray(randaugment.OPERATIONS[name](pixels, jnp.float32(1)))
    want = np.asarray(FULL[name](picture), np.float32)
    # Pillow rounds to whole pixels, sometimes twice (to grey, then to the blend).
    assert np.abs(got - want).max() <= 2


GEOMETRY = {
    "translate_x": (1, 0, 100 / 331 * 80, 0, 1, 0),
    "translate_y": (1, 0, 0, 0, 1, 100 / 331 * 64),
}


@pytest.mark.parametrize("name", GEOMETRY)
def test_shifts_are_pillows_away_from_the_border(picture, name):
    pixels = jnp.asarray(np.asarray(picture), jnp.float32)
    got = np.asarray(randaugment.OPERATIONS[name](pixels, jnp.float32(1)))
    want = picture.transform(
        picture.size,
        PIL.Image.Transform.AFFINE,
        GEOMETRY[name],
        resample=PIL.Image.Resampling.BILINEAR,
    )
    inside = np.s_[2:42, 2:52]
    assert np.abs(got - np.asarray(want, np.float32))[inside].max() <= 1.5


def test_rotation_is_by_thirty_degrees(picture):
    pixels = jnp.asarray(np.asarray(picture), jnp.float32)
    got = np.asarray(randaugment.OPERATIONS["rotate"](pixels, jnp.float32(1)))
    turned = [
        np.asarray(picture.rotate(angle, PIL.Image.Resampling.BILINEAR), np.float32)
        for angle in (30, -30)
    ]
    inside = np.s_[22:42, 30:50]
    assert min(np.abs(got - t)[inside].mean() for t in turned) < 2


@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y", "posterize"])
def test_level_zero_changes_nothing(picture, name):
    pixels = jnp.asarray(np.asarray(picture), jnp.float32)
    got = randaugment.OPERATIONS[name](pixels, jnp.float32(0))
    np.testing.assert_allclose(got, pixels, atol=1e-3)


def test_images_get_different_operations_by_the_key(picture):
    pixels = jnp.asarray(np.asarray(picture), jnp.float32)
    batch = jnp.stack([pixels] * 8)
    run = jax.jit(lambda key: randaugment.augment(key, batch, num_ops=2, magnitude=9))
    once, again = (np.asarray(run(jax.random.key(0))) for _ in range(2))
    other = np.asarray(run(jax.random.key(1)))
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)
    assert len({image.tobytes() for image in once}) > 4


def batch():
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(6, 8, 10, 3)), jnp.float32)
    return images, jax.nn.one_hot(jnp.arange(6), 6)


@pytest.mark.parametrize("seed", range(5))
def test_mixup_blends_images_as_it_blends_targets(seed):
    images, targets = batch()
    mixed, shares = mixing.blend(jax.random.key(seed), images, targets, alpha=0.4)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-6)
    own = np.diag(np.asarray(shares))
    assert own.min() >= 0.5
    want = np.einsum("bc,chwk->bhwk", shares, images)
    np.testing.assert_allclose(mixed, want, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_targets_count_the_pixels(seed):
    images, targets = batch()
    mixed, shares = mixing.paste(jax.random.key(seed), images, targets, alpha=1.0)
    kept = (np.asarray(mixed) == np.asarray(images)).all(-1)
    assert ((np.asarray(mixed) == np.asarray(images[::-1])).all(-1) | kept).all()
    np.testing.assert_allclose(
        np.diag(np.asarray(shares)), kept.mean((1, 2)), rtol=1e-5
    )


def test_without_an_alpha_nothing_is_mixed():
    images, targets = batch()
    got = mixing.mix(jax.random.key(0), images, targets, mixup=0.0, cutmix=0.0)
    assert got == (images, targets)
