"""calibration.json: what a calibration found, for people and for `nas.search --budget`.

It may be anybody's file, and is parsed strictly.
"""

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from nas.calibration.analysis import Analysis, Judged, Predictor, verdict
from nas.calibration.rank import Tau
from nas.evaluation import evaluators
from nas.evaluation.evaluators import TrainChildren
from nas.options.calibration import Budget, CalibrationDefinition, CalibrationOptions
from nas.options.definition import Definition, EvaluationOptions
from nas.runs import journal
from nas.runs.run_folder import RunFolder
from search_space import files
from search_space.spec import explain
from trainers.child import ChildConfig
from trainers.data import fingerprint
from trainers.data.fingerprint import Fingerprint
from trainers.measurement import Duration

_MAX_BYTES = 2**24
_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Interval:
    """Kendall's tau with the truth, and its 95 % interval over architectures."""

    tau: float
    low: float
    high: float

    @classmethod
    def of(cls, tau: Tau) -> "Interval":
        """Returns what is kept of a coefficient."""
        return cls(tau=tau.value, low=tau.low, high=tau.high)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class BudgetRow:
    """A budget as `nas.calibration.analysis.Judged` has it, for all its repeats."""

    budget: Budget
    repeats: int
    is_longest: bool
    seconds: Duration
    images_trained: int
    images_measured: int
    reliability: float
    rank: Interval
    beats_multiply_adds: bool


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PredictorRow:
    """A cheap predictor; `seconds` for a child."""

    name: str
    seconds: Duration
    rank: Interval
    beats_multiply_adds: bool


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Calibration:
    """What a calibration found.

    Attributes:
      created: when it was started, in seconds since the epoch.
      data: of the longest budget.
      architectures: names of those that were measured every time.
      left_out: names of the others.
      recommended: the cheapest budget that will do, or None.
      verdict: that in words, or what to do.
      flags: of a search at that budget.
    """

    version: Literal[1] = 1
    created: Duration
    calibration: CalibrationOptions
    evaluation: EvaluationOptions
    child: ChildConfig
    dataset: str
    data: Fingerprint
    architectures: tuple[str, ...]
    left_out: tuple[str, ...]
    budgets: tuple[BudgetRow, ...]
    predictors: tuple[PredictorRow, ...]
    recommended: BudgetRow | None
    verdict: str
    flags: str | None

    def applied(self, run: Definition) -> Definition:
        """Returns `run` with its children at the recommended budget.

        Raises:
          ValueError: if there is none.
        """
        best = self.recommended
        if best is None:
            raise ValueError(f"the calibration recommends no budget: {self.verdict}")
        budget = best.budget
        measured: dict[str, Any] = {"share": budget.share}
        measured["validation"] = budget.validation or self.evaluation.validation
        return dataclasses.replace(
            run,
            search=dataclasses.replace(run.search, repeats=best.repeats),
            evaluation=dataclasses.replace(run.evaluation, **measured),
            child=budget.config(self.child),
        )


_ADAPTER = TypeAdapter(Calibration)


def of(
    definition: CalibrationDefinition, contents: journal.Contents, found: Analysis
) -> Calibration:
    """Returns the record of an analysis."""
    data = contents.header.data
    assert data is not None  # a calibration trains, on data that have a fingerprint
    made = Calibration(
        created=contents.header.created,
        calibration=definition.calibration,
        evaluation=definition.evaluation,
        child=definition.child,
        dataset=contents.header.dataset,
        data=data,
        architectures=tuple(spec.name for spec in found.specs),
        left_out=found.left_out,
        budgets=tuple(map(_row, found.judged)),
        predictors=tuple(map(_predictor, (*found.predictors, *found.combined))),
        recommended=None if found.recommended is None else _row(found.recommended),
        verdict=verdict(found, definition.calibration.bar),
        flags=None,
    )
    if made.recommended is None:
        return made
    return dataclasses.replace(made, flags=flags(made))


def _row(judged: Judged) -> BudgetRow:
    return BudgetRow(
        budget=judged.budget,
        repeats=judged.repeats,
        is_longest=judged.is_longest,
        seconds=judged.cost.seconds,
        images_trained=judged.cost.trained,
        images_measured=judged.cost.measured,
        reliability=judged.reliability.of_means(judged.repeats),
        rank=Interval.of(judged.tau),
        beats_multiply_adds=judged.beats_multiply_adds,
    )


def _predictor(found: Predictor) -> PredictorRow:
    return PredictorRow(
        name=found.name,
        seconds=found.seconds,
        rank=Interval.of(found.tau),
        beats_multiply_adds=found.beats_multiply_adds,
    )


def flags(made: Calibration) -> str:
    """Returns the recommended budget as flags of `nas.search`, to paste.

    Raises:
      ValueError: if there is none.
    """
    run, plain = made.applied(Definition()), Definition()
    shown = {"steps": run.child.steps, "resolution": run.child.resolution}
    for group, usual in ((run.evaluation, plain.evaluation), (run.child, plain.child)):
        for field in dataclasses.fields(group):
            value = getattr(group, field.name)
            if value != getattr(usual, field.name):
                shown[field.name] = value
    return " ".join(f"--{k.replace('_', '-')} {v}" for k, v in shown.items())


def write(folder: RunFolder, made: Calibration) -> None:
    """Writes calibration.json.

    Raises:
      OSError: if it cannot be written.
    """
    document = _ADAPTER.dump_python(made, mode="json")
    files.write_whole(folder.calibration, json.dumps(document, indent=2) + "\n")


def load(path: Path) -> Calibration:
    """Returns the record in a calibration's folder, or in a file.

    Raises:
      ValueError: if it is malformed. One line.
      OSError: if it cannot be read.
    """
    if path.is_dir():
        path = RunFolder(path).calibration
    try:
        return _ADAPTER.validate_json(files.read_bounded(path, _MAX_BYTES))
    except FileNotFoundError:
        raise ValueError(
            f"a calibration's folder holds {path.name} once nas.calibrate is done, and"
            f" {path} is not there; go on with it (--resume), or name another"
        ) from None
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error)}") from None


def find(run: Definition, where: str) -> Calibration:
    """Returns the calibration of the space and the data that `run` searches.

    Args:
      run: a search.
      where: a calibration's folder, or `auto` for the newest one under runs/.

    Raises:
      ValueError: if there is none of these. One line, with the remedy.
      OSError: if the folder named cannot be read.
    """
    if where != "auto":
        found = load(Path(where))
        if reason := _mismatch(found, run):
            raise ValueError(
                f"--budget {where} must be a calibration of what is searched, and"
                f" {reason}; {_remedy(run)}"
            )
        return found
    for found in sorted(_under_runs(), key=lambda one: -one.created):
        if _mismatch(found, run) is None:
            return found
    raise ValueError(
        "--budget auto takes the newest calibration under runs/ of the same data and"
        f" space, and there is none; {_remedy(run)}"
    )


def _under_runs() -> list[Calibration]:
    """All that can be read: what else lies there is no reason not to search."""
    found = []
    for path in Path("runs").glob("*/calibration.json"):
        try:
            found.append(load(path))
        except (ValueError, OSError):
            continue
    return found


def _mismatch(found: Calibration, run: Definition) -> str | None:
    """Returns how the calibration's space or data are not the search's, or None."""
    tried, search = found.calibration, run.search
    if tried.space != search.space:
        return f"it is of the space {tried.space}, not {search.space}"
    if sorted(tried.restrict) != sorted(search.restrict):
        return "the space is not restricted in the same way (--restrict)"
    asked = run.evaluation
    children = TrainChildren(
        options=dataclasses.replace(
            found.evaluation,
            dataset=asked.dataset,
            data_dir=asked.data_dir,
            download=asked.download,
        ),
        config=found.child,
        seed=tried.seed,
    )
    data = evaluators.data_of(children.load()).fingerprint
    assert data is not None
    changes = fingerprint.differences(found.data, data)
    return "; ".join(changes) or None


def _remedy(run: Definition) -> str:
    """The command that makes one."""
    parts = ["--dataset", run.evaluation.dataset, "--space", run.search.space]
    for restriction in run.search.restrict:
        parts += ["--restrict", restriction]
    return f"make one with: python -m nas.calibrate {shlex.join(parts)}"
