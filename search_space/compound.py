"""Compound scaling: one number phi scales depth, width and resolution together.

    depth = alpha^phi,  width = beta^phi,  resolution = gamma^phi

with alpha * beta^2 * gamma^2 near 2, so that multiply-adds grow about as 2^phi
(https://arxiv.org/abs/1905.11946, equation 3). Rounding makes them grow in steps;
`search_space.scaling` says how each size is rounded. A negative phi scales down.
"""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pydantic import ValidationError

from search_space.scaling import (
    EFFICIENTNET_RULES,
    ScalingRules,
    scale,
)
from search_space.spec import ArchSpec, explain

GROWTH = 2.0  # what alpha * beta^2 * gamma^2 should be near
TOLERANCE = 0.1  # the paper's own coefficients give 1.92

MAX_PHI = 32.0  # four thousand million times the multiply-adds
MAX_POINTS = 10_000
_STEPS_PER_PHI = 1_000  # `largest_phi` looks at multiples of a thousandth
_DIGITS = 9  # sums of decimal steps are rounded to this many
_NEAR = 0.01  # `nearest` looks no further
_SLACK = 1e-9  # and compared within this much


@dataclasses.dataclass(frozen=True, kw_only=True)
class Coefficients:
    """Factors of depth, width and resolution at phi = 1.

    Raises:
      ValueError: when they are made, if one of them is below 1 or not finite.
    """

    alpha: float
    beta: float
    gamma: float

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not 1.0 <= value < math.inf:
                raise ValueError(
                    f"{field.name} must be at least 1 and finite, got {value:g};"
                    f" a larger phi, not a smaller {field.name}, is what makes networks"
                    " grow"
                )

    @property
    def growth(self) -> float:
        """About the factor of the multiply-adds at phi = 1."""
        # Products of floats become infinite where powers raise.
        return self.alpha * self.beta * self.beta * self.gamma * self.gamma

    def check(self, tolerance: float = TOLERANCE) -> None:
        """Refuses coefficients that do not about double the multiply-adds.

        Raises:
          ValueError: if `growth` is further than `tolerance` from 2.
        """
        if abs(self.growth - GROWTH) > tolerance + _SLACK:
            raise ValueError(
                f"alpha * beta^2 * gamma^2 must be within {tolerance:g} of {GROWTH:g},"
                f" got {self.growth:.4g} from {self}; change a coefficient, or widen"
                " the tolerance"
            )

    def __str__(self) -> str:
        return f"alpha {self.alpha:g}, beta {self.beta:g}, gamma {self.gamma:g}"


PUBLISHED = Coefficients(alpha=1.2, beta=1.1, gamma=1.15)  # EfficientNet, section 3.3


def member(
    spec: ArchSpec,
    coefficients: Coefficients,
    phi: float,
    rules: ScalingRules = EFFICIENTNET_RULES,
) -> ArchSpec:
    """Returns `spec` scaled by `phi`, named after both; rates are the baseline's.

    Raises:
      ValueError: if phi is out of range, or the network cannot exist; one line.
    """
    if not abs(phi) <= MAX_PHI:
        raise ValueError(f"phi must be from {-MAX_PHI:g} to {MAX_PHI:g}, got {phi:g}")
    try:
        scaled = scale(
            spec,
            depth=coefficients.alpha**phi,
            width=coefficients.beta**phi,
            resolution=rules.resolution(spec.resolution, coefficients.gamma**phi),
            rules=rules,
        )
        return dataclasses.replace(scaled, name=f"{spec.name}-phi{phi:g}")
    except ValidationError as error:
        raise ValueError(
            f"phi {phi:g} makes no network of {spec.name}: {explain(error)};"
            " choose a phi nearer to 0"
        ) from None


def largest_phi(
    spec: ArchSpec,
    coefficients: Coefficients,
    fits: Callable[[ArchSpec], bool],
    rules: ScalingRules = EFFICIENTNET_RULES,
) -> float:
    """Returns the largest phi, in thousandths, whose network fits.

    By bisection, because sizes grow with phi. They may fall only at the very start,
    where a baseline's own sizes are no multiples of what scaled ones are rounded to.
    The phi returned fits in any case, and the next thousandth does not.

    Args:
      spec: the baseline.
      coefficients: how it is scaled.
      fits: says whether a network is small enough. A network that cannot exist is not.
      rules: of the sizes.

    Raises:
      ValueError: if the baseline itself does not fit.
    """
    if not fits(spec):
        raise ValueError(f"the baseline {spec.name} must fit, and it does not")

    def fits_at(step: int) -> bool:
        try:
            return fits(member(spec, coefficients, step / _STEPS_PER_PHI, rules))
        except ValueError:
            return False

    low, high = 0, round(MAX_PHI * _STEPS_PER_PHI)
    while high - low > 1:
        middle = (low + high) // 2
        if fits_at(middle):
            low = middle
        else:
            high = middle
    return low / _STEPS_PER_PHI


class Nearest(NamedTuple):
    """A network scaled by `phi`, and its channels once more by `width`."""

    spec: ArchSpec
    phi: float
    width: float


def nearest(
    spec: ArchSpec,
    coefficients: Coefficients,
    size: Callable[[ArchSpec], float],
    wanted: float,
    rules: ScalingRules = EFFICIENTNET_RULES,
) -> Nearest:
    """Returns the network, larger or smaller than `spec`, nearest in size to `wanted`.

    First by phi, in thousandths, to either side of 0. Repeats are rounded up, so there
    the size grows in few and large steps; width alone makes up for the rest, from half
    to twice. Where rounding leaves that more than a hundredth off, phis of up to 1 more
    or less are tried as well, with a width each, the nearer ones first.

    Args:
      spec: the baseline.
      coefficients: how it is scaled.
      size: of a network, above 0; raises a ValueError for one that cannot exist, which
        counts as too small where it was scaled down and as too large elsewhere.
      wanted: the size to come near to; nearest is meant in ratio.
      rules: of the sizes.

    Raises:
      ValueError: if there is no network at all near that size.
    """

    def off(found: Nearest) -> float:
        return abs(math.log(size(found.spec) / wanted))

    def by_phi(step: int) -> float:
        return size(member(spec, coefficients, step / _STEPS_PER_PHI, rules))

    most = round(MAX_PHI * _STEPS_PER_PHI)
    first = _nearest_step(by_phi, -most, most, 0, wanted)
    if first is None:
        raise ValueError(
            f"a scaled {spec.name} must exist near the size wanted, {wanted:g}, and"
            " none does; name another network"
        )
    best: Nearest | None = None
    for away in sorted(range(-_STEPS_PER_PHI, _STEPS_PER_PHI + 1, 100), key=abs):
        phi = (first + away) / _STEPS_PER_PHI
        if not abs(phi) <= MAX_PHI:
            continue
        for found in _widths(spec, coefficients, phi, size, wanted, rules):
            if best is None or off(found) < off(best):
                best = found
        if best is not None and off(best) < _NEAR:
            break
    assert best is not None  # that of `first` alone exists
    return best


def _widths(
    spec: ArchSpec,
    coefficients: Coefficients,
    phi: float,
    size: Callable[[ArchSpec], float],
    wanted: float,
    rules: ScalingRules,
) -> Iterator[Nearest]:
    """Yields the member of that phi, and the nearest of another width, if any."""

    def wider(step: int) -> Nearest:
        """Channels are multiplied once, lest they be rounded twice."""
        width = step / _STEPS_PER_PHI
        scaled = scale(
            spec,
            depth=coefficients.alpha**phi,
            width=coefficients.beta**phi * width,
            resolution=rules.resolution(spec.resolution, coefficients.gamma**phi),
            rules=rules,
        )
        name = f"{spec.name}-phi{phi:g}-width{width:g}"
        return Nearest(dataclasses.replace(scaled, name=name), phi, width)

    one = _STEPS_PER_PHI
    with contextlib.suppress(ValueError):
        plain = member(spec, coefficients, phi, rules)
        size(plain)
        yield Nearest(plain, phi, 1.0)
    step = _nearest_step(
        lambda step: size(wider(step).spec), one // 2, 2 * one, one, wanted
    )
    if step is not None:
        yield wider(step)


def _nearest_step(
    size_at: Callable[[int], float], low: int, high: int, start: int, wanted: float
) -> int | None:
    """Returns the step, at which sizes grow, of the size nearest to `wanted`.

    What does not exist is too small below `start`, too large from there; None if
    neither of the two steps that `wanted` is between exists.
    """

    def size_or_none(step: int) -> float | None:
        try:
            return size_at(step)
        except ValueError:
            return None

    while high - low > 1:
        middle = (low + high) // 2
        found = size_or_none(middle)
        if middle < start if found is None else found <= wanted:
            low = middle
        else:
            high = middle
    sizes = {step: found for step in (low, high) if (found := size_or_none(step))}
    if not sizes:
        return None
    return min(sizes, key=lambda step: abs(math.log(sizes[step] / wanted)))


def grid(step: float, tolerance: float = TOLERANCE) -> tuple[Coefficients, ...]:
    """Returns all coefficients in steps from 1 that keep to the constraint.

    >>> [str(point) for point in grid(0.5)]
    ['alpha 2, beta 1, gamma 1']
    >>> len(grid(0.1)), len(grid(0.05))
    (22, 111)

    Raises:
      ValueError: if there are none or too many.
    """
    if not 0 < step <= 1 or not 0 <= tolerance < 1:
        raise ValueError(
            "the step of a grid must be in (0, 1] and its tolerance in [0, 1), got"
            f" {step:g} and {tolerance:g}"
        )
    found = tuple(itertools.islice(_points(step, tolerance), MAX_POINTS + 1))
    if len(found) > MAX_POINTS:
        raise ValueError(
            f"a grid must have at most {MAX_POINTS} points, and a step of {step:g}"
            " gives more; take a larger step or a smaller tolerance"
        )
    if not found:
        raise ValueError(
            f"a grid must have a point, and in steps of {step:g} none is within"
            f" {tolerance:g} of the constraint; take a smaller step or a larger"
            " tolerance"
        )
    return found


def _points(step: float, tolerance: float) -> Iterator[Coefficients]:
    most = GROWTH + tolerance + _SLACK
    for alpha in _values(step, most):
        for beta in _values(step, math.sqrt(most / alpha)):
            for gamma in _values(step, math.sqrt(most / alpha) / beta):
                point = Coefficients(alpha=alpha, beta=beta, gamma=gamma)
                if abs(point.growth - GROWTH) <= tolerance + _SLACK:
                    yield point


def _values(step: float, most: float) -> Iterator[float]:
    """Yields 1, 1 + step, ... up to `most`."""
    for count in itertools.count():
        value = round(1 + count * step, _DIGITS)
        if value > most:
            return
        yield value
