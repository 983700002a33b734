"""From options to everything a search needs, with every check before work starts."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import controller
from controller.interface import Controller
from nas.evaluation import evaluators, latency_table
from nas.evaluation.evaluators import Evaluator
from nas.evaluation.latency_table import LatencyTable
from nas.evaluation.run_data import RunData
from nas.options import definition
from nas.options.definition import Definition
from nas.options.quantity import format_flops
from nas.study.session import Reward
from search_space import cost
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
    controller: Controller
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
    space = definition.build_space(run)
    reward = definition.build_reward(run)
    if definition.objective(run).is_counted:
        _check_target(options.target_flops, space, options.space)
    proposer = controller.build(options.controller, num_choices=space.num_choices)
    evaluator, data = evaluators.build(run, space)
    if run.reward.latency_table is not None:
        table = _table(run, space)
        evaluator = evaluators.WithLatency(evaluator=evaluator, table=table)
    return Plan(
        definition=run,
        space=space,
        reward=reward,
        controller=proposer,
        evaluator=evaluator,
        data=data,
    )


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
