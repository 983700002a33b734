"""Trains the best children of a search in full, one after the other.

    python -m experiments.recipes.retrain_top runs/imagenet --top 15 --output retrained

The search's data set, EfficientNet's recipe of 350 epochs, all devices of the machine;
--part 2/5 takes every fifth child, for five machines. Each child gets the folder of a
`nas.train` run. Started again, the command goes on with what is not finished. At the
end `ranking.json` has the accuracies on the test split, beside those of the search.

Not yet run on ImageNet. With `--recipe short` it works on small data.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from nas import train
from nas.options import command_line, definition
from nas.options.command_line import UsageError
from nas.runs import journal, run_folder
from nas.study.trial import CompletedTrial
from search_space import codec, files

_PROGRAM = "experiments.recipes.retrain_top"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train the best children of a search in full."""

    run: Annotated[Path, tyro.conf.Positional]
    """The folder of the search."""
    output: Path
    """Folder for the training runs; every machine that takes a part uses the same."""
    top: int = 15
    """How many children, by reward."""
    recipe: Literal["short", "efficientnet"] = "efficientnet"
    """Recipe of nas.train."""
    epochs: float | None = None
    """Another number of epochs than the recipe's."""
    batch_size: int | None = None
    """Another batch than the recipe's."""
    data_dir: str | None = None
    """Where the data are; by default where the search found them."""
    part: str = "1/1"
    """K/N: this machine takes the K-th of N parts."""


def best(contents: journal.Contents, number: int) -> list[CompletedTrial]:
    """Returns the children with the highest rewards, the best first."""
    ranked = sorted(contents.completed, key=lambda child: child.reward, reverse=True)
    return ranked[:number]


def _part(text: str) -> tuple[int, int]:
    """Returns which part, from 0, and of how many.

    Raises:
      UsageError: if it is not K/N with K from 1 to N.
    """
    first, _, second = text.partition("/")
    if not (
        first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second)
    ):
        raise UsageError(f"--part must be K/N with K from 1 to N, got {text!r}")
    return int(first) - 1, int(second)


def _train(folder: Path, architecture: Path, flags: Sequence[str]) -> int:
    """Trains one child, or goes on with it; returns the exit status of nas.train."""
    if (folder / "result.json").exists():
        return 0
    if (folder / "training.json").exists():
        what = ["--resume", str(folder)]
    else:
        what = [str(architecture), "--output", str(folder), *flags]
    return train.main(what)


def _flags(arguments: Arguments, contents: journal.Contents) -> list[str]:
    searched = definition.from_json(contents.header.definition).evaluation
    options = {
        "--recipe": arguments.recipe,
        "--dataset": searched.dataset,
        "--data-dir": arguments.data_dir or searched.data_dir,
        "--epochs": arguments.epochs,
        "--batch-size": arguments.batch_size,
    }
    given = {flag: value for flag, value in options.items() if value is not None}
    return [text for flag, value in given.items() for text in (flag, str(value))]


def _ranking(children: Sequence[CompletedTrial], output: Path) -> str:
    rows = []
    for rank, child in enumerate(children, start=1):
        result = output / f"rank-{rank:02d}" / "result.json"
        rows.append(
            {
                "rank": rank,
                "index": child.index,
                "num_macs": child.metrics["num_macs"],
                "accuracy_in_search": child.metrics["accuracy"],
                "retrained": json.loads(result.read_text())
                if result.exists()
                else None,
            }
        )
    return json.dumps({"version": 1, "children": rows}, indent=2) + "\n"


def run(arguments: Arguments) -> int:
    """Trains this machine's part; returns 0, or nas.train's status if one fails.

    Raises:
      ValueError: if the run is not one, or has no measured children.
      OSError: if the output cannot be written.
    """
    this, parts = _part(arguments.part)
    contents = journal.read(run_folder.open_existing(arguments.run).journal)
    children = best(contents, arguments.top)
    if not children:
        raise ValueError(
            "a run must have measured children to retrain, and "
            f"{arguments.run} has none"
        )
    space = definition.build_space(definition.from_json(contents.header.definition))
    flags = _flags(arguments, contents)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for rank, child in enumerate(children, start=1):
        if (rank - 1) % parts != this:
            continue
        folder = arguments.output / f"rank-{rank:02d}"
        architecture = folder.with_suffix(".json")
        text = codec.dumps(space.decode(child.tokens))
        files.write_whole(architecture, text)
        if status := _train(folder, architecture, flags):
            return status
    files.write_whole(
        arguments.output / "ranking.json", _ranking(children, arguments.output)
    )
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    try:
        return run(tyro.cli(Arguments, args=arguments, prog=f"python -m {_PROGRAM}"))
    except (UsageError, ValueError, OSError) as error:
        return command_line.print_error(_PROGRAM, error, 2)


if __name__ == "__main__":
    sys.exit(main())
