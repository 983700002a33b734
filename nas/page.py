"""The parts of a report: one self-contained HTML page with tables and pictures."""

import html
from collections.abc import Iterable, Sequence

import plotly.graph_objects as go
import plotly.io

ARCHITECTURE_LEGEND = (
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


def document(title: str, body: Sequence[str], *, figures: bool) -> str:
    """Returns the whole page; `figures` says whether `body` has any."""
    script = plotly.offline.get_plotlyjs() if figures else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>"
        f"<script>{script}</script></head><body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose every cell is escaped: a journal may come from anywhere."""

    def line(cells: Sequence[str], tag: str) -> str:
        shown = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
        return f"<tr>{shown}</tr>"

    head = line(columns, "th") if any(columns) else ""
    lines = "\n".join(line(row, "td") for row in rows)
    return f'<div class="wide"><table>{head}\n{lines}</table></div>'


def figure(drawn: go.Figure) -> str:
    """A picture that can be looked into with the mouse."""
    return plotly.io.to_html(
        drawn,
        include_plotlyjs=False,
        full_html=False,
        config={"displaylogo": False, "responsive": True},
    )
