"""A first search: 200 children on scikit-learn's digits, on a laptop.

    python -m experiments.recipes.digits_laptop

Hardware: two cores, no accelerator, no network. With the default controller before
`dyna`, and before winners were confirmed: 6 min 2 s on two cores of a Xeon, from an
empty compilation cache; one seed, mean reward 0.946 over the first 50 children and
1.056 over the last 50; the best child has 96.2 % on the validation split with 64M
multiply-adds. Run again, it goes on where it was stopped.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.recipes import launch

FLAGS = (
    *("--dataset", "digits", "--target-flops", "400M"),
    *("--children", "200", "--steps", "60"),
)


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
