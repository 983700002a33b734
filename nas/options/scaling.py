"""What defines a family: the baseline, its members, and how coefficients are found.

The options are flags on the command line; where coefficients are searched, they are the
header of the journal as well.
"""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Literal

import tyro

from nas.options.command_line import UsageError, quantity
from nas.options.definition import EvaluationOptions
from nas.options.quantity import format_bytes, format_flops, parse_bytes, parse_flops
from search_space import compound
from search_space.compound import Coefficients
from search_space.scaling import ScalingRules
from search_space.spec import ArchSpec
from trainers.child import ChildConfig

_COUNT = tyro.conf.arg(metavar="N")
_NUMBER = tyro.conf.arg(metavar="X")

# Numbers that an update rule of `trainers.optim` keeps for each weight.
OPTIMIZER_SLOTS = {"sgd": 1, "rmsprop": 2, "adamw": 2}


def _parse_phis(arguments: list[str]) -> tuple[float, ...]:
    try:
        return tuple(float(text) for text in arguments[0].split(","))
    except ValueError:
        raise UsageError(
            f"--phi must be numbers between commas, got {arguments[0][:40]!r}; write "
            "0,0.5,1,2"
        ) from None


_Phis = Annotated[
    tuple[float, ...] | None,
    tyro.constructors.PrimitiveConstructorSpec[tuple[float, ...] | None](
        nargs=1,
        metavar="PHI,PHI...",
        instance_from_str=_parse_phis,
        is_instance=lambda value: value is None or isinstance(value, tuple),
        str_from_instance=lambda value: [
            "none" if value is None else ",".join(f"{phi:g}" for phi in value)
        ],
    ),
]
_Flops = Annotated[
    int | None, quantity("--target-flops", "FLOPS", parse_flops, format_flops)
]
_Bytes = Annotated[
    int | None, quantity("--target-memory", "BYTES", parse_bytes, format_bytes)
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FamilyOptions:
    """Which members to make. Without any of the first four: phi 0, 1, 2 and 3."""

    phi: _Phis = None
    """Members for these phi: 0 is the baseline, 1 about twice its multiply-adds."""
    target_flops: _Flops = None
    """The largest member with at most so many multiply-adds: 1B, 800M."""
    target_memory: _Bytes = None
    """The largest member that takes at most so much memory: 2GB, 512MiB."""
    preset: (
        Literal[
            "efficientnet",
            "efficientnet-lite",
            "efficientnet-edgetpu",
            "efficientnetv2",
        ]
        | None
    ) = None
    """Published coefficients and dropout for each member, in place of the formula."""
    memory_for: Literal["training", "inference"] = "training"
    """What --target-memory is to hold."""
    memory_batch: Annotated[int, _COUNT] = 32
    """Images at a time, as memory is counted; the optimizer is --optimizer."""
    channel_multiple: Annotated[int, _COUNT] = 8
    """Scaled channel counts are multiples of this."""
    resolution_multiple: Annotated[int, _COUNT] = 4
    """Scaled resolutions are multiples of this."""
    max_resolution: Annotated[int | None, _COUNT] = None
    """Scaled resolutions are at most this: EfficientNetV2's are 480."""
    later_depth: Annotated[float, _NUMBER] = 0.0
    """How much more later stages grow in depth, as EfficientNetV2's do: the first by
    alpha^phi, the last by that to the power of 1 + X."""

    @property
    def rules(self) -> ScalingRules:
        """How sizes follow from factors. Raises ValueError for impossible ones."""
        return ScalingRules(
            channels=self.channel_multiple,
            pixels=self.resolution_multiple,
            max_resolution=self.max_resolution,
            later_depth=self.later_depth,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoefficientOptions:
    """Factors of depth, width and resolution at phi 1: given, or searched."""

    alpha: Annotated[float | None, _NUMBER] = None
    """Of depth; 1.2 (EfficientNet's) by default."""
    beta: Annotated[float | None, _NUMBER] = None
    """Of width; 1.1 by default."""
    gamma: Annotated[float | None, _NUMBER] = None
    """Of resolution; 1.15 by default."""
    tolerance: Annotated[float, _NUMBER] = compound.TOLERANCE
    """How far alpha * beta^2 * gamma^2 may be from 2."""
    search_coefficients: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Train every point of a grid at phi 1, and take the best coefficients."""
    grid_step: Annotated[float, _NUMBER] = 0.1
    """Step of the grid in each of the three."""
    repeats: Annotated[int, _COUNT] = 1
    """Times that each point of the grid is trained, each with another seed."""
    seed: Annotated[int, _COUNT] = 0
    """Seed of the grid's children and of the validation split."""

    def given(self) -> Coefficients:
        """Returns the coefficients, the published ones where none were given.

        Raises:
          ValueError: if they break the constraint, or are to be searched as well.
        """
        values = {"alpha": self.alpha, "beta": self.beta, "gamma": self.gamma}
        chosen = {name: value for name, value in values.items() if value is not None}
        coefficients = dataclasses.replace(compound.PUBLISHED, **chosen)
        coefficients.check(self.tolerance)
        return coefficients


@dataclasses.dataclass(frozen=True, kw_only=True)
class FamilyDefinition:
    """Everything that defines a family, and the search for its coefficients."""

    base: ArchSpec
    family: FamilyOptions
    coefficients: CoefficientOptions
    evaluation: EvaluationOptions
    child: ChildConfig


def check(family: FamilyOptions, coefficients: CoefficientOptions) -> None:
    """Refuses options that contradict each other.

    Raises:
      ValueError: if they do. One line, with the remedy.
    """
    ways = {
        "--phi": family.phi is not None,
        "--target-flops or --target-memory": _has_target(family),
        "--preset": family.preset is not None,
    }
    given = [name for name, is_given in ways.items() if is_given]
    if len(given) > 1:
        raise ValueError(
            f"members are chosen in one way, and {' and '.join(given)} are two; drop "
            "one of them"
        )
    if family.memory_batch < 1:
        raise ValueError(
            f"--memory-batch must be at least 1, got {family.memory_batch}"
        )
    if coefficients.repeats < 1:
        raise ValueError(f"--repeats must be at least 1, got {coefficients.repeats}")
    default = CoefficientOptions()
    if not coefficients.search_coefficients and (
        (coefficients.grid_step, coefficients.repeats)
        != (default.grid_step, default.repeats)
    ):
        raise ValueError(
            "--grid-step and --repeats are of the grid that --search-coefficients "
            "trains; add it, or drop them"
        )
    own = [coefficients.alpha, coefficients.beta, coefficients.gamma]
    rules = family.max_resolution is not None or family.later_depth != 0
    if family.preset and (
        coefficients.search_coefficients or own != [None] * 3 or rules
    ):
        raise ValueError(
            "--preset brings coefficients of its own; drop it, or drop --alpha, --beta,"
            " --gamma, --search-coefficients, --max-resolution and --later-depth"
        )
    if coefficients.search_coefficients and own != [None] * 3:
        raise ValueError(
            "--search-coefficients finds alpha, beta and gamma; drop it, or drop "
            "--alpha, --beta and --gamma"
        )


def _has_target(family: FamilyOptions) -> bool:
    return family.target_flops is not None or family.target_memory is not None


def members_asked(family: FamilyOptions) -> Sequence[float] | None:
    """Returns the values of phi asked for; None where a target decides."""
    if _has_target(family):
        return None
    return (0.0, 1.0, 2.0, 3.0) if family.phi is None else family.phi
