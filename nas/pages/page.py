"""Pages: one self-contained HTML file with tables and pictures.

`document` makes a page of finished HTML. `interactive` makes one of sections, which
page.js draws in the browser, and draws anew when `nas.pages.serve` has new ones.
"""

import base64
import dataclasses
import hashlib
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import plotly.io
import plotly.offline

ARCHITECTURE_LEGEND = (
    "A bar is a layer, as high as it has channels; pale: channels inside the block. "
    "Blue: 3x3 kernels, orange: 5x5, green: 7x7. Hatched: squeeze-and-excitation, "
    "dotted: Fused-MBConv, crossed: both."
)

# Those of plotly's figures; texts from a run are escaped, and hold none.
_INLINE_SCRIPT = re.compile(r"<script[^>]*>(.*?)</script>", re.DOTALL)

_STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
_SCRIPT = Path(__file__).with_name("page.js").read_text(encoding="utf-8")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A part of an interactive page; without text and figure it is hidden.

    `html` is markup: whatever comes from a run is escaped in it (`table`, `tiles`).
    `note` and `heading` stay the same while a page is open. Beside a figure that
    `picks`, a panel shows the child whose point is under the cursor.
    """

    id: str
    heading: str
    note: str = ""
    html: str = ""
    figure: go.Figure | None = None
    picks: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
    """What an interactive page shows at one moment.

    `networks` are the children of a search, for the panel of a section that picks and
    the table in the section `children`; None where there are none to look into.
    """

    title: str
    sections: Sequence[Section]
    networks: Mapping[str, Any] | None = None

    def data(self, version: str) -> str:
        """Returns what page.js draws, as JSON; `version` names this state."""
        sections = [
            {"id": section.id, "html": section.html, "figure": _plain(section.figure)}
            for section in self.sections
        ]
        return json.dumps(
            {"version": version, "sections": sections, "networks": self.networks},
            separators=(",", ":"),
        )


def interactive(view: View, *, version: str = "", live: bool = False) -> str:
    """Returns the whole page; a live one keeps asking its server for a newer."""
    body = f"<h1>{html.escape(view.title)}</h1>\n"
    body += '<p id="notice" role="status"></p>\n' if live else ""
    body += "\n".join(map(_frame, view.sections))
    # Inside a script element only "<" can end it.
    data = view.data(version).replace("<", "\\u003c")
    body += f'\n<script type="application/json" id="data">{data}</script>'
    scripts = [plotly.offline.get_plotlyjs(), _SCRIPT]
    body += "".join(f"\n<script>{script}</script>" for script in scripts)
    head = _policy(scripts)
    return _whole(view.title, head, body, attributes=' data-live="yes"' if live else "")


def document(title: str, body: Sequence[str], *, figures: bool) -> str:
    """Returns the whole page; `figures` says whether `body` has any."""
    library = plotly.offline.get_plotlyjs() if figures else ""
    text = "\n".join(body)
    # Handlers in attributes, and whatever is to be loaded from elsewhere, do not run.
    scripts = [library, *_INLINE_SCRIPT.findall(text)]
    return _whole(title, f"{_policy(scripts)}<script>{library}</script>", text)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose every cell is escaped: a journal may come from anywhere."""

    def line(cells: Sequence[str], tag: str) -> str:
        shown = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
        return f"<tr>{shown}</tr>"

    head = line(columns, "th") if any(columns) else ""
    lines = "\n".join(line(row, "td") for row in rows)
    return f'<div class="wide"><table>{head}\n{lines}</table></div>'


def tiles(facts: Iterable[tuple[str, str, str]]) -> str:
    """Names, large values and what is to be said of each in small, all escaped."""
    shown = "".join(
        f"<div><dt>{html.escape(name)}</dt>"
        f"<dd>{html.escape(value)}<small>{html.escape(remark)}</small></dd></div>"
        for name, value, remark in facts
    )
    return f'<dl class="tiles">{shown}</dl>'


def paragraph(text: str) -> str:
    """A paragraph, escaped."""
    return f"<p>{html.escape(text)}</p>"


def progress(done: int, whole: int) -> str:
    """A bar."""
    return f'<progress value="{done}" max="{whole}">{done} of {whole}</progress>'


def figure(drawn: go.Figure) -> str:
    """A picture that can be looked into with the mouse."""
    return plotly.io.to_html(
        drawn,
        include_plotlyjs=False,
        full_html=False,
        config={"displaylogo": False, "responsive": True},
    )


def _frame(section: Section) -> str:
    """A section's place on the page; page.js fills in what may change."""
    note = f"<p>{html.escape(section.note)}</p>" if section.note else ""
    heading = f"<h2>{html.escape(section.heading)}</h2>" if section.heading else ""
    empty = not section.html and section.figure is None
    frame = (
        f'<section id="{section.id}"{" hidden" if empty else ""}>{heading}{note}'
        f'<div class="text">{section.html}</div><div class="figure"></div></section>'
    )
    if section.picks:
        frame += '<section id="picked" aria-live="polite" hidden></section>'
        frame = f'<div class="pair">{frame}</div>'
    return frame


def _plain(figure: go.Figure | None) -> Any:
    return None if figure is None else json.loads(figure.to_json() or "")


def _policy(scripts: Iterable[str]) -> str:
    """The page's content security policy: nothing but these scripts runs."""
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    names = " ".join(f"'sha256-{base64.b64encode(d).decode()}'" for d in digests)
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; "
        f"connect-src 'self'; base-uri 'none'; script-src {names}"
    )
    return f'<meta http-equiv="Content-Security-Policy" content="{policy}">'


def _whole(title: str, head: str, body: str, attributes: str = "") -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>{head}"
        f"</head><body{attributes}>\n{body}\n</body></html>\n"
    )
