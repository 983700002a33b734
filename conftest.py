"""Arrays' shapes in annotations are checked as the tests run, and in tests alone.

A conftest of the root, since pytest-xdist's workers do not read `addopts`, where
jaxtyping's own option would have to stand, and since doctests lie outside of `tests`.
It is loaded before anything imports the packages, which would then go unchecked.
"""

from jaxtyping import install_import_hook

import tests.type_checks  # noqa: F401  (the checker that is named below)

install_import_hook(["controller", "trainers", "nas"], "tests.type_checks.check")
