"""One training run under way: its folder, its segments, what it leaves behind.

A run is cut into segments, each a call of `trainers.loop.fit` that ends at a
checkpoint. After a kill at any moment the run goes on from the last one, and gives the
losses that it would have given.
"""

import contextlib
import dataclasses
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter

from nas import models
from nas.display import format_seconds
from search_space.spec import ArchSpec
from trainers import devices, loop, saved
from trainers.checkpoint import CheckpointError, Checkpoints
from trainers.data.dataset import Dataset, Examples
from trainers.data.feed import Feed
from trainers.data.placement import feed_of
from trainers.jitted import JittedStep, NetworkState, averaged
from trainers.networks.classifier import Classifier
from trainers.recipes import TrainingConfig

LAST, BEST, LOSSES, RESULT = "last", "best", "losses.jsonl", "result.json"

Say = Callable[[str, str], None]
"""(heading, text) -> a line for people."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A run, checked: what is trained, on what, and how.

    `spec` is as trained: at the training resolution, with the data set's channels and
    classes. `save_every` is in steps.
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
        self._feed = feed_of(plan.dataset, plan.spec.resolution, config.framing)
        self._step = JittedStep(
            plan.network,
            config.step_recipe(),
            devices=split_over,
            prepare=config.prepare(self._feed.mean, self._feed.std),
            accumulation=config.accumulation,
            head_only=plan.head_only,
            decay_biases=config.decay_biases,
        )
        num_examples = len(plan.dataset.train)
        self._rates = config.learning_rates(num_examples)
        self._steps_per_epoch = max(1, round(num_examples / config.batch_size))
        self._state = self._step.initial()
        self._done, self._best = 0, -1.0

    @property
    def num_steps(self) -> int:
        """Steps of the whole run."""
        return len(self._rates)

    def train(self) -> dict[str, Any]:
        """Trains to the end; returns what result.json holds.

        Raises:
          DivergedError: if a loss is not finite.
          CheckpointError: if the last checkpoint is damaged.
          OSError: if the folder cannot be written.
        """
        folder = self._plan.folder
        with (
            Checkpoints(folder / LAST) as last,
            Checkpoints(folder / BEST) as best,
            contextlib.closing(self._resume(last)) as board,
        ):
            batches = self._feed.train_batches(
                batch_size=self._plan.config.batch_size,
                steps=self.num_steps,
                seed=self._plan.seed,
                start=self._done,
            )
            while self._done < self.num_steps:
                self._segment(batches, last, best, board)
            state, _ = best.restore(self._state)
            self._state = self._step.place(state)
        return self._conclude()

    def _resume(self, last: Checkpoints) -> SummaryWriter:
        if last.step is not None:
            state, facts = last.restore(self._state)
            self._state = self._step.place(state)
            self._done, self._best = last.step, _best_accuracy(facts)
            self._say("Resumed", f"after step {self._done} of {self.num_steps}")
        _drop_losses(self._plan.folder / LOSSES, self._done)
        return SummaryWriter(
            str(self._plan.folder / "tensorboard"),
            purge_step=self._done + 1,
            filename_suffix=f".{self._done}",
        )

    def _segment(
        self, batches: Any, last: Checkpoints, best: Checkpoints, board: SummaryWriter
    ) -> None:
        """Trains up to the next checkpoint."""
        start, config = self._done, self._plan.config
        stop = min(
            _next_multiple(start, self._plan.save_every),
            _next_multiple(start, self._steps_per_epoch),
            self.num_steps,
        )
        schedule = loop.Schedule(
            learning_rates=self._rates[:stop],
            norm_momentum=config.norm_momentum,
            ema_decay=config.ema_decay,
            ema_warmup=True,
            first_step=start,
            seed=self._plan.seed,
        )
        began = time.perf_counter()
        part = itertools.islice(batches, stop - start)
        self._state, losses = loop.fit(self._step, self._state, part, schedule)
        seconds = time.perf_counter() - began
        self._done = stop
        text = f"{stop} of {self.num_steps}: loss {losses.mean():.3f}"
        if stop % self._steps_per_epoch == 0 or stop == self.num_steps:
            accuracies = self._accuracies(self._feed)
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
        left = (self.num_steps - stop) * seconds / (stop - start)
        rate = (stop - start) * config.batch_size / seconds
        text += f"; {rate:,.0f} images a second, {format_seconds(left)} left"
        self._say("Step", text)

    def _accuracies(self, feed: Feed) -> dict[str, float]:
        """Of the feed's validation split, by the weights it is measured with."""
        found = {"accuracy": self._accuracy(feed, self._state)}
        if self._plan.config.ema_decay > 0:
            found["accuracy of EMA"] = self._accuracy(feed, averaged(self._state))
        return found

    def _accuracy(self, feed: Feed, state: NetworkState) -> float:
        size = self._plan.config.batch_size
        return loop.accuracy(self._step, state, feed.eval_batches(batch_size=size))

    def _conclude(self) -> dict[str, Any]:
        """Measures the best checkpoint on the test split, and writes the model."""
        plan = self._plan
        result: dict[str, Any] = {
            "version": 1,
            "steps": self.num_steps,
            "validation": self._accuracies(self._feed),
        }
        if plan.test is not None:
            whole = dataclasses.replace(plan.dataset, validation=plan.test)
            feed = feed_of(whole, plan.spec.resolution, plan.config.framing)
            result["test"] = self._accuracies(feed)
        state = self._state
        if plan.config.ema_decay > 0:
            state = averaged(state)
        model = saved.Model(
            spec=plan.spec,
            network=self._step.network(state),
            card=saved.Card(
                mean=tuple(map(float, self._feed.mean)),
                std=tuple(map(float, self._feed.std)),
                class_names=tuple(map(str, plan.dataset.class_names)),
                weights=f"trained on {plan.dataset.name} for {self.num_steps} steps",
                crop=plan.config.framing.crop,
                interpolation=plan.config.framing.interpolation,
            ),
        )
        saved.save(plan.folder / models.TRAINED, model)
        (plan.folder / RESULT).write_text(json.dumps(result, indent=2) + "\n")
        return result


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


def read_losses(path: Path) -> np.ndarray:
    """Returns the loss of every step in a run's losses.jsonl."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return np.asarray([loss for line in lines for loss in line["losses"]], np.float32)


def _append_losses(path: Path, start: int, losses: np.ndarray) -> None:
    with path.open("a") as file:
        file.write(json.dumps({"after": start, "losses": losses.tolist()}) + "\n")


def _drop_losses(path: Path, done: int) -> None:
    """Forgets what was written after the checkpoint, a torn line included."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            if json.loads(line)["after"] < done:
                kept.append(line + "\n")
    path.write_text("".join(kept))


def _next_multiple(number: int, factor: int) -> int:
    return (number // factor + 1) * factor
