"""The checker that `conftest.py` puts around the packages' functions.

It looks at annotations of jaxtyping's that say an array's shape and kind of numbers,
which no static checker sees; all else is basedpyright's. That keeps it cheap, and
leaves alone what cannot be checked as a program runs: protocols, and the fields of
pytrees, in which JAX puts what it likes as it maps and traces them.
"""

import warnings
from collections.abc import Callable
from typing import Any, get_args

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep585DeprecationWarning
from jaxtyping import AbstractArray

# An int is good where a float is asked for, as static checkers have it.
_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Has beartype check the shapes of what a function takes and returns.

    jaxtyping passes a stand-in without a body, so its annotations may be changed.
    """
    hints = function.__annotations__
    for name in [name for name, hint in hints.items() if not _says_shape(hint)]:
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
    return any(_says_shape(inner) for inner in get_args(hint))
