"""How an image file becomes the pixels that a network reads.

`nas.export` copies this file as it is beside `run.py`, so that an exported network
reads pictures as it did in training: it needs numpy and Pillow only, and the names of
types that they have.

Pixels are from 0 to 255: uint8, or float32 where a file holds 16 bits of grey. An image
is upright (EXIF), of one channel if it is grey, else RGB; of an animation the first
picture counts. It is grey if the file's format says so, or if all its pixels are where
that cannot be said: in a palette, in WebP and in AVIF. Transparency shows white. Grey
of 16 bits is scaled by what the file can hold (0 to 65535, or the 12 bits that a TIFF
or the largest value that a PGM declares) and never by what this one picture holds, so
12 bits in a file that does not say so are dark, and all there. Colour of 16 bits comes
from Pillow with its upper 8. Integers of 32 bits, signed ones and floats have no range
that a file declares, and are refused.
"""

import os
import pathlib
import stat
import struct
import warnings
import zlib
from typing import BinaryIO, Literal

import numpy as np
import PIL.Image
import PIL.ImageOps

Box = tuple[float, float, float, float]  # left, upper, right, lower, in pixels
Interpolation = Literal["bilinear", "bicubic"]

# What Pillow's plugins raise for broken content. A damaged header reaches any of their
# arithmetic, so this is nearly everything, and is caught around Pillow alone.
_UNDECODABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    PIL.Image.DecompressionBombError,
)
_GREY, _RGB, _RGBA = 1, 3, 4
CHANNELS = (_GREY, _RGB, _RGBA)  # that pictures may have
_WHITE = 255

# EPS is drawn by Ghostscript, and a file from anybody must not start a program.
_REFUSED_FORMATS = frozenset({"EPS"})
# Their files of one channel cannot be told from those of three.
_WITHOUT_GREY = frozenset({"WEBP", "AVIF"})
_UNSIGNED_16 = frozenset({"PNG", "TIFF", "JPEG2000", "PPM", "IM"})
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # tags of TIFF 6.0
_WHITE_IS_ZERO = 0
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_COLOUR_TYPE = 25  # its place in the file
_PNG_GREY_ALPHA = 4
_FILTERS = {
    "bilinear": PIL.Image.Resampling.BILINEAR,
    "bicubic": PIL.Image.Resampling.BICUBIC,
}


def read(
    path: pathlib.Path,
    resolution: int,
    channels: int,
    crop: float = 1.0,
    interpolation: Interpolation = "bilinear",
) -> np.ndarray:
    """Returns what a network reads of the picture in a file, before standardisation.

    Args:
      path: an image file.
      resolution: side of the network's input, in pixels.
      channels: 1 for grey, 3 for RGB; 4 for RGB and transparency as they are.
      crop: side of the central square, as a share of the largest one's.
      interpolation: of the resizing.

    Returns:
      float32 of shape [resolution, resolution, channels], from 0 to 255: the central
      square of the picture.

    Raises:
      ValueError: as `decode`.
    """
    if channels == _RGBA:
        image = _decode(path, keep_alpha=True)
    else:
        image = to_channels(decode(path), channels)
    box = central_square(*image.shape[:2], share=crop)
    return resize(image, resolution, box, interpolation).astype(np.float32)


def decode(path: pathlib.Path) -> np.ndarray:
    """Returns the image in a file, upright, [height, width, 1 or 3].

    Raises:
      ValueError: if the file is not an ordinary one that holds a whole image of a kind
        that Pillow reads and whose range is known, or so large that Pillow takes it for
        an attack. One line.
    """
    return _decode(path, keep_alpha=False)


def _decode(path: pathlib.Path, *, keep_alpha: bool) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            # Oversize up to twofold, odd metadata: the pixels are there.
            warnings.simplefilter("ignore")
            with open(path, "rb", opener=_open_quickly) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise OSError("it is no ordinary file")
                return _decode_open(file, keep_alpha=keep_alpha)
    except PIL.UnidentifiedImageError as error:
        raise ValueError(
            f"{path} must be an image: it is of no kind that Pillow reads, or damaged;"
            " remove or replace it"
        ) from error
    except _UNDECODABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{path} must be an image: {reason}; remove or replace it"
        ) from error


def _open_quickly(path: str, flags: int) -> int:
    """Opens a pipe or a device without waiting for it; Windows has no such flag."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _decode_open(file: BinaryIO, *, keep_alpha: bool) -> np.ndarray:
    head = file.read(_PNG_COLOUR_TYPE + 1)
    file.seek(0)
    PIL.Image.init()
    formats = [name for name in PIL.Image.OPEN if name not in _REFUSED_FORMATS]
    with PIL.Image.open(file, formats=formats) as opened:
        if _is_deep(opened.mode):
            grey = _deep_grey(opened)
            opaque = np.full_like(grey, _WHITE)
            return np.dstack([grey, grey, grey, opaque]) if keep_alpha else grey
        maybe_grey = (
            opened.mode in ("P", "PA")
            or opened.format in _WITHOUT_GREY
            or _is_grey_alpha_png(head)
        )
        picture = PIL.ImageOps.exif_transpose(opened)
    if keep_alpha:
        return np.asarray(picture.convert("RGBA"))
    image = _on_white(picture)
    if maybe_grey and image.shape[2] == _RGB and _is_grey(image):
        return image[..., :1]
    return image


def _is_deep(mode: str) -> bool:
    return mode.startswith("I") or mode == "F"


def _deep_grey(opened: PIL.Image.Image) -> np.ndarray:
    """Returns grey of more than 8 bits as float32 from 0 to 255, [height, width, 1].

    Raises:
      ValueError: if the file does not bound its values.
    """
    tags = getattr(opened, "tag_v2", {})
    # Pillow scales a PGM's largest value to 65535.
    known = opened.mode.startswith("I;16") or opened.format == "PPM"
    if opened.mode == "F" or not known or opened.format not in _UNSIGNED_16:
        kind = "floating-point numbers" if opened.mode == "F" else "signed or 32-bit"
        raise ValueError(
            f"its values are {kind}, whose black and white no {opened.format} file"
            " states; save it with 8 or 16 unsigned bits, scaled to their range"
        )
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    whitest = 2**bits - 1
    transparent = opened.info.get("transparency")
    picture = PIL.ImageOps.exif_transpose(opened)
    values = np.asarray(picture).astype(np.float32)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # which Pillow minds up to 8 bits
        values = whitest - values
    if isinstance(transparent, int):
        values[values == transparent] = whitest
    return (values * np.float32(_WHITE / whitest))[..., np.newaxis]


def _is_grey_alpha_png(head: bytes) -> bool:
    """Whether it is a PNG of grey and transparency, RGBA to Pillow at 16 bits."""
    return head.startswith(_PNG_SIGNATURE) and head[-1] == _PNG_GREY_ALPHA


def _on_white(picture: PIL.Image.Image) -> np.ndarray:
    """Returns the pixels of a picture of 8 bits, uint8, laid over white."""
    grey = picture.mode in ("1", "L", "LA", "La")
    if not picture.has_transparency_data:
        pixels = np.asarray(picture.convert("L" if grey else "RGB"))
        return pixels[..., np.newaxis] if grey else pixels
    pixels = np.asarray(picture.convert("LA" if grey else "RGBA")).astype(np.uint16)
    colour, alpha = pixels[..., :-1], pixels[..., -1:]
    laid = colour * alpha + _WHITE * (_WHITE - alpha)
    return ((laid + _WHITE // 2) // _WHITE).astype(np.uint8)


def _is_grey(image: np.ndarray) -> bool:
    return bool((image == image[..., :1]).all())


def printable(text: str) -> str:
    """Returns `text` for a terminal, which a name from a file must not command."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def to_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Returns `image` with 1 or 3 channels: grey as RGB, or RGB as its luma."""
    if image.shape[2] == channels:
        return image
    if channels == _RGB:
        return np.repeat(image, _RGB, axis=2)
    return np.asarray(PIL.Image.fromarray(image).convert("L"))[..., np.newaxis]


def central_square(height: int, width: int, share: float = 1.0) -> Box:
    """Returns a square in the middle of an image, `share` of the largest one's side.

    >>> central_square(30, 50)
    (10.0, 0.0, 40.0, 30.0)
    """
    side = share * min(height, width)
    left, upper = (width - side) / 2, (height - side) / 2
    return left, upper, left + side, upper + side


def resize(
    image: np.ndarray,
    resolution: int,
    box: Box,
    interpolation: Interpolation = "bilinear",
) -> np.ndarray:
    """Returns the part of `image` in `box` at `resolution`, antialiased.

    Where the image is made smaller the filter is widened by the factor, as
    `jax.image.resize` does and TensorFlow's and OpenCV's defaults do not. The cubic
    filter is Keys's with a = -0.5, jax's too; TensorFlow 1's and OpenCV's has -0.75.

    Args:
      image: uint8 or float32, [height, width, channels].
      resolution: of the result, [resolution, resolution, channels], of the same type.
      box: in pixels of `image`.
      interpolation: the filter.
    """
    side = (resolution, resolution)
    if image.shape == (*side, image.shape[2]) and box == (0, 0, *side):
        return image
    if image.shape[2] == _RGB and image.dtype == np.uint8:
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
