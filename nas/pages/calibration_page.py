"""A calibration on one page: what each budget costs, and how well it ranks."""

import statistics

import plotly.graph_objects as go

from nas.calibration import analysis, record
from nas.calibration.analysis import MULTIPLY_ADDS, Analysis, Judged, Predictor
from nas.calibration.rank import Tau
from nas.options.calibration import CalibrationDefinition, describe
from nas.pages import page
from nas.pages.drawing import BLUE, GREEN, GREY, LAYOUT, ORANGE
from nas.runs import journal
from nas.runs.run_folder import RunFolder
from search_space import files

COLUMNS = ("budget", "s a child", "images", "reliability", "tau", "95%", "")
_PREDICTOR_COLUMNS = ("predictor", "s a child", "tau", "95%", "")
NOT_BETTER = "no better than multiply-adds"

_ABOUT = (
    "Each architecture was trained at each budget with several seeds. Tau is Kendall's "
    "rank correlation with the mean of the longest trainings: 1 for the same order, 0 "
    "for none in common. Bars are 95 % bootstrap intervals over architectures."
)
_RELIABILITY = (
    "Reliability is the correlation of the accuracies from two seeds (of means over as "
    "many seeds as there are repeats, by Spearman and Brown's formula). That of the "
    "longest budget bounds what any other can reach; its tau is that of one training "
    "with the others. A budget or predictor that is not above the tau of multiply-adds "
    "in 95 of 100 resamples is no better than preferring the larger network."
)


def write(
    folder: RunFolder, definition: CalibrationDefinition, contents: journal.Contents
) -> Analysis | None:
    """Writes report.html and calibration.json; returns None where there is too little.

    Raises:
      OSError: if a file cannot be written.
    """
    found = analysis.analyze(definition, contents)
    if found is not None:
        made = record.of(definition, contents, found)
        files.write_whole(folder.report, render(found, made))
        record.write(folder, made)
    return found


def render(found: Analysis, made: record.Calibration) -> str:
    """Returns the page."""
    facts = [
        ("recommended", made.verdict),
        ("flags", made.flags or "none"),
        ("data set", made.dataset),
        ("space", " ".join((made.calibration.space, *made.calibration.restrict))),
        ("architectures", f"{len(found.specs)}, by multiply-adds spread out"),
    ]
    if found.left_out:
        facts.append(("left out, as not measured", ", ".join(found.left_out)))
    body = [
        "<h1>Which budget ranks architectures?</h1>",
        page.table(("", ""), facts),
        "<h2>Cost and rank correlation</h2>",
        page.paragraph(_ABOUT),
        page.figure(_correlations(found, made.calibration.bar)),
        "<h2>Budgets</h2>",
        page.paragraph(_RELIABILITY),
        page.table(COLUMNS, [row(one) for one in found.judged]),
        "<h2>Predictors, and all that is cheap together</h2>",
        page.paragraph(
            "Ridge regression on counts, scores and a short training's accuracy and "
            "mean loss; each two architectures are ordered by what the others taught."
        ),
        page.table(
            _PREDICTOR_COLUMNS,
            [predictor_row(one) for one in (*found.predictors, *found.combined)],
        ),
        "<h2>Accuracies at each budget and at the longest</h2>",
        page.figure(_accuracies(found)),
    ]
    return page.document("Calibration of the budget", body, figures=True)


def row(judged: Judged) -> tuple[str, ...]:
    """Returns a budget's line of the table."""
    remark = "" if judged.beats_multiply_adds else NOT_BETTER
    if judged.is_longest:
        remark = "; ".join(filter(None, ("the longest", remark)))
    cost = judged.cost
    return (
        describe(judged.budget, judged.repeats),
        f"{cost.seconds:.2f}",
        f"{cost.trained:,} + {cost.measured:,}",
        f"{judged.reliability.of_means(judged.repeats):.2f}",
        *_tau(judged.tau),
        remark,
    )


def predictor_row(found: Predictor) -> tuple[str, ...]:
    """Returns a predictor's line of the table."""
    known = found.beats_multiply_adds or found.name == MULTIPLY_ADDS
    return (
        found.name,
        f"{found.seconds:.2f}",
        *_tau(found.tau),
        "" if known else NOT_BETTER,
    )


def _tau(tau: Tau) -> tuple[str, str]:
    return f"{tau.value:.2f}", f"{tau.low:.2f} to {tau.high:.2f}"


def _correlations(found: Analysis, bar: float) -> go.Figure:
    """Tau over seconds, of budgets and of what takes time to predict."""
    figure = go.Figure(layout=LAYOUT)
    timed = [one for one in found.predictors if one.seconds > 0]
    groups = {
        "budgets": (BLUE, [
            (one.cost.seconds, one.tau, describe(one.budget, one.repeats))
            for one in found.judged
        ]),
        "untrained scores": (GREEN, [(o.seconds, o.tau, o.name) for o in timed]),
        "combined": (ORANGE, [(o.seconds, o.tau, o.name) for o in found.combined]),
    }  # fmt: skip
    for name, (color, points) in groups.items():
        taus = [tau for _, tau, _ in points]
        figure.add_scatter(
            x=[seconds for seconds, _, _ in points],
            y=[tau.value for tau in taus],
            error_y={
                "array": [tau.high - tau.value for tau in taus],
                "arrayminus": [tau.value - tau.low for tau in taus],
                "thickness": 1,
            },
            text=[text for _, _, text in points],
            mode="markers",
            marker={"color": color, "size": 9},
            name=name,
            hovertemplate="%{text}<br>tau %{y:.2f}, %{x:.2f} s<extra></extra>",
        )
    # Their names stand side by side: their lines may lie on each other.
    looks = zip(("dash", "dot", "dashdot"), ("left", "", "right"), strict=True)
    for one, (dash, side) in zip(found.predictors[:3], looks, strict=True):
        figure.add_hline(
            y=one.tau.value,
            line={"dash": dash, "color": GREY},
            annotation_text=one.name,
            annotation_position=f"bottom {side}".rstrip(),
        )
    figure.add_hline(y=bar, line={"color": ORANGE, "width": 1}, annotation_text="bar")
    figure.update_xaxes(
        title="seconds a child, compilation left out", type="log", dtick="D2"
    )
    figure.update_yaxes(title="tau with the longest budget")
    return figure


def _accuracies(found: Analysis) -> go.Figure:
    """Mean accuracies at each budget over those at the longest, a legend to choose."""
    figure = go.Figure(layout=LAYOUT | {"height": 480})
    shorter = [one for one in found.judged if not one.is_longest and one.repeats == 1]
    for number, one in enumerate(shorter):
        figure.add_scatter(
            x=found.longest.accuracies,
            y=one.accuracies,
            text=[spec.name for spec in found.specs],
            mode="markers",
            name=f"{describe(one.budget)} "
            f"(mean {statistics.fmean(one.accuracies):.1%})",
            visible=True if number == len(shorter) - 1 else "legendonly",
            hovertemplate="%{text}<br>%{y:.2%}, longest %{x:.2%}<extra></extra>",
        )
    figure.update_layout(showlegend=True)
    figure.update_xaxes(title="accuracy at the longest budget", tickformat=".1%")
    figure.update_yaxes(title="accuracy at a shorter one", tickformat=".1%")
    return figure
