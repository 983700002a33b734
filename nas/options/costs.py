"""Costs as people write them: `num_params=5M^-0.05`."""

import re
from collections.abc import Mapping

from nas.options.quantity import parse_flops
from nas.study.metrics import Metric
from nas.study.reward import SOFT_EXPONENT, Cost

_PATTERN = re.compile(r"([a-z][a-z0-9_-]*)=([^^=]+)(?:\^([^,^]+)(?:,([^,^]+))?)?")
_FORM = "METRIC=TARGET, METRIC=TARGET^W or METRIC=TARGET^BELOW,ABOVE"


def parse_cost(text: str, metrics: Mapping[str, Metric]) -> Cost:
    """Returns what `text` says a reward weighs as well.

    One exponent holds on both sides of the target, two hold below and above; without
    any, -0.07 does.

    >>> from nas.study.metrics import NUM_PARAMS
    >>> cost = parse_cost("num_params=5M^-0.05", {"num_params": NUM_PARAMS})
    >>> cost.target, cost.below, cost.above
    (5000000.0, -0.05, -0.05)

    Raises:
      ValueError: if it has another form, or no trial has such a metric. One line.
    """
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"a cost is written {_FORM}, got {text[:60]!r}; such as num_params=5M^-0.05"
        )
    name, target, below, above = match.groups()
    if name not in metrics:
        raise ValueError(
            f"a cost must be of a metric that trials have ({', '.join(metrics)}), got "
            f"{name}"
        )
    low = SOFT_EXPONENT if below is None else _number(below, text)
    return Cost(
        metric=name,
        target=_target(target, text),
        below=low,
        above=low if above is None else _number(above, text),
        goal=metrics[name].goal,
    )


def _target(written: str, text: str) -> float:
    try:
        return float(written)
    except ValueError:
        pass
    try:
        return float(parse_flops(written))
    except ValueError:
        raise ValueError(
            f"a cost's target must be a number with an optional unit K, M or B, got "
            f"{written[:40]!r} in {text[:60]!r}; write num_params=5M"
        ) from None


def _number(written: str, text: str) -> float:
    try:
        return float(written)
    except ValueError:
        raise ValueError(
            f"an exponent must be a number, got {written[:40]!r} in {text[:60]!r}; "
            "write num_params=5M^-0.05"
        ) from None
