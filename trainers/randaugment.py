"""RandAugment on the device (https://arxiv.org/abs/1909.13719).

A few operations in a row, each drawn for each image from the paper's fourteen. Levels
follow EfficientNet's TensorFlow code; geometry there is per operation, and here one
bilinear warp with grey outside. Pixels are from 0 to 255.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

Picture = Float[Array, "height width channels"]

MAX_MAGNITUDE = 10.0
_WHITE = 255.0
_GREY = 128.0  # what geometry moves in
_SHEAR, _TRANSLATE, _ROTATE = 0.3, 100 / 331, math.radians(30)  # at magnitude 10
_ENHANCE = 0.9  # factors are 1 -+ this at magnitude 10
_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow has it
_RGB = 3


def augment(
    key: PRNGKeyArray,
    pixels: Float[Array, "batch height width channels"],
    *,
    num_ops: int,
    magnitude: float,
) -> Float[Array, "batch height width channels"]:
    """Returns each image after `num_ops` operations of `magnitude` (0 to 10)."""

    def one(key: PRNGKeyArray, picture: Picture) -> Picture:
        for own in jax.random.split(key, num_ops):
            which_key, sign_key = jax.random.split(own)
            which = jax.random.randint(which_key, (), 0, len(OPERATIONS))
            sign = jnp.where(jax.random.bernoulli(sign_key), 1.0, -1.0)
            level = sign * (magnitude / MAX_MAGNITUDE)
            picture = jax.lax.switch(which, list(OPERATIONS.values()), picture, level)
        return picture

    return jax.vmap(one)(jax.random.split(key, len(pixels)), pixels)


def posterize(picture: Picture, level: Array) -> Picture:
    """Keeps the upper bits of each pixel: 4 of 8 at full level."""
    step = 2.0 ** jnp.floor(4 * jnp.abs(level))
    return jnp.floor(picture / step) * step


def solarize(picture: Picture, level: Array) -> Picture:
    """Inverts pixels at or above a threshold, which falls from 256 to 0."""
    threshold = 256 * (1 - jnp.abs(level))
    return jnp.where(picture < threshold, picture, _WHITE - picture)


def autocontrast(picture: Picture, level: Array) -> Picture:
    """Stretches each channel to the full range."""
    del level
    low, high = picture.min((0, 1)), picture.max((0, 1))
    stretched = (picture - low) * (_WHITE / jnp.maximum(high - low, 1))
    return jnp.where(high > low, stretched, picture)


def equalize(picture: Picture, level: Array) -> Picture:
    """Flattens each channel's histogram, as Pillow does."""
    del level

    def channel(values: Array) -> Array:
        index = jnp.clip(values, 0, _WHITE).astype(jnp.int32)
        counts = jnp.zeros(256, jnp.int32).at[index.ravel()].add(1)
        last = counts[jnp.max(index)]
        step = (index.size - last) // 255
        before = jnp.cumsum(counts) - counts
        table = (before + step // 2) // jnp.maximum(step, 1)
        return jnp.where(step == 0, values, jnp.clip(table, 0, 255)[index])

    return jax.vmap(channel, in_axes=-1, out_axes=-1)(picture)


def invert(picture: Picture, level: Array) -> Picture:
    """The negative."""
    del level
    return _WHITE - picture


def brightness(picture: Picture, level: Array) -> Picture:
    """Towards black, or away from it."""
    return _blend(jnp.zeros_like(picture), picture, level)


def contrast(picture: Picture, level: Array) -> Picture:
    """Towards the mean grey, or away from it."""
    mean = jnp.floor(_grey(picture).mean() + 0.5)
    return _blend(jnp.full_like(picture, mean), picture, level)


def color(picture: Picture, level: Array) -> Picture:
    """Towards grey, or away from it."""
    return _blend(jnp.broadcast_to(_grey(picture), picture.shape), picture, level)


def sharpness(picture: Picture, level: Array) -> Picture:
    """Towards a smoothed picture, or away from it; the border stays."""
    weights = jnp.array([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    height, width, _ = picture.shape
    smooth = sum(
        weights[i, j] * picture[i : height - 2 + i, j : width - 2 + j]
        for i in range(3)
        for j in range(3)
    )
    return _blend(picture.at[1:-1, 1:-1].set(smooth), picture, level)


def warp(picture: Picture, matrix: Float[Array, "2 3"]) -> Picture:
    """Reads the pixel at (y, x) from the centre at matrix @ (y, x, 1) from it.

    Bilinear; what lies outside is grey.
    """
    height, width, _ = picture.shape
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2])
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"))
    offset = grid - centre[:, None, None]
    source = jnp.einsum("ij,jyx->iyx", matrix[:, :2], offset)
    source = source + (matrix[:, 2] + centre)[:, None, None]

    def channel(values: Array) -> Array:
        return jax.scipy.ndimage.map_coordinates(
            values, list(source), order=1, mode="constant", cval=_GREY
        )

    return jax.vmap(channel, in_axes=-1, out_axes=-1)(picture)


def _rotate(picture: Picture, level: Array) -> Picture:
    cos, sin = jnp.cos(_ROTATE * level), jnp.sin(_ROTATE * level)
    return warp(picture, jnp.array([[cos, -sin, 0.0], [sin, cos, 0.0]]))


def _shear_x(picture: Picture, level: Array) -> Picture:
    return warp(picture, jnp.array([[1.0, 0, 0], [_SHEAR * level, 1, 0]]))


def _shear_y(picture: Picture, level: Array) -> Picture:
    return warp(picture, jnp.array([[1.0, _SHEAR * level, 0], [0, 1, 0]]))


def _translate_x(picture: Picture, level: Array) -> Picture:
    shift = _TRANSLATE * level * picture.shape[1]
    return warp(picture, jnp.array([[1.0, 0, 0], [0, 1, shift]]))


def _translate_y(picture: Picture, level: Array) -> Picture:
    shift = _TRANSLATE * level * picture.shape[0]
    return warp(picture, jnp.array([[1.0, 0, shift], [0, 1, 0]]))


def _grey(picture: Picture) -> Float[Array, "height width 1"]:
    if picture.shape[-1] != _RGB:
        return picture.mean(-1, keepdims=True)
    return (picture @ jnp.array(_LUMA))[..., None]


def _blend(other: Picture, picture: Picture, level: Array) -> Picture:
    factor = 1 + _ENHANCE * level
    return jnp.clip(other + factor * (picture - other), 0, _WHITE)


OPERATIONS: dict[str, Callable[[Picture, Array], Picture]] = {
    "autocontrast": autocontrast,
    "equalize": equalize,
    "invert": invert,
    "rotate": _rotate,
    "posterize": posterize,
    "solarize": solarize,
    "color": color,
    "contrast": contrast,
    "brightness": brightness,
    "sharpness": sharpness,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}
"""By name; each takes a picture and a level from -1 to 1."""
