"""Who is compared by `search_efficiency`: our controllers, and published ones."""

import dataclasses
import importlib.util
from collections.abc import Mapping
from typing import Any

import controller
from controller.interface import HasPredictor
from experiments.benchmarks import peers
from experiments.benchmarks.imagenet_task import Floats, Tokens
from experiments.benchmarks.peers import Evaluate
from nas.loop import optimize


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """One of our controllers, told of `batch_size` rewards at a time."""

    name: str
    batch_size: int
    options: Mapping[str, float | bool] = dataclasses.field(default_factory=dict)


# The default learns from every five rewards, as `nas.search` has it do; plain policy
# gradients from twenty, as in NASNet; evolution from each, as in its paper.
OURS: Mapping[str, Method] = {
    "dyna": Method(name="dyna", batch_size=5),
    "ppo": Method(name="ppo", batch_size=20),
    "reinforce": Method(name="reinforce", batch_size=20),
    "evolution-20-5": Method(name="evolution", batch_size=1),
    "evolution-50-12": Method(
        name="evolution", batch_size=1, options={"population": 50, "tournament": 12}
    ),
    "evolution-100-25": Method(
        name="evolution", batch_size=1, options={"population": 100, "tournament": 25}
    ),
    "random": Method(name="random", batch_size=10),
}
ABLATIONS: Mapping[str, Method] = {
    "dyna, policy off": Method(
        name="dyna", batch_size=5, options={"learning_rate": 0.0}
    ),
    "dyna, predictor off": Method(name="dyna", batch_size=5, options={"model": False}),
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


def judged(
    method: str, num_choices: tuple[int, ...], tokens: Tokens, observed: Floats
) -> Floats:
    """Returns how good each of tokens [n, D] looks to the method, [n].

    What a predictor makes of all that was `observed`, where the method has one.
    """
    ours = {**OURS, **ABLATIONS}.get(method)
    if ours is None:
        return observed
    # The policy has no part in it.
    quiet = {"learning_rate": 0.0} if ours.name == "dyna" else {}
    options: dict[str, Any] = {**ours.options, **quiet}
    c = controller.build(ours.name, num_choices=num_choices, **options)
    if not isinstance(c, HasPredictor):
        return observed
    found = c.predict(c.tell(c.init(0), tokens, observed), tokens)
    return observed if found is None else found.means
