"""A family on one page: members, the grid that its coefficients came from, stages."""

import math
import statistics
from collections.abc import Sequence

from nas.options.quantity import format_bytes, format_flops
from nas.pages import drawing, page
from nas.runs import journal
from nas.runs.run_folder import RunFolder
from nas.scaling import family
from nas.scaling.family import Family, Member, memory_of
from nas.scaling.grid import Grid
from nas.scaling.network_list import Result, spread
from search_space import cost, files
from search_space.compound import Coefficients
from search_space.spec import ClassifierHead, Head

_COLUMNS = (
    "member",
    "phi",
    "pixels",
    "layers",
    "multiply-adds",
    "times the baseline's",
    "parameters",
    "memory",
    "validation accuracy",
)


def render(
    made: Family,
    points: Sequence[Coefficients] = (),
    results: Sequence[Result] = (),
    doubts: Sequence[str] = (),
) -> str:
    """Returns the page; with `points` and their `results` where a grid was searched.

    `doubts` are what the grid's numbers cannot carry.
    """
    options = made.definition.family
    body = [
        "<h1>A family of networks</h1>",
        page.table(
            ("", ""),
            [
                ("baseline", made.definition.base.name),
                ("coefficients", str(made.coefficients or "one set a member")),
                ("found", made.found),
                (
                    "memory",
                    f"{options.memory_for} at a batch of {options.memory_batch}, "
                    "a model in float32",
                ),
            ],
        ),
        "<h2>Members</h2>",
        page.table(_COLUMNS, [_row(made, member) for member in made.members]),
    ]
    if points:
        body += [
            "<h2>Accuracy over the grid</h2>",
            "<p>A corner spends all new multiply-adds on depth, width or resolution; "
            "a point's place is the share that it spends on each.</p>",
            *(page.paragraph(f"In doubt: {doubt}.") for doubt in doubts),
            page.figure(drawing.grid(points, results)),
            page.table(GRID_COLUMNS, grid_rows(points, results)),
        ]
    body += ["<h2>Stages</h2>", page.table(*_stages(made.members))]
    return page.document("A family of networks", body, figures=bool(points))


def write_grid(
    folder: RunFolder, searched: Grid, contents: journal.Contents
) -> Family | None:
    """Writes the family of a grid's best point; returns None if none was measured.

    Raises:
      OSError: if a file cannot be written.
    """
    found = searched.family(contents)
    if found is not None:
        results = searched.results(contents)
        text = render(found, searched.points, results, searched.doubts(contents))
        files.write_whole(folder.family_page, text)
        family.write(folder, found)
    return found


GRID_COLUMNS = (
    "alpha",
    "beta",
    "gamma",
    "multiply-adds",
    "accuracy",
    "reward",
    "children",
)


def grid_rows(
    points: Sequence[Coefficients], results: Sequence[Result]
) -> list[tuple[str, ...]]:
    """Returns a row for each point, the best reward first, with spreads over seeds."""
    rows = sorted(zip(points, results, strict=True), key=lambda row: -_reward(row[1]))
    return [
        (
            *(f"{value:g}" for value in (point.alpha, point.beta, point.gamma)),
            format_flops(result.children[0].metrics["num_macs"])
            if result.children
            else "",
            _with_spread(result.accuracies, ".2%") or "; ".join(result.failures[:1]),
            _with_spread(result.rewards, ".4f"),
            str(len(result.children)),
        )
        for point, result in rows
    ]


def _reward(result: Result) -> float:
    return statistics.fmean(result.rewards) if result.rewards else -math.inf


def _with_spread(values: Sequence[float], form: str) -> str:
    if not values:
        return ""
    width = spread(values)
    mean = format(statistics.fmean(values), form)
    return mean if width is None else f"{mean} ± {format(width, form)}"


def _row(made: Family, member: Member) -> tuple[str, ...]:
    spec = member.spec
    macs = cost.num_macs(spec)
    return (
        spec.name,
        "" if member.phi is None else f"{member.phi:g}",
        str(spec.resolution),
        str(sum(stage.repeats for stage in spec.stages)),
        format_flops(macs),
        f"{macs / cost.num_macs(made.definition.base):.2f}",
        format_flops(cost.num_params(spec)),
        format_bytes(memory_of(made.definition, spec).total),
        _with_spread(member.accuracies, ".2%") or "not trained",
    )


def _stages(members: Sequence[Member]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: a column for each member, a row for each stage."""
    columns = ["", *(member.label for member in members)]
    rows = [["stem", *(f"{m.spec.stem.channels} channels" for m in members)]]
    stages = zip(*(member.spec.stages for member in members), strict=True)
    rows += [
        [
            f"stage\N{NO-BREAK SPACE}{number}",
            *(drawing.describe_stage(stage) for stage in row),
        ]
        for number, row in enumerate(stages)
    ]
    rows.append(["head", *(_describe_head(member.spec.head) for member in members)])
    return columns, rows


def _describe_head(head: Head) -> str:
    match head:
        case ClassifierHead():
            return "none" if head.channels is None else f"{head.channels} channels"
