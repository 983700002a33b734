"""Generated patterns: 10,000 grey images of 32x32 pixels, ten kinds of repeated figure.

A figure, such as a ring or a brick, fills the image over and over, seven to twelve
pixels apart, from a random place, turned by up to 14 degrees, along bent rows and
columns, under noise. Neither the level of grey, the contrast nor any pixel's place
tells the kind: what does is how the light parts lie to each other, wherever they are.

The same images everywhere: random integers, sums and products only, so that workers on
different machines see one data set. They are made anew in every process.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, UInt8

from trainers.augment import geometric
from trainers.data.dataset import ArrayExamples, DataSource

_SIDE = 32
_NUM_TRAINING, _NUM_TEST = 8_000, 2_000
_TRAINING_SEED, _TEST_SEED = 0, 1

# With random hues, a random child of the space mbconv had 11 % after 200 steps.
_SPACING = (7.0, 12.0)  # pixels from one figure to the next
_TURN = 10  # of _ANGLES; the square lattice repeats after a quarter of them
_LEVEL = (110, 146)  # mean of an image, of 255
_CONTRAST = (100, 180)  # from the dark parts to the light ones
_BEND = 0.25  # of the spacing, to either side
_NOISE = 20  # largest change of a pixel

_TILE = 64  # samples along a side of the square that repeats
_SUPERSAMPLING = 4
_ANGLES = 256  # in a full turn
_KNOTS = 8  # pixels from one to the next
_AT_ONCE = 200  # images whose intermediate arrays fit a processor's cache

_Plane = Float64[np.ndarray, "side side"]
_Figure = Callable[[_Plane, _Plane], Bool[np.ndarray, "side side"]]


def read() -> DataSource:
    """Returns the data set: 8,000 examples for training, 2,000 for the test."""
    training = _examples(_NUM_TRAINING, seed=_TRAINING_SEED)
    return DataSource(
        description="patterns: generated: 10,000 images of 10 kinds of repeated"
        " figure, 32x32 grey pixels, made by trainers.data.patterns",
        class_names=tuple(_FIGURES),
        channels=1,
        image_size=(_SIDE, _SIDE),
        # Every kind is its own mirror image.
        augmentation=dataclasses.replace(geometric.NONE, flip=True),
        training=training,
        labels=training.labels,
        validation=None,
        read_test=lambda: _examples(_NUM_TEST, seed=_TEST_SEED),
    )


def _examples(num: int, *, seed: int) -> ArrayExamples:
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(num) % len(_FIGURES))
    tiles = _tiles(list(_FIGURES.values()))
    images = np.empty((num, _SIDE, _SIDE, 1), np.uint8)
    for start in range(0, num, _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        images[rows, :, :, 0] = _drawn(tiles, labels[rows], generator)
    return ArrayExamples(images=images, labels=labels)


def _tiles(figures: Sequence[_Figure]) -> Float32[np.ndarray, "kinds tile tile"]:
    """Returns each figure's square, light above zero, dark below, zero on average.

    So the mean of an image says nothing about how much of a figure is light.
    """
    num = _TILE * _SUPERSAMPLING
    at = (np.arange(num) + 0.5) / num
    x, y = np.meshgrid(at, at)
    fine = np.stack([figure(x, y) for figure in figures])
    shape = (len(figures), _TILE, _SUPERSAMPLING, _TILE, _SUPERSAMPLING)
    tiles = fine.reshape(shape).mean(axis=(2, 4))
    return (tiles - tiles.mean(axis=(1, 2), keepdims=True)).astype(np.float32)


def _drawn(
    tiles: Float32[np.ndarray, "kinds tile tile"],
    labels: Int[np.ndarray, " num"],
    generator: np.random.Generator,
) -> UInt8[np.ndarray, "num side side"]:
    num = len(labels)
    low, high = _SPACING
    spacing = np.float32(low) + np.float32(high - low) * _shares(generator, num)
    turns = _turns()[generator.integers(-_TURN, _TURN + 1, num)]
    along, across = (turns * (np.float32(_TILE) / spacing)[:, None]).T
    # Positive, because casts round towards zero; a multiple of the tile's side.
    start = np.float32(_TILE * _SIDE) + np.float32(_TILE) * _shares(generator, num, 2)
    where = _samples(-across, along, start[:, 0], generator) * np.int32(_TILE)
    where += _samples(along, across, start[:, 1], generator)
    where += labels.astype(np.int32)[:, None, None] * np.int32(_TILE * _TILE)
    images = tiles.take(where)
    images *= generator.integers(*_CONTRAST, num).astype(np.float32)[:, None, None]
    images += generator.integers(*_LEVEL, num).astype(np.float32)[:, None, None]
    images += generator.integers(-_NOISE, _NOISE + 1, images.shape, dtype=np.int8)
    return np.clip(images, 0, 255).astype(np.uint8)


def _samples(
    right: Float32[np.ndarray, " num"],
    down: Float32[np.ndarray, " num"],
    start: Float32[np.ndarray, " num"],
    generator: np.random.Generator,
) -> Int[np.ndarray, "num side side"]:
    """Returns which row or column of its tile each pixel shows.

    Args:
      right: how many samples further the next pixel to the right is.
      down: likewise below.
      start: the sample at the middle of the image.
      generator: of the bends.
    """
    num = len(start)
    at = np.arange(_SIDE, dtype=np.float32) - np.float32(_SIDE / 2)
    rows = down[:, None] * at + _bends(generator, num)
    columns = right[:, None] * at + start[:, None] + _bends(generator, num)
    return (rows[:, :, None] + columns[:, None, :]).astype(np.int32) & np.int32(
        _TILE - 1
    )


def _bends(generator: np.random.Generator, num: int) -> Float32[np.ndarray, "num side"]:
    """Returns by how many samples the figures are aside, along a row or a column.

    Straight between knots.
    """
    knots = _shares(generator, num, _SIDE // _KNOTS + 1) * np.float32(2) - np.float32(1)
    knots *= np.float32(_BEND * _TILE)
    before, after = np.divmod(np.arange(_SIDE), _KNOTS)
    share = (after / _KNOTS).astype(np.float32)
    return knots[:, before] * (np.float32(1) - share) + knots[:, before + 1] * share


def _shares(generator: np.random.Generator, *shape: int) -> Float32[np.ndarray, "..."]:
    """Returns numbers from 0 to 1."""
    return generator.random(shape, dtype=np.float32)


def _turns() -> Float32[np.ndarray, "angles 2"]:
    """Returns the cosine and the sine of each angle, as every machine rounds them."""
    angles = [2 * math.pi * step / _ANGLES for step in range(_ANGLES)]
    found = [(round(math.cos(a), 6), round(math.sin(a), 6)) for a in angles]
    return np.array(found, np.float32)


def _from_centre(x: _Plane, y: _Plane) -> _Plane:
    """Returns the squared distance from the middle of the tile."""
    return (x - 0.5) ** 2 + (y - 0.5) ** 2


def _rings(x: _Plane, y: _Plane) -> Bool[np.ndarray, "side side"]:
    distance = _from_centre(x, y)
    return (distance < 0.47**2) & (distance > 0.24**2)


def _crosses(x: _Plane, y: _Plane) -> Bool[np.ndarray, "side side"]:
    beside, above = np.abs(x - 0.5), np.abs(y - 0.5)
    return (np.minimum(beside, above) < 0.14) & (np.maximum(beside, above) < 0.42)  # noqa: PLR2004


def _bricks(x: _Plane, y: _Plane) -> Bool[np.ndarray, "side side"]:
    shifted = x + 0.5 * (y > 0.5)  # noqa: PLR2004
    return (y % 0.5 > 0.13) & (shifted % 1.0 > 0.13)  # noqa: PLR2004


def _scales(x: _Plane, y: _Plane) -> Bool[np.ndarray, "side side"]:
    """Rows of half rings, each row half a scale aside."""
    beside = np.where(y < 0.5, x, (x + 0.5) % 1.0) - 0.5  # noqa: PLR2004
    distance = beside**2 + (y % 0.5) ** 2
    return (distance < 0.48**2) & (distance > 0.24**2)


# Light where true, over the unit square.
_FIGURES: dict[str, _Figure] = {
    "stripes": lambda _, y: y < 0.5,  # noqa: PLR2004
    "checks": lambda x, y: (x < 0.5) ^ (y < 0.5),  # noqa: PLR2004
    "dots": lambda x, y: _from_centre(x, y) < 0.38**2,
    "rings": _rings,
    "crosses": _crosses,
    "bricks": _bricks,
    "zigzags": lambda x, y: (y + np.abs(x - 0.5)) % 1.0 < 0.5,  # noqa: PLR2004
    "triangles": lambda x, y: np.abs(x - 0.5) < 0.5 * y,
    "grids": lambda x, y: np.minimum(x, y) < 0.25,  # noqa: PLR2004
    "scales": _scales,
}
