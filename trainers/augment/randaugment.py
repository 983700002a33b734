"""RandAugment on the device (https://arxiv.org/abs/1909.13719).

A few operations in a row, each drawn for each image from the sixteen of EfficientNet's
TensorFlow code (`distort_image_with_randaugment`): the paper's fourteen, cutout and
solarize-add. The magnitude m, a level of 10 and above too, becomes their arguments by
that code's formulas, with int() rounding down:

    rotate               30 m/10 degrees, of either sign
    shear_x, shear_y     0.3 m/10, of either sign, from the upper left corner
    translate_x, _y      100 m/10 pixels, of either sign
    color, contrast, brightness, sharpness
                         a blend by the factor 0.1 + 1.8 m/10: 1 changes nothing
    posterize            int(4 m/10) bits of 8 are kept, at least one
    solarize             pixels from int(256 m/10) on are inverted
    solarize_add         int(110 m/10) is added to pixels below 128
    cutout               a square of 2 int(40 m/10) pixels
    autocontrast, equalize, invert
                         whatever m is

So posterize and solarize grow weaker with m, and the four blends are weakest at m = 5.

Departures from the source: its pixels are counted at whatever size the images have,
here in proportion to a side of 224, lest small ones be moved out of sight. Geometry
reads the nearest pixel there, and here is bilinear. Pixels stay fractions from one
operation to the next, and are cut to whole numbers there. Its contrast blends with a
grey of num_pixels / 256, by mistake for the mean; here it is the mean, as Pillow's.

Pixels are from 0 to 255. What geometry and cutout leave open is grey, 128.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

Picture = Float[Array, "height width channels"]

MAX_MAGNITUDE = 30.0  # the source's own advice is 5 to 30
_FULL_LEVEL = 10.0  # magnitude at which arguments are those printed above
_SIDE = 224  # of the images that numbers of pixels are given for
_ROTATE_DEGREES, _SHEAR = 30.0, 0.3
_TRANSLATE_PIXELS, _CUTOUT_PIXELS = 100.0, 40
_POSTERIZE_BITS, _SOLARIZE, _SOLARIZE_ADD = 4, 256, 110
_ENHANCE_LEAST, _ENHANCE_RANGE = 0.1, 1.8
_WHITE = 255.0
_GREY = 128.0
_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow has it
_RGB = 3
_BITS = 8


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Draw:
    """What chance decides about an operation beside which one it is.

    Attributes:
      sign: 1 or -1, of the operations that have one.
      centre: row and column of cutout's square, as shares of the sides, from 0 to 1.
    """

    sign: Float[Array, ""]
    centre: Float[Array, "2"]


Operation = Callable[[Picture, Draw], Picture]


def augment(
    key: PRNGKeyArray,
    pixels: Float[Array, "batch height width channels"],
    *,
    num_ops: int,
    magnitude: float | Array,
) -> Float[Array, "batch height width channels"]:
    """Returns each image after `num_ops` operations of `magnitude` (0 to 30)."""
    branches = list(operations(magnitude).values())

    def one(key: PRNGKeyArray, picture: Picture) -> Picture:
        for own in jax.random.split(key, num_ops):
            which_key, sign_key, centre_key = jax.random.split(own, 3)
            which = jax.random.randint(which_key, (), 0, len(branches))
            draw = Draw(
                sign=jnp.where(jax.random.bernoulli(sign_key), 1.0, -1.0),
                centre=jax.random.uniform(centre_key, (2,)),
            )
            picture = jax.lax.switch(which, branches, picture, draw)
        return picture

    return jax.vmap(one)(jax.random.split(key, len(pixels)), pixels)


def operations(magnitude: float | Array) -> dict[str, Operation]:
    """Returns the sixteen operations at `magnitude`, by name."""
    level = magnitude / _FULL_LEVEL
    factor = _ENHANCE_LEAST + _ENHANCE_RANGE * level
    angle = jnp.deg2rad(_ROTATE_DEGREES * level)
    bits = jnp.clip(_floored(_POSTERIZE_BITS, magnitude), 1, _BITS)
    threshold = _floored(_SOLARIZE, magnitude)
    addition = _floored(_SOLARIZE_ADD, magnitude)
    pad = _floored(_CUTOUT_PIXELS, magnitude)
    return {
        "autocontrast": lambda picture, _: autocontrast(picture),
        "equalize": lambda picture, _: equalize(picture),
        "invert": lambda picture, _: _WHITE - picture,
        "rotate": lambda picture, draw: rotate(picture, draw.sign * angle),
        "posterize": lambda picture, _: posterize(picture, bits),
        "solarize": lambda picture, _: solarize(picture, threshold),
        "color": lambda picture, _: color(picture, factor),
        "contrast": lambda picture, _: contrast(picture, factor),
        "brightness": lambda picture, _: brightness(picture, factor),
        "sharpness": lambda picture, _: sharpness(picture, factor),
        "shear_x": lambda picture, draw: shear_x(picture, draw.sign * _SHEAR * level),
        "shear_y": lambda picture, draw: shear_y(picture, draw.sign * _SHEAR * level),
        "translate_x": lambda picture, draw: translate(
            picture, 0, draw.sign * _TRANSLATE_PIXELS * level * picture.shape[1] / _SIDE
        ),
        "translate_y": lambda picture, draw: translate(
            picture, draw.sign * _TRANSLATE_PIXELS * level * picture.shape[0] / _SIDE, 0
        ),
        "cutout": lambda picture, draw: cutout(
            picture,
            jnp.floor(pad * min(picture.shape[:2]) / _SIDE),
            draw.centre,
        ),
        "solarize_add": lambda picture, _: solarize_add(picture, addition),
    }


def _floored(argument: int, magnitude: float | Array) -> Array:
    """Returns what an argument at the full level is at `magnitude`, rounded down."""
    # In this order, whole magnitudes give the whole numbers that they should.
    return jnp.floor(argument * magnitude / _FULL_LEVEL)


def posterize(picture: Picture, bits: Array) -> Picture:
    """Keeps the upper `bits` of each pixel's eight."""
    step = 2.0 ** (_BITS - bits)
    return jnp.floor(picture / step) * step


def solarize(picture: Picture, threshold: Array) -> Picture:
    """Inverts pixels at or above `threshold`."""
    return jnp.where(picture < threshold, picture, _WHITE - picture)


def solarize_add(picture: Picture, addition: Array) -> Picture:
    """Brightens pixels below 128 by `addition`."""
    added = jnp.clip(picture + addition, 0, _WHITE)
    return jnp.where(picture < _GREY, added, picture)


def cutout(picture: Picture, pad: Array, centre: Float[Array, "2"]) -> Picture:
    """Greys the pixels less than `pad` from a centre, each way; cut at the border.

    `centre` is a pixel, told as shares of the sides.
    """
    inside = []
    for share, size in zip(centre, picture.shape[:2], strict=True):
        middle = jnp.floor(share * size)
        place = jnp.arange(size)
        inside.append((middle - pad <= place) & (place < middle + pad))
    hole = inside[0][:, None] & inside[1][None, :]
    return jnp.where(hole[..., None], _GREY, picture)


def autocontrast(picture: Picture) -> Picture:
    """Stretches each channel to the full range."""
    low, high = picture.min((0, 1)), picture.max((0, 1))
    stretched = (picture - low) * (_WHITE / jnp.maximum(high - low, 1))
    return jnp.where(high > low, stretched, picture)


def equalize(picture: Picture) -> Picture:
    """Flattens each channel's histogram, as Pillow does."""

    def channel(values: Array) -> Array:
        index = jnp.clip(values, 0, _WHITE).astype(jnp.int32)
        counts = jnp.zeros(256, jnp.int32).at[index.ravel()].add(1)
        last = counts[jnp.max(index)]
        step = (index.size - last) // 255
        before = jnp.cumsum(counts) - counts
        table = (before + step // 2) // jnp.maximum(step, 1)
        return jnp.where(step == 0, values, jnp.clip(table, 0, 255)[index])

    return jax.vmap(channel, in_axes=-1, out_axes=-1)(picture)


def brightness(picture: Picture, factor: float | Array) -> Picture:
    """From black (a factor of 0) to the picture (1) and beyond."""
    return _blend(jnp.zeros_like(picture), picture, factor)


def contrast(picture: Picture, factor: float | Array) -> Picture:
    """From the mean grey (a factor of 0) to the picture (1) and beyond."""
    mean = jnp.floor(_grey(picture).mean() + 0.5)
    return _blend(jnp.full_like(picture, mean), picture, factor)


def color(picture: Picture, factor: float | Array) -> Picture:
    """From its grey (a factor of 0) to the picture (1) and beyond."""
    return _blend(jnp.broadcast_to(_grey(picture), picture.shape), picture, factor)


def sharpness(picture: Picture, factor: float | Array) -> Picture:
    """From a smoothed one (a factor of 0) to the picture (1) and beyond.

    The border stays.
    """
    weights = jnp.array([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    height, width, _ = picture.shape
    smooth = sum(
        weights[i, j] * picture[i : height - 2 + i, j : width - 2 + j]
        for i in range(3)
        for j in range(3)
    )
    return _blend(picture.at[1:-1, 1:-1].set(smooth), picture, factor)


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


def rotate(picture: Picture, radians: Array) -> Picture:
    """Turns the picture about its centre, counter-clockwise."""
    cos, sin = jnp.cos(radians), jnp.sin(radians)
    return warp(picture, jnp.array([[cos, sin, 0.0], [-sin, cos, 0.0]]))


def shear_x(picture: Picture, shear: Array) -> Picture:
    """Reads the pixel at (y, x) at (y, x + shear * y) from the upper left corner."""
    middle = (picture.shape[0] - 1) / 2
    return warp(picture, jnp.array([[1.0, 0, 0], [shear, 1, shear * middle]]))


def shear_y(picture: Picture, shear: Array) -> Picture:
    """Reads the pixel at (y, x) at (y + shear * x, x) from the upper left corner."""
    middle = (picture.shape[1] - 1) / 2
    return warp(picture, jnp.array([[1.0, shear, shear * middle], [0, 1, 0]]))


def translate(picture: Picture, down: Array | float, right: Array | float) -> Picture:
    """Reads each pixel so many rows and columns further on."""
    return warp(picture, jnp.array([[1.0, 0, down], [0, 1, right]]))


def _grey(picture: Picture) -> Float[Array, "height width 1"]:
    if picture.shape[-1] != _RGB:
        return picture.mean(-1, keepdims=True)
    return (picture @ jnp.array(_LUMA))[..., None]


def _blend(other: Picture, picture: Picture, factor: float | Array) -> Picture:
    return jnp.clip(other + factor * (picture - other), 0, _WHITE)
