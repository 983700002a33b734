"""Augmentation against what it may do to a small picture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trainers.augment import geometric


def test_shift_moves_by_every_offset_and_repeats_the_border():
    picture = np.arange(25, dtype=np.float32).reshape(5, 5)
    padded = np.pad(picture, 1, mode="edge")
    allowed = {
        padded[y : y + 5, x : x + 5].tobytes() for y in range(3) for x in range(3)
    }
    images = jnp.tile(picture[None, :, :, None], (400, 1, 1, 1))
    shifted = np.asarray(geometric.shift(jax.random.key(0), images, 1))[..., 0]
    # Each of nine is missed by 400 draws with odds 9 * (8/9)**400 < 1e-19.
    assert {image.tobytes() for image in shifted} == allowed


def test_flip_mirrors_half_of_the_images_left_to_right():
    picture = np.arange(6, dtype=np.float32).reshape(1, 2, 3, 1)
    flipped = np.asarray(
        geometric.flip(jax.random.key(0), jnp.tile(picture, (1000, 1, 1, 1)))
    )
    mirrored = (flipped == picture[:, :, ::-1]).all((1, 2, 3))
    same = (flipped == picture).all((1, 2, 3))
    assert (mirrored ^ same).all()
    # Binomial(1000, 1/2): outside 500 +- 80 with odds below 1e-6.
    assert abs(int(mirrored.sum()) - 500) < 80


def test_none_leaves_images_alone():
    images = np.random.default_rng(0).normal(size=(8, 6, 6, 3)).astype(np.float32)
    got = geometric.apply(jax.random.key(0), jnp.asarray(images), geometric.NONE)
    np.testing.assert_array_equal(got, images)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"max_shift": 4.0}, r"max_shift must be in \[0, 1\), got 4.0"),
        ({"min_area": 0.0}, r"min_area must be in \(0, 1\], got 0.0"),
    ],
)
def test_refuses_impossible_values(changed, message):
    with pytest.raises(ValueError, match=message):
        geometric.Augmentation(
            **{"max_shift": 0.1, "flip": False, "min_area": 1.0} | changed
        )
