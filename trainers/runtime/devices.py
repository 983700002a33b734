"""A process's devices: a batch is split over them, the weights are copied to each."""

import dataclasses
from typing import TypeVar

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

_BATCH = "batch"
_Arrays = TypeVar("_Arrays")


@dataclasses.dataclass(frozen=True)
class Devices:
    """Devices that train one network together.

    XLA divides the work by where a program's inputs lie, leaves new weights where the
    old ones were, and computes what it would on one device: batch norm's statistics
    are of the whole batch.
    """

    mesh: Mesh

    @property
    def by_batch(self) -> NamedSharding:
        """Where batches lie: an equal part on each device."""
        return NamedSharding(self.mesh, PartitionSpec(_BATCH))

    @property
    def everywhere(self) -> NamedSharding:
        """Where weights lie: whole, on each device."""
        return NamedSharding(self.mesh, PartitionSpec())

    def split(self, arrays: _Arrays) -> _Arrays:
        """Divides arrays by their first axis."""
        return jax.device_put(arrays, self.by_batch)

    def copy(self, arrays: _Arrays) -> _Arrays:
        """Copies arrays to every device."""
        return jax.device_put(arrays, self.everywhere)


def local(number: int | None = None) -> Devices:
    """Returns this process's devices, all of them by default.

    Raises:
      ValueError: if there are not so many.
    """
    devices = jax.local_devices()
    number = len(devices) if number is None else number
    if not 1 <= number <= len(devices):
        raise ValueError(
            f"there must be as many devices as asked for, got {number} of"
            f" {len(devices)}; ask for fewer"
        )
    return Devices(
        jax.make_mesh(
            (number,), (_BATCH,), axis_types=(AxisType.Auto,), devices=devices[:number]
        )
    )
