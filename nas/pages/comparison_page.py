"""Several searches on one page: best so far, Pareto fronts, a table."""

from collections.abc import Mapping

from nas.options import definition
from nas.options.objective import MULTIPLY_ADDS, Objective
from nas.options.quantity import format_flops
from nas.pages import drawing, page
from nas.pages.page import Section, View
from nas.runs import journal, results

_COLUMNS = (
    "run",
    "controller",
    "space",
    "children",
    "infeasible",
    "best reward",
    "found by child",
    "its accuracy",
    "its multiply-adds",
    "its objective",
)


def view(runs: Mapping[str, journal.Contents]) -> View:
    """Returns what there is to see of the runs, by their names.

    Raises:
      ValueError: if a journal is not of a search for an architecture. One line.
    """
    trained = {name: contents.trained for name, contents in runs.items()}
    measured = {name: children for name, children in trained.items() if children}
    return View(
        title="Architecture searches compared",
        sections=[
            Section(
                id="table",
                heading="",
                html=_caution(runs)
                + page.table(_COLUMNS, [_row(name, run) for name, run in runs.items()]),
            ),
            Section(
                id="best-so-far",
                heading="Best reward so far",
                figure=drawing.best_so_far(measured) if measured else None,
            ),
            Section(
                id="fronts",
                heading="Pareto fronts",
                figure=(
                    drawing.fronts(measured, _objective(runs), accuracy=_accuracy(runs))
                    if measured
                    else None
                ),
            ),
        ],
    )


def _objective(runs: Mapping[str, journal.Contents]) -> Objective:
    """What all runs weigh accuracy against; else multiply-adds, which all count."""
    found = {
        definition.objective(definition.from_json(contents.header.definition))
        for contents in runs.values()
    }
    return found.pop() if len(found) == 1 else MULTIPLY_ADDS


def _accuracy(runs: Mapping[str, journal.Contents]) -> str:
    """What the runs' accuracies are."""
    names = {
        definition.accuracy_name(definition.from_json(contents.header.definition))
        for contents in runs.values()
    }
    return " or ".join(sorted(names))


def _caution(runs: Mapping[str, journal.Contents]) -> str:
    """A sentence, where the runs' numbers do not mean the same."""
    headers = [contents.header for contents in runs.values()]
    rewards = {
        definition.describe_reward(definition.from_json(header.definition))
        for header in headers
    }
    differing = [
        name
        for name, values in [
            ("reward", rewards),
            ("data set", {header.dataset for header in headers}),
            ("training of children", {_child_text(header) for header in headers}),
        ]
        if len(values) > 1
    ]
    if not differing:
        return ""
    return page.paragraph(
        f"The runs differ in {' and '.join(differing)}: their numbers do not mean the "
        "same."
    )


def _child_text(header: journal.Header) -> str:
    return repr(definition.from_json(header.definition).child)


def _row(name: str, contents: journal.Contents) -> tuple[str, ...]:
    run = definition.from_json(contents.header.definition)
    search, objective = run.search, definition.objective(run)
    best = results.best(contents.trained)
    cells = (
        name,
        f"{search.controller}, seed {search.seed}",
        search.space,
        str(len(contents.children)),
        str(len(contents.failed)),
    )
    if best is None:
        return (*cells, "", "", "", "", "")
    return (
        *cells,
        f"{best.reward:.4f}",
        str(best.index),
        f"{best.accuracy:.2%}",
        format_flops(best.num_macs),
        objective.shown(objective.of(best)),
    )
