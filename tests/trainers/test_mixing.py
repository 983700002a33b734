"""Mixup and CutMix: the laws of mixing, and the source's weights and boxes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trainers.augment import mixing


def batch(num=6):
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(num, 8, 10, 3)), jnp.float32)
    return images, jax.nn.one_hot(jnp.arange(num), num)


def partners(num):
    return np.arange(num)[::-1]


@pytest.mark.parametrize("seed", range(5))
def test_mixup_blends_images_as_it_blends_targets(seed):
    images, targets = batch()
    mixed, shares = mixing.blend(jax.random.key(seed), images, targets, alpha=0.4)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-6)
    own = np.diag(np.asarray(shares))
    assert own.min() >= 0.5
    assert len(set(own.tolist())) > 3  # a share of each image's own
    np.testing.assert_allclose(
        np.asarray(shares)[np.arange(6), partners(6)], 1 - own, atol=1e-6
    )
    want = np.einsum("bc,chwk->bhwk", shares, images)
    np.testing.assert_allclose(mixed, want, atol=1e-5)


def test_mixups_weights_are_the_larger_of_b_and_the_rest():
    """b is uniform for alpha 1: the larger part is uniform over 0.5 to 1.

    Mean 3/4 and variance 1/48; of 4,000, the mean's standard error is 0.0023. Seven of
    those have odds of 1 in 10^11.
    """
    num = 4000
    targets = jax.nn.one_hot(
        jnp.arange(num) // (num // 2), 2
    )  # partners differ in class
    images = jnp.zeros((num, 1, 1, 1))
    _, shares = mixing.blend(jax.random.key(0), images, targets, alpha=1.0)
    own = np.asarray((shares * targets).sum(1))
    assert own.min() >= 0.5
    assert own.mean() == pytest.approx(0.75, abs=0.016)
    assert own.var() == pytest.approx(1 / 48, rel=0.2)


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_targets_count_the_pixels(seed):
    images, targets = batch()
    mixed, shares = mixing.paste(jax.random.key(seed), images, targets, alpha=1.0)
    kept = (np.asarray(mixed) == np.asarray(images)).all(-1)
    assert ((np.asarray(mixed) == np.asarray(images[::-1])).all(-1) | kept).all()
    np.testing.assert_allclose(
        np.diag(np.asarray(shares)), kept.mean((1, 2)), rtol=1e-5
    )
    assert len({hole.tobytes() for hole in kept}) > 3  # a box of each image's own


def test_cutmix_boxes_are_the_sources_centred_on_any_pixel():
    """The area before the cut at the border is uniform over 0 to 1 for alpha 1.

    A side of 64 pixels then has 2 * (floor(64 * sqrt(area)) // 2) pixels: uncut ones
    are even, and a box is at most the square of whole pixels. Each pixel is as likely
    a centre, so as many boxes are cut above as below.
    """
    num, side = 2000, 64
    rows = np.broadcast_to(np.arange(num)[:, None, None, None], (num, side, side, 1))
    images, targets = jnp.asarray(rows, jnp.float32), jnp.ones((num, 1))
    mixed, _ = mixing.paste(jax.random.key(0), images, targets, alpha=1.0)
    holes = (np.asarray(mixed) != np.asarray(images))[..., 0]
    heights, widths = holes.any(2).sum(1), holes.any(1).sum(1)
    np.testing.assert_array_equal(holes.sum((1, 2)), heights * widths)  # rectangles
    cut = [holes[:, 0].any(1), holes[:, -1].any(1), holes[:, :, 0].any(1)]
    cut.append(holes[:, :, -1].any(1))
    uncut = ~np.any(cut, axis=0)
    assert uncut.sum() > 200
    np.testing.assert_array_equal(heights[uncut], widths[uncut])
    assert not (heights[uncut] % 2).any()
    # Of a box of side s, s * 64 pixels of centres out of 64 touch a border: the mean
    # of sqrt(area) is 2/3, so each border cuts one box in three (half a side reaches
    # it); 0.05 is five standard errors.
    for share in np.mean(cut, axis=1):
        assert share == pytest.approx(1 / 3, abs=0.05)


@pytest.mark.parametrize("num", [6, 7])
def test_with_both_the_first_half_is_blended_and_the_second_pasted(num):
    images, targets = batch(num)
    mixed, shares = mixing.mix(
        jax.random.key(3), images, targets, mixup=0.4, cutmix=1.0
    )
    half = num // 2
    shares, mixed = np.asarray(shares), np.asarray(mixed)
    assert not shares[:half, half:].any()
    assert not shares[half:, :half].any()
    want = np.einsum("bc,chwk->bhwk", shares[:half], images)
    np.testing.assert_allclose(mixed[:half], want, atol=1e-5)
    own = (mixed[half:] == np.asarray(images[half:])).all(-1)
    other = (mixed[half:] == np.asarray(images[half:][::-1])).all(-1)
    assert (own | other).all()


def test_without_an_alpha_nothing_is_mixed():
    images, targets = batch()
    got = mixing.mix(jax.random.key(0), images, targets, mixup=None, cutmix=None)
    assert got == (images, targets)


def test_an_alpha_of_zero_leaves_images_as_they_are():
    """Alphas are traced: a phase without mixing runs what others compiled."""
    given = batch()
    mix = jax.jit(functools.partial(mixing.mix, jax.random.key(0)))
    got = mix(*given, mixup=jnp.float32(0), cutmix=jnp.float32(0))
    for after, before in zip(got, given, strict=True):
        np.testing.assert_array_equal(after, before)
