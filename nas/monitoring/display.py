"""The screen during a search: a live panel, or plain lines where there is no terminal.

Both are listeners of a `Study`, fed by one `Progress`.
"""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nas.monitoring.progress import Progress
from nas.options import terminal
from nas.options.quantity import format_metric
from nas.study.confirmation import Standing
from nas.study.metrics import NUM_MACS, Metric
from nas.study.trial import FinishedTrial, InfeasibleTrial, Trial

# Plain lines are for logs: a fast search must not write thousands of them.
_SECONDS_BETWEEN_LINES = 0.5


class PlainDisplay:
    """One line for each finished child, fewer where they finish quickly.

    The first, the last and every new best are always shown.
    """

    def __init__(
        self,
        console: Console,
        progress: Progress,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prints to `console`."""
        self._console = console
        self._progress = progress
        self._clock = clock
        self._last_line = float("-inf")

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to take down."""

    def started(self, trial: Trial) -> None:
        """Says nothing."""

    def finished(self, child: FinishedTrial) -> None:
        """Prints the child's line, unless one was printed just before."""
        progress = self._progress
        now = self._clock()
        always = child is progress.best or progress.num_done >= progress.num_trials
        if not always and now - self._last_line < _SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        shown = terminal.printable(_line(child, progress))
        self._console.print(shown, markup=False, highlight=False)


class LiveDisplay:
    """A panel that stays in place: progress, last and best child, pace, time left."""

    def __init__(self, console: Console, progress: Progress) -> None:
        """Draws on `console` between entering and leaving."""
        self._progress = progress
        self._live = Live(
            console=console,
            get_renderable=self._panel,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        """Starts drawing."""
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leaves the last state on the screen."""
        self._live.stop()

    def started(self, trial: Trial) -> None:
        """The panel refreshes by itself."""

    def finished(self, child: FinishedTrial) -> None:
        """Shows the child at once."""
        del child
        self._live.refresh()

    def _panel(self) -> Group:
        progress = self._progress
        table = Table.grid(padding=(0, 2))
        counts = (
            f"{progress.num_done} of {progress.num_trials} done, "
            f"{len(progress.under_way)} under way, "
            f"{progress.num_infeasible} infeasible"
        )
        if progress.num_promoted:
            counts += f", {progress.num_promoted} trained on"
        if progress.num_again:
            counts += f", {progress.num_again} measured again"
        table.add_row("children", counts)
        best = describe(progress.best, progress.objectives)
        table.add_row("best", escape(terminal.printable(best)))
        last = describe(progress.last, progress.objectives)
        table.add_row("last", escape(terminal.printable(last)))
        table.add_row("pace", _pace(progress))
        bar = ProgressBar(total=progress.num_trials, completed=progress.num_done)
        return Group(bar, Text(), table)  # a bar does not end its line


def display(console: Console, progress: Progress) -> LiveDisplay | PlainDisplay:
    """Returns the display that suits `console`."""
    if console.is_terminal:
        return LiveDisplay(console, progress)
    return PlainDisplay(console, progress)


def describe(child: FinishedTrial | None, objectives: Sequence[Metric]) -> str:
    """One line about a child: reward, objectives and size, or why it failed."""
    if child is None:
        return "none yet"
    if isinstance(child, InfeasibleTrial):
        reason = " ".join(child.infeasible.split())
        shown = reason if len(reason) <= 100 else reason[:99] + "…"  # noqa: PLR2004
        return f"child {child.index}: infeasible: {shown}"
    metrics = objectives if NUM_MACS in objectives else (*objectives, NUM_MACS)
    shown = [
        format_metric(metric, child.metrics[metric.name], child.spread.get(metric.name))
        for metric in metrics
    ]
    again = f" at fidelity {child.fidelity}" if child.fidelity else ""
    again += f" again ({child.repeat})" if child.repeat else ""
    return ", ".join([f"child {child.index}{again}: reward {child.reward:.4f}", *shown])


def describe_standing(standing: Standing, objectives: Sequence[Metric]) -> str:
    """One line about an architecture: what it was confirmed at, and had claimed."""
    if not standing.again:
        return describe(standing.trial, objectives)
    metrics = objectives if NUM_MACS in objectives else (*objectives, NUM_MACS)
    found, errors = standing.metrics, standing.spread
    shown = [format_metric(m, found[m.name], errors.get(m.name)) for m in metrics]
    claimed = format_metric(metrics[0], standing.trial.metrics[metrics[0].name])
    parts = [f"child {standing.trial.index}: reward {standing.reward:.4f}", *shown]
    times = f"{standing.num_trainings} fresh trainings"
    return f"{', '.join(parts)}; the mean of {times}, it had claimed {claimed}"


def _line(child: FinishedTrial, progress: Progress) -> str:
    described = describe(child, progress.objectives)
    if child.repeat:
        return f"[{progress.num_done} and {progress.num_again} again] {described}"
    parts = [f"[{progress.num_done}/{progress.num_trials}] {described}"]
    if progress.best is child:
        parts.append("best so far")
    elif progress.best is not None:
        parts.append(f"best {progress.best.reward:.4f}")
    if progress.num_done < progress.num_trials:
        parts.append(_pace(progress))
    return "; ".join(parts)


def _pace(progress: Progress) -> str:
    pace, left = progress.children_per_hour, progress.seconds_left
    if pace is None or left is None:
        return "no child has finished yet"
    return f"{pace:,.0f} an hour, about {format_seconds(left)} left"


def format_seconds(seconds: float) -> str:
    """Returns a duration in its two largest units.

    >>> format_seconds(7.4), format_seconds(100), format_seconds(93_784)
    ('7 s', '1 min 40 s', '1 d 2 h')
    """
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    amounts = [(days, "d"), (hours, "h"), (minutes, "min"), (s, "s")]
    while len(amounts) > 1 and amounts[0][0] == 0:
        amounts.pop(0)
    first, rest = amounts[0], amounts[1:2]
    shown = [first, *((amount, unit) for amount, unit in rest if amount)]
    return " ".join(f"{amount} {unit}" for amount, unit in shown)
