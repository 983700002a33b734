"""Resizing decoded images."""

import numpy as np
import PIL.Image
from jaxtyping import UInt8

from trainers.data.dataset import Image

Box = tuple[float, float, float, float]  # left, upper, right, lower, in pixels


def central_square(height: int, width: int) -> Box:
    """Returns the largest square in the middle of an image.

    >>> central_square(30, 50)
    (10.0, 0.0, 40.0, 30.0)
    """
    side = min(height, width)
    left, upper = (width - side) / 2, (height - side) / 2
    return left, upper, left + side, upper + side


def resize(
    image: Image, resolution: int, box: Box
) -> UInt8[np.ndarray, "resolution resolution channels"]:
    """Returns the part of `image` in `box` at `resolution`, antialiased bilinear.

    Where the image is made smaller the triangle filter is widened by the factor, as
    `jax.image.resize` does and TensorFlow's and OpenCV's defaults do not.
    """
    side = (resolution, resolution)
    if image.shape == (*side, image.shape[2]) and box == (0, 0, *side):
        return image
    if image.shape[2] == 3:  # noqa: PLR2004  (RGB)
        planes = PIL.Image.fromarray(image)
        return np.asarray(planes.resize(side, PIL.Image.Resampling.BILINEAR, box))
    return np.stack(
        [
            np.asarray(
                PIL.Image.fromarray(np.ascontiguousarray(plane)).resize(
                    side, PIL.Image.Resampling.BILINEAR, box
                )
            )
            for plane in np.moveaxis(image, -1, 0)
        ],
        axis=-1,
    )
