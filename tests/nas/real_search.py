"""Runs `nas.search` with real children, whose workers can be made to die or fail.

    python real_search.py FOLDER <arguments of nas.search>

A worker that reaches a phase of a child for which there is a file in FOLDER, such as
`train` or `train-2`, removes the file and dies of SIGKILL, in the middle of it. In the
phase `memory` it asks for more memory than there is instead, and in `divergence` a
step returns what a diverged step returns. `journal` makes the system
refuse to let the journal grow in the middle of the fourth child.
"""

import dataclasses
import os
import resource
import signal
import sys
from pathlib import Path
from unittest import mock

import jax.numpy as jnp
import overheard

from nas import search
from nas.evaluation import evaluators
from nas.evaluation.evaluators import Evaluator
from nas.runs import journal
from trainers import child, loop

PHASES = ("prepare", "build", "compile", "train", "measure", "report")


@dataclasses.dataclass(frozen=True)
class Fragile:
    """An evaluator; see the module's docstring."""

    evaluator: Evaluator
    folder: Path

    @property
    def metrics(self):
        return self.evaluator.metrics

    @property
    def place(self):
        return self.evaluator.place

    def prepare(self):
        self.die_in("prepare")
        inner = self.evaluator.prepare()

        def evaluate(spec, seed):
            with (
                mock.patch.object(child.classifier, "build", self.build),
                mock.patch.object(child, "ChainedStep", self.step),
                mock.patch.object(child.loop, "evaluate", self.measure),
            ):
                outcome = inner(spec, seed)
            self.die_in("report")
            return outcome

        return evaluate

    def takes(self, phase):
        for marker in self.folder.glob(f"{phase}*"):
            try:
                marker.unlink()
            except FileNotFoundError:  # the other worker was quicker
                continue
            return True
        return False

    def die_in(self, phase):
        if self.takes(phase):
            os.kill(os.getpid(), signal.SIGKILL)

    def build(self, *arguments, **options):
        self.die_in("build")
        return BUILD(*arguments, **options)

    def measure(self, *arguments):
        self.die_in("measure")
        return EVALUATE(*arguments)

    def step(self, *arguments, **options):
        return FragileStep(self, *arguments, **options)


class FragileStep(child.ChainedStep):
    """A step that dies in its first call or in its third."""

    def __init__(self, fragile, *arguments, **options):
        super().__init__(*arguments, **options)
        self.fragile, self.calls = fragile, 0

    def __call__(self, *arguments):
        self.calls += 1
        if self.calls in (1, 3):
            self.fragile.die_in("compile" if self.calls == 1 else "train")
        if self.fragile.takes("memory"):
            jnp.zeros((1 << 50,), jnp.uint8).block_until_ready()
        states, loss = super().__call__(*arguments)
        return states, loss * jnp.nan if self.fragile.takes("divergence") else loss


BUILD, EVALUATE = child.classifier.build, loop.evaluate


class FullDisk(journal.Writer):
    """A journal on a disk that has room for three and a half children."""

    def __init__(self, path, contents):
        super().__init__(path, contents)
        self.path, self.room = path, 3

    def append(self, child):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        if self.room == 0:
            full = self.path.stat().st_size + 100
            resource.setrlimit(resource.RLIMIT_FSIZE, (full, limits[1]))
        self.room -= 1
        try:
            super().append(child)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


if __name__ == "__main__":
    troubles = Path(sys.argv[1])
    overheard.listen()
    build = evaluators.build

    def build_fragile(*arguments):
        evaluator, dataset = build(*arguments)
        return Fragile(evaluator, troubles), dataset

    evaluators.build = build_fragile
    if (troubles / "journal").exists():
        journal.Writer = FullDisk
    sys.exit(search.main(sys.argv[2:]))
