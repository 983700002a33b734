"""What a search found, as files: best.json, at_target.json and pareto.json.

Each architecture is in the same form as any architecture file, with how it was found
beside it, so that whatever takes an architecture takes best.json.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from nas.runs import journal
from nas.runs.run_folder import RunFolder
from nas.study import confirmation
from nas.study.confirmation import Limit, Standing
from nas.study.metrics import Metric, pareto_front
from search_space import codec, files
from search_space.space import SearchSpace


class _Measured(Protocol):
    @property
    def metrics(self) -> Mapping[str, float]: ...


_M = TypeVar("_M", bound=_Measured)


def front(found: Sequence[_M], objectives: Sequence[Metric]) -> list[_M]:
    """Returns the Pareto-optimal ones, those best in the last objective first."""
    rows = [one.metrics for one in found]
    return [found[index] for index in pareto_front(rows, objectives)]


def found_by(header: journal.Header) -> dict[str, Any]:
    """Returns what all networks of a search have in common, for their files."""
    return {
        "dataset": header.dataset,
        "definition": header.definition,
        "versions": header.versions,
    }


def write(
    folder: RunFolder,
    contents: journal.Contents,
    space: SearchSpace,
    limit: Limit | None = None,
) -> None:
    """Writes best.json and pareto.json; without a measured child, neither.

    With a limit, at_target.json as well: the best quality within it, if there is any.

    Raises:
      OSError: if a file cannot be written.
    """
    found, header = contents.standings, contents.header
    winner = confirmation.best(found)
    if winner is None:
        return
    files.write_whole(folder.best, _document(winner, header, space))
    if limit is not None:
        within = confirmation.best_within(found, limit, header.front[0])
        if within is not None:
            files.write_whole(folder.at_target, _document(within, header, space))
    documents = [
        json.loads(_document(standing, header, space))
        for standing in front(found, header.front)
    ]
    objectives = [dataclasses.asdict(metric) for metric in header.front]
    pareto = {"version": 1, "objectives": objectives, "networks": documents}
    files.write_whole(folder.pareto, json.dumps(pareto, indent=2) + "\n")


def _document(standing: Standing, header: journal.Header, space: SearchSpace) -> str:
    """An architecture, what its trial claimed, and what it was confirmed at."""
    trial = standing.trial
    found = trial.model_dump(mode="json", exclude={"losses", "asked", "repeat"})
    if standing.again:
        found["confirmed"] = {
            "reward": standing.reward,
            "metrics": standing.metrics,
            "spread": standing.spread,
            "trainings": standing.num_trainings,
        }
    return codec.dumps(space.decode(trial.tokens), found=found | found_by(header))
