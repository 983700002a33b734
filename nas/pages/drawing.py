"""Pictures of a search and of an architecture, made with plotly."""

import html
import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from nas.monitoring.policy_log import Entry
from nas.options.quantity import format_metric
from nas.runs import results
from nas.scaling.network_list import Result
from nas.study.metrics import Metric
from nas.study.trial import CompletedTrial
from search_space import layers
from search_space.compound import Coefficients
from search_space.decisions import Choice, Decision
from search_space.spec import (
    ArchSpec,
    BottleneckStage,
    ConvStage,
    FusedMBConvStage,
    GatedStage,
    MBConvStage,
    SepConvStage,
    Stage,
)

LAYOUT = {
    "template": "plotly_white",
    "height": 420,
    "margin": {"l": 60, "r": 20, "t": 20, "b": 50},
    "legend": {"orientation": "h", "y": 1.08},
}
# Distinguishable with the common forms of colour blindness (Okabe and Ito).
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"
_KERNEL_COLORS = {1: GREY, 3: BLUE, 5: ORANGE, 7: GREEN}
_OTHER_KERNEL = "#CC79A7"


def tradeoff(
    trials: Sequence[CompletedTrial],
    objectives: Sequence[Metric],
    target: float | None = None,
    quality_name: str | None = None,
    target_role: str | None = None,
) -> go.Figure:
    """The first objective over the second, with the Pareto front and the target.

    Args:
      trials: those measured.
      objectives: at least two; the front is over all of them, the figure shows two.
      target: of the second objective, if there is one.
      quality_name: what the first is called; by default its name.
      target_role: what the target is to the reward, such as "a limit".
    """
    quality, cost = objectives[:2]
    names = quality_name or quality.name, cost.name
    figure = go.Figure(layout=LAYOUT)
    figure.add_scatter(
        x=[trial.metrics[cost.name] for trial in trials],
        y=[trial.metrics[quality.name] for trial in trials],
        customdata=[(trial.index, trial.reward) for trial in trials],
        mode="markers",
        name="children",
        marker={
            "color": [trial.reward for trial in trials],
            "colorscale": "Viridis",
            "colorbar": {"title": "reward", "thickness": 12},
            "size": 7,
        },
        hovertemplate=(
            f"child %{{customdata[0]}}<br>{_hover(quality, 'y')}<br>{_hover(cost, 'x')}"
            "<br>reward %{customdata[1]:.4f}<extra></extra>"
        ),
    )
    best_of_all = results.front(trials, objectives)
    two = len(objectives) == 2  # noqa: PLR2004  (of more, it is no line in the plane)
    figure.add_scatter(
        x=[trial.metrics[cost.name] for trial in best_of_all],
        y=[trial.metrics[quality.name] for trial in best_of_all],
        mode="lines" if two else "markers",
        line={"shape": "hv", "color": ORANGE},
        marker={"symbol": "circle-open", "size": 11},
        name="Pareto front",
        hoverinfo="skip",
    )
    if target is not None:
        shown = html.escape(format_metric(cost, target))
        role = f", {target_role}" if target_role else ""
        figure.add_vline(
            x=target,
            line={"dash": "dash", "color": GREY},
            annotation_text=f"target {shown}{role}",
        )
    _title_axes(figure, objectives, names)
    return figure


def _hover(metric: Metric, axis: str) -> str:
    form = {"share": ".2%", "multiply-adds": ".4s", "parameters": ".4s"}
    value = f"%{{{axis}:{form.get(metric.unit, '.4~g')}}}"
    return f"{html.escape(metric.name)} {value} {html.escape(metric.unit)}".replace(
        " share", ""
    )


def _title_axes(
    figure: go.Figure, objectives: Sequence[Metric], names: tuple[str, str]
) -> None:
    quality, cost = objectives[:2]
    figure.update_xaxes(**_axis(cost, names[1]))
    figure.update_yaxes(**_axis(quality, names[0]))


def _axis(metric: Metric, name: str) -> dict[str, Any]:
    match metric.unit:
        case "share":
            return {"title": html.escape(name), "tickformat": ".1%"}
        case "multiply-adds" | "parameters" as unit:
            return {"title": unit, "tickformat": "~s"}
        case unit:
            return {"title": html.escape(f"{name} [{unit}]" if unit else name)}


def rewards(children: Sequence[CompletedTrial]) -> go.Figure:
    """Reward of each child in the order of finishing, and the best so far."""
    order = list(range(1, len(children) + 1))
    values = [child.reward for child in children]
    running = list(itertools.accumulate(values, max))
    figure = go.Figure(layout=LAYOUT)
    figure.add_scatter(
        x=order,
        y=values,
        customdata=[child.index for child in children],
        mode="markers",
        name="child",
        marker={"color": BLUE, "size": 6, "opacity": 0.6},
        hovertemplate="child %{customdata}<br>reward %{y:.4f}<extra></extra>",
    )
    figure.add_scatter(
        x=order,
        y=running,
        mode="lines",
        name="best so far",
        line={"shape": "hv", "color": ORANGE},
        hoverinfo="skip",
    )
    figure.update_xaxes(title="children measured")
    figure.update_yaxes(title="reward")
    return figure


def best_so_far(runs: Mapping[str, Sequence[CompletedTrial]]) -> go.Figure:
    """The best reward of each run over its children measured, by the run's name."""
    figure = go.Figure(layout=LAYOUT)
    for (name, children), color in zip(runs.items(), _run_colors(), strict=False):
        figure.add_scatter(
            x=list(range(1, len(children) + 1)),
            y=list(itertools.accumulate((child.reward for child in children), max)),
            mode="lines",
            line={"shape": "hv", "color": color},
            name=html.escape(name),
            hovertemplate="%{y:.4f} after %{x} children<extra>%{fullData.name}</extra>",
        )
    figure.update_layout(showlegend=True)
    figure.update_xaxes(title="children measured")
    figure.update_yaxes(title="best reward so far")
    return figure


def fronts(
    runs: Mapping[str, Sequence[CompletedTrial]],
    objectives: Sequence[Metric],
    *,
    quality_name: str | None = None,
) -> go.Figure:
    """The Pareto front of each run, by its name: the first objective over the second.

    `quality_name` says what the first is called; by default its name.
    """
    quality, cost = objectives[:2]
    figure = go.Figure(layout=LAYOUT)
    for (name, trials), color in zip(runs.items(), _run_colors(), strict=False):
        front = results.front(trials, objectives[:2])
        figure.add_scatter(
            x=[trial.metrics[cost.name] for trial in front],
            y=[trial.metrics[quality.name] for trial in front],
            customdata=[trial.index for trial in front],
            mode="lines+markers",
            line={"shape": "hv", "color": color},
            name=html.escape(name),
            hovertemplate=(
                f"child %{{customdata}}<br>{_hover(quality, 'y')}<br>"
                f"{_hover(cost, 'x')}<extra>%{{fullData.name}}</extra>"
            ),
        )
    figure.update_layout(showlegend=True)
    _title_axes(figure, objectives, (quality_name or quality.name, cost.name))
    return figure


def _run_colors() -> Iterator[str]:
    return itertools.cycle((BLUE, ORANGE, GREEN, _OTHER_KERNEL, GREY))


def entropy(policy: Sequence[Entry], uniform: float) -> go.Figure:
    """The policy's entropy over time, beside that of drawing every choice alike."""
    figure = go.Figure(layout=LAYOUT | {"height": 260})
    figure.add_scatter(
        x=[entry.children for entry in policy],
        y=[entry.entropy for entry in policy],
        mode="lines",
        line={"color": BLUE},
        hovertemplate="%{y:.2f} nats after %{x} children<extra></extra>",
    )
    figure.add_hline(
        y=uniform,
        line={"dash": "dash", "color": GREY},
        annotation_text="every choice alike",
        annotation_position="bottom right",
    )
    figure.update_xaxes(title="children finished")
    figure.update_yaxes(title="nats", rangemode="tozero")
    return figure


def choices(
    decisions: Sequence[Decision], shares: Sequence[Sequence[float]]
) -> go.Figure:
    """A row for each decision, a cell for each choice, the darker the likelier."""
    most = max(map(len, shares))
    names = [decision.name for decision in decisions]
    figure = go.Figure(layout=LAYOUT | {"height": 60 + 20 * len(names)})
    figure.add_heatmap(
        x=list(range(most)),
        y=names,
        z=[[*row, *[None] * (most - len(row))] for row in shares],
        text=[
            [*map(_label, decision.choices), *[""] * (most - len(decision.choices))]
            for decision in decisions
        ],
        texttemplate="%{text}",
        hovertemplate="%{y} = %{text}: %{z:.0%}<extra></extra>",
        colorscale="Blues",
        zmin=0.0,
        zmax=1.0,
        xgap=2,
        ygap=2,
        showscale=False,
    )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(autorange="reversed", showgrid=False, dtick=1)
    return figure


def _label(choice: Choice) -> str:
    """A choice as plotly shows it: what is a text there may hold markup."""
    return html.escape(f"{choice:g}" if isinstance(choice, float) else str(choice))


def grid(points: Sequence[Coefficients], found: Sequence[Result]) -> go.Figure:
    """Mean accuracy at each point, placed by how it shares out the multiply-adds.

    alpha * beta^2 * gamma^2 is near 2, so the logarithms of the three factors are
    shares of a whole.
    """
    measured = [(p, r) for p, r in zip(points, found, strict=True) if r.accuracies]
    means = [statistics.fmean(result.accuracies) for _, result in measured]
    shares = [_shares(point) for point, _ in measured]
    margin = {"t": 60, "b": 60}  # room for the corners' names
    figure = go.Figure(layout=LAYOUT | {"height": 560, "margin": margin})
    figure.add_scatterternary(
        a=[depth for depth, _, _ in shares],
        b=[width for _, width, _ in shares],
        c=[resolution for _, _, resolution in shares],
        text=[
            f"{p}<br>accuracy {m:.2%}"
            for (p, _), m in zip(measured, means, strict=True)
        ],
        mode="markers",
        cliponaxis=False,
        marker={
            "color": means,
            "colorscale": "Viridis",
            "colorbar": {"title": "accuracy", "tickformat": ".1%"},
            "size": 14,
        },
        hovertemplate="%{text}<extra></extra>",
    )
    figure.update_ternaries(
        aaxis_title="depth", baxis_title="width", caxis_title="resolution"
    )
    return figure


def _shares(point: Coefficients) -> tuple[float, float, float]:
    whole = math.log(point.growth)
    return (
        math.log(point.alpha) / whole,
        2 * math.log(point.beta) / whole,
        2 * math.log(point.gamma) / whole,
    )


def architecture(spec: ArchSpec) -> go.Figure:
    """One bar a layer, as high as it has channels, coloured by its kernel.

    The pale part is the width that an inverted residual expands to inside.
    """
    blocks = [block for block in layers.blocks(spec) if block.name.startswith("stage")]
    names = [block.name for block in blocks]
    figure = go.Figure(layout=LAYOUT | {"barmode": "overlay", "bargap": 0.15})
    figure.add_bar(
        x=names,
        y=[layers.inner_channels(block) for block in blocks],
        marker={"color": [_color(block) for block in blocks], "opacity": 0.25},
        name="channels inside",
        hovertemplate="%{y} channels inside<extra>%{x}</extra>",
    )
    figure.add_bar(
        x=names,
        y=[block.out_channels for block in blocks],
        marker={
            "color": [_color(block) for block in blocks],
            "pattern": {"shape": [_pattern(block) for block in blocks]},
        },
        name="channels out",
        hovertemplate="%{y} channels out<extra>%{x}</extra>",
    )
    position = 0
    for number, stage in enumerate(spec.stages):
        figure.add_vrect(
            x0=position - 0.5,
            x1=position + stage.repeats - 0.5,
            fillcolor=GREY,
            opacity=0.12 if number % 2 else 0.0,
            line_width=0,
            layer="below",
        )
        figure.add_annotation(
            x=position + (stage.repeats - 1) / 2,
            y=1.0,
            yref="paper",
            yanchor="top",
            text=f"stage {number}" if stage.repeats > 1 else str(number),
            showarrow=False,
            font={"size": 10},
        )
        position += stage.repeats
    figure.update_layout(height=360, showlegend=False)
    figure.update_xaxes(showticklabels=False)  # the stages are numbered above
    tallest = max(max(layers.inner_channels(b), b.out_channels) for b in blocks)
    figure.update_yaxes(title="channels", range=[0, 1.15 * tallest])
    return figure


def describe_stage(stage: Stage) -> str:
    """A stage in words, from its kind to its number of layers.

    >>> describe_stage(MBConvStage(channels=40, kernel=5, stride=2, expansion=6,
    ...                            repeats=2, se_ratio=0.25))
    'MBConv6, 5x5, SE 0.25, 40 channels, stride 2, 2 layers'
    """
    match stage:
        case MBConvStage():
            kind = f"MBConv{stage.expansion}"
        case FusedMBConvStage():
            kind = f"Fused-MBConv{stage.expansion}"
        case SepConvStage():
            kind = "separable"
        case ConvStage():
            kind = "conv"
        case BottleneckStage():
            kind = f"bottleneck {stage.bottleneck}"
    parts = [kind, f"{stage.kernel}x{stage.kernel}"]
    if isinstance(stage, GatedStage) and stage.se_ratio:
        parts.append(f"SE {stage.se_ratio:g}")
    parts.append(f"{stage.channels} channels")
    if stage.stride > 1:
        parts.append(f"stride {stage.stride}")
    parts.append(f"{stage.repeats} layer{'s' if stage.repeats > 1 else ''}")
    return ", ".join(parts)


def _pattern(block: layers.Block) -> str:
    """Hatched for squeeze-and-excitation, dotted for Fused-MBConv, crossed for both."""
    if isinstance(block.spec, FusedMBConvStage):
        return "x" if block.se_hidden else "."
    return "/" if block.se_hidden else ""


def _color(block: layers.Block) -> str:
    kernel = getattr(block.spec, "kernel", 1)
    return _KERNEL_COLORS.get(kernel, _OTHER_KERNEL)
