"""Writes a run's report again, from its journal alone.

    python -m nas.report runs/20250101-120000

makes report.html, best.json and pareto.json in the run's folder, or family.html and
the family's files where `nas.scale` searched for coefficients: what a search does at
its end, for one that was killed or is still running.
"""

import dataclasses
import datetime
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import plotly.graph_objects as go
import tyro

from nas import (
    definition,
    drawing,
    family_page,
    grid,
    journal,
    page,
    results,
    run_folder,
)
from nas.display import format_seconds
from nas.quantity import format_flops
from nas.run_folder import RunFolder
from nas.scaling_definition import FamilyDefinition
from search_space.space import SearchSpace

# A table of 8,000 children helps nobody, and the journal has them all.
_MAX_ROWS = 50


def render(
    contents: journal.Contents, run: definition.Definition, space: SearchSpace
) -> str:
    """Returns the report as one HTML page that needs nothing else."""
    trained = contents.trained
    best = results.best(trained)
    body = [
        "<h1>Architecture search</h1>",
        page.table(("", ""), _summary(contents, run, best)),
    ]
    if best is not None:
        spec = space.decode(best.tokens)
        stages = [
            (str(number), drawing.describe_stage(stage))
            for number, stage in enumerate(spec.stages)
        ]
        body += [
            "<h2>Accuracy and multiply-adds</h2>",
            page.figure(_tradeoff(trained, run)),
            "<h2>Reward</h2>",
            page.figure(drawing.rewards(trained)),
            f"<h2>The best architecture: child {best.index}</h2>",
            f"<p>{page.ARCHITECTURE_LEGEND}</p>",
            page.figure(drawing.architecture(spec)),
            page.table(("stage", "layers"), stages),
            "<h2>The best children</h2>",
            page.table(_COLUMNS, _rows(trained)),
        ]
    if contents.failed:
        body += [
            "<h2>Infeasible children</h2>",
            page.table(
                ("child", "multiply-adds", "reason"),
                [
                    (str(child.index), format_flops(child.num_macs), child.infeasible)
                    for child in contents.failed[-_MAX_ROWS:]
                ],
            ),
        ]
    return page.document("Architecture search", body, figures=best is not None)


def write(
    folder: RunFolder,
    contents: journal.Contents,
    run: definition.Definition,
    space: SearchSpace,
) -> None:
    """Writes report.html.

    Raises:
      OSError: if it cannot be written.
    """
    run_folder.write_whole(folder.report, render(contents, run, space))


def _tradeoff(
    trained: Sequence[journal.Trained], run: definition.Definition
) -> go.Figure:
    predicted = run.evaluation.evaluator == definition.SURROGATE
    return drawing.tradeoff(
        trained,
        target=(run.search.target_flops if definition.weighs_flops(run) else None),
        accuracy="predicted ImageNet top-1" if predicted else "validation accuracy",
    )


_COLUMNS = (
    "child",
    "reward",
    "accuracy",
    "multiply-adds",
    "parameters",
    "last loss",
    "time",
    "tokens",
)


def _rows(trained: Sequence[journal.Trained]) -> list[tuple[str, ...]]:
    order = sorted(trained, key=lambda child: -child.reward)
    return [
        (
            str(child.index),
            f"{child.reward:.4f}",
            f"{child.accuracy:.2%}",
            format_flops(child.num_macs),
            format_flops(child.num_params),
            f"{child.losses[-1]:.3f}" if child.losses else "",
            format_seconds(
                child.seconds.compile + child.seconds.train + child.seconds.eval
            ),
            " ".join(map(str, child.tokens)),
        )
        for child in order[:_MAX_ROWS]
    ]


def _summary(
    contents: journal.Contents,
    run: definition.Definition,
    best: journal.Trained | None,
) -> list[tuple[str, str]]:
    started = datetime.datetime.fromtimestamp(contents.header.created).astimezone()
    restrictions = "; ".join(run.search.restrict)
    rows = [
        ("data set", contents.header.dataset),
        ("space", run.search.space + (f" ({restrictions})" if restrictions else "")),
        ("controller", f"{run.search.controller}, seed {run.search.seed}"),
        (
            "reward",
            definition.describe_reward(run),
        ),
        ("started", started.strftime("%Y-%m-%d %H:%M %Z")),
        (
            "children",
            f"{len(contents.children)}, of which {len(contents.failed)} infeasible",
        ),
    ]
    if best is not None:
        rows.append(
            (
                "best",
                f"child {best.index}: reward {best.reward:.4f}, accuracy "
                f"{best.accuracy:.2%}, {format_flops(best.num_macs)} multiply-adds, "
                f"{format_flops(best.num_params)} parameters",
            )
        )
    return rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write report.html, best.json and pareto.json again from a run's journal."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run's folder."""
    load_space: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Import the module of a run's own search space, which runs it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parsed = tyro.cli(Arguments, args=arguments, prog="python -m nas.report")
    try:
        folder = run_folder.open_existing(parsed.run)
        contents = journal.read(folder.journal)
        if grid.is_grid(contents.header.definition):
            return _write_family(folder, contents)
        run = definition.from_json(contents.header.definition)
        if ":" in run.search.space and not parsed.load_space:
            raise ValueError(
                f"the run's space {run.search.space} is a module, and importing it "
                "runs it; add --load-space if you trust it"
            )
        space = definition.build_space(run)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"nas.report: {error}\n")
        return 2
    results.write(folder, contents, space)
    write(folder, contents, run, space)
    sys.stdout.write(f"{folder.report}\n")
    return 0


def _write_family(folder: RunFolder, contents: journal.Contents) -> int:
    searched = grid.plan(definition.read(contents.header.definition, FamilyDefinition))
    if family_page.write_grid(folder, searched, contents) is None:
        raise ValueError(
            f"{folder.path} has no measured point to make a family of; go on with "
            f"python -m nas.scale --resume {folder.path}"
        )
    sys.stdout.write(f"{folder.family_page}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
