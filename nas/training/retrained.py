"""Networks trained at length from several seeds: what came out, in one file.

retrained.json lists for each network its costs, as trained and at deployment, the
accuracy of every seed, their mean and its standard error, and its latency. The error is
that of the seeds, on one test split, which all networks share: how another test split
would have ranked them, it does not say.
"""

import dataclasses
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, JsonValue, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from nas.training import run
from search_space import codec, cost, files
from search_space.spec import ArchSpec
from trainers.deploy import latency
from trainers.deploy.latency import Latency

FILE, PAGE, OPTIONS = "retrained.json", "retrained.html", "options.json"
ARCHITECTURE = "architecture.json"

_LATENCY_RUNS = 50
_MAX_BYTES = 2**24
_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_CERTAIN = 2.0  # standard errors

Kind = Literal["found", "beside"]
"""By the search; or by others, and put beside it."""
Split = Literal["validation", "test"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """A network to train.

    `label` names its folder. `note` says for people why it is there. `trained` is
    `spec` at the resolution of training, for the data. `phi` and `width`, as of
    `compound.Nearest`, are None unless scaled. `in_search` is the accuracy that the
    search states.
    """

    label: str
    kind: Kind
    note: str
    spec: ArchSpec
    trained: ArchSpec
    phi: float | None = None
    width: float | None = None
    in_search: float | None = None


@pydantic_dataclass(frozen=True, kw_only=True, config=_STRICT)
class Costs:
    """Of a network at a resolution, in pixels."""

    resolution: int
    num_macs: int
    num_params: int


@pydantic_dataclass(frozen=True, kw_only=True, config=_STRICT)
class Seed:
    """One training: shares of images told right; None where there is no such split."""

    seed: int
    steps: int
    validation: float | None
    test: float | None


@pydantic_dataclass(frozen=True, kw_only=True, config=_STRICT)
class Network:
    """What came of a network.

    Attributes:
      name: of its folder.
      kind: who found it.
      note: why it is here.
      phi: by which it was scaled; None if it was not.
      width: by which its channels were scaled after that.
      accuracy_in_search: what the search had stated.
      as_trained: its costs for the data, at the resolution of training.
      at_deployment: its costs as its architecture file has it.
      seeds: its trainings.
      mean: of the seeds' accuracies on the split that decides.
      error: the standard error of that mean; None of one seed.
      latency: at deployment, one image; None before it is measured.
    """

    name: str
    kind: Kind
    note: str
    phi: float | None
    width: float | None
    accuracy_in_search: float | None
    as_trained: Costs
    at_deployment: Costs
    seeds: tuple[Seed, ...] = Field(min_length=1)
    mean: float
    error: float | None
    latency: Latency | None = None


@pydantic_dataclass(frozen=True, kw_only=True, config=_STRICT)
class Retrained:
    """What retrained.json holds.

    `accuracy` is the split that `mean` is of, `metric` the name that result.json has
    for it. `verdicts` are for people. `options` are those of nas.train, `device` is
    what latency was measured on, `provenance` where all of this comes from.
    """

    version: Literal[1] = 1
    accuracy: Split
    metric: str
    networks: tuple[Network, ...] = Field(min_length=1)
    verdicts: tuple[str, ...]
    options: dict[str, JsonValue]
    device: str
    provenance: dict[str, JsonValue]


_RETRAINED = TypeAdapter(Retrained)


def claim(
    output: Path, candidates: Sequence[Candidate], options: Mapping[str, JsonValue]
) -> None:
    """Makes the folders, and records what is trained in them, and how.

    Raises:
      ValueError: if other networks or options are recorded there. One line.
      OSError: if the folders cannot be written.
    """
    output.mkdir(parents=True, exist_ok=True)
    path = output / OPTIONS
    if path.exists():
        before = _recorded(path)
        if changed := sorted(k for k in options if before.get(k) != options[k]):
            raise ValueError(
                f"trainings that are compared have the same options, and those in"
                f" {output} were begun with another {', '.join(changed)}; give the"
                " flags that they were begun with, or another --output"
            )
    else:
        files.write_whole(path, json.dumps(options, indent=2) + "\n")
    for one in candidates:
        folder = output / one.label
        folder.mkdir(exist_ok=True)
        path = folder / ARCHITECTURE
        if not path.exists():
            files.write_whole(path, codec.dumps(one.spec))
        elif codec.load_file(path) != one.spec:
            raise ValueError(
                f"{path} must be the network that is to be trained now, and is another;"
                " give another --output"
            )


def _recorded(path: Path) -> dict[str, JsonValue]:
    try:
        found = json.loads(files.read_bounded(path, _MAX_BYTES))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold JSON and does not; give another --output")
    return found


def standard_error(values: Sequence[float]) -> float | None:
    """Returns that of the mean; None of a single value.

    >>> round(standard_error([0.70, 0.72, 0.74]), 6)  # 0.02 / sqrt(3)
    0.011547
    """
    if len(values) < 2:  # noqa: PLR2004
        return None
    return statistics.stdev(values) / math.sqrt(len(values))


def deciding(results: Sequence[run.Result]) -> tuple[Split, str]:
    """Returns the split and the metric that networks are compared by.

    The test split where all were measured on it. Of the metrics the last, which is
    that of the weights kept: averaged ones where there are any.

    Raises:
      ValueError: if the trainings were measured on nothing.
    """
    for split in ("test", "validation"):
        found = [getattr(result, split) for result in results]
        if all(found):
            return split, list(found[0])[-1]
    raise ValueError("trainings must be measured on a split, and these are on none")


def networks(
    candidates: Sequence[Candidate], results: Mapping[tuple[str, int], run.Result]
) -> tuple[tuple[Network, ...], Split, str]:
    """Returns what came of each candidate, and the split and metric that decide.

    Args:
      candidates: all that were trained.
      results: of each label and seed.

    Raises:
      ValueError: as `deciding`.
    """
    split, metric = deciding(list(results.values()))
    made = tuple(
        network(
            one,
            {seed: r for (n, seed), r in results.items() if n == one.label},
            split,
            metric,
        )
        for one in candidates
    )
    return made, split, metric


def network(
    candidate: Candidate, results: Mapping[int, run.Result], split: Split, metric: str
) -> Network:
    """Returns what came of a candidate, from its results by seed.

    Raises:
      ValueError: if a training does not state the metric. One line.
    """
    seeds = tuple(
        Seed(
            seed=seed,
            steps=result.steps,
            validation=(result.validation or {}).get(metric),
            test=(result.test or {}).get(metric),
        )
        for seed, result in sorted(results.items())
    )
    accuracies = [getattr(seed, split) for seed in seeds]
    if None in accuracies:
        raise ValueError(
            f"every training must state its {metric} on the {split} split, and one of"
            f" {candidate.label} does not; remove it to train anew"
        )
    return Network(
        name=candidate.label,
        kind=candidate.kind,
        note=candidate.note,
        phi=candidate.phi,
        width=candidate.width,
        accuracy_in_search=candidate.in_search,
        as_trained=_costs(candidate.trained),
        at_deployment=_costs(candidate.spec),
        seeds=seeds,
        mean=statistics.fmean(accuracies),
        error=standard_error(accuracies),
    )


def _costs(spec: ArchSpec) -> Costs:
    return Costs(
        resolution=spec.resolution,
        num_macs=cost.num_macs(spec),
        num_params=cost.num_params(spec),
    )


def timed(
    found: Sequence[Network], candidates: Sequence[Candidate]
) -> tuple[Network, ...]:
    """Returns the networks with their latencies, measured here, in turns."""
    times = latency.in_turns(
        [latency.network_call(one.spec, batch_size=1) for one in candidates],
        runs=_LATENCY_RUNS,
        after_turn=lambda _: None,
    )
    return tuple(
        dataclasses.replace(one, latency=time)  # pyright: ignore[reportArgumentType]
        for one, time in zip(found, times, strict=True)
    )


def verdicts(found: Sequence[Network]) -> tuple[str, ...]:
    """Returns a line for each found network: how it compares with the best beside it.

    A difference within two standard errors is said to be no difference. With three
    seeds even a larger one is luck in about one of nine (Student's t, 4 degrees), so
    more seeds are worth more than another digit.
    """
    beside = [one for one in found if one.kind == "beside"]
    if not beside:
        return ()
    best = max(beside, key=lambda one: one.mean)
    return tuple(_verdict(one, best) for one in found if one.kind == "found")


def _verdict(one: Network, best: Network) -> str:
    difference = 100 * (one.mean - best.mean)
    which = f"{best.name}, the best of those beside it"
    way = "above" if difference > 0 else "below"
    if one.error is None or best.error is None:
        return (
            f"{one.name} is {abs(difference):.2f} points {way} {which}; of one seed, so"
            " how sure that is nobody knows (--seeds)"
        )
    error = 100 * math.hypot(one.error, best.error)
    shown = (
        f"{abs(difference):.2f} \N{PLUS-MINUS SIGN} {error:.2f} points {way} {which}"
    )
    if abs(difference) <= _CERTAIN * error:
        return f"{one.name} is {shown}: within two standard errors, so no difference"
    return f"{one.name} is {shown}: more than two standard errors"


def dumps(found: Retrained) -> str:
    """Returns the text of retrained.json; `read` is its inverse."""
    return _RETRAINED.dump_json(found, indent=2).decode() + "\n"


def read(folder: Path) -> Retrained | None:
    """Returns what the folder's retrained.json holds; None if it holds no such thing.

    Raises:
      ValueError: if it is no ordinary file, or too large. One line.
      OSError: if it cannot be read.
    """
    try:
        return _RETRAINED.validate_json(files.read_bounded(folder / FILE, _MAX_BYTES))
    except (FileNotFoundError, ValidationError):
        return None


def unmeasured(found: Retrained) -> tuple[Network, ...]:
    """Returns its networks as they were before their latency was measured."""
    return tuple(
        dataclasses.replace(one, latency=None)  # pyright: ignore[reportArgumentType]
        for one in found.networks
    )
