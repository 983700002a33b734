"""What runs on a worker: an actor that measures one trial after another.

Kept apart from what drives it, so that a worker imports no controller.
"""

import dataclasses
import os
import platform

import jax

from nas.evaluation.evaluators import Evaluator
from nas.evaluation.fidelity import EvaluateFrom, prepare_from
from nas.execution.resources import WorkerResources, claim_cores
from nas.study.trial import Worker
from search_space import codec
from trainers.measurement import Infeasible, Measured
from trainers.runtime import compilation


@dataclasses.dataclass(frozen=True)
class Report:
    """What comes back for a trial."""

    outcome: Measured | Infeasible
    worker: Worker
    weights: bytes | None


class TrialWorker:
    """Measures trials; `prepare` comes first."""

    _evaluate: EvaluateFrom

    def prepare(self, evaluator: Evaluator, resources: WorkerResources) -> None:
        """Takes its cores, before JAX starts, and loads what every trial needs.

        Raises:
          RuntimeError: if JAX does not find the accelerator that Ray gave it.
        """
        os.environ.update(resources.environment)
        if resources.gpus or resources.tpus:
            _check_platform(resources)
        else:
            self._claim = claim_cores(resources.cpus)  # held as long as the process
            jax.config.update("jax_platforms", "cpu")
        compilation.use_cache(compilation.default_cache_folder())
        self._evaluate = prepare_from(evaluator)

    def measure(
        self, spec: str, seed: int, fidelity: int, weights: bytes | None
    ) -> Report:
        """Measures the architecture whose JSON `spec` is."""
        outcome, weights = self._evaluate(codec.loads(spec), seed, fidelity, weights)
        worker = Worker(host=platform.node(), pid=os.getpid())
        return Report(outcome, worker, weights)


def _check_platform(resources: WorkerResources) -> None:
    devices = jax.local_devices()
    found = devices[0].platform
    if found not in resources.platforms or len(devices) != resources.num_devices:
        raise RuntimeError(
            f"a worker with {resources} must find just that with JAX, and JAX found "
            f"{len(devices)} of {found!r}; install JAX for the accelerator on every "
            "node, such as jax[cuda13]"
        )
