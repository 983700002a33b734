"""One search under way: what to evaluate next, and what to do with each outcome.

`Session` keeps the one order that matters: an outcome goes to the journal, then to
the controller, then to whoever is watching. It knows nothing of where children are
evaluated; `nas.execution.tune` drives it over Ray, and an in-process loop can as well:

    while (job := session.next_job()) is not None:
        session.finish(job.index, evaluate(job.spec, job.seed), worker)
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, SupportsIndex

import numpy as np

from nas.runs import journal
from nas.study.proposals import Proposals
from search_space import cost
from search_space.spec import ArchSpec
from trainers.measurement import Infeasible, Measurement

Reward = Callable[[float, float], float]
"""(accuracy, objective) -> reward, higher is better. By default the objective is the
number of multiply-adds."""

# A journal's line keeps this many points of a loss curve.
_CURVE_POINTS = 32
_LONGEST_REASON = 2_000


class Decoder(Protocol):
    """Says what architecture tokens stand for: a `SearchSpace`, or a `Lineup`."""

    def decode(self, tokens: Iterable[SupportsIndex]) -> ArchSpec:
        """Returns the architecture."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A child to evaluate. `seed` depends on the run's seed and the index alone."""

    index: int
    tokens: tuple[int, ...]
    spec: ArchSpec
    seed: int


class Listener(Protocol):
    """Watches a search: a screen, a log of scalars."""

    def started(self, job: Job) -> None:
        """A child was handed out."""

    def finished(self, child: journal.Child) -> None:
        """A child was journaled and the controller has learned of it."""


class ReplayError(ValueError):
    """A journal that this program's controller would not have led to."""


class Session:
    """A search for `num_children` children, new or continued from `contents`."""

    def __init__(
        self,
        *,
        space: Decoder,
        proposals: Proposals,
        reward: Reward,
        seed: int,
        num_children: int,
        contents: journal.Contents,
        writer: journal.Writer,
    ) -> None:
        """Replays `contents`, so that `proposals` stand where the journal ends.

        Raises:
          ReplayError: if a child in the journal is not the one that would have been
            proposed.
        """
        self._space = space
        self._proposals = proposals
        self._reward = reward
        self._seed = seed
        self._num_children = num_children
        self._writer = writer
        self._listeners: list[Listener] = []
        self._asked = 0
        self._under_way: dict[int, Job] = {}
        for child in contents.children:
            self._replay(child)
        self._to_repeat = list(self._under_way.values())

    @property
    def num_left(self) -> int:
        """Children that are still to finish; those in flight at a kill count."""
        return len(self._under_way) + max(0, self._num_children - self._asked)

    @property
    def proposals(self) -> Proposals:
        """Where children come from."""
        return self._proposals

    def watch(self, listener: Listener) -> None:
        """Tells `listener` of everything from now on."""
        self._listeners.append(listener)

    def next_job(self) -> Job | None:
        """Returns the next child to evaluate; None when there are enough.

        Those that were in flight when the search was interrupted come first.
        """
        if self._to_repeat:
            job = self._to_repeat.pop(0)
        elif self._asked < self._num_children:
            job = self._ask()
        else:
            job = None
        if job is not None:
            for listener in self._listeners:
                listener.started(job)
        return job

    def finish(
        self,
        index: int,
        outcome: Measurement | Infeasible,
        worker: journal.Worker | None,
    ) -> None:
        """Records the outcome of a child that `next_job` handed out.

        Raises:
          KeyError: if it was not handed out, or is finished already.
          OSError: if the journal cannot be written; the search must stop then.
        """
        job = self._under_way.pop(index)
        child = self._child(job, outcome, worker)
        self._writer.append(child)
        self._tell(child)
        for listener in self._listeners:
            listener.finished(child)

    def _ask(self) -> Job | None:
        proposal = self._proposals.suggest()
        if proposal is None:  # the space is exhausted
            return None
        self._asked += 1
        tokens = tuple(int(token) for token in proposal.tokens)
        job = Job(
            index=proposal.index,
            tokens=tokens,
            spec=self._space.decode(tokens),
            seed=child_seed(self._seed, proposal.index),
        )
        self._under_way[job.index] = job
        return job

    def _replay(self, child: journal.Child) -> None:
        while self._asked < child.asked and self._ask() is not None:
            pass
        job = self._under_way.pop(child.index, None)
        if job is None or job.tokens != child.tokens:
            proposed = "nothing" if job is None else list(job.tokens)
            raise ReplayError(
                f"child {child.index} of the journal has tokens {list(child.tokens)}, "
                f"where the controller proposes {proposed}; resume with the versions "
                "of the packages that config.json names, or start a new search"
            )
        self._tell(child)

    def _tell(self, child: journal.Child) -> None:
        reward = child.reward if isinstance(child, journal.Trained) else None
        self._proposals.record(child.index, reward)

    def _child(
        self,
        job: Job,
        outcome: Measurement | Infeasible,
        worker: journal.Worker | None,
    ) -> journal.Child:
        num_macs, num_params = cost.num_macs(job.spec), cost.num_params(job.spec)
        if isinstance(outcome, Measurement):
            outcome = _refuse_nonsense(outcome)
        if isinstance(outcome, Infeasible):
            return journal.Failed(
                index=job.index,
                asked=self._asked,
                tokens=job.tokens,
                num_macs=num_macs,
                num_params=num_params,
                finished=time.time(),
                worker=worker,
                infeasible=_printable(outcome.reason),
            )
        objective = num_macs if outcome.objective is None else outcome.objective
        return journal.Trained(
            index=job.index,
            asked=self._asked,
            tokens=job.tokens,
            num_macs=num_macs,
            num_params=num_params,
            finished=time.time(),
            worker=worker,
            reward=self._reward(outcome.accuracy, objective),
            accuracy=outcome.accuracy,
            losses=_thinned(outcome.losses),
            num_steps=len(outcome.losses),
            images_per_second=outcome.images_per_second,
            seconds=journal.Seconds(
                compile=outcome.compile_seconds,
                train=outcome.train_seconds,
                eval=outcome.eval_seconds,
            ),
            objective=outcome.objective,
        )


def child_seed(seed: int, index: int) -> int:
    """Returns the training seed of a child, in [0, 2^32): the same in every rerun."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1)[0])


def _refuse_nonsense(measurement: Measurement) -> Measurement | Infeasible:
    """A measurement that cannot be true is never rewarded."""
    if not 0.0 <= measurement.accuracy <= 1.0:
        return Infeasible(f"accuracy must be in [0, 1], got {measurement.accuracy}")
    amounts = {
        "images_per_second": measurement.images_per_second,
        "compile_seconds": measurement.compile_seconds,
        "train_seconds": measurement.train_seconds,
        "eval_seconds": measurement.eval_seconds,
    }
    for name, amount in amounts.items():
        if not (math.isfinite(amount) and amount >= 0.0):
            return Infeasible(f"{name} must be finite and not negative, got {amount}")
    objective = measurement.objective
    if objective is not None and not 0.0 < objective < math.inf:
        return Infeasible(f"objective must be finite and positive, got {objective}")
    if not all(math.isfinite(loss) for loss in measurement.losses):
        return Infeasible("a training loss was not finite")
    return measurement


def _printable(reason: str) -> str:
    """`reason` as valid text of limited length, whatever an exception said."""
    text = reason.encode(errors="replace").decode()[:_LONGEST_REASON]
    return text or "no reason given"


def _thinned(losses: Sequence[float]) -> tuple[float, ...]:
    """At most `_CURVE_POINTS` of `losses`, evenly spaced, the ends among them."""
    if len(losses) <= _CURVE_POINTS:
        return tuple(float(loss) for loss in losses)
    positions = np.linspace(0, len(losses) - 1, _CURVE_POINTS).round().astype(int)
    return tuple(float(losses[position]) for position in positions)
