"""Writes a run's report again, from its journal alone.

    python -m nas.report runs/20250101-120000

makes report.html, best.json and pareto.json in the run's folder: what a search does
at its end, for one that was killed or is still running.
"""

import dataclasses
import datetime
import html
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import plotly.graph_objects as go
import plotly.io
import tyro

from nas import definition, drawing, journal, results, run_folder
from nas.display import format_seconds
from nas.quantity import format_flops
from nas.run_folder import RunFolder
from search_space.space import SearchSpace

# A table of 8,000 children helps nobody, and the journal has them all.
_MAX_ROWS = 50

_LEGEND = (
    "A bar is a layer, as high as it has channels; pale: channels inside the block. "
    "Blue: 3x3 kernels, orange: 5x5, green: 7x7. Hatched: squeeze-and-excitation."
)

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem;
       padding: 0 1rem; color: #222; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: .2rem .8rem; text-align: left; border-bottom: 1px solid #ddd;
         vertical-align: top; }
.wide { overflow-x: auto; }
"""


def render(
    contents: journal.Contents, run: definition.Definition, space: SearchSpace
) -> str:
    """Returns the report as one HTML page that needs nothing else."""
    trained = contents.trained
    best = results.best(trained)
    body = [
        "<h1>Architecture search</h1>",
        _table(("", ""), _summary(contents, run, best)),
    ]
    if best is not None:
        spec = space.decode(best.tokens)
        stages = [
            (str(number), drawing.describe_stage(stage))
            for number, stage in enumerate(spec.stages)
        ]
        body += [
            "<h2>Accuracy and multiply-adds</h2>",
            _figure(_tradeoff(trained, run)),
            "<h2>Reward</h2>",
            _figure(drawing.rewards(trained)),
            f"<h2>The best architecture: child {best.index}</h2>",
            f"<p>{_LEGEND}</p>",
            _figure(drawing.architecture(spec)),
            _table(("stage", "layers"), stages),
            "<h2>The best children</h2>",
            _table(_COLUMNS, _rows(trained)),
        ]
    if contents.failed:
        body += [
            "<h2>Infeasible children</h2>",
            _table(
                ("child", "multiply-adds", "reason"),
                [
                    (str(child.index), format_flops(child.num_macs), child.infeasible)
                    for child in contents.failed[-_MAX_ROWS:]
                ],
            ),
        ]
    script = plotly.offline.get_plotlyjs() if best is not None else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Architecture search</title><style>{_STYLE}</style>"
        f"<script>{script}</script></head><body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


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


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose every cell is escaped: a journal may come from anywhere."""

    def line(cells: Sequence[str], tag: str) -> str:
        shown = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
        return f"<tr>{shown}</tr>"

    head = line(columns, "th") if any(columns) else ""
    lines = "\n".join(line(row, "td") for row in rows)
    return f'<div class="wide"><table>{head}\n{lines}</table></div>'


def _figure(figure: go.Figure) -> str:
    return plotly.io.to_html(
        figure,
        include_plotlyjs=False,
        full_html=False,
        config={"displaylogo": False, "responsive": True},
    )


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


if __name__ == "__main__":
    sys.exit(main())
