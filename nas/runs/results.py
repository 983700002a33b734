"""What a search found, as files: best.json and pareto.json.

Each architecture is in the same form as any architecture file, with how it was found
beside it, so that whatever takes an architecture takes best.json.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from nas.options import definition
from nas.options.objective import Objective
from nas.runs import journal
from nas.runs.run_folder import RunFolder
from nas.study.reward import pareto_front
from search_space import codec, files
from search_space.space import SearchSpace


def best(children: Sequence[journal.Trained]) -> journal.Trained | None:
    """Returns the child with the highest reward, the earliest of equals."""
    return max(children, key=lambda child: child.reward, default=None)


def front(
    children: Sequence[journal.Trained], objective: Objective
) -> list[journal.Trained]:
    """Returns the children that are Pareto-optimal in accuracy and `objective`.

    The best in the objective comes first.
    """
    indices = pareto_front(
        [child.accuracy for child in children],
        [objective.cost(child) for child in children],
    )
    return [children[index] for index in indices]


def origin(header: journal.Header) -> dict[str, Any]:
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
    winner = best(contents.trained)
    if winner is None:
        return
    files.write_whole(folder.best, _document(winner, contents.header, space))
    objective = definition.objective(definition.from_json(contents.header.definition))
    documents = [
        json.loads(_document(child, contents.header, space))
        for child in front(contents.trained, objective)
    ]
    metrics = [{"name": "accuracy", "unit": "", "goal": "max"}]
    metrics.append(dataclasses.asdict(objective))
    pareto = {"version": 1, "metrics": metrics, "networks": documents}
    files.write_whole(folder.pareto, json.dumps(pareto, indent=2) + "\n")


def _document(
    child: journal.Trained, header: journal.Header, space: SearchSpace
) -> str:
    found = child.model_dump(mode="json", exclude={"losses", "asked"}) | origin(header)
    return codec.dumps(space.decode(child.tokens), found=found)
