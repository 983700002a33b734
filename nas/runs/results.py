"""What a search found, as files: best.json and pareto.json.

Each architecture is in the same form as any architecture file, with how it was found
beside it, so that whatever takes an architecture takes best.json.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from nas.runs import journal
from nas.runs.run_folder import RunFolder
from nas.study.metrics import Metric, pareto_front
from nas.study.trial import CompletedTrial
from search_space import codec, files
from search_space.space import SearchSpace


def best(trials: Sequence[CompletedTrial]) -> CompletedTrial | None:
    """Returns the trial with the highest reward, the earliest of equals."""
    return max(trials, key=lambda trial: trial.reward, default=None)


def front(
    trials: Sequence[CompletedTrial], objectives: Sequence[Metric]
) -> list[CompletedTrial]:
    """Returns the Pareto-optimal trials, those best in the last objective first."""
    indices = pareto_front([trial.metrics for trial in trials], objectives)
    return [trials[index] for index in indices]


def found_by(header: journal.Header) -> dict[str, Any]:
    """Returns what all networks of a search have in common, for their files."""
    return {
        "dataset": header.dataset,
        "definition": header.definition,
        "versions": header.versions,
    }


def write(folder: RunFolder, contents: journal.Contents, space: SearchSpace) -> None:
    """Writes best.json and pareto.json; without a measured child, neither.

    Raises:
      OSError: if a file cannot be written.
    """
    winner = best(contents.completed)
    if winner is None:
        return
    files.write_whole(folder.best, _document(winner, contents.header, space))
    documents = [
        json.loads(_document(trial, contents.header, space))
        for trial in front(contents.completed, contents.header.front)
    ]
    objectives = [dataclasses.asdict(metric) for metric in contents.header.front]
    pareto = {"version": 1, "objectives": objectives, "networks": documents}
    files.write_whole(folder.pareto, json.dumps(pareto, indent=2) + "\n")


def _document(trial: CompletedTrial, header: journal.Header, space: SearchSpace) -> str:
    found = trial.model_dump(mode="json", exclude={"losses", "asked"}) | found_by(
        header
    )
    return codec.dumps(space.decode(trial.tokens), found=found)
