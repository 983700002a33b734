"""Initial weights, drawn on the host with numpy.

A search initialises thousands of different networks; drawing on the host compiles
nothing. Distributions are those of EfficientNet's TensorFlow code.
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
    """`[k, k, channels]` from N(0, sqrt(2) / k): each filter feeds one channel."""
    return _normal(rng, (kernel, kernel, channels), math.sqrt(2) / kernel)


def dense_kernel(
    rng: np.random.Generator, in_features: int, out_features: int
) -> Weights:
    """`[in, out]` from U(-b, b), b = 1 / sqrt(out)."""
    bound = 1 / math.sqrt(out_features)
    shape = (in_features, out_features)
    return bound * (2 * rng.random(shape, dtype=np.float32) - 1)


def _normal(rng: np.random.Generator, shape: tuple[int, ...], std: float) -> Weights:
    return np.float32(std) * rng.standard_normal(shape, dtype=np.float32)
