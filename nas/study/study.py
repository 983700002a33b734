"""One study under way: what to measure next, and what to do with each outcome.

`Study` keeps the one order that matters: an outcome goes to the journal, then to the
controller, then to whoever is watching. It knows nothing of where trials run;
`nas.execution` drives it over Ray or in this process:

    while (trial := study.next_trial()) is not None:
        study.finish(trial, evaluate(trial.spec, trial.seed), worker)
"""

import dataclasses
import hashlib
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, SupportsIndex, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nas.study.confirmation import Confirm, standings
from nas.study.halving import Halving, Rungs, latest
from nas.study.metrics import COUNTED, Metric, by_name
from nas.study.proposals import Proposals, Tokens
from nas.study.reward import Reward
from nas.study.trial import (
    CompletedTrial,
    FinishedTrial,
    InfeasibleTrial,
    Key,
    Trial,
    Worker,
)
from search_space import cost
from search_space.spec import ArchSpec
from trainers.measurement import Infeasible, Measured

# A trial's record keeps this many points of a loss curve.
_CURVE_POINTS = 32
_LONGEST_REASON = 2_000
# A snapshot of a large controller takes milliseconds, as some trials do.
_SECONDS_BETWEEN_SNAPSHOTS = 1.0

Snapshot = Mapping[str, NDArray[Any]]


class Decoder(Protocol):
    """Says what architecture tokens stand for, such as a `SearchSpace`."""

    def decode(self, tokens: Iterable[SupportsIndex]) -> ArchSpec:
        """Returns the architecture."""
        ...


@runtime_checkable
class HasFidelities(Decoder, Protocol):
    """A decoder whose tokens also say at which budget to measure."""

    def fidelity(self, tokens: Iterable[SupportsIndex]) -> int:
        """Returns which of the evaluator's budgets it is, from 0."""
        ...


class Listener(Protocol):
    """Watches a study: a screen, a log of scalars, a user's own callback."""

    def started(self, trial: Trial, /) -> None:
        """A trial was handed out."""

    def finished(self, trial: FinishedTrial, /) -> None:
        """A trial was journaled and the controller has learned of it.

        Of one that was measured again, whose `repeat` is above 0, it has not.
        """


class Store(Protocol):
    """Where a study keeps what must outlive it."""

    def append(self, trial: FinishedTrial) -> None:
        """Keeps a finished trial; it is on the disk when this returns.

        Raises:
          OSError: if the disk does not take it.
        """

    def keep_weights(self, index: int, weights: bytes) -> None:
        """Keeps a trial's weights to go on from, in place of those it had.

        Raises:
          OSError: if the disk does not take them.
        """

    def weights(self, index: int) -> bytes | None:
        """Returns the weights that were kept of a trial; None if there are none."""

    def drop_weights(self, index: int) -> None:
        """Forgets the weights that were kept of a trial, if there are any."""

    def save(self, snapshot: Snapshot) -> None:
        """Keeps what the controller knows, in place of what was kept before.

        Raises:
          OSError: if the disk does not take it.
        """


class Study:
    """A search for `num_trials` trials, new or continued from those that `known` has.

    A study that goes on tells its controller of the known trials; which controller
    proposed them, and who measured them, does not matter. From a snapshot it goes on
    as if it had never stopped, and hands out the trials that were pending then.

    With `halving` a trial is the first rung of its architecture, and the promising go
    on to the next ones: their records have a `fidelity` above 0. The controller is told
    of them again.

    Once all trials are finished, the best are measured again, as `confirm` says. A
    study that goes on after that tells its controller of their mean rewards.
    """

    def __init__(  # noqa: PLR0913  (whatever a study is made of, by name)
        self,
        *,
        space: Decoder,
        proposals: Proposals,
        reward: Reward,
        metrics: Sequence[Metric],
        seed: int,
        num_trials: int,
        store: Store,
        known: Sequence[FinishedTrial] = (),
        snapshot: Snapshot | None = None,
        confirm: Confirm | None = None,
        halving: Halving | None = None,
    ) -> None:
        """Tells `proposals` of what is known.

        Args:
          space: says what tokens stand for.
          proposals: fresh ones of the controller.
          reward: of a trial's metrics.
          metrics: what the evaluator measures.
          seed: of the trials' training.
          num_trials: trials in all, the known ones included.
          store: where finished trials go.
          known: finished trials, in order, and what was measured again of them.
          snapshot: what `Store.save` was given last, if it is still there.
          confirm: how the best are measured again; None for not at all.
          halving: how the promising go on to longer trainings; None for not at all.

        Raises:
          ValueError: if a known trial's tokens are none of the space.
        """
        self._space = space
        self._proposals = proposals
        self._reward = reward
        self._metrics = by_name([*metrics, *COUNTED])
        self._seed = seed
        self._num_trials = num_trials
        self._store = store
        self._listeners: list[Listener] = []
        self._trials: dict[int, Trial] = {}
        self._confirm = confirm
        self._again = [record for record in known if record.repeat]
        known = [trial for trial in known if not trial.repeat]
        self._measured = {r.key: r for r in known if isinstance(r, CompletedTrial)}
        self._rungs = None if halving is None else Rungs(halving)
        self._kept = {record.index for record in known}  # whose weights may be there
        self._later: dict[Key, Trial] = {}  # under way: promoted, or measured again
        self._num_finished = self._num_records = 0
        self._is_exhausted = False
        self._last_snapshot = -math.inf
        self._asked = 0
        self._free: list[int] = []
        self._told = hashlib.sha256()
        # The controller has not been told of what was measured again: all is told anew.
        num_known = len({trial.index for trial in known})
        told_all = bool(self._again) and num_trials > num_known
        start = 0 if told_all else self._restore(snapshot, known)
        self._catch_up(known[start:], exactly=start > 0)
        self._to_repeat = list(self._trials.values())

    @property
    def num_unassigned(self) -> int:
        """How many trials `next_trial` has to give, if the space holds so many."""
        asked = self._num_finished + len(self._trials)
        left = len(self._to_repeat) + max(0, self._num_trials - asked)
        promotable = [] if self._rungs is None else list(self._rungs.promotable())
        return left + len(promotable) + len(self._to_confirm())

    @property
    def proposals(self) -> Proposals:
        """Where trials come from."""
        return self._proposals

    def watch(self, listener: Listener) -> None:
        """Tells `listener` of everything from now on."""
        self._listeners.append(listener)

    def next_trial(self) -> Trial | None:
        """Returns the next trial to measure; None when there is none for now.

        Those that were pending when the study was interrupted come first. What is
        measured again follows when the last trial is finished.
        """
        if self._to_repeat:
            trial = self._to_repeat.pop(0)
        elif promoted := self._promoted():
            trial = promoted
        elif self._num_finished + len(self._trials) < self._num_trials:
            trial = self._ask()
        elif unconfirmed := self._to_confirm():
            trial = unconfirmed[0]
            self._later[trial.key] = trial
        else:
            trial = None
        if trial is not None:
            for listener in self._listeners:
                listener.started(trial)
        return trial

    def finish(
        self,
        trial: Trial,
        outcome: Measured | Infeasible,
        worker: Worker | None,
        weights: bytes | None = None,
    ) -> None:
        """Records the outcome of a trial that `next_trial` handed out.

        `weights` are what it would go on from.

        Raises:
          KeyError: if it was not handed out, or is finished already.
          OSError: if it cannot be stored; the study must stop then.
        """
        if trial.key in self._later:
            del self._later[trial.key]
        else:
            del self._trials[trial.index]
        record = self._record(trial, outcome, worker)
        if self._rungs is not None and weights is not None and not trial.repeat:
            self._store.keep_weights(trial.index, weights)
            self._kept.add(trial.index)
        self._store.append(record)
        if record.repeat:
            self._again.append(record)
        else:
            self._take(record)
            self._drop_weights()
            self.save(at_most_every=_SECONDS_BETWEEN_SNAPSHOTS)
        for listener in self._listeners:
            listener.finished(record)

    def save(self, *, at_most_every: float = 0.0) -> None:
        """Stores a snapshot, unless one was stored so many seconds ago.

        Raises:
          OSError: if it cannot be stored.
        """
        now = time.monotonic()
        if now - self._last_snapshot < at_most_every:
            return
        self._last_snapshot = now
        self._store.save(self._snapshot())

    def _take(self, record: FinishedTrial) -> None:
        if isinstance(record, CompletedTrial):
            self._measured[record.key] = record
        if self._rungs is not None:
            self._rungs.add(record)
        if self._is_later(record):
            if self._rungs is not None and isinstance(record, CompletedTrial):
                comparable = self._rungs.comparable(record.index)
                self._proposals.revise(record.tokens, comparable)
        else:
            self._proposals.record(record.tokens, _reward_of(record))
            self._num_finished += 1
        self._num_records += 1
        self._told.update(_line(record))

    def _is_later(self, measured: FinishedTrial | Trial) -> bool:
        """Whether it is of an architecture that was measured before."""
        return bool(measured.repeat or (self._rungs is not None and measured.fidelity))

    def _promoted(self) -> Trial | None:
        """The next trial that goes on to a higher rung, if any may."""
        if self._rungs is None:
            return None
        for index, rung in self._rungs.promotable():
            below = self._measured[index, rung - 1, 0]
            trial = dataclasses.replace(
                self._trial(index, below.tokens),
                fidelity=rung,
                weights=self._store.weights(index),
            )
            self._rungs.begin(index, rung)
            self._later[trial.key] = trial
            return trial
        return None

    def _drop_weights(self) -> None:
        """Forgets the weights of those that will hardly go on."""
        if self._rungs is not None:
            for index in self._kept.intersection(self._rungs.expendable()):
                self._store.drop_weights(index)
                self._kept.discard(index)

    def _to_confirm(self) -> list[Trial]:
        """What is still to be measured again: every candidate once, then once more."""
        is_over = self._num_finished >= self._num_trials or self._is_exhausted
        promoted = any(not trial.repeat for trial in self._later.values())
        if self._confirm is None or self._trials or promoted or not is_over:
            return []
        known = {
            (one.index, one.repeat) for one in (*self._again, *self._later.values())
        }
        left = self._confirm.left(latest(self._measured.values()), known)
        return [self._trial(t.index, t.tokens, repeat) for t, repeat in left]

    def _snapshot(self) -> dict[str, NDArray[Any]]:
        pending = [t.index for t in self._trials.values()]
        return self._proposals.snapshot() | {
            "num_records": np.array(self._num_records, np.int64),
            "told": np.frombuffer(self._told.digest(), np.uint8),
            "asked": np.array(self._asked, np.int64),
            "free": np.array(self._free, np.int64),
            "pending_indices": np.array(pending, np.int64),
        }

    def _restore(
        self, snapshot: Snapshot | None, known: Sequence[FinishedTrial]
    ) -> int:
        """Returns of how many of the known trials the snapshot knew."""
        if snapshot is None:
            return 0
        try:
            number = int(snapshot["num_records"])
            asked = int(snapshot["asked"])
            free = [int(index) for index in snapshot["free"]]
            indices = [int(index) for index in snapshot["pending_indices"]]
            told = hashlib.sha256(b"".join(map(_line, known[:number])))
            if bytes(snapshot["told"]) != told.digest():
                return 0  # of another journal
            recorded = [trial.tokens for trial in known[:number]]
            self._proposals.restore(snapshot, recorded)
        except (KeyError, TypeError, ValueError):
            return 0  # of another version or controller: tell it all again
        self._told = told
        self._num_records = len(known[:number])
        self._num_finished = sum(not self._is_later(r) for r in known[:number])
        self._asked, self._free = asked, free
        if self._rungs is not None:
            for record in known[:number]:
                self._rungs.add(record)
        for index, tokens in zip(indices, self._proposals.pending, strict=False):
            self._trials[index] = self._trial(index, tokens)
        return number

    def _catch_up(self, known: Sequence[FinishedTrial], *, exactly: bool) -> None:
        """Learns of trials that the snapshot did not know, or of all.

        Where each of them is what would have been suggested, the study goes on as if
        it had not stopped.
        """
        rest = list(known)
        while exactly and rest and (self._is_later(rest[0]) or self._repeats(rest[0])):
            record = rest.pop(0)
            if not self._is_later(record):
                del self._trials[record.index]
            self._take(record)
        for trial in rest:
            self._space.decode(trial.tokens)
        self._learn(rest)
        new = [record for record in rest if not self._is_later(record)]
        self._num_finished += len(new)
        self._num_records += len(rest)
        for record in rest:
            self._told.update(_line(record))
        taken = {trial.index for trial in new}
        self._trials = {
            index: trial
            for index, trial in self._trials.items()
            if index not in taken and trial.tokens in self._proposals.pending
        }
        self._number_anew(taken)

    def _learn(self, records: Sequence[FinishedTrial]) -> None:
        """Tells the controller of each architecture once, by all that is known of it.

        The mean over its measurements, or where there are rungs, its highest reward as
        if it had been measured at the lowest.
        """
        rungs = self._rungs
        completed = latest(records)
        means = {
            s.trial.index: s.mean_of_all for s in standings(completed, self._again)
        }
        if rungs is not None:
            for record in records:
                rungs.add(record)
            means = {trial.index: rungs.comparable(trial.index) for trial in completed}
        tokens = {record.index: record.tokens for record in records}
        self._proposals.learn((row, means.get(i)) for i, row in tokens.items())

    def _number_anew(self, taken: set[int]) -> None:
        """Leaves no index out: those that nobody has finished are used first."""
        if not taken:
            return
        end = max(self._asked, max(taken) + 1)
        unused = set(self._free) | set(range(self._asked, end))
        self._free = sorted(unused - taken - self._trials.keys())
        self._asked = end

    def _repeats(self, trial: FinishedTrial) -> bool:
        """Asks for as many suggestions as there were; whether `trial` is among them."""
        asked = trial.asked or 0
        while self._asked < asked <= self._num_trials + len(self._trials) + 1:
            if self._ask() is None:
                break
        found = self._trials.get(trial.index)
        return found is not None and found.tokens == trial.tokens

    def _ask(self) -> Trial | None:
        tokens = self._proposals.suggest()
        if tokens is None:
            self._is_exhausted = True
            return None
        if self._free:
            index = self._free.pop(0)
        else:
            index, self._asked = self._asked, self._asked + 1
        self._trials[index] = self._trial(index, tokens)
        return self._trials[index]

    def _trial(self, index: int, tokens: Tokens, repeat: int = 0) -> Trial:
        return Trial(
            index=index,
            repeat=repeat,
            tokens=tokens,
            spec=self._space.decode(tokens),
            seed=trial_seed(self._seed, index, repeat),
            fidelity=self._fidelity(tokens, repeat),
        )

    def _fidelity(self, tokens: Tokens, repeat: int) -> int:
        if isinstance(self._space, HasFidelities):
            return self._space.fidelity(tokens)
        return self._rungs.top if self._rungs is not None and repeat else 0

    def _record(
        self, trial: Trial, outcome: Measured | Infeasible, worker: Worker | None
    ) -> FinishedTrial:
        counted: dict[str, int | float] = {
            "num_macs": cost.num_macs(trial.spec),
            "num_params": cost.num_params(trial.spec),
        }
        if isinstance(outcome, Measured):
            outcome = _refuse_nonsense(outcome, self._metrics)
        common: dict[str, Any] = {
            "index": trial.index,
            "repeat": trial.repeat,
            "tokens": trial.tokens,
            "fidelity": trial.fidelity,
            "asked": None if self._is_later(trial) else self._asked,
            "finished": time.time(),
            "worker": worker,
        }
        if isinstance(outcome, Infeasible):
            return InfeasibleTrial(
                **common, metrics=counted, infeasible=_printable(outcome.reason)
            )
        metrics = {**outcome.metrics, **counted}
        return CompletedTrial(
            **common,
            metrics=metrics,
            reward=float(self._reward(metrics)),
            spread=dict(outcome.spread),
            repeats=outcome.repeats,
            losses=_thinned(outcome.losses),
            num_steps=len(outcome.losses),
            seconds=outcome.seconds,
        )


def trial_seed(seed: int, index: int, repeat: int = 0) -> int:
    """Returns the training seed of a trial, in [0, 2^32): the same in every rerun."""
    entropy = [seed, index, repeat] if repeat else [seed, index]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def _line(trial: FinishedTrial) -> bytes:
    rung = (trial.fidelity,) if trial.fidelity else ()
    return repr((trial.index, *rung, trial.tokens, _reward_of(trial))).encode()


def _reward_of(trial: FinishedTrial) -> float | None:
    return trial.reward if isinstance(trial, CompletedTrial) else None


def _refuse_nonsense(
    measured: Measured, metrics: Mapping[str, Metric]
) -> Measured | Infeasible:
    """A measurement that cannot be true is never rewarded."""
    amounts = {**measured.spread, **dataclasses.asdict(measured.seconds)}
    reasons = [
        *_wrong_metrics(measured.metrics, metrics),
        *(
            f"{name} must be finite and not negative, got {amount}"
            for name, amount in amounts.items()
            if not (math.isfinite(amount) and amount >= 0.0)
        ),
    ]
    if not all(map(math.isfinite, measured.losses)):
        reasons.append("a training loss was not finite")
    return Infeasible(reasons[0]) if reasons else measured


def _wrong_metrics(
    measured: Mapping[str, float], metrics: Mapping[str, Metric]
) -> Iterator[str]:
    for name, value in measured.items():
        if name not in metrics:
            yield f"{name} is no metric of this search, which has {', '.join(metrics)}"
        elif not math.isfinite(value):
            yield f"{name} must be finite, got {value}"
        elif metrics[name].unit == "share" and not 0.0 <= value <= 1.0:
            yield f"{name} must be in [0, 1], got {value}"
    counted = {metric.name for metric in COUNTED}
    if missing := metrics.keys() - measured.keys() - counted:
        yield f"{', '.join(sorted(missing))} was not measured"


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
