"""Orbax checkpoints of a training run: the last state, whole or not at all.

A checkpoint holds weights, batch statistics, optimizer state and averages. Everything
else of a run follows from its options and the step: the order of the data, the
augmentation and the random keys are functions of the seed and the step's index.
"""

import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import jax
import orbax.checkpoint as ocp
from jaxtyping import Array
from pydantic import JsonValue

from trainers.steps.jitted import NetworkState

_STATE, _FACTS = "state", "facts"

# What Orbax raises for files that are not as it wrote them: it reads their JSON without
# looking at what is in it.
_DAMAGED = (
    ValueError,
    LookupError,
    OSError,
    AttributeError,
    TypeError,
    AssertionError,
    NotImplementedError,
    RecursionError,
)


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or is of another network. One line."""


class Checkpoints:
    """The checkpoints in one folder; only the latest is kept.

    A new one is complete before the old one goes, so a kill at any moment leaves one.
    """

    def __init__(self, folder: Path) -> None:
        """Makes the folder if need be; removes what a kill left half written."""
        self._folder = folder
        self._manager = ocp.CheckpointManager(
            folder.resolve(),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=1,
                enable_async_checkpointing=False,
                cleanup_tmp_directories=True,
            ),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    @property
    def step(self) -> int | None:
        """Steps done at the latest checkpoint; None if there is none."""
        return self._manager.latest_step()

    def facts(self) -> dict[str, Any]:
        """Returns the numbers beside the latest state; none without a checkpoint.

        Raises:
          CheckpointError: if they cannot be read.
        """
        if self.step is None:
            return {}
        return self._read(ocp.args.Composite(**{_FACTS: ocp.args.JsonRestore()}))[
            _FACTS
        ]

    def save(
        self, step: int, state: NetworkState, facts: Mapping[str, JsonValue]
    ) -> None:
        """Saves the state after `step` steps, and a few numbers beside it.

        Raises:
          OSError: if it cannot be written.
        """
        self._manager.save(
            step,
            args=ocp.args.Composite(
                **{
                    _STATE: ocp.args.StandardSave(_tree(state)),
                    _FACTS: ocp.args.JsonSave(dict(facts)),
                }
            ),
            force=True,
        )

    def restore(self, like: NetworkState) -> tuple[NetworkState, dict[str, Any]]:
        """Returns the latest state, on the devices of `like`, and its facts.

        Raises:
          CheckpointError: if there is none, it is damaged, or of another network.
        """
        if self.step is None:
            raise CheckpointError(
                f"{self._folder} must hold a checkpoint and holds none; start anew"
            )
        wanted = jax.tree.map(ocp.tree.to_shape_dtype_struct, _tree(like))
        found = self._read(
            ocp.args.Composite(
                **{
                    _STATE: ocp.args.StandardRestore(wanted),
                    _FACTS: ocp.args.JsonRestore(),
                }
            )
        )
        leaves = [found[_STATE][name] for name in sorted(found[_STATE])]
        return jax.tree.unflatten(jax.tree.structure(like), leaves), found[_FACTS]

    def _read(self, wanted: ocp.args.Composite) -> Any:
        before, sys.excepthook = sys.excepthook, _not_of_late_reads
        try:
            found = self._manager.restore(self.step, args=wanted)
        except _DAMAGED as error:
            path = self._folder / str(self.step)
            raise CheckpointError(
                f"{path} must be a whole checkpoint of this network and recipe:"
                f" {' '.join(str(error).split())[:200]}; remove the folder to start"
                " anew"
            ) from None
        sys.excepthook = before
        return found


def _not_of_late_reads(
    kind: type[BaseException], error: BaseException, trace: types.TracebackType | None
) -> None:
    """For `sys.excepthook` until the arrays are read; after a failure for good.

    When one of many reads fails, Orbax closes its event loop while TensorStore's
    threads still report to it, and each of them prints a traceback that says so.
    """
    if kind is not RuntimeError or str(error) != "Event loop is closed":
        sys.__excepthook__(kind, error, trace)


def _tree(state: NetworkState) -> dict[str, Array]:
    """The state's arrays, named by their place so that their order is that of names."""
    return {
        f"{index:05d}{jax.tree_util.keystr(path, simple=True, separator='.')}": leaf
        for index, (path, leaf) in enumerate(
            jax.tree_util.tree_flatten_with_path(state)[0]
        )
    }
