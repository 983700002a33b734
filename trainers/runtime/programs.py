"""Functions of arrays that are traced once, by whichever process was first.

XLA's persistent cache spares a new process the compilation, but JAX still traces and
lowers a function to find its entry there, which for a small one takes longer than
loading does. So the lowered function is kept beside it, as `jax.export` writes it.
"""

import functools
import hashlib
import importlib.metadata
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export
from jaxtyping import Array

from trainers.runtime import compilation, entries


class Program:
    """A function that is compiled for the first arguments of each shape.

    The shapes of all arguments have to follow from `name`, from which arguments are
    None, and from the shape of the first array; so does what the function does.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        *,
        donated: Sequence[int] = (),
    ) -> None:
        """Takes a function that returns arrays.

        Args:
          function: pure; takes and returns pytrees of arrays.
          name: tells it from all others of this version of the package.
          donated: positions of the arguments that the outputs may overwrite.
        """
        self._function = function
        self._name = name
        self._donated = donated
        self._runs: dict[Any, Callable[..., tuple[Array, ...]]] = {}

    def __call__(self, *args: Any) -> tuple[Array, ...]:
        """Returns the leaves of the function's result."""
        leaves, tree = jax.tree.flatten(args)
        signature = tree, leaves[0].shape, leaves[0].dtype
        run = self._runs.get(signature)
        if run is None:
            run = self._runs[signature] = self._prepare(args)
        return run(*leaves)

    def _prepare(self, args: tuple[Any, ...]) -> Callable[..., tuple[Array, ...]]:
        leaves, tree = jax.tree.flatten(args)

        def flat(*leaves: Array) -> tuple[Array, ...]:
            return tuple(jax.tree.leaves(self._function(*tree.unflatten(leaves))))

        owners = [i for i, arg in enumerate(args) for _ in jax.tree.leaves(arg)]
        folder: str | None = getattr(jax.config, "jax_compilation_cache_dir")  # noqa: B009
        program = jax.jit(
            _kept(Path(folder), self._name, flat, leaves, str(tree))
            if folder
            else flat,
            donate_argnums=[i for i, own in enumerate(owners) if own in self._donated],
            compiler_options=compilation.options(),
        )
        # Ahead of time, because results of exported functions are committed to their
        # device: called with those, `program` would compile again.
        return program.lower(*leaves).compile()


def _kept(
    folder: Path,
    name: str,
    function: Callable[..., tuple[Array, ...]],
    leaves: Sequence[Array | np.ndarray],
    tree: str,
) -> Callable[..., Any]:
    """Returns the function as it was exported, now or at some time before."""
    start = time.perf_counter()
    shapes = [(leaf.shape, str(leaf.dtype)) for leaf in leaves]
    arrays = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]  # Not NumPy's.
    num_devices = max((len(leaf.sharding.device_set) for leaf in arrays), default=1)
    key = repr((_version(), jax.default_backend(), num_devices, name, tree, shapes))
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()}.exported"
    found = entries.read(path)
    if found is not None:
        exported = export.deserialize(bytearray(found))
        jax.monitoring.record_event_duration_secs(
            compilation.LOAD_EVENT, time.perf_counter() - start
        )
        return exported.call
    exported = export.export(jax.jit(function))(*leaves)
    entries.write(path, bytes(exported.serialize()))
    return exported.call


@functools.cache
def _version() -> str:
    """Names everything that the same function may be lowered differently by."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(source.read_bytes())
    packages = ("jax", "jaxlib", "flax", "optax")
    versions = [importlib.metadata.version(package) for package in packages]
    return repr((digest.hexdigest(), versions))
