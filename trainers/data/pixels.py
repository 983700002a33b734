"""Decoding image files, and resizing what was decoded."""

import pathlib
import struct
import warnings
from typing import Literal

import numpy as np
import PIL.Image
import PIL.ImageOps
from jaxtyping import UInt8

from trainers.data.dataset import Image

Box = tuple[float, float, float, float]  # left, upper, right, lower, in pixels
Interpolation = Literal["bilinear", "bicubic"]


# What Pillow's plugins raise for broken content, beside OSError.
_UNDECODABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    PIL.Image.DecompressionBombError,
)
_RGB = 3
_FILTERS = {
    "bilinear": PIL.Image.Resampling.BILINEAR,
    "bicubic": PIL.Image.Resampling.BICUBIC,
}


def decode(path: pathlib.Path) -> Image:
    """Returns the image in a file, upright: one channel if it is grey, else RGB.

    Transparency is dropped; 16-bit grey keeps its upper 8 bits.

    Raises:
      ValueError: if the file is not a whole image of a kind that Pillow reads, or so
        large that Pillow takes it for an attack.
    """
    try:
        with warnings.catch_warnings():
            # Oversize up to twofold, odd metadata: the pixels are there.
            warnings.simplefilter("ignore")
            with PIL.Image.open(path) as file:
                return _to_array(PIL.ImageOps.exif_transpose(file))
    except _UNDECODABLE as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path} must be an image: {reason}; remove or replace it"
        ) from error


def to_channels(image: Image, channels: int) -> Image:
    """Returns a grey image as RGB, or an RGB image as grey, by its luma."""
    if channels == _RGB:
        return np.repeat(image, _RGB, axis=2)
    return np.asarray(PIL.Image.fromarray(image).convert("L"))[..., np.newaxis]


def _to_array(image: PIL.Image.Image) -> Image:
    if image.mode.startswith("I;16"):
        return (np.asarray(image) >> 8).astype(np.uint8)[..., np.newaxis]
    if image.mode in ("1", "L", "LA"):
        return np.asarray(image.convert("L"))[..., np.newaxis]
    return np.asarray(image.convert("RGB"))


def central_square(height: int, width: int, share: float = 1.0) -> Box:
    """Returns a square in the middle of an image, `share` of the largest one's side.

    >>> central_square(30, 50)
    (10.0, 0.0, 40.0, 30.0)
    """
    side = share * min(height, width)
    left, upper = (width - side) / 2, (height - side) / 2
    return left, upper, left + side, upper + side


def resize(
    image: Image,
    resolution: int,
    box: Box,
    interpolation: Interpolation = "bilinear",
) -> UInt8[np.ndarray, "resolution resolution channels"]:
    """Returns the part of `image` in `box` at `resolution`, antialiased.

    Where the image is made smaller the filter is widened by the factor, as
    `jax.image.resize` does and TensorFlow's and OpenCV's defaults do not. The cubic
    filter is Keys's with a = -0.5, jax's too; TensorFlow 1's and OpenCV's has -0.75.
    """
    side = (resolution, resolution)
    if image.shape == (*side, image.shape[2]) and box == (0, 0, *side):
        return image
    if image.shape[2] == _RGB:
        return _resize_plane(image, resolution, box, interpolation)
    planes = [
        _resize_plane(image[..., channel], resolution, box, interpolation)
        for channel in range(image.shape[2])
    ]
    return np.stack(planes, axis=-1)


def _resize_plane(
    plane: np.ndarray, resolution: int, box: Box, interpolation: Interpolation
) -> np.ndarray:
    picture = PIL.Image.fromarray(np.ascontiguousarray(plane))
    size = (resolution, resolution)
    return np.asarray(picture.resize(size, _FILTERS[interpolation], box))
