"""How long a search takes to go on from a journal of 1,000, 5,000 and 20,000 children.

    python -m experiments.benchmarks.resume [--output experiments/results/resume.json]

For each number a journal of random networks of the space accel-nasbench is written,
with rewards of a formula, and opened as `nas.search --resume` opens it, by the default
controller: once without its snapshot, so that it is told of every child, and once from
the snapshot that a search leaves. Seconds of the wall clock, of one process.
"""

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro

import controller
from nas.options import command_line
from nas.runs import journal, provenance, store
from nas.runs.run_folder import RunFolder
from nas.runs.store import RunStore
from nas.study.metrics import ACCURACY, NUM_MACS, NUM_PARAMS
from nas.study.proposals import Proposals
from nas.study.reward import soft
from nas.study.study import Study
from nas.study.trial import CompletedTrial
from search_space import spaces
from search_space.files import write_whole

_PROGRAM = "experiments.benchmarks.resume"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Time the opening of journals."""

    children: tuple[int, ...] = (1_000, 5_000, 20_000)
    """Children in each journal."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the figures here as JSON."""


def _journal(folder: RunFolder, number: int) -> None:
    space = spaces.load("accel-nasbench")
    rng = np.random.default_rng(0)
    header = journal.Header(
        kind="search",
        created=0.0,
        num_trials=number,
        definition={},
        metrics=(ACCURACY, NUM_MACS, NUM_PARAMS),
        objectives=(ACCURACY.name, NUM_MACS.name),
        dataset="made",
        versions={},
    )
    seen: dict[tuple[int, ...], None] = {}
    while len(seen) < number:
        rows = rng.integers(space.num_choices, size=(number, len(space.num_choices)))
        seen.update(dict.fromkeys(map(tuple, rows.tolist())))
    lines = [header.model_dump_json()]
    for index, tokens in zip(range(number), seen, strict=False):
        reward = float(np.mean(tokens))
        trial = CompletedTrial(
            index=index,
            tokens=tokens,
            asked=index + 1,
            metrics={"accuracy": 0.5, "num_macs": 10**8, "num_params": 10**6},
            finished=float(index),
            reward=reward,
        )
        lines.append(trial.model_dump_json())
    folder.journal.write_text("\n".join(lines) + "\n")


def _open(folder: RunFolder, number: int) -> tuple[float, Study]:
    """Returns the seconds until the next child is known, and the study."""
    start = time.perf_counter()
    space = spaces.load("accel-nasbench")
    contents = journal.read(folder.journal)
    with RunStore(folder, contents) as kept:
        study = Study(
            space=space,
            proposals=Proposals(
                controller.build("dyna", num_choices=space.num_choices),
                seed=0,
                rewards_per_update=5,
            ),
            reward=soft("num_macs", 4e8),
            metrics=(ACCURACY,),
            seed=0,
            num_trials=number + 1,
            store=kept,
            known=contents.trials,
            snapshot=store.load_snapshot(folder),
        )
        assert study.next_trial() is not None
        seconds = time.perf_counter() - start
        study.save()
    return seconds, study


def measure(number: int) -> dict[str, Any]:
    """Returns the figures for a journal of so many children."""
    with tempfile.TemporaryDirectory() as name:
        folder = RunFolder(Path(name))
        _journal(folder, number)
        told, _ = _open(folder, number)
        snapshot, _ = _open(folder, number)
        return {
            "children": number,
            "told_s": round(told, 2),
            "from_snapshot_s": round(snapshot, 2),
            "journal_mb": round(folder.journal.stat().st_size / 1e6, 1),
            "snapshot_mb": round(folder.controller.stat().st_size / 1e6, 2),
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    jax.config.update("jax_platforms", "cpu")
    parsed = command_line.parse(
        arguments, Arguments(), program=_PROGRAM, description=__doc__ or ""
    )
    measure(100)  # compiles
    rows = [measure(number) for number in parsed.children]
    for row in rows:
        sys.stdout.write(f"{json.dumps(row)}\n")
    if parsed.output is not None:
        document = {"version": 1, "journals": rows, **provenance.of_result()}
        write_whole(parsed.output, json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
