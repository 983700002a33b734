"""Journals of format 1, which knew one accuracy and one cost.

They are read as format 2: the header gets the metrics that its definition names, a
child's accuracy, counts and objective become metrics by name.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from nas.study.metrics import ACCURACY, LATENCY_MS, NUM_MACS, NUM_PARAMS, Metric
from nas.study.trial import (
    CompletedTrial,
    Count,
    FinishedTrial,
    Finite,
    InfeasibleTrial,
    Record,
    Worker,
)
from trainers.data.fingerprint import Fingerprint
from trainers.measurement import Duration, Seconds

_FLOPS = "flops"
_SPEED = Metric(name="images_per_second", unit="images/s", goal="max")


class Header(Record):
    """The first line of format 1."""

    journal: Literal["mbconv-nas"]
    version: Literal[1]
    created: Duration
    num_children: Count
    definition: dict[str, JsonValue]
    dataset: Annotated[str, Field(max_length=1_000)]
    data: Fingerprint | None = None
    versions: dict[str, str]


class _Child(Record):
    index: Count
    asked: Count
    tokens: tuple[Count, ...]
    num_macs: Count
    num_params: Count
    finished: Duration
    worker: Worker | None


class Trained(_Child):
    """A measured child of format 1."""

    reward: Finite
    accuracy: Annotated[float, Field(ge=0.0, le=1.0)]
    losses: tuple[Finite, ...]
    num_steps: Count
    images_per_second: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
    seconds: Seconds
    objective: Finite | None = None


class Failed(_Child):
    """A child of format 1 that could not be measured."""

    infeasible: Annotated[str, Field(max_length=10_000)]


def kind(definition: Mapping[str, JsonValue]) -> str:
    """Returns what was run, which format 1 told by the definition's groups alone."""
    if "coefficients" in definition:
        return "grid"
    return "search" if "search" in definition else "comparison"


def objective(definition: Mapping[str, JsonValue]) -> Metric:
    """Returns what accuracy was weighed against."""
    reward = definition.get("reward")
    options = reward if isinstance(reward, dict) else {}
    if options.get("target_latency") is not None:
        return LATENCY_MS
    name = options.get("objective", _FLOPS)
    if not isinstance(name, str) or name == _FLOPS:
        return NUM_MACS
    if name.startswith("throughput-"):
        return Metric(name=name, unit="images/s", goal="max")
    return Metric(name=name, unit="ms", goal="min")


def metrics(definition: Mapping[str, JsonValue]) -> tuple[Metric, ...]:
    """Returns the metrics of a run of format 1; the objective is among them."""
    found = (ACCURACY, NUM_MACS, NUM_PARAMS, _SPEED)
    weighed = objective(definition)
    return found if weighed in found else (*found, weighed)


def trial(child: Trained | Failed, weighed: str) -> FinishedTrial:
    """Returns the child as format 2 has it; `weighed` is the objective's name."""
    counts: dict[str, int | float] = {
        "num_macs": child.num_macs,
        "num_params": child.num_params,
    }
    common: dict[str, Any] = {
        name: getattr(child, name)
        for name in ("index", "tokens", "asked", "finished", "worker")
    }
    if isinstance(child, Failed):
        return InfeasibleTrial(**common, metrics=counts, infeasible=child.infeasible)
    measured = {"accuracy": child.accuracy, **counts}
    measured["images_per_second"] = child.images_per_second
    if child.objective is not None and weighed not in measured:
        measured[weighed] = child.objective
    return CompletedTrial(
        **common,
        metrics=measured,
        reward=child.reward,
        losses=child.losses,
        num_steps=child.num_steps,
        seconds=child.seconds,
    )
