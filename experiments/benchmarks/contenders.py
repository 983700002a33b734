"""Who is compared by `search_efficiency`: our controllers, and published ones."""

import dataclasses
import importlib.util
from collections.abc import Mapping

import controller
from experiments.benchmarks import peers
from experiments.benchmarks.peers import Evaluate
from nas.loop import optimize


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """One of our controllers, told of `batch_size` rewards at a time."""

    name: str
    batch_size: int
    options: Mapping[str, float | bool] = dataclasses.field(default_factory=dict)


# PPO learns from every five rewards, as `nas.search` does by default; evolution from
# each, as in its paper.
OURS: Mapping[str, Method] = {
    "ppo": Method(name="ppo", batch_size=5),
    "reinforce": Method(name="reinforce", batch_size=10),
    "evolution-20-5": Method(name="evolution", batch_size=1),
    "evolution-50-12": Method(
        name="evolution", batch_size=1, options={"population": 50, "tournament": 12}
    ),
    "evolution-100-25": Method(
        name="evolution", batch_size=1, options={"population": 100, "tournament": 25}
    ),
    "random": Method(name="random", batch_size=10),
}
_OFF: Mapping[str, float | bool] = {
    "rank_advantages": False,
    "replay": 0,
    "neighbours": False,
    "screen": False,
}
ABLATIONS: Mapping[str, Method] = {
    **{
        f"ppo without {aid}": Method(name="ppo", batch_size=5, options={aid: off})
        for aid, off in _OFF.items()
    },
    "ppo without all four": Method(name="ppo", batch_size=5, options=_OFF),
}


def lacking(method: str) -> str | None:
    """Returns the package that `method` needs and that is not installed, if any."""
    if method not in peers.PEERS:
        return None
    package = peers.PEERS[method].package
    return None if importlib.util.find_spec(package) else package


def search(
    method: str,
    num_choices: tuple[int, ...],
    evaluate: Evaluate,
    num_children: int,
    seed: int,
) -> None:
    """Has `num_children` different networks evaluated by the method of this name."""
    if method in peers.PEERS:
        peers.PEERS[method].search(num_choices, evaluate, num_children, seed)
        return
    ours = {**OURS, **ABLATIONS}[method]
    optimize(
        controller.build(
            ours.name, num_choices=num_choices, conditions=(), **ours.options
        ),
        evaluate,
        num_trials=num_children,
        batch_size=ours.batch_size,
        seed=seed,
    )
