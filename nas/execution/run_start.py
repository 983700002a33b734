"""Taking a run's folder: a new one with its journal's header, or one to go on with."""

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas.evaluation import run_data
from nas.evaluation.run_data import RunData
from nas.options import definition as definitions
from nas.runs import journal, provenance, run_folder
from nas.runs.run_folder import RunFolder
from nas.study.metrics import Metric


def take(
    stack: contextlib.ExitStack,
    *,
    output: Path | None,
    resume: Path | None,
    kind: str,
    definition: Any,
    num_trials: int,
    metrics: Sequence[Metric],
    objectives: Sequence[str],
    seed: int,
    data: RunData,
) -> tuple[RunFolder, str | None]:
    """Takes a run's folder until `stack` lets go of it, and records this start.

    Args:
      stack: lets go of the folder.
      output: where a new run goes; None for a folder under runs/.
      resume: the folder of the run to go on with, or None.
      kind: what is run, for the header.
      definition: what defines the run, as a dataclass.
      num_trials: as asked for.
      metrics: what trials are measured by.
      objectives: the names of those that the front is over.
      seed: of the run.
      data: what is measured on.

    Returns:
      The folder; a line about data that cannot be checked, or None.

    Raises:
      ValueError: if the folder cannot be had, or its run was started with other data.
      OSError: if it cannot be written.
    """
    record, note = definitions.to_json(definition), None
    if resume is None:
        folder = run_folder.create(output)
        stack.enter_context(folder.locked())
        header = journal.Header(
            kind=kind,
            created=time.time(),
            num_trials=num_trials,
            definition=record,
            metrics=tuple(metrics),
            objectives=tuple(objectives),
            dataset=data.description,
            data=data.fingerprint,
            splits=dict(data.splits),
            chance=data.chance,
            versions=provenance.versions(),
        )
        journal.create(folder.journal, header)
    else:
        folder = run_folder.open_existing(resume)
        stack.enter_context(folder.locked())
        header = journal.convert(folder.journal).header
        note = run_data.check(header.data, data.fingerprint)
    provenance.write_config(
        folder, command=provenance.command_line(), options=record, seed=seed
    )
    return folder, note
