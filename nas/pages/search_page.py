"""A search on one page: how far it is, what it found, what its policy settled on."""

import dataclasses
import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from controller.conditions import active
from nas.monitoring import policy_log
from nas.monitoring.display import format_seconds
from nas.options import definition
from nas.options.definition import Definition
from nas.options.quantity import format_flops, format_metric, format_value
from nas.pages import drawing, page
from nas.pages.page import Section, View
from nas.runs import beside, doubts, journal, results
from nas.runs.run_folder import RunFolder
from nas.study import confirmation
from nas.study.confirmation import Standing
from nas.study.metrics import NUM_PARAMS, Metric
from nas.study.trial import CompletedTrial, InfeasibleTrial
from search_space import codec, files
from search_space.space import SearchSpace
from trainers.baselines import Baselines

_MAX_FAILURES = 50
# Pace is judged over this many last children.
_WINDOW = 20
# Without a policy, what is proposed of late shows where a controller stands.
_LATE = 50


class SearchPage:
    """The views of one search, of which each has all that the journal holds so far.

    Remembers what tokens stand for: a journal only grows.
    """

    def __init__(self, run: Definition, space: SearchSpace) -> None:
        """Of the search that `run` defines, in its space."""
        self._run = run
        self._space = space
        self._texts: dict[Any, int] = {}
        self._stages: list[dict[str, Any]] = []
        self._decoded: dict[tuple[int, ...], tuple[str, list[int]]] = {}

    def view(
        self,
        contents: journal.Contents,
        policy: policy_log.Contents,
        *,
        baselines: Baselines | None = None,
        live: bool = False,
    ) -> View:
        """Returns what there is to see.

        Args:
          contents: the journal.
          policy: what the policy had settled on after each update, if there is one.
          baselines: what takes no network reaches, once it was measured.
          live: whether the search may be running: then its pace is of interest.

        Raises:
          ValueError: if a child's tokens are none of the space. One line.
        """
        completed = contents.completed
        best = confirmation.best(contents.standings)
        summary = _summary(contents, best, live=live)
        if baselines is not None:
            summary += page.paragraph(f"Beside it: {beside.describe(baselines)}.")
        sections = [
            Section(id="summary", heading="", html=summary),
            Section(
                id="tradeoff",
                heading=" and ".join(_titles(contents.header.front[:2])),
                figure=_tradeoff(contents, self._run) if completed else None,
                picks=True,
            ),
            Section(
                id="reward",
                heading="Reward",
                figure=drawing.rewards(completed) if completed else None,
            ),
            *self._policy(contents, policy),
            self._best(best),
            _confirmed(contents),
            Section(
                id="children",
                heading="Children",
                note="A click on a column sorts by it, one on a row shows the network.",
                html='<div class="wide"></div>' if completed else "",
            ),
            _failures(contents.infeasible),
            Section(
                id="details", heading="The search", html=_details(contents, self._run)
            ),
        ]
        return View(
            title="Architecture search",
            sections=sections,
            networks=self._networks(contents, best),
        )

    def _policy(
        self, contents: journal.Contents, log: policy_log.Contents
    ) -> list[Section]:
        policy = log.entries
        if policy:
            note = (
                f"The policy after {policy[-1].children} children: how likely it is to "
                "propose each choice. The darker, the likelier."
            )
            shares: Sequence[Sequence[float]] = policy[-1].probabilities
        else:
            late = contents.trials[-_LATE:]
            note = (
                f"How often each choice was proposed among the last {_LATE} children."
            )
            shares = _shares([child.tokens for child in late], self._space)
        return [
            Section(
                id="entropy",
                heading="Entropy of the policy",
                figure=(
                    drawing.entropy(policy, self._space.entropy) if policy else None
                ),
            ),
            Section(
                id="choices",
                heading="What the controller has settled on",
                html=(
                    (page.paragraph(note) if shares else "")
                    + (page.paragraph(f"Left out: {log.damage}") if log.damage else "")
                ),
                figure=(
                    drawing.choices(self._space.decisions, shares) if shares else None
                ),
            ),
        ]

    def _best(self, best: Standing | None) -> Section:
        figure, text = None, ""
        if best is not None:
            spec = self._space.decode(best.trial.tokens)
            figure = drawing.architecture(spec)
            text = page.paragraph(
                f"Child {best.trial.index}. {page.ARCHITECTURE_LEGEND}"
            )
            text += page.table(
                ("stage", "layers"),
                [
                    (str(number), drawing.describe_stage(stage))
                    for number, stage in enumerate(spec.stages)
                ],
            )
        return Section(
            id="best", heading="The best architecture", html=text, figure=figure
        )

    def _networks(
        self, contents: journal.Contents, best: Standing | None
    ) -> dict[str, Any]:
        base = codec.to_json(self._space.base)
        return {
            "best": None if best is None else best.trial.index,
            "base": {k: v for k, v in base.items() if k not in {"name", "stages"}},
            "found": results.found_by(contents.header),
            "metrics": [dataclasses.asdict(m) for m in contents.header.metrics],
            "children": [self._child(child) for child in contents.completed],
            "stages": self._stages,
        }

    def _child(self, child: CompletedTrial) -> dict[str, Any]:
        name, stages = self._decode(child.tokens)
        return {
            "index": child.index,
            "name": name,
            "tokens": child.tokens,
            "stages": stages,
            "reward": child.reward,
            "metrics": child.metrics,
            "loss": child.losses[-1] if child.losses else None,
            "seconds": child.seconds.total or None,
        }

    def _decode(self, tokens: tuple[int, ...]) -> tuple[str, list[int]]:
        """The network's name, and where each of its stages is among those known."""
        if tokens not in self._decoded:
            spec = self._space.decode(tokens)
            for stage in spec.stages:
                if stage not in self._texts:
                    self._texts[stage] = len(self._stages)
                    self._stages.append(
                        {
                            "text": drawing.describe_stage(stage),
                            "spec": codec.to_json(stage),
                            "version": codec.version_of(stage),
                        }
                    )
            self._decoded[tokens] = spec.name, [self._texts[s] for s in spec.stages]
        return self._decoded[tokens]


def write(
    folder: RunFolder, contents: journal.Contents, run: Definition, space: SearchSpace
) -> None:
    """Writes report.html.

    Raises:
      ValueError: if a child is not of the space. One line.
      OSError: if it cannot be written.
    """
    policy = policy_log.read(folder.policy, space.num_choices)
    found = beside.read(folder)
    view = SearchPage(run, space).view(contents, policy, baselines=found)
    files.write_whole(folder.report, page.interactive(view))


_TARGET_ROLES = {"soft": "a unit", "hard": "a limit", "absolute": "aimed at"}
"""What the target is to each reward of the papers."""


def _tradeoff(contents: journal.Contents, run: Definition) -> go.Figure:
    return drawing.tradeoff(
        contents.completed,
        contents.header.front,
        target=definition.target(run),
        quality_name=definition.accuracy_name(run),
        target_role=_TARGET_ROLES.get(run.reward.reward),
    )


def _titles(metrics: Sequence[Metric]) -> list[str]:
    """What the metrics are called in a heading: the unit, where that says it."""
    return [
        metric.unit if metric.unit in ("multiply-adds", "parameters") else metric.name
        for metric in metrics
    ]


def _shares(
    sequences: Sequence[tuple[int, ...]], space: SearchSpace
) -> list[list[float]]:
    """How often each choice occurs among the sequences in which its decision matters.

    By decision; 0 where it never mattered.
    """
    if not sequences:
        return []
    tokens, counts = np.array(sequences, np.int32), space.num_choices
    matters = active(counts, space.conditions, tokens)
    return [
        [
            float(np.sum(used & (column == choice)) / max(1, used.sum()))
            for choice in range(count)
        ]
        for column, used, count in zip(tokens.T, matters.T, counts, strict=True)
    ]


def _summary(contents: journal.Contents, best: Standing | None, *, live: bool) -> str:
    shown = contents.header.front
    if NUM_PARAMS not in shown:
        shown = (*shown, NUM_PARAMS)
    done, asked = len(contents.trials), contents.header.num_trials
    facts = [
        (
            "children",
            f"{done} of {asked}" if done <= asked else str(done),
            f"{len(contents.infeasible)} infeasible",
        )
    ]
    if best is not None:
        facts += [
            ("best reward", f"{best.reward:.4f}", _of_what(best)),
            *(
                (
                    f"its {title}",
                    format_value(metric, best.metrics[metric.name]),
                    _error(best, metric)
                    or ("" if metric.unit in (title, "share") else metric.unit),
                )
                for metric, title in zip(shown, _titles(shown), strict=True)
            ),
        ]
    if contents.trials and live:
        facts += _pace(contents)
    text = page.tiles(facts) + page.progress(min(done, asked), asked)
    return text + "".join(
        page.paragraph(f"In doubt: {d}.") for d in doubts.of(contents)
    )


def _of_what(best: Standing) -> str:
    if not best.again:
        return f"child {best.trial.index}"
    return f"child {best.trial.index}, mean of {best.num_trainings} fresh trainings"


def _error(best: Standing, metric: Metric) -> str:
    error = best.spread.get(metric.name)
    if not error:
        return ""
    shown = f"{100 * error:.2f} points" if metric.unit == "share" else f"{error:.2g}"
    return f"\N{PLUS-MINUS SIGN} {shown}"


def _confirmed(contents: journal.Contents) -> Section:
    """What was measured again, the best first: what it claimed, what it is worth."""
    front = contents.header.front
    found = [standing for standing in contents.standings if standing.again]
    found.sort(key=lambda standing: (not standing.is_confirmed, -standing.reward))
    rows = [
        (
            str(standing.trial.index),
            f"{standing.trial.reward:.4f}",
            f"{standing.reward:.4f}",
            str(standing.num_trainings)
            + (f", {standing.num_failed} infeasible" if standing.num_failed else ""),
            ", ".join(
                format_metric(m, standing.metrics[m.name], standing.spread.get(m.name))
                for m in front
            ),
        )
        for standing in found
    ]
    names = ("child", "claimed reward", "confirmed", "fresh trainings", "confirmed at")
    return Section(
        id="confirmed",
        heading="Measured again",
        note="Means over fresh seeds; what a child had claimed before does not count.",
        html=page.table(names, rows) if rows else "",
    )


def _pace(contents: journal.Contents) -> list[tuple[str, str, str]]:
    header, children = contents.header, contents.trials
    last = children[-1].finished
    shown = [("last child", _clock(last), f"child {children[-1].index}")]
    since = children[-_WINDOW - 1].finished if len(children) > _WINDOW else None
    number = min(len(children), _WINDOW)
    seconds = last - (header.created if since is None else since)
    if seconds > 0:
        left = max(0, header.num_trials - len(children)) * seconds / number
        shown.append(
            (
                "pace",
                f"{3600 * number / seconds:,.0f} an hour",
                f"about {format_seconds(left)} left" if left else "",
            )
        )
    return shown


def _failures(failed: Sequence[InfeasibleTrial]) -> Section:
    rows = [
        (str(child.index), format_flops(child.metrics["num_macs"]), child.infeasible)
        for child in failed[: -_MAX_FAILURES - 1 : -1]
    ]
    text = page.table(("child", "multiply-adds", "reason"), rows) if rows else ""
    if len(failed) > len(rows):
        text += page.paragraph(f"and {len(failed) - len(rows)} before these")
    return Section(id="failures", heading="Infeasible children", html=text)


def _details(contents: journal.Contents, run: Definition) -> str:
    restrictions = "; ".join(run.search.restrict)
    created = contents.header.created
    rows = [
        ("data set", contents.header.dataset),
        ("space", run.search.space + (f" ({restrictions})" if restrictions else "")),
        ("controller", f"{run.search.controller}, seed {run.search.seed}"),
        ("reward", definition.describe_reward(run)),
        ("started", f"{_moment(created):%Y-%m-%d} {_clock(created)}"),
    ]
    return page.table(("", ""), rows)


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds).astimezone()


def _clock(seconds: float) -> str:
    return f"{_moment(seconds):%H:%M %Z}"
