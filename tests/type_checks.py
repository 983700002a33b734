"""The checker that `conftest.py` puts around the packages' functions.

It looks at annotations of jaxtyping's that say an array's shape and kind of numbers,
which no static checker sees; all else is basedpyright's. That keeps it cheap, and
leaves alone what cannot be checked as a program runs: protocols, functions, and the
fields of pytrees, in which JAX puts what it likes as it maps and traces them. A NumPy
array is good where one of JAX's is asked for, as it is to JAX.
"""

import functools
import operator
import warnings
from collections.abc import Callable
from types import UnionType
from typing import Any, Union, get_args, get_origin

import jax
import numpy as np
from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep585DeprecationWarning
from jaxtyping import AbstractArray

_CONTAINERS = (tuple, list, Union, UnionType)

# An int is good where a float is asked for, as static checkers have it.
_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Has beartype check the shapes of what a function takes and returns.

    jaxtyping passes a stand-in without a body, so its annotations may be changed.
    """
    hints = function.__annotations__
    for name, hint in list(hints.items()):
        if _says_shape(hint):
            hints[name] = _of_either(hint)
        else:
            del hints[name]
    if not hints:
        return function
    with warnings.catch_warnings():
        # flax's State is written with a name that `typing` has deprecated.
        warnings.simplefilter("ignore", BeartypeDecorHintPep585DeprecationWarning)
        return _beartype(function)


def _says_shape(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    is_container = get_origin(hint) in _CONTAINERS
    return is_container and any(_says_shape(inner) for inner in get_args(hint))


def _of_either(hint: Any) -> Any:
    """A hint that takes arrays of NumPy's wherever `hint` asks for JAX's."""
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        if hint.array_type is not jax.Array:
            return hint
        return hint | hint.dtype[np.ndarray, hint.dim_str]
    if get_origin(hint) not in _CONTAINERS:
        return hint
    inner = [_of_either(one) for one in get_args(hint)]
    if get_origin(hint) in (Union, UnionType):
        return functools.reduce(operator.or_, inner)
    return get_origin(hint)[tuple(inner)]
