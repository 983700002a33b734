"""From options to everything a search needs, with every check before work starts."""

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import controller
from controller.interface import Controller
from nas.evaluation import evaluators, latency_table, rungs
from nas.evaluation.evaluators import Evaluator
from nas.evaluation.latency_table import LatencyTable
from nas.evaluation.run_data import RunData
from nas.options import definition
from nas.options.definition import Definition
from nas.options.quantity import format_flops
from nas.study.metrics import COUNTED, NUM_MACS
from nas.study.reward import Reward
from nas.study.study import Listener
from search_space import cost, references
from search_space.space import SearchSpace
from search_space.spec import ArchSpec

_Number = TypeVar("_Number", int, float)

# A target a little out of reach still ranks the children sensibly.
_TARGET_SLACK = 1.25
_MAX_SEED = 2**32  # what numpy and JAX take


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The parts of a search, checked. `data` are what children are measured on."""

    definition: Definition
    space: SearchSpace
    reward: Reward
    controller: Controller[Any]
    evaluator: Evaluator
    data: RunData


def make(run: Definition) -> Plan:
    """Builds the parts that `run` names.

    Raises:
      ValueError: if any of them cannot be had, or they do not go together. One line,
        with the remedy.
    """
    options = run.search
    if options.rewards_per_update < 1:
        raise ValueError(
            f"--rewards-per-update must be at least 1, got {options.rewards_per_update}"
        )
    if not 0 <= options.seed < _MAX_SEED:
        raise ValueError(f"--seed must be in [0, 2^32), got {options.seed}")
    definition.checked_target(run)  # before the evaluator or a table relies on it
    space = definition.build_space(run)
    if definition.objective(run) == NUM_MACS:
        _check_target(options.target_flops, space, options.space)
    proposer = _controller(options.controller, space)
    evaluator, data = evaluators.build(run, space)
    if options.fidelities:
        evaluator = rungs.build(run, evaluator)
    if run.reward.latency_table is not None:
        table = _table(run, space)
        evaluator = evaluators.WithLatency(evaluator=evaluator, table=table)
    reward = definition.build_reward(run, (*evaluator.metrics, *COUNTED))
    return Plan(
        definition=run,
        space=space,
        reward=reward,
        controller=proposer,
        evaluator=evaluator,
        data=data,
    )


def callback(name: str) -> Listener:
    """Returns a user's callback: the object named, or what its class makes.

    Raises:
      ValueError: if there is none, or it lacks what a study calls.
    """
    if not references.is_reference(name):
        raise ValueError(f"--callback must be module:object, got {name[:80]!r}")
    found: Any = references.load(name, "callback")
    if isinstance(found, type):
        found = found()
    lacking = [part for part in ("started", "finished") if not hasattr(found, part)]
    if lacking:
        raise ValueError(
            f"--callback {name} must have started(trial) and finished(trial), and lacks"
            f" {' and '.join(lacking)}"
        )
    return found


def _controller(name: str, space: SearchSpace) -> Controller[Any]:
    """Returns a controller of ours by name, or of the user's by reference.

    Raises:
      ValueError: if there is none, or it is no controller.
    """
    num_choices = space.num_choices
    if not references.is_reference(name):
        return controller.build(
            name, num_choices=num_choices, conditions=space.conditions
        )
    make = references.load(name, "controller")
    try:
        inspect.signature(make).bind(num_choices=num_choices)
    except TypeError:
        raise ValueError(
            f"--controller {name} must be called with num_choices= and return a"
            " controller; controller.testing has the tests that one passes"
        ) from None
    made = make(num_choices=num_choices)
    lacking = [part for part in ("init", "ask", "tell") if not hasattr(made, part)]
    if lacking or tuple(getattr(made, "num_choices", ())) != num_choices:
        raise ValueError(
            f"--controller {name} must return a controller with init, ask, tell and "
            f"the num_choices that it is called with, and lacks "
            f"{', '.join(lacking) or 'these num_choices'}"
        )
    return made


def cost_range(space: SearchSpace) -> tuple[int, int]:
    """Returns the least and the most multiply-adds in `space`.

    Found by changing one decision at a time until none helps. Exact where a choice
    that costs more does so whatever the others are, as kernels, widths, expansions,
    layers and squeeze-and-excitation do.
    """
    return _extreme(space, -1, cost.num_macs), _extreme(space, 1, cost.num_macs)


def _extreme(
    space: SearchSpace, sign: int, cost_of: Callable[[ArchSpec], _Number]
) -> _Number:
    tokens = [0] * len(space.num_choices)
    best = cost_of(space.decode(tokens))
    improved = True
    while improved:
        improved = False
        for position, count in enumerate(space.num_choices):
            for choice in range(count):
                trial = [*tokens[:position], choice, *tokens[position + 1 :]]
                found = cost_of(space.decode(trial))
                if sign * found > sign * best:
                    tokens, best, improved = trial, found, True
    return best


def _table(run: Definition, space: SearchSpace) -> LatencyTable:
    """Reads the table of latencies; refuses a target that the space cannot reach.

    Raises:
      ValueError: also if the table is malformed or of another space.
      OSError: if it cannot be read.
    """
    table = latency_table.load(Path(run.reward.latency_table or ""))
    target = run.reward.target_latency or 0.0
    shortest = _extreme(space, -1, table.predict)
    longest = _extreme(space, 1, table.predict)
    if not shortest / _TARGET_SLACK <= target <= longest * _TARGET_SLACK:
        raise ValueError(
            "--target-latency must be near what the space reaches, and"
            f" {run.search.space} goes from {shortest:.3g} to {longest:.3g} ms on"
            f" {table.device}, got {target:g} ms; choose a target in that range"
        )
    return table


def _check_target(target: int, space: SearchSpace, name: str) -> None:
    least, most = cost_range(space)
    if not least / _TARGET_SLACK <= target <= most * _TARGET_SLACK:
        raise ValueError(
            f"--target-flops must be near what the space reaches, and {name} goes from "
            f"{format_flops(least)} to {format_flops(most)} multiply-adds, got "
            f"{format_flops(target)}; choose a target in that range, or another --space"
        )
