"""Objects of a user's own, named `module:attribute`."""

import importlib
from typing import Any


def is_reference(name: str) -> bool:
    """Returns whether `name` has the form of a reference, whatever it leads to.

    >>> is_reference("my_spaces:SMALL"), is_reference("mbconv"), is_reference("a b:c")
    (True, False, False)
    """
    module, colon, attribute = name.partition(":")
    parts = (*module.split("."), *attribute.split("."))
    return bool(colon) and all(map(str.isidentifier, parts))


def load(name: str, what: str) -> Any:
    """Imports a module of the user's, which runs it, and returns the attribute.

    Args:
      name: `module:attribute`.
      what: what it is to be, for messages: `space`, `reward`, ...

    Raises:
      ValueError: if there is no such module or attribute. One line.
    """
    module_name, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, and what it imports is not
        raise ValueError(
            f"module of {what} {name!r} must be importable, and is not found; is its"
            f" folder the working directory or in PYTHONPATH?"
        ) from error
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise ValueError(
            f"{what} {name!r} must be in its module, and {module_name} has no"
            f" {attribute}; name one that it defines"
        )
    return found
