"""What runs on a worker: a Ray Tune trainable that evaluates one child a step.

Kept apart from `nas.execution.tune` so that a worker imports no controller.
"""

import dataclasses
import os
import platform
from typing import Any

import jax
from ray import tune

from nas.evaluation.evaluators import Evaluator
from nas.execution.resources import Allotment, claim_cores
from nas.runs import journal
from search_space import codec
from trainers.measurement import Infeasible, Measurement
from trainers.runtime import compilation


@dataclasses.dataclass(frozen=True)
class Report:
    """What comes back for a child; `worker` is None if none lived to send it."""

    outcome: Measurement | Infeasible
    worker: journal.Worker | None


class ChildTrainable(tune.Trainable):
    """Evaluates the child in its config and is done; its actor takes the next one.

    The config has `spec` (JSON text) and `seed`. The result has `report`.
    """

    def setup(  # pyright: ignore[reportIncompatibleMethodOverride]  # what with_parameters calls
        self, config: dict[str, Any], evaluator: Evaluator, allotment: Allotment
    ) -> None:
        """Takes its cores, before JAX starts, and loads what every child needs.

        Raises:
          RuntimeError: if JAX does not find the accelerator that Ray gave it.
        """
        del config
        os.environ.update(allotment.environment)
        if allotment.gpus or allotment.tpus:
            _check_platform(allotment)
        else:
            self._claim = claim_cores(allotment.cpus)  # held as long as the process
            jax.config.update("jax_platforms", "cpu")
        compilation.use_cache(compilation.default_cache_folder())
        self._evaluate = evaluator.prepare()

    def step(self) -> dict[str, Any]:
        """Evaluates the child."""
        spec = codec.loads(self.config["spec"])
        outcome = self._evaluate(spec, self.config["seed"])
        worker = journal.Worker(host=platform.node(), pid=os.getpid())
        return {"done": True, "report": Report(outcome, worker)}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Accepts the next child: nothing here depends on the last one."""
        del new_config
        return True


def _check_platform(allotment: Allotment) -> None:
    devices = jax.local_devices()
    found = devices[0].platform
    if found not in allotment.platforms or len(devices) != allotment.num_devices:
        raise RuntimeError(
            f"a worker with {allotment} must find just that with JAX, and JAX found "
            f"{len(devices)} of {found!r}; install JAX for the accelerator on every "
            "node, such as jax[cuda13]"
        )
