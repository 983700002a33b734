"""Several searches on one page: best so far, Pareto fronts, a table."""

from collections.abc import Mapping

from nas.options import definition
from nas.options.quantity import format_metric
from nas.pages import drawing, page
from nas.pages.page import Section, View
from nas.runs import journal
from nas.study import confirmation
from nas.study.metrics import NUM_MACS, Metric

_COLUMNS = (
    "run",
    "controller",
    "space",
    "children",
    "infeasible",
    "best reward",
    "found by child",
    "its objectives",
)


def view(runs: Mapping[str, journal.Contents]) -> View:
    """Returns what there is to see of the runs, by their names.

    Raises:
      ValueError: if a journal is not of a search for an architecture. One line.
    """
    shared = _shared_objectives(runs)
    trained = {name: contents.completed for name, contents in runs.items()}
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
                    drawing.fronts(measured, shared[:2], quality_name=_accuracy(runs))
                    if measured and len(shared) > 1
                    else None
                ),
            ),
        ],
    )


def _shared_objectives(runs: Mapping[str, journal.Contents]) -> list[Metric]:
    """The objectives that all runs have, in the order of the first.

    Where that is the quality alone, multiply-adds as well, which every run counts.
    """
    headers = [contents.header for contents in runs.values()]
    first, *others = (header.front for header in headers)
    shared = [metric for metric in first if all(metric in other for other in others)]
    if len(shared) == 1 and all(NUM_MACS in header.metrics for header in headers):
        shared.append(NUM_MACS)
    return shared


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
            ("objectives", {header.objectives for header in headers}),
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
    search = definition.from_json(contents.header.definition).search
    best = confirmation.best(contents.standings)
    cells = (
        name,
        f"{search.controller}, seed {search.seed}",
        search.space,
        str(len(contents.trials)),
        str(len(contents.infeasible)),
    )
    if best is None:
        return (*cells, "", "", "")
    return (
        *cells,
        f"{best.reward:.4f}",
        str(best.trial.index),
        ", ".join(
            format_metric(
                metric, best.metrics[metric.name], best.spread.get(metric.name)
            )
            for metric in contents.header.front
        ),
    )
