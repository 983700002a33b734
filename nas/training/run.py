"""One training run under way: its folder, its segments, what it leaves behind.

A run is cut into segments, each a call of `trainers.loop.fit` that ends at a
checkpoint. After a kill at any moment the run goes on from the last one, and gives the
losses that it would have given. Each file is the one record of what it holds: how good
the best weights are is read from their own checkpoint, which may be ahead of the last.
result.json comes at the very end: with it a run is finished, and nothing changes it.
"""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from tensorboardX import SummaryWriter

from nas.monitoring.display import format_seconds
from nas.monitoring.pace import Pace
from nas.training import models
from search_space import files
from search_space.spec import ArchSpec
from trainers import loop
from trainers.checkpoint import CheckpointError, Checkpoints
from trainers.data.dataset import Dataset, Examples
from trainers.data.loader import DataLoader
from trainers.data.placement import data_loader
from trainers.deploy import saved
from trainers.networks.classifier import Classifier
from trainers.phases import Phase
from trainers.recipes import TrainingConfig
from trainers.runtime import compilation, devices
from trainers.steps.jitted import JittedStep, NetworkState, averaged
from trainers.tasks.task import Batch

LAST, BEST, LOSSES, RESULT = "last", "best", "losses.jsonl", "result.json"

_MAX_LOSSES_BYTES = 2**30  # a loss takes some 20 bytes
_STRICT = ConfigDict(strict=True, extra="forbid")
_MAX_RESULT_BYTES = 2**20
_SILENCE_SECONDS = 30.0  # after which a long segment says how far it is

Say = Callable[[str, str], None]
"""(heading, text) -> a line for people."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What result.json holds: shares by name, such as `accuracy of EMA`.

    None where there is no such split, or nothing was held out.
    """

    version: Literal[1] = 1
    steps: int
    validation: dict[str, float] | None = None
    test: dict[str, float] | None = None


_RESULT = TypeAdapter(Result)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A run, checked: what is trained, on what, and how.

    `spec` is as trained: at the training resolution, with the data set's channels and
    classes. `save_every` is in steps. `final` is whether validation images are trained
    on as well; the best weights cannot be told then.
    """

    folder: Path
    spec: ArchSpec
    network: Classifier
    dataset: Dataset
    test: Examples | None
    config: TrainingConfig
    seed: int
    devices: int | None
    head_only: bool
    save_every: int
    final: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Entered:
    """A phase under way: its step, the batches left, the run's step it ends at."""

    phase: Phase
    end: int
    step: JittedStep
    batches: Iterator[Batch]


class Run:
    """A training run, new or continued from its folder."""

    def __init__(self, plan: Plan, say: Say) -> None:
        """Reads the images and the last checkpoint.

        Raises:
          ValueError: if the batch cannot be split over the devices, or the checkpoint
            is not of this run.
        """
        self._plan, self._say, config = plan, say, plan.config
        split_over = devices.local(plan.devices)
        number = split_over.mesh.size
        if config.batch_size % (parts := number * config.accumulation):
            raise ValueError(
                f"--batch-size must be a multiple of {parts}, for {number} devices"
                f" and {config.accumulation} parts, got {config.batch_size}"
            )
        self._devices = split_over
        size = plan.spec.resolution
        say("Reading", f"{len(plan.dataset.train):,} images at {size} pixels")
        self._loader = data_loader(plan.dataset, size, config.framing)
        self._step = self._step_on(self._loader)
        self._places = {size: (self._loader, self._step)}
        num_examples = len(plan.dataset.train)
        self._phases = config.phases(num_examples, plan.spec)
        self._rates = config.learning_rates(num_examples)
        self._steps_per_epoch = max(1, round(num_examples / config.batch_size))
        self._state = self._step.initial()
        self._done, self._best = 0, -1.0
        self._compiling, self._compiled = compilation.CompileTime(), 0.0
        self._pace = Pace(done=0, num_steps=self.num_steps, clock=self._clock)

    @property
    def num_steps(self) -> int:
        """Steps of the whole run."""
        return len(self._rates)

    def train(self) -> Result:
        """Trains to the end; returns what result.json holds.

        Raises:
          DivergedError: if a loss is not finite.
          CheckpointError: if the last checkpoint is damaged.
          OSError: if the folder cannot be written.
        """
        plan = self._plan
        with contextlib.ExitStack() as stack:
            self._compiling = stack.enter_context(compilation.measured())
            last = stack.enter_context(Checkpoints(plan.folder / LAST))
            best = None
            if not plan.final:
                best = stack.enter_context(Checkpoints(plan.folder / BEST))
            board = stack.enter_context(contextlib.closing(self._resume(last, best)))
            if self._done < self.num_steps:
                self._say_compiling()
            self._pace = Pace(
                done=self._done, num_steps=self.num_steps, clock=self._clock
            )
            ends = itertools.accumulate(phase.steps for phase in self._phases)
            for number, (phase, end) in enumerate(
                zip(self._phases, ends, strict=True), 1
            ):
                if self._done >= end:
                    continue
                if len(self._phases) > 1:
                    self._say_stage(number, phase, end)
                entered = self._entered(phase, end)
                while self._done < end:
                    self._segment(entered, last, best, board)
            if best is not None:
                state, _ = best.restore(self._state)
                self._state = self._step.place(state)
        return self._conclude()

    def _clock(self) -> float:
        """Seconds, without those that went into compilation."""
        return time.perf_counter() - self._compiled

    @contextlib.contextmanager
    def _compilation_apart(self) -> Generator[None]:
        """Takes what is compiled in the block out of the clock's time."""
        before, began = self._compiling.seconds, time.perf_counter()
        yield
        spent, took = self._compiling.seconds - before, time.perf_counter() - began
        self._compiled += min(spent, took)  # traces within traces count twice

    def _say_compiling(self) -> None:
        plan = self._plan
        sizes = dict.fromkeys(phase.resolution for phase in self._phases)
        self._say(
            "Compiling",
            f"the training step of {plan.spec.name} for {plan.config.batch_size} images"
            f" of {', then '.join(map(str, sizes))} pixels, and the evaluation: about a"
            " minute each on a CPU, more for a large network, seconds where the cache"
            " has it",
        )

    def _say_stage(self, number: int, phase: Phase, end: int) -> None:
        strengths, own = phase.strengths, self._plan.spec.head.dropout
        parts = [f"{phase.resolution} pixels", f"dropout {strengths.dropout * own:.2g}"]
        if self._plan.config.randaugment_ops:
            parts.append(f"RandAugment {strengths.randaugment:.3g}")
        for name in ("mixup", "cutmix"):
            if value := getattr(strengths, name):
                parts.append(f"{name} {value:.2g}")
        self._say(
            "Stage",
            f"{number} of {len(self._phases)}, to step {end}: {', '.join(parts)}",
        )

    def _resume(self, last: Checkpoints, best: Checkpoints | None) -> SummaryWriter:
        if best is not None and best.step is not None:
            self._best = _best_accuracy(best.facts())
        if last.step is not None:
            state, _ = last.restore(self._state)
            self._state = self._step.place(state)
            self._done = last.step
            self._say("Resumed", f"after step {self._done} of {self.num_steps}")
        _drop_losses(self._plan.folder / LOSSES, self._done)
        return SummaryWriter(
            str(self._plan.folder / "tensorboard"),
            purge_step=self._done + 1,
            filename_suffix=f".{self._done}",
        )

    def _step_on(self, loader: DataLoader) -> JittedStep:
        plan, config = self._plan, self._plan.config
        return JittedStep(
            plan.network,
            config.step_recipe(),
            devices=self._devices,
            prepare=config.prepare(loader.mean, loader.std, plan.spec.num_classes),
            accumulation=config.accumulation,
            head_only=plan.head_only,
            ema=config.ema_decay > 0,
            decay_biases=config.decay_biases,
        )

    def _entered(self, phase: Phase, end: int) -> _Entered:
        loader, step = self._at(phase.resolution)
        batches = loader.train_batches(
            batch_size=self._plan.config.batch_size,
            steps=self.num_steps,
            seed=self._plan.seed,
            start=self._done,
        )
        return _Entered(phase=phase, end=end, step=step, batches=batches)

    def _at(self, resolution: int) -> tuple[DataLoader, JittedStep]:
        """Returns what trains at a resolution; the last one asked for is kept."""
        if resolution not in self._places:
            framing = self._plan.config.framing
            loader = data_loader(self._plan.dataset, resolution, framing)
            own = {self._plan.spec.resolution: (self._loader, self._step)}
            self._places = own | {resolution: (loader, self._step_on(loader))}
        return self._places[resolution]

    def _segment(
        self,
        entered: _Entered,
        last: Checkpoints,
        best: Checkpoints | None,
        board: SummaryWriter,
    ) -> None:
        """Trains up to the next checkpoint."""
        start, config = self._done, self._plan.config
        stop = min(
            _next_multiple(start, self._plan.save_every),
            _next_multiple(start, self._steps_per_epoch),
            entered.end,
        )
        schedule = loop.Schedule(
            learning_rates=self._rates[:stop],
            norm_momentum=config.norm_momentum,
            strengths=entered.phase.strengths,
            ema_decay=config.ema_decay,
            ema_warmup=True,
            first_step=start,
            seed=self._plan.seed,
        )
        self._pace.begin_part(start)
        part = self._watched(itertools.islice(entered.batches, stop - start), start)
        self._state, losses = loop.fit(entered.step, self._state, part, schedule)
        speed = self._pace.steps_per_second(stop)
        self._done = stop
        text = f"{stop} of {self.num_steps}: loss {losses.mean():.3f}"
        is_epoch = stop % self._steps_per_epoch == 0 or stop == self.num_steps
        if best is not None and is_epoch:
            with self._compilation_apart():
                accuracies = self._accuracies(self._loader)
            text += "".join(f", {k} {v:.2%}" for k, v in accuracies.items())
            for name, value in accuracies.items():
                board.add_scalar(name.replace(" ", "_"), value, stop)
            if (accuracy := list(accuracies.values())[-1]) > self._best:
                self._best = accuracy
                best.save(stop, self._state, {"best": accuracy})
        for step, loss in enumerate(losses.tolist(), start + 1):
            board.add_scalar("loss", loss, step)
        _append_losses(self._plan.folder / LOSSES, start, losses)
        last.save(stop, self._state, {"best": self._best})
        self._say("Step", f"{text}; {self._rate(stop, speed)}")

    def _watched(self, batches: Iterator[Batch], start: int) -> Iterator[Batch]:
        """Yields the batches of a segment, and says how far it is if it takes long."""
        said = time.monotonic()
        for step, batch in enumerate(batches, start + 1):
            compiled = self._compiled
            with self._compilation_apart():
                yield batch  # the step is made before the next one is asked for
            if step == start + 1 and (spent := self._compiled - compiled):
                self._say("Compiled", f"the step in {format_seconds(spent)}")
                said = time.monotonic()
            elif time.monotonic() - said > _SILENCE_SECONDS:
                rate = self._rate(step, self._pace.steps_per_second(step))
                self._say("Step", f"{step} of {self.num_steps}; {rate}")
                said = time.monotonic()

    def _rate(self, step: int, speed: float) -> str:
        """How fast it is, in words, and how long the rest takes after `step` steps."""
        left = format_seconds(self._pace.seconds_left(step))
        images = speed * self._plan.config.batch_size
        return f"{images:,.0f} images a second, {left} left"

    def _accuracies(self, loader: DataLoader) -> dict[str, float]:
        """Of the loader's validation split, by the weights it is measured with."""
        found = self._metrics(loader, self._state)
        if self._plan.config.ema_decay > 0:
            of_averages = self._metrics(loader, averaged(self._state))
            found |= {f"{name} of EMA": value for name, value in of_averages.items()}
        return found

    def _metrics(self, loader: DataLoader, state: NetworkState) -> dict[str, float]:
        size = self._plan.config.batch_size
        state = self._refit(state)
        return loop.evaluate(self._step, state, loader.eval_batches(batch_size=size))

    def _refit(self, state: NetworkState) -> NetworkState:
        """Returns a state whose batch statistics fit its weights.

        From the same training batches whenever it is called. Of a network whose head
        alone is trained, nothing has moved.
        """
        config = self._plan.config
        if self._plan.head_only:
            return state
        batches = self._loader.train_batches(
            batch_size=config.batch_size,
            steps=min(config.norm_batches, self._steps_per_epoch),
            seed=self._plan.seed,
        )
        return loop.refit(self._step, state, batches)

    def _conclude(self) -> Result:
        """Measures the weights to keep on the test split, and writes the model."""
        plan = self._plan
        trained_on, validation, test = plan.dataset.name, None, None
        if plan.final:
            trained_on += ", training and validation images together,"
        else:
            validation = self._accuracies(self._loader)
        if plan.test is not None:
            whole = dataclasses.replace(plan.dataset, validation=plan.test)
            loader = data_loader(whole, plan.spec.resolution, plan.config.framing)
            test = self._accuracies(loader)
        result = Result(steps=self.num_steps, validation=validation, test=test)
        state = self._state
        if plan.config.ema_decay > 0:
            state = averaged(state)
        model = saved.Model(
            spec=plan.spec,
            network=self._step.network(self._refit(state)),
            metadata=saved.ModelMetadata(
                mean=tuple(map(float, self._loader.mean)),
                std=tuple(map(float, self._loader.std)),
                class_names=tuple(map(str, plan.dataset.class_names)),
                weights=f"trained on {trained_on} for {self.num_steps} steps",
                crop=plan.config.framing.crop,
                interpolation=plan.config.framing.interpolation,
            ),
        )
        saved.save(plan.folder / models.TRAINED, model)
        text = _RESULT.dump_json(result, indent=2, exclude_none=True).decode()
        files.write_whole(plan.folder / RESULT, text + "\n")
        return result


def finished(folder: Path) -> Result | None:
    """Returns the result of a run that is finished; None of one that is not.

    Raises:
      ValueError: if result.json is no ordinary file, or too large. One line.
      OSError: if it cannot be read.
    """
    try:
        return _RESULT.validate_json(
            files.read_bounded(folder / RESULT, _MAX_RESULT_BYTES), strict=True
        )
    except (FileNotFoundError, ValidationError):
        return None  # an earlier version could be killed in the middle of writing it


def _best_accuracy(facts: Any) -> float:
    """Returns the best accuracy so far, as a checkpoint has it beside its arrays.

    Raises:
      CheckpointError: if it is no accuracy.
    """
    best = facts.get("best") if isinstance(facts, dict) else None
    if not isinstance(best, float | int) or not -1.0 <= best <= 1.0:
        raise CheckpointError(
            f"a checkpoint must name the best accuracy so far, got {str(best)[:80]};"
            " remove the folder to start anew"
        )
    return float(best)


@pydantic_dataclass(frozen=True, kw_only=True, config=_STRICT)
class _Part:
    """A line of losses.jsonl: the losses of the steps after `after`."""

    after: Annotated[int, Field(ge=0)]
    losses: tuple[float, ...]


_PART = TypeAdapter(_Part)


def _append_losses(path: Path, start: int, losses: np.ndarray) -> None:
    part = _Part(after=start, losses=tuple(losses.tolist()))
    with files.open_in_place(path) as file:
        file.write(_PART.dump_json(part) + b"\n")


def _drop_losses(path: Path, done: int) -> None:
    """Forgets what was written after the checkpoint, and what is no line of losses."""
    kept = [part for part in _parts(path) if part.after < done]
    lines = (_PART.dump_json(part) + b"\n" for part in kept)
    files.write_whole(path, b"".join(lines))


def _parts(path: Path) -> list[_Part]:
    """The lines that are whole: a kill leaves one that is torn."""
    try:
        data = files.read_bounded(path, _MAX_LOSSES_BYTES)
    except FileNotFoundError:
        return []
    parts = []
    for line in data.splitlines():
        with contextlib.suppress(ValidationError):
            parts.append(_PART.validate_json(line))
    return parts


def _next_multiple(number: int, factor: int) -> int:
    return (number // factor + 1) * factor
