"""Which networks are trained beside each other: a search's best, and others scaled.

Others are scaled to about the multiply-adds of the search's first, at the resolution
of training: compound scaling with EfficientNet's coefficients, by the phi, often below
0, that comes nearest, and width alone for the rest. Where that resolution is given, by
the data or by a flag, scaling it would change nothing that is trained; so depth and
width are scaled alone, and the resolution at deployment stays the network's own.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from nas.options.quantity import format_flops, format_metric
from nas.study import confirmation
from nas.study.confirmation import Limit, Standing
from nas.study.metrics import Metric
from nas.training import fitting, models
from nas.training.retrained import Candidate
from search_space import compound, cost
from search_space.space import SearchSpace
from search_space.spec import ArchSpec
from trainers.data.dataset import Dataset

AsTrained = Callable[[ArchSpec], ArchSpec]
"""A network -> what is trained of it: for which data, at what resolution."""

_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def chosen(
    standings: Sequence[Standing],
    top: int,
    front: Sequence[Metric],
    limit: Limit | None,
) -> list[tuple[Standing, str]]:
    """Returns the networks of a search to train, each with why it is.

    Args:
      standings: of the search.
      top: so many by reward, those confirmed first.
      front: the metrics that the search names; the first counts within the limit.
      limit: the best within it as well, where it is not among the top.
    """
    ranked = sorted(
        standings, key=lambda one: (not one.is_confirmed, -one.reward, one.trial.index)
    )
    top = min(top, len(ranked))
    found = [(one, f"number {i} by reward") for i, one in enumerate(ranked[:top], 1)]
    if limit is not None and limit.metric in front:
        within = confirmation.best_within(ranked, limit, front[0])
        if within is not None and within not in ranked[:top]:
            shown = format_metric(limit.metric, limit.value)
            found.append((within, f"the most accurate within {shown}"))
    return found


def networks(
    found: Sequence[tuple[Standing, str]],
    names: Sequence[str],
    *,
    space: SearchSpace,
    dataset: Dataset,
    asked: int | Literal["architecture", "data"],
) -> list[Candidate]:
    """Returns every network, as it is and as it is trained.

    Args:
      found: what was `chosen`.
      names: of those beside them, names of the zoo or files.
      space: the search's.
      dataset: that all are trained on.
      asked: the resolution of training, see `fitting.resolution_of`.

    Raises:
      ValueError: if one does not fit the data, is no architecture, or has no name of
        its own. One line.
      OSError: if a file cannot be read.
    """

    def as_trained(spec: ArchSpec) -> ArchSpec:
        side, _ = fitting.resolution_of(spec, dataset, asked)
        return fitting.as_trained(spec, dataset, side)

    own = _of_search(found, space, as_trained)
    first = own[0]
    moved = first.trained.resolution != first.spec.resolution
    is_given = isinstance(asked, int) or moved
    others = _beside(names, first, as_trained, is_resolution_given=is_given)
    return [*own, *others]


def _of_search(
    found: Sequence[tuple[Standing, str]], space: SearchSpace, as_trained: AsTrained
) -> list[Candidate]:
    candidates = []
    for one, why in found:
        spec = space.decode(one.trial.tokens)
        times = (
            f"confirmed by {one.num_trainings}" if one.is_confirmed else "unconfirmed"
        )
        candidates.append(
            Candidate(
                label=f"child-{one.trial.index}",
                kind="found",
                note=f"{why}, {times}",
                spec=spec,
                trained=as_trained(spec),
                in_search=one.metrics.get("accuracy"),
            )
        )
    return candidates


def _beside(
    names: Sequence[str],
    first: Candidate,
    as_trained: AsTrained,
    *,
    is_resolution_given: bool,
) -> list[Candidate]:
    """Returns the networks called `names`, scaled to the multiply-adds of `first`."""
    coefficients = compound.PUBLISHED
    if is_resolution_given:
        coefficients = dataclasses.replace(coefficients, gamma=1.0)
    what = "depth and width" if is_resolution_given else "depth, width and resolution"
    wanted = cost.num_macs(first.trained)
    candidates: list[Candidate] = []
    for name in names:
        label = Path(name).stem if name.endswith(".json") else Path(name).name
        if not _LABEL.fullmatch(label) or label in {one.label for one in candidates}:
            raise ValueError(
                "a network beside the search's must have a name of its own, in letters,"
                f" digits, dots, dashes and underscores, got {label[:100]!r}; copy its"
                " file to another name"
            )
        base = models.architecture(name)
        spec, phi, width = compound.nearest(
            base, coefficients, lambda spec: cost.num_macs(as_trained(spec)), wanted
        )
        trained = as_trained(spec)
        by = f"phi {phi:g}" + (f", then in width by {width:g}" if width != 1 else "")
        off = cost.num_macs(trained) / wanted - 1
        candidates.append(
            Candidate(
                label=label,
                kind="beside",
                note=(
                    f"{base.name} of {format_flops(cost.num_macs(base))}, scaled in"
                    f" {what} by {by}: {off:+.1%} of {first.label}'s"
                    " multiply-adds, as trained"
                ),
                spec=spec,
                trained=trained,
                phi=phi,
                width=width,
            )
        )
    return candidates
