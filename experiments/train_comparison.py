"""A search's best network beside MobileNetV2 and EfficientNet-B0, trained alike.

    python -m experiments.train_comparison runs/20250101-120000/best.json
        --dataset fashion_mnist --output runs/comparison

Every network is trained by `nas.train` with the same recipe, budget and seeds, and
measured on the test split with the weights that were best on the validation split.
Whatever is finished is kept, so the same command goes on after an interruption.
Multiply-adds are those at the training resolution.

Run once, on a core of a Xeon, in ten minutes (results/train_comparison.json), with
experiments/results/digits_best.json and `--epochs 0.25 --batch-size 64 --warmup-epochs
0.05 --validation 2000`: found 68.97 +- 0.24 %, mobilenet-v2 52.99 +- 2.02 %,
efficientnet-b0 59.73 +- 2.54 %. Ten epochs, the default: not yet run.
"""

import dataclasses
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from nas import train
from nas.runs import provenance
from nas.training import models
from nas.training import run as training
from search_space import codec, cost
from search_space.files import write_whole
from trainers.deploy import latency

ZOO = ("mobilenet-v2", "efficientnet-b0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train a found network beside published ones, under the same budget."""

    network: Annotated[str, tyro.conf.Positional]
    """The found architecture: a search's best.json."""
    output: Path
    """A folder for all runs; what is finished there is not run again."""
    dataset: str = "fashion_mnist"
    """The data set."""
    epochs: float = 10
    """Passes over the training split."""
    resolution: int = 32
    """Side in pixels of the images."""
    batch_size: int = 128
    """Images in a step."""
    warmup_epochs: float = 0.5
    """Epochs of linear warm-up."""
    validation: int | None = None
    """Training images held out; by default a sixth."""
    seeds: int = 3
    """Runs of each network, with seeds from 0."""


class RunFailedError(RuntimeError):
    """A training run that ended without a result; nas.train said why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains what is left to train, then prints and writes the table."""
    parsed = tyro.cli(
        Arguments, args=arguments, prog="python -m experiments.train_comparison"
    )
    names = (parsed.network, *ZOO)
    try:
        runs = {
            name: [_result(parsed, name, seed) for seed in range(parsed.seeds)]
            for name in names
        }
    except (ValueError, OSError, RunFailedError) as error:
        return models.print_error("train_comparison", error)
    rows = [_row(parsed, name, results) for name, results in runs.items()]
    print("network                     multiply-adds  parameters  test accuracy")
    for row in rows:
        spread = f" +- {row['deviation']:.2%}" if parsed.seeds > 1 else ""
        print(
            f"{row['name']:26} {row['num_macs']:14,} {row['num_params']:11,}"
            f"  {row['mean']:.2%}{spread}"
        )
    document = {
        "version": 1,
        "command": provenance.command_line(),
        "git_commit": provenance.git_commit(),
        "versions": provenance.versions(),
        "device": latency.device(),
        "arguments": _plain(parsed),
        "networks": rows,
    }
    text = json.dumps(document, indent=2) + "\n"
    write_whole(parsed.output / "comparison.json", text)
    return 0


def _folder(parsed: Arguments, name: str, seed: int) -> Path:
    return parsed.output / f"{models.architecture(name).name}-{seed}"


def _result(parsed: Arguments, name: str, seed: int) -> dict[str, Any]:
    """Trains one network with one seed, or goes on with it, or reads what it gave."""
    folder = _folder(parsed, name, seed)
    finished = folder / training.RESULT
    if not finished.is_file():
        flags = [
            *(name, "--output", str(folder), "--seed", str(seed)),
            *("--dataset", parsed.dataset, "--epochs", str(parsed.epochs)),
            *("--resolution", str(parsed.resolution)),
            *("--batch-size", str(parsed.batch_size)),
            *("--warmup-epochs", str(parsed.warmup_epochs)),
        ]
        if parsed.validation is not None:
            flags += ["--validation", str(parsed.validation)]
        if (folder / train.OPTIONS).is_file():
            flags = ["--resume", str(folder)]
        if train.main(flags) != 0:
            raise RunFailedError(f"{folder} has no result; run the same command again")
    return json.loads(finished.read_text())


def _row(
    parsed: Arguments, name: str, results: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    accuracies = [result["test"]["accuracy of EMA"] for result in results]
    trained = codec.load_file(_folder(parsed, name, 0) / "architecture.json")
    return {
        "name": trained.name,
        "num_macs": cost.num_macs(trained),
        "num_params": cost.num_params(trained),
        "test_accuracy": accuracies,
        "mean": statistics.mean(accuracies),
        "deviation": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
    }


def _plain(parsed: Arguments) -> dict[str, Any]:
    return dataclasses.asdict(parsed) | {"output": str(parsed.output)}


if __name__ == "__main__":
    sys.exit(main())
