"""RandAugment's operations against Pillow's at the source's levels."""

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageFilter
import PIL.ImageOps
import pytest
import sklearn.datasets

from trainers.augment import randaugment
from trainers.augment.randaugment import Draw

MAGNITUDES = (0, 1, 3, 5, 7, 9, 10, 17, 28)
GREY = (128, 128, 128)
SIGNED = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


@pytest.fixture(scope="module")
def picture():
    image = sklearn.datasets.load_sample_images().images[1][100:164, 200:280]
    return PIL.Image.fromarray(np.ascontiguousarray(image))


def pixels_of(picture):
    return jnp.asarray(np.asarray(picture), jnp.float32)


def applied(name, magnitude, pixels, *, sign=1.0, centre=(0.5, 0.5)):
    draw = Draw(sign=jnp.float32(sign), centre=jnp.float32(centre))
    return np.asarray(randaugment.operations(magnitude)[name](pixels, draw))


# From the table of arguments in EfficientNet's TensorFlow code.
def enhance(magnitude):
    return magnitude / 10 * 1.8 + 0.1


def bits(magnitude):
    return min(max(int(magnitude / 10 * 4), 1), 8)


def solarize_add(picture, magnitude):
    values = np.asarray(picture).astype(int)
    brighter = np.minimum(values + int(magnitude / 10 * 110), 255)
    return np.where(values < 128, brighter, values)


WITHOUT_LEVEL = {
    "autocontrast": PIL.ImageOps.autocontrast,
    "equalize": PIL.ImageOps.equalize,
    "invert": PIL.ImageOps.invert,
}


@pytest.mark.parametrize("name", WITHOUT_LEVEL)
def test_some_operations_are_pillows_at_any_level(picture, name):
    want = np.asarray(WITHOUT_LEVEL[name](picture), np.float32)
    for magnitude, sign in ((0, 1), (10, -1)):
        got = applied(name, magnitude, pixels_of(picture), sign=sign)
        assert np.abs(got - want).max() <= 1  # Pillow rounds to whole pixels


LEVELLED = {
    "posterize": lambda p, m: PIL.ImageOps.posterize(p, bits(m)),
    "solarize": lambda p, m: PIL.ImageOps.solarize(p, int(m / 10 * 256)),
    "solarize_add": solarize_add,
    "color": lambda p, m: PIL.ImageEnhance.Color(p).enhance(enhance(m)),
    "contrast": lambda p, m: PIL.ImageEnhance.Contrast(p).enhance(enhance(m)),
    "brightness": lambda p, m: PIL.ImageEnhance.Brightness(p).enhance(enhance(m)),
    "sharpness": lambda p, m: PIL.ImageEnhance.Sharpness(p).enhance(enhance(m)),
}


@pytest.mark.parametrize("magnitude", MAGNITUDES)
@pytest.mark.parametrize("name", LEVELLED)
def test_every_level_is_what_pillow_does_of_either_sign(picture, name, magnitude):
    want = np.asarray(LEVELLED[name](picture, magnitude), np.float32)
    # Pillow rounds to whole pixels, and what it blends with as well.
    within = 1 + abs(enhance(magnitude) - 1) if name in ("color", "sharpness") else 1.01
    if name == "contrast":
        within += 0.5 * abs(enhance(magnitude) - 1)
    if name in ("posterize", "solarize", "solarize_add"):
        within = 0
    for sign in (1, -1):
        got = applied(name, magnitude, pixels_of(picture), sign=sign)
        assert np.abs(got - want).max() <= within


# What Pillow multiplies (x, y, 1) with to find where to read; its pixel centres are at
# halves, which the shears' offsets make good.
AFFINE = {
    "shear_x": lambda s, _: (1, 0.3 * s, -0.15 * s, 0, 1, 0),
    "shear_y": lambda s, _: (1, 0, 0, 0.3 * s, 1, -0.15 * s),
    "translate_x": lambda s, size: (1, 0, 100 * s * size[0] / 224, 0, 1, 0),
    "translate_y": lambda s, size: (1, 0, 0, 0, 1, 100 * s * size[1] / 224),
}
BILINEAR = PIL.Image.Resampling.BILINEAR


def moved(picture, name, level, fill):
    if name == "rotate":
        return picture.rotate(30 * level, BILINEAR, fillcolor=fill)
    matrix = AFFINE[name](level, picture.size)
    return picture.transform(
        picture.size, PIL.Image.Transform.AFFINE, matrix, BILINEAR, fillcolor=fill
    )


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("magnitude", [0, 1, 5, 9, 10, 17])
@pytest.mark.parametrize("name", SIGNED)
def test_geometry_is_pillows_and_grey_outside(picture, name, magnitude, sign):
    got = applied(name, magnitude, pixels_of(picture), sign=sign)
    level = sign * magnitude / 10
    want = np.asarray(moved(picture, name, level, GREY), np.float32)
    # Next to its border a picture is blended with grey, or drawn out: left out here.
    framed = PIL.Image.new("L", picture.size, 128)
    framed.paste(255, (2, 2, picture.width - 2, picture.height - 2))
    covered = moved(framed, name, level, 0)
    inside = np.asarray(covered) == 255
    outside = np.asarray(covered.filter(PIL.ImageFilter.MaxFilter(5))) == 0
    assert inside.sum() > 100
    assert np.abs(got - want)[inside].max() <= 2
    np.testing.assert_allclose(got[outside], 128, atol=1e-3)


def noise(side):
    rng = np.random.default_rng(0)
    # Neither black nor white, so that autocontrast changes something.
    return jnp.asarray(rng.integers(20, 230, (side, side, 3)), jnp.float32)


@pytest.mark.parametrize(("magnitude", "shift"), [(3, 30), (10, 100), (17, 170)])
def test_shifts_are_of_the_published_pixels_at_224(magnitude, shift):
    pixels = noise(224)
    left = applied("translate_x", magnitude, pixels)
    np.testing.assert_allclose(left[:, : 224 - shift], pixels[:, shift:], atol=0.02)
    assert (left[:, 224 - shift :] == 128).all()
    down = applied("translate_y", magnitude, pixels, sign=-1)
    np.testing.assert_allclose(down[shift:], pixels[: 224 - shift], atol=0.02)
    assert (down[:shift] == 128).all()


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_cutout_is_of_the_published_size_at_224_and_cut_at_the_border(magnitude):
    pixels, pad = noise(224) % 100, int(magnitude / 10 * 40)
    hole = (applied("cutout", magnitude, pixels) == 128).all(-1)
    rows, columns = np.nonzero(hole)
    assert len(rows) == (2 * pad) ** 2
    if pad:
        for where in (rows, columns):
            assert (where.min(), where.max()) == (112 - pad, 111 + pad)
    corner = applied("cutout", magnitude, pixels, centre=(0.0, 0.999))
    assert (corner[:pad, 223 - pad :] == 128).all()
    assert (corner == 128).all(-1).sum() == pad * (pad + 1 if pad else 0)


def test_every_operation_is_drawn_of_either_sign():
    """400 draws miss one of 21 outcomes, 1 in 32 at least, with odds of 1 in 15,000."""
    pixels = noise(16)
    run = jax.jit(
        lambda key, images: randaugment.augment(key, images, num_ops=1, magnitude=7)
    )
    got = np.asarray(run(jax.random.key(0), jnp.stack([pixels] * 400)))
    names = randaugment.operations(7).keys() - {"cutout"}
    outcomes = {
        (name, sign): applied(name, 7, pixels, sign=sign)
        for name in sorted(names)
        for sign in ((1, -1) if name in SIGNED else (1,))
    }
    assert len(names) == 15
    assert len(outcomes) == 20
    drawn, centres = set(), set()
    for image in got:
        found = [
            key for key, want in outcomes.items() if np.allclose(image, want, atol=0.1)
        ]
        if not found:  # cutout: a square of 2 * int(28 * 16 / 224) pixels, or its part
            hole = (image == 128).all(-1)
            assert 0 < hole.sum() <= 16
            np.testing.assert_array_equal(image[~hole], np.asarray(pixels)[~hole])
            found = ["cutout"]
            centres.add(hole.tobytes())
        assert len(found) == 1
        drawn.add(found[0])
    assert drawn == outcomes.keys() | {"cutout"}
    assert len(centres) > 5


def test_images_get_different_operations_by_the_key(picture):
    batch = jnp.stack([pixels_of(picture)] * 8)
    run = jax.jit(lambda key: randaugment.augment(key, batch, num_ops=2, magnitude=9))
    once, again = (np.asarray(run(jax.random.key(0))) for _ in range(2))
    other = np.asarray(run(jax.random.key(1)))
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)
    assert len({image.tobytes() for image in once}) > 4


def test_grey_pictures_are_augmented_as_grey_rgb_ones_are(picture):
    grey = pixels_of(picture.convert("L"))[..., None]
    colored = jnp.repeat(grey, 3, axis=-1)
    for name in randaugment.operations(9):
        one, three = (applied(name, 9, pixels) for pixels in (grey, colored))
        np.testing.assert_allclose(three, np.repeat(one, 3, axis=-1), atol=0.02)
