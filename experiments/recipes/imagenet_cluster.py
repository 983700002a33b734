"""MnasNet's search on a cluster: 8,000 children, five ImageNet epochs each.

    python -m experiments.recipes.imagenet_cluster --storage /shared \
        --workers 32 --devices-per-child 1

Children are measured on 50,000 training images that are held out, as in the paper
(https://arxiv.org/abs/1807.11626, section 5). The 15 best are then trained in full:

    python -m nas.retrain /shared/runs/imagenet --top 15 --recipe efficientnet

Hardware: GPUs or TPU chips by the dozen; docs/cluster.md starts them and counts the
cost. Needs imagenet2012 prepared in array_record format in STORAGE/data. Not yet run:
no duration and no result are known; the paper's search took 4.5 days on 64 TPU v2.
Started again, on this cluster or another, it goes on where it was stopped.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import tyro

from experiments.recipes import launch

_PROGRAM = "experiments.recipes.imagenet_cluster"
_HELD_OUT = 50_000
_TRAINING_IMAGES = 1_281_167 - _HELD_OUT
_EPOCHS = 5
_BATCH_SIZE = 256

FLAGS = (
    "--dataset", "imagenet2012", "--validation", str(_HELD_OUT),
    "--target-flops", "400M", "--children", "8000", "--rewards-per-update", "10",
    "--batch-size", str(_BATCH_SIZE), "--steps",
    str(_EPOCHS * _TRAINING_IMAGES // _BATCH_SIZE), "--resolution", "224",
    "--optimizer", "rmsprop", "--learning-rate", "0.016", "--norm-momentum", "0.99",
    "--dtype", "bfloat16",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Search on ImageNet, or go on with the search on the storage."""

    storage: Path
    """A folder that every machine has: data/ in it holds the data, runs/ the run."""
    workers: int
    """Children trained at the same time."""
    devices_per_child: float = 1.0
    """GPUs or TPU chips for each."""
    child_time_limit: str = "12h"
    """A child that takes longer is infeasible."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status of nas.search."""
    parsed = tyro.cli(Arguments, args=arguments, prog=f"python -m {_PROGRAM}")
    data = parsed.storage / "data"
    return launch.search_in(
        parsed.storage / "runs" / "imagenet",
        (*FLAGS, "--data-dir", str(data)),
        (
            *("--workers", str(parsed.workers)),
            *("--devices-per-child", f"{parsed.devices_per_child:g}"),
            *("--child-time-limit", parsed.child_time_limit),
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
