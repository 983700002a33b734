"""CIFAR-10 on one GPU: 500 children, each trained for ten epochs, two at a time.

    pip install '.[cuda,tfds-prepare]'
    tfds build cifar10 --file_format=array_record
    python -m experiments.recipes.cifar10_gpu

Hardware: one GPU with 16 GB or more. Not yet run: no duration and no result are known.
Run again, it goes on where it was stopped.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.recipes import launch

_TRAINING_IMAGES = 45_000  # 50,000 less those held out
_BATCH_SIZE = 256

FLAGS = (
    "--dataset", "cifar10", "--validation", "5000", "--target-flops", "400M",
    "--children", "500", "--rewards-per-update", "10", "--batch-size", str(_BATCH_SIZE),
    "--steps", str(10 * _TRAINING_IMAGES // _BATCH_SIZE),
    "--resolution", "32", "--dtype", "bfloat16", "--norm-momentum", "0.99",
)  # fmt: skip
WORKERS = ("--devices-per-child", "0.5", "--child-time-limit", "30min")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status of nas.search."""
    return launch.main(
        "experiments.recipes.cifar10_gpu",
        __doc__,
        Path("runs/cifar10"),
        FLAGS,
        workers=WORKERS,
        arguments=arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
