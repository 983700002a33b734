"""Has every process of a command start its networks one unit in the last digit off.

`experiments.checks.losses` puts a copy of this file, as `sitecustomize.py`, on the
path of a command of any commit. Python imports that as it starts, in Ray's workers
too; so nothing here may import what is not in the standard library before `flax.nnx`
is, and the project's own names, which commits change, do not appear.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any


def nudged(value: Any) -> Any:
    """Returns an array's neighbours in its precision, by turns above and below.

    Zeros stay, since their neighbours are too small to count; so does what is no array.
    """
    import numpy as np

    if not isinstance(value, np.ndarray):
        return value
    up = np.arange(value.size).reshape(value.shape) % 2 == 0
    ends = np.where(up, np.inf, -np.inf).astype(value.dtype)
    return np.where(value == 0, value, np.nextafter(value, ends))


class Loader(importlib.machinery.SourceFileLoader):
    """Loads `flax.nnx` with a Param that nudges what it is made of."""

    def exec_module(self, module: ModuleType) -> None:
        """Runs the module, and then replaces Param's `__init__`."""
        super().exec_module(module)
        make = module.Param.__init__

        def made(param: Any, value: Any, **metadata: Any) -> None:
            make(param, nudged(value), **metadata)

        module.Param.__init__ = made


class Finder(importlib.abc.MetaPathFinder):
    """Finds `flax.nnx` where it is, and has `Loader` load it."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """Returns the module's spec, and of other modules None."""
        if fullname != "flax.nnx":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = Loader(fullname, spec.origin)
        return spec


if __name__ == "sitecustomize":
    sys.meta_path.insert(0, Finder())
