"""A search from Python, with objects of one's own.

    from nas.api import search

    found = search("mbconv", lambda spec: {"accuracy": score(spec)}, num_trials=100)
    found.best.metrics, found.spec(found.best)
    found.to_pandas()

It is the search that `python -m nas.search` runs: journal, resume, Ray, display. For a
controller and a function of tokens alone there is `nas.loop.optimize`.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

import controller as controllers
from controller.conditions import active
from controller.interface import Controller
from nas.evaluation.evaluators import Evaluate, Evaluator, Place
from nas.evaluation.run_data import RunData
from nas.execution import driver
from nas.execution.driver import Setup
from nas.execution.interrupts import Interrupts
from nas.execution.resources import WorkerOptions
from nas.options.definition import Definition, SearchOptions
from nas.runs import journal, results
from nas.runs.run_folder import RunFolder
from nas.study import confirmation
from nas.study import reward as rewards
from nas.study.confirmation import Confirm, Standing
from nas.study.metrics import ACCURACY, COUNTED, NUM_MACS, Metric, by_name
from nas.study.reward import Reward
from nas.study.study import Listener
from nas.study.trial import CompletedTrial, FinishedTrial
from search_space import spaces
from search_space.space import SearchSpace
from search_space.spec import ArchSpec
from trainers.measurement import Infeasible, Measured
from trainers.runtime import optional

KIND = "python"
"""What the header of such a search's journal calls it."""

Score = Callable[[ArchSpec], Mapping[str, float]]
"""Architecture -> metrics by name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored:
    """Measures by a function, one architecture after another in this process."""

    score: Score
    metrics: tuple[Metric, ...] = (ACCURACY,)

    @property
    def place(self) -> Place:
        """See `Evaluator`."""
        return "driver"

    def prepare(self) -> Evaluate:
        """See `Evaluator`."""

        def evaluate(spec: ArchSpec, seed: int) -> Measured | Infeasible:
            del seed
            return Measured(metrics=self.score(spec))

        return evaluate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
    """What a search found; everything is in its folder as well."""

    folder: Path
    space: SearchSpace
    contents: journal.Contents

    @property
    def trials(self) -> tuple[FinishedTrial, ...]:
        """All finished trials, in order."""
        return self.contents.trials

    @property
    def best(self) -> CompletedTrial | None:
        """The trial of the highest reward, confirmed; None if none was measured."""
        best = confirmation.best(self.standings)
        return None if best is None else best.trial

    @property
    def standings(self) -> list[Standing]:
        """The measured trials, in order, with what was measured again of each."""
        return self.contents.standings

    @property
    def front(self) -> list[CompletedTrial]:
        """The trials that no other beats in all of the objectives."""
        return results.front(self.contents.completed, self.contents.header.front)

    def spec(self, trial: FinishedTrial) -> ArchSpec:
        """Returns the architecture of a trial."""
        return self.space.decode(trial.tokens)

    def to_pandas(self) -> Any:
        """Returns a pandas DataFrame, a row a trial: its metrics, reward, decisions.

        A decision that does not matter in a trial is None.

        Raises:
          ImportError: if pandas is not installed.
        """
        if lack := optional.missing("pandas"):
            raise ImportError(f"to_pandas {lack}")
        import pandas as pd  # pyright: ignore[reportMissingImports]

        names = [decision.name for decision in self.space.decisions]
        rows = [
            {
                "trial": trial.index,
                "reward": getattr(trial, "reward", None),
                "infeasible": getattr(trial, "infeasible", None),
                **trial.metrics,
                **dict(zip(names, self._choices(trial), strict=True)),
            }
            for trial in self.trials
        ]
        return pd.DataFrame(rows).set_index("trial") if rows else pd.DataFrame()

    def _choices(self, trial: FinishedTrial) -> list[Any]:
        tokens = np.array([trial.tokens], np.int32)
        (matters,) = active(self.space.num_choices, self.space.conditions, tokens)
        return [
            decision.choices[token] if used else None
            for decision, token, used in zip(
                self.space.decisions, trial.tokens, matters, strict=True
            )
        ]


def search(  # noqa: PLR0913  (whatever a search is made of, by name)
    space: str | SearchSpace,
    evaluator: Evaluator | Score,
    *,
    reward: Reward | None = None,
    controller: str | Controller[Any] = "dyna",
    num_trials: int = 200,
    rewards_per_update: int = 5,
    seed: int = 0,
    objectives: Sequence[str] | None = None,
    callbacks: Sequence[Listener] = (),
    confirm: int = 10,
    confirm_repeats: int = 3,
    workers: WorkerOptions | None = None,
    output: str | Path | None = None,
    resume: str | Path | None = None,
    console: Console | None = None,
) -> Results:
    """Searches a space, and returns what was found.

    Args:
      space: a space, or the name of one of ours.
      evaluator: measures architectures: an `Evaluator`, or a function of the
        architecture that returns its metrics.
      reward: of the metrics by name, higher is better; by default the accuracy times
        (multiply-adds / 400M)^-0.07, as in the papers.
      controller: proposes architectures: a name, or an object of the interface.
      num_trials: in all, those of an earlier run included.
      rewards_per_update: the controller learns whenever so many have arrived.
      seed: of the controller and of the trials.
      objectives: names of the metrics that the front is over, the quality first; by
        default those of the evaluator and multiply-adds.
      callbacks: told of every trial that starts and ends.
      confirm: so many of the best are measured again in the end, where the evaluator
        states an error of its first objective; the best of those means wins.
      confirm_repeats: how often each of them is.
      workers: who measures, where the evaluator runs on workers.
      output: the run's folder; by default a new one under runs/.
      resume: the folder of an earlier run to go on with.
      console: where progress is shown; by default standard output.

    Raises:
      ValueError: if something does not fit. One line.
      EvaluationError: if a trial ends in an exception.
      Interrupted: on Ctrl-C; what is finished is in the journal.
      OSError: if the folder cannot be written.
    """
    jax.config.update("jax_platforms", "cpu")  # accelerators are for the workers
    searched = spaces.load(space) if isinstance(space, str) else space
    measures = evaluator
    if not isinstance(measures, Evaluator):
        measures = Scored(score=measures)
    if isinstance(controller, str):
        controller = controllers.build(
            controller,
            num_choices=searched.num_choices,
            conditions=searched.conditions,
        )
    named = objectives or (*(m.name for m in measures.metrics), NUM_MACS.name)
    setup = Setup(
        kind=KIND,
        definition=Definition(
            search=SearchOptions(
                space=searched.name, seed=seed, rewards_per_update=rewards_per_update
            )
        ),
        space=searched,
        controller=controller,
        reward=reward or rewards.soft(NUM_MACS.name, 400e6),
        evaluator=measures,
        objectives=tuple(named),
        data=RunData(description=f"whatever {type(measures).__name__} measures"),
        rewards_per_update=rewards_per_update,
        seed=seed,
        num_trials=num_trials,
        workers=workers or WorkerOptions(),
        batch_size=None,
        output=None if output is None else Path(output),
        resume=None if resume is None else Path(resume),
        callbacks=tuple(callbacks),
        confirm=Confirm(
            number=confirm,
            repeats=confirm_repeats,
            quality=by_name([*measures.metrics, *COUNTED])[named[0]],
        ),
    )
    with contextlib.ExitStack() as stack:
        driver.check_workers(setup.workers)
        started = driver.start(setup, stack)
        driver.run(started, console or Console(soft_wrap=True), Interrupts())
        contents = journal.read(started.folder.journal)
        results.write(started.folder, contents, searched)
    return Results(folder=started.folder.path, space=searched, contents=contents)


def load(folder: str | Path, space: SearchSpace) -> Results:
    """Returns what the run in `folder` has found so far.

    Raises:
      ValueError: if there is no journal, or it is damaged. One line.
    """
    path = RunFolder(Path(folder))
    return Results(folder=path.path, space=space, contents=journal.read(path.journal))
