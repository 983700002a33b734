"""The weights of a chained network as bytes, to go on training elsewhere.

In the format of safetensors, which holds arrays and nothing that runs. The optimizer's
state is not among them.
"""

from collections.abc import Sequence

import jax
import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from trainers.steps.executables import Leaves, Trained, UnitState


def dump(states: Sequence[UnitState]) -> bytes:
    """Returns the weights and batch statistics of all units."""
    arrays = {
        f"{unit}.{kind}.{position}": np.asarray(leaf)
        for unit, state in enumerate(states)
        for kind, leaves in _kinds(state).items()
        for position, leaf in enumerate(leaves)
    }
    return safetensors.numpy.save(arrays)


def load(states: Sequence[UnitState], data: bytes) -> list[UnitState] | None:
    """Returns the states with the weights in `data`; None if those are none of theirs.

    The optimizer's state is that of `states`.
    """
    try:
        arrays = safetensors.numpy.load(data)
    except (SafetensorError, ValueError, KeyError):
        return None
    if len(arrays) != sum(len(s.trained.params) + len(s.stats) for s in states):
        return None
    found: list[UnitState] = []
    for unit, state in enumerate(states):
        leaves: dict[str, Leaves] = {}
        for kind, old in _kinds(state).items():
            given = [arrays.get(f"{unit}.{kind}.{i}") for i in range(len(old))]
            new = [array for array in given if array is not None]
            alike = [
                (array.shape, array.dtype) == (leaf.shape, leaf.dtype)
                for array, leaf in zip(new, old, strict=False)
            ]
            if len(new) < len(old) or not all(alike):
                return None
            leaves[kind] = jax.device_put(tuple(new), may_alias=False)
        trained = Trained(params=leaves["params"], optimizer=state.trained.optimizer)
        found.append(UnitState(trained=trained, stats=leaves["stats"]))
    return found


def _kinds(state: UnitState) -> dict[str, Leaves]:
    return {"params": state.trained.params, "stats": state.stats}
