"""Runs `nas.search` as it is, with children that sleep where others train.

    python pretend_search.py SECONDS TROUBLE <arguments of nas.search>

TROUBLE is `none`, `deadly` (every child kills its worker), `broken` (every child
raises), or a folder: the first worker to reach each seed in it dies there, unless the
file says what to do instead: `hang` in a call that holds Python's lock, as a hung
compiler does, `stop` the process, `raise`, or return an accuracy such as
`nan`. With `alone` there is no Ray: one child after another in the driver, as a
reference.
"""

import ctypes
import dataclasses
import os
import signal
import sys
import time
from pathlib import Path

import overheard

from nas import search
from nas.evaluation import evaluators
from nas.evaluation.run_data import RunData
from nas.study.metrics import ACCURACY
from search_space.spec import ArchSpec
from trainers.measurement import Infeasible, Measured

GOOD = Measured(metrics={"accuracy": 0.5}, losses=(2.0, 1.0))


def outcome(spec: ArchSpec, seed: int) -> Measured | Infeasible:
    """What a pretended child ends with: a function of what real ones depend on."""
    if seed % 7 == 0:
        return Infeasible("diverged: the loss was <b>nan</b>")
    depth = sum(stage.repeats for stage in spec.stages)
    accuracy = 0.5 + 0.01 * depth + seed % 1000 * 1e-4
    return dataclasses.replace(GOOD, metrics={"accuracy": accuracy})


@dataclasses.dataclass(frozen=True)
class Sleeper:
    """An evaluator; see the module's docstring."""

    seconds: float
    trouble: str

    @property
    def metrics(self):
        return (ACCURACY,)

    @property
    def place(self):
        return "driver" if self.trouble == "alone" else "workers"

    def prepare(self):
        return self.evaluate

    def evaluate(self, spec, seed):
        time.sleep(self.seconds)
        if self.trouble == "broken":
            raise RuntimeError("no such luck")
        marker = Path(self.trouble) / str(seed)
        if self.trouble != "deadly" and not marker.exists():
            return outcome(spec, seed)
        how = marker.read_text() if marker.exists() else ""
        marker.unlink(missing_ok=True)
        if how == "hang":
            ctypes.PyDLL(None).sleep(10_000)
        if how == "raise":
            raise KeyError("no such luck")
        if how in ("", "stop"):
            number = signal.SIGSTOP if how == "stop" else signal.SIGKILL
            os.kill(os.getpid(), number)
        return dataclasses.replace(GOOD, metrics={"accuracy": float(how)})


if __name__ == "__main__":
    overheard.listen()
    sleeper = Sleeper(float(sys.argv[1]), sys.argv[2])
    evaluators.build = lambda *_: (sleeper, RunData(description="children that sleep"))
    sys.exit(search.main(sys.argv[3:]))
