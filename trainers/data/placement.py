"""Whether a data set is kept in memory or streamed."""

from trainers.data.dataset import Dataset
from trainers.data.framing import WHOLE, Framing
from trainers.data.loader import DataLoader
from trainers.data.memory import MemoryLoader
from trainers.data.stream import StreamLoader

# A worker holds one copy; Fashion-MNIST at 32 pixels takes a quarter of this,
# CIFAR-10 at 32 pixels 0.6 of it.
MEMORY_LIMIT_BYTES = 1 << 30

_FLOAT32_BYTES = 4


def prepared_bytes(dataset: Dataset, resolution: int) -> int:
    """Returns the size of the data set's prepared arrays at `resolution`."""
    pixels = sum(dataset.num_examples.values()) * resolution**2
    return pixels * dataset.channels * _FLOAT32_BYTES


def data_loader(
    dataset: Dataset,
    resolution: int,
    framing: Framing = WHOLE,
    *,
    limit_bytes: int = MEMORY_LIMIT_BYTES,
) -> DataLoader:
    """Returns the loader of `dataset` at `resolution`: streamed if it is too large.

    Making a loader reads images; keep it for as long as the data set is in use.

    Raises:
      ValueError: if an image cannot be decoded.
    """
    if prepared_bytes(dataset, resolution) <= limit_bytes:
        return MemoryLoader.of(dataset, resolution, framing)
    return StreamLoader.of(dataset, resolution, framing)
