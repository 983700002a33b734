"""Fashion-MNIST (or MNIST) from its four idx files, as Debian packages them.

The format is described at http://yann.lecun.com/exdb/mnist: two zero bytes, the
element type, the number of dimensions, each dimension as a big-endian 32-bit count,
then the elements.
"""

import gzip
import math
import pathlib
import struct
import zlib

import numpy as np

from trainers.augment import geometric
from trainers.data.dataset import ArrayExamples, DataSource

DEBIAN_DIR = pathlib.Path("/usr/share/datasets/fashion-mnist")
DEBIAN_PACKAGE = "dataset-fashion-mnist"

# The order is that of the labels; https://github.com/zalandoresearch/fashion-mnist
FASHION_CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

_UNSIGNED_BYTE = 0x08
_MAX_DIMENSIONS = 3
_MAX_BYTES = 1 << 30  # sixteen times Fashion-MNIST's images; stops a gzip bomb


def has_files(folder: pathlib.Path) -> bool:
    """Whether all four files are in `folder`."""
    return all(
        (folder / name).is_file()
        for part in ("train", "t10k")
        for name in _file_names(part)
    )


def fashion_mnist(folder: pathlib.Path) -> DataSource:
    """Returns Fashion-MNIST from the files in `folder`.

    Raises:
      ValueError: if a file is not what it should be.
    """
    training = read_examples(folder, "train")
    num_classes = len(FASHION_CLASS_NAMES)
    if len(training) == 0 or training.labels.max() >= num_classes:
        raise ValueError(
            f"Fashion-MNIST must have examples of {num_classes} classes; the files in"
            f" {folder} are of another data set, give another data_dir"
        )
    height, width = training.images.shape[1:3]
    return DataSource(
        description=f"fashion_mnist: {len(training):,} training images of clothes,"
        f" {height}x{width} grey pixels, {num_classes} classes, from {folder}",
        class_names=FASHION_CLASS_NAMES,
        channels=1,
        image_size=(height, width),
        augmentation=geometric.LIGHT,
        training=training,
        labels=training.labels,
        validation=None,
        read_test=lambda: read_examples(folder, "t10k"),
    )


def read_examples(folder: pathlib.Path, part: str) -> ArrayExamples:
    """Returns the images and labels of `part`, `train` or `t10k`, in `folder`.

    Raises:
      ValueError: if a file cannot be read, or the two do not fit together.
    """
    images_path, labels_path = (folder / name for name in _file_names(part))
    images, labels = read_file(images_path), read_file(labels_path)
    if (images.ndim, labels.ndim) != (3, 1) or len(images) != len(labels):
        raise ValueError(
            f"{images_path} must hold [n, height, width] and {labels_path} [n], got"
            f" {list(images.shape)} and {list(labels.shape)}; fetch them again"
        )
    return ArrayExamples(images=images[..., np.newaxis], labels=labels.astype(np.int32))


def read_file(path: pathlib.Path) -> np.ndarray:
    """Returns the uint8 array in the gzipped idx file at `path`.

    Raises:
      ValueError: if it is missing, truncated, too long, or not such a file.
    """
    try:
        with gzip.open(path) as file:
            return parse(file.read(_MAX_BYTES))
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ValueError(
            f"{path} must be a gzipped idx file of bytes: {error}; fetch it again"
        ) from error


def parse(content: bytes) -> np.ndarray:
    """Returns the uint8 array in an uncompressed idx file.

    >>> parse(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9])).tolist()
    [7, 9]

    Raises:
      ValueError: if `content` is not exactly one array of unsigned bytes.
    """
    magic = bytes([0, 0, _UNSIGNED_BYTE])
    if not content.startswith(magic) or content == magic:
        raise ValueError(f"it must start with 00 00 08, got {content[:4].hex(' ')!r}")
    dimensions = content[3]
    start = 4 + 4 * dimensions
    if not 1 <= dimensions <= _MAX_DIMENSIONS or len(content) < start:
        raise ValueError(
            f"its header must be of 1 to {_MAX_DIMENSIONS} dimensions, got"
            f" {dimensions} and {len(content)} bytes in all"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    if math.prod(shape) != len(content) - start:
        raise ValueError(
            f"its shape {list(shape)} needs {math.prod(shape):,} bytes, got"
            f" {len(content) - start:,}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _file_names(part: str) -> tuple[str, str]:
    return f"{part}-images-idx3-ubyte.gz", f"{part}-labels-idx1-ubyte.gz"
