"""What a search's numbers cannot carry, each in a line with its remedy."""

import math
import statistics
from collections.abc import Iterator

from nas.runs import journal
from nas.study import confirmation
from nas.study.confirmation import Standing
from nas.study.trial import CompletedTrial

# Standard errors that a child must be above chance to be told from it.
_ABOVE_CHANCE = 2.0
_ENOUGH = 5  # children, before anything is said of them together
# Two children whose accuracies differ by less than two standard errors of a difference
# are not told apart; of a split that asks for more than this, that is said.
_COARSE = 0.05


def of(contents: journal.Contents) -> list[str]:
    """Returns what is to be doubted; nothing where no error is stated."""
    header = contents.header
    name = header.objectives[0]
    completed = [t for t in contents.completed if t.spread.get(name)]
    return [
        *_chance(completed, name, header),
        *_noise(completed, name),
        *_split(completed, header),
        *_leaders(contents.standings),
    ]


def _is_at_chance(trial: CompletedTrial, name: str, chance: float | None) -> bool:
    """Whether a trial's quality is within two standard errors of chance, or below."""
    if chance is None or name != "accuracy":
        return False
    return trial.metrics[name] - chance <= _ABOVE_CHANCE * trial.spread.get(name, 0.0)


def _chance(
    trials: list[CompletedTrial], name: str, header: journal.Header
) -> Iterator[str]:
    chance = header.chance
    number = sum(_is_at_chance(trial, name, chance) for trial in trials)
    if chance is None or not number or number < len(trials) / 10:
        return
    yield (
        f"{number} of {len(trials)} children stand at chance ({chance:.1%}), and their "
        "rewards rank nothing; train longer (--steps), or on fewer classes or easier "
        "images"
    )


def _noise(trials: list[CompletedTrial], name: str) -> Iterator[str]:
    """Whether the children differ by more than the error of each of them."""
    if len(trials) < _ENOUGH:
        return
    between = statistics.pvariance([trial.metrics[name] for trial in trials])
    error = statistics.fmean(trial.spread[name] ** 2 for trial in trials)
    if between < 2 * error:
        yield (
            f"the children's {name} varies by {math.sqrt(between):.1%}, and each is"
            f" uncertain by {math.sqrt(error):.1%}: their ranking is mostly noise; "
            "more --validation images, --repeats or --steps tell them apart"
        )


def _split(trials: list[CompletedTrial], header: journal.Header) -> Iterator[str]:
    num = header.splits.get("validation")
    if not num or not trials:
        return
    error = math.sqrt(0.25 / num)
    if 2 * math.sqrt(2) * error > _COARSE:
        yield (
            f"{num:,} validation images tell two children apart that differ by "
            f"{2 * math.sqrt(2) * error:.1%}, at an accuracy of one half; hold out more"
            " with --validation N, where there are more"
        )


def _leaders(found: list[Standing]) -> Iterator[str]:
    others = list(confirmation.within_noise(found))
    if others:
        shown = ", ".join(str(standing.trial.index) for standing in others[:5])
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""  # noqa: PLR2004
        yield (
            "between seeds the best is not told apart from "
            f"{'child' if len(others) == 1 else 'children'} {shown}{more}, measured "
            "again like it; --resume with more --confirm-repeats decides"
        )
