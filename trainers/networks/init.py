"""Initial weights, drawn on the host with numpy.

A search initialises thousands of different networks; drawing on the host compiles
nothing. Distributions are those of EfficientNet's TensorFlow code, but for the
classifier's.
"""

import math

import numpy as np

Weights = np.ndarray


def conv_kernel(
    rng: np.random.Generator, kernel: int, in_channels: int, out_channels: int
) -> Weights:
    """`[k, k, in, out]` from N(0, sqrt(2 / fan_out)), fan_out = k * k * out."""
    std = math.sqrt(2 / (kernel * kernel * out_channels))
    return _normal(rng, (kernel, kernel, in_channels, out_channels), std)


def depthwise_kernel(rng: np.random.Generator, kernel: int, channels: int) -> Weights:
    """`[k, k, channels]` from N(0, sqrt(2) / k): each filter loaders one channel."""
    return _normal(rng, (kernel, kernel, channels), math.sqrt(2) / kernel)


def dense_kernel(
    rng: np.random.Generator, in_features: int, out_features: int
) -> Weights:
    """`[in, out]` from U(-b, b), b = 1 / sqrt(in).

    EfficientNet's b is 1 / sqrt(out), which for its 1,280 features and 1,000 classes is
    about the same. For 10 classes it would be ten times as much: training would begin
    at a loss of 5 to 9, where chance is 2.3, and spend an epoch on coming down.
    """
    bound = 1 / math.sqrt(in_features)
    shape = (in_features, out_features)
    return bound * (2 * rng.random(shape, dtype=np.float32) - 1)


def _normal(rng: np.random.Generator, shape: tuple[int, ...], std: float) -> Weights:
    return np.float32(std) * rng.standard_normal(shape, dtype=np.float32)
