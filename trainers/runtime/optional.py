"""Packages that only some uses need, and what to say where one is missing.

The advice names the packages themselves, as every index knows them. The extras of
pyproject.toml name the same, but serve only where this package comes from an index or
pip stands in a checkout.
"""

import importlib.util


def missing(*packages: str) -> str | None:
    """Returns which of `packages` are needed and not there, with the remedy.

    Args:
      packages: names under which they are imported and installed alike.

    Returns:
      None if all are there; else the end of a sentence, such as "needs torch, which is
      not installed; pip install torch".
    """
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    if not absent:
        return None
    verb = "is" if len(absent) == 1 else "are"
    return f"needs {' and '.join(absent)}, which {verb} not installed; " + advice(
        *absent
    )


def advice(*packages: str) -> str:
    """Returns the command that installs `packages`."""
    return f"pip install {' '.join(packages)}"
