"""Networks trained at length, on one page: accuracy over multiply-adds, a table."""

import html
import math

import plotly.graph_objects as go

from nas.options.quantity import format_flops
from nas.pages import drawing, page
from nas.training.retrained import Network, Retrained

COLUMNS = (
    "network",
    "multiply-adds, as trained",
    "at deployment",
    "parameters",
    "validation",
    "test",
    "latency",
)
_SIGN = "\N{PLUS-MINUS SIGN}"
_NAMES = {"found": "found by the search", "beside": "beside it"}
_SYMBOLS = {"found": "star", "beside": "circle"}


def rows(found: Retrained) -> list[tuple[str, ...]]:
    """Returns the cells of the table, for the page and the screen."""
    return [_row(network, found) for network in found.networks]


def render(found: Retrained) -> str:
    """Returns the page."""
    number = len(found.networks[0].seeds)
    notes = [(one.name, one.note) for one in found.networks]
    return page.document(
        "Networks trained at length",
        [
            "<h1>Networks trained at length</h1>",
            *map(page.paragraph, found.verdicts),
            page.paragraph(
                f"Accuracy on the {found.accuracy} split ({found.metric}), the mean of"
                f" {number} seed{'s' if number != 1 else ''} {_SIGN} its standard error"
                " over the seeds. Every network was trained with the same options."
            ),
            page.figure(_figure(found)),
            page.table(COLUMNS, rows(found)),
            page.paragraph(f"Latency: one image, float32, on {found.device}."),
            "<h2>Networks</h2>",
            page.table(("", ""), notes),
            "<h2>Options of every training</h2>",
            page.table(("", ""), [(k, str(v)) for k, v in found.options.items()]),
            "<h2>Where this comes from</h2>",
            page.table(("", ""), [(k, str(v)) for k, v in found.provenance.items()]),
        ],
        figures=True,
    )


def _row(one: Network, found: Retrained) -> tuple[str, ...]:
    trained, deployed = one.as_trained, one.at_deployment
    latency = "" if one.latency is None else f"{one.latency.median_ms:.2f} ms"
    return (
        one.name,
        f"{format_flops(trained.num_macs)} at {trained.resolution}",
        f"{format_flops(deployed.num_macs)} at {deployed.resolution}",
        format_flops(trained.num_params),
        _accuracy(one, found, "validation"),
        _accuracy(one, found, "test"),
        latency,
    )


def _accuracy(one: Network, found: Retrained, split: str) -> str:
    """The mean over the seeds; with its error on the split that decides."""
    values = [getattr(seed, split) for seed in one.seeds]
    if None in values:
        return ""
    mean = f"{100 * math.fsum(values) / len(values):.2f}"
    if split == found.accuracy and one.error is not None:
        mean += f" {_SIGN} {100 * one.error:.2f}"
    return f"{mean} %"


def _figure(found: Retrained) -> go.Figure:
    figure = go.Figure(layout=drawing.LAYOUT)
    for kind, name in _NAMES.items():
        shown = [one for one in found.networks if one.kind == kind]
        if not shown:
            continue
        figure.add_scatter(
            x=[one.as_trained.num_macs for one in shown],
            y=[one.mean for one in shown],
            error_y={"type": "data", "array": [one.error or 0.0 for one in shown]},
            text=[html.escape(one.name) for one in shown],
            mode="markers+text",
            textposition="top center",
            marker={"size": 12, "symbol": _SYMBOLS[kind]},
            name=name,
            hovertemplate=(
                "%{text}<br>%{y:.2%}<br>%{x:.4s} multiply-adds<extra></extra>"
            ),
        )
    figure.update_layout(showlegend=True)
    figure.update_xaxes(title="multiply-adds, as trained", tickformat="~s")
    figure.update_yaxes(title=f"{found.accuracy} accuracy", tickformat=".1%")
    return figure
