"""The default search: 64 children on scikit-learn's digits, on a laptop.

    python -m experiments.recipes.digits_laptop

Hardware: two cores, no accelerator, no network. Duration: 3 min 50 s on two cores of
a Xeon, from a cold compilation cache. Result there, one seed: mean reward 0.909 over
the first 16 children and 1.019 over the last 16; the best child has 94.0 % on the
validation split with 68M multiply-adds. Run again, it goes on where it was stopped.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.recipes import launch

FLAGS = ("--target-flops", "400M", "--children", "200")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status of nas.search."""
    return launch.main(
        "experiments.recipes.digits_laptop",
        __doc__,
        Path("runs/digits"),
        FLAGS,
        arguments=arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
