"""The table and the picture of `search_efficiency`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.express
import plotly.graph_objects as go

Rows = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Method, seed -> `marks` by children, `best_so_far`, and more."""


def table(rows: Rows, marks: Sequence[int]) -> str:
    """Returns Markdown: means over the seeds, and standard deviations."""
    heads = " | ".join(map(str, marks))
    lines = [
        f"| children | {heads} | as good as B0 | controller, CPU seconds | seeds |",
        "|---" * (len(marks) + 4) + "|",
    ]
    for name, seeds in rows.items():
        cells: list[str] = []
        for mark in marks:
            found = [
                row["marks"][str(mark)]
                for row in seeds.values()
                if str(mark) in row["marks"]
            ]
            shown = f"{np.mean(found):.2f} ± {np.std(found):.2f}" if found else ""
            cells.append(shown)
        beyond = np.mean([row["num_beyond_b0"] for row in seeds.values()])
        own = np.median([row["controller_seconds"] for row in seeds.values()])
        cells += [f"{beyond:.0f}", f"{own:.2f}", f"{len(seeds)}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def curves(rows: Rows, every: int) -> go.Figure:
    """Best exact worth so far, a point for `every` children: means and deviations."""
    figure = go.Figure(layout={"template": "plotly_white", "height": 560})
    colors = plotly.express.colors.qualitative.Dark24
    for position, (name, seeds) in enumerate(rows.items()):
        # Searches of different lengths are drawn as far as the shortest.
        length = min(len(row["best_so_far"]) for row in seeds.values())
        drawn = np.array([row["best_so_far"][:length] for row in seeds.values()])
        mean, spread = drawn.mean(axis=0), drawn.std(axis=0)
        children = every * np.arange(1, len(mean) + 1)
        color = colors[position % len(colors)]
        figure.add_scatter(
            x=np.concatenate([children, children[::-1]]),
            y=np.concatenate([mean + spread, (mean - spread)[::-1]]),
            fill="toself",
            fillcolor=color,
            opacity=0.15,
            line={"width": 0},
            legendgroup=name,
            showlegend=False,
            hoverinfo="skip",
        )
        figure.add_scatter(
            x=children, y=mean, name=name, legendgroup=name, line={"color": color}
        )
    top = max(
        max(row["best_so_far"]) for seeds in rows.values() for row in seeds.values()
    )
    figure.update_xaxes(title="children", type="log")
    figure.update_yaxes(title="best so far", range=[top - 3.0, top + 0.1])
    return figure
