"""Proposes token sequences and learns from their rewards. Sees choice counts only."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from controller.conditions import Conditions
from controller.dyna import Dyna
from controller.evolution import Evolution
from controller.interface import Controller
from controller.ppo import PPO
from controller.random_search import RandomSearch
from controller.reinforce import Reinforce

_CONTROLLERS: Mapping[str, type[Any]] = {
    "dyna": Dyna,
    "evolution": Evolution,
    "ppo": PPO,
    "reinforce": Reinforce,
    "random": RandomSearch,
}
# NASNet's numbers (https://arxiv.org/abs/1707.07012, appendix A.2), which `reinforce`
# has by default.
_PRESETS: Mapping[str, tuple[str, Mapping[str, float]]] = {
    "ppo-nasnet": (
        "ppo",
        {"learning_rate": 3.5e-4, "entropy_weight": 1e-5, "baseline_decay": 0.95},
    ),
}


def build(
    name: str,
    *,
    num_choices: tuple[int, ...],
    conditions: Conditions = (),
    **options: float | bool,
) -> Controller[Any]:
    """Returns the controller called `name` for decisions of so many choices each.

    `conditions` say which decisions matter under which (`controller.conditions`);
    proposals are canonical. `options` are the fields of the controller's dataclass
    (`controller.dyna.Dyna` and so on), where they and their defaults are described.
    `ppo-nasnet` is `ppo` with NASNet's numbers.

    >>> build("random", num_choices=(3, 2, 4))
    RandomSearch(num_choices=(3, 2, 4), conditions=())

    Raises:
      ValueError: if there is no such controller or option, or a value is out of
        range; the message lists what there is.
    """
    if name in _PRESETS:
        plain, preset = _PRESETS[name]
        both = {**preset, **options}
        return build(plain, num_choices=num_choices, conditions=conditions, **both)
    if name not in _CONTROLLERS:
        there = ", ".join(sorted([*_CONTROLLERS, *_PRESETS]))
        raise ValueError(f"unknown controller {name!r}; there are {there}")
    cls = _CONTROLLERS[name]
    known = {field.name for field in dataclasses.fields(cls)}
    known -= {"num_choices", "conditions"}
    if unknown := sorted(options.keys() - known):
        raise ValueError(
            f"{name} has no option {', '.join(unknown)}; "
            f"it has {', '.join(sorted(known)) or 'none'}"
        )
    return cls(num_choices=num_choices, conditions=conditions, **options)
