"""Where the time of a child's training step goes, and what plain jit makes of it.

    taskset -c 0 python -m experiments.benchmarks.step_profile

For random children of `mbconv`: a step of shared executables beside the same network
jitted as one program, taking turns; the arithmetic achieved beside the machine's own
matrix product; and the step's time by kind of unit. Within a unit, batch norm with its
activation and the optimizer are timed apart, on arrays of the same shapes; what a unit
takes beyond them is its convolution and dispatch.
"""

import dataclasses
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import nnx

from experiments.benchmarks.children import random_children
from search_space import cost
from search_space.spec import ArchSpec
from trainers import optim
from trainers.networks import classifier
from trainers.networks.normalization import normalize_batch
from trainers.networks.units import Mode
from trainers.phases import Strengths
from trainers.runtime import compilation
from trainers.steps import executables
from trainers.steps.chained import ChainedStep
from trainers.steps.executables import Executables, Recipe, StepInputs, UnitDef
from trainers.tasks.classification import Classification

ROUNDS = 8
STEPS = 4
STRENGTHS = Strengths(weight_decay=1e-5, label_smoothing=0.1)
Arrays = nnx.State[str, nnx.Variable[jax.Array]]

MATRIX = 1024  # side of the product that gives the machine's peak


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which children."""

    children: int = 3
    """How many."""
    batch_size: int = 64
    """Images in a step."""
    resolution: int = 32
    """Side of the images in pixels."""
    seed: int = 0
    """Which."""
    json: bool = False
    """Print JSON alone."""


def profile(spec: ArchSpec, recipe: Recipe, batch_size: int) -> dict[str, Any]:
    """Returns milliseconds of both kinds of step, and of ours by kind of unit."""
    rng = np.random.default_rng(0)
    shape = (batch_size, spec.resolution, spec.resolution, spec.in_channels)
    images = jnp.asarray(rng.normal(size=shape), jnp.float32)
    labels = jnp.asarray(rng.integers(0, spec.num_classes, batch_size), jnp.int32)
    inputs = StepInputs(
        learning_rate=jnp.float32(1e-3),
        norm_momentum=jnp.float32(0.9),
        ema_decay=jnp.float32(0.0),
        strengths=jax.tree.map(jnp.float32, STRENGTHS),
    )
    model = classifier.build(spec, seed=0)
    network, states = executables.split(model, recipe)
    clock = Clock()
    chained = ChainedStep(network, recipe)
    clocked = ChainedStep(network, recipe, clock.executables)
    plain, plain_state = plain_step(model, recipe)

    ours, theirs = [], []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        for _ in range(STEPS):
            states, _ = chained(states, (images, labels), inputs)
        jax.block_until_ready(states)
        ours.append((time.perf_counter() - start) / STEPS * 1e3)
        start = time.perf_counter()
        for _ in range(STEPS):
            *plain_state, _ = plain(*plain_state, images, labels, inputs)
        jax.block_until_ready(plain_state)
        theirs.append((time.perf_counter() - start) / STEPS * 1e3)
    for _ in range(ROUNDS):
        states, _ = clocked(states, (images, labels), inputs)
    step_ms, plain_ms = (statistics.median(times[1:]) for times in (ours, theirs))
    macs = 3 * batch_size * cost.profile(spec).num_macs  # forward and two gradients
    return {
        "name": spec.name,
        "step_ms": step_ms,
        "plain_ms": plain_ms,
        "step_vs_plain_jit": step_ms / plain_ms,
        "gmacs_per_s": macs / step_ms / 1e6,
        "ms_by_kind": clock.by_kind(_names(model), recipe),
    }


class Clock:
    """Times every call of every unit by waiting for it."""

    def __init__(self) -> None:
        self._spent: dict[int, list[float]] = defaultdict(list)
        self._units: list[UnitDef] = []
        self._maps: dict[int, Any] = {}
        self._params: dict[int, Any] = {}

    def executables(
        self, unit: UnitDef, recipe: Recipe, *, is_first: bool
    ) -> Executables:
        """Stands in for `executables.compiled`."""
        index = len(self._units)
        self._units.append(unit)
        found = executables.compiled(unit, recipe, is_first=is_first)

        def timed(call: Callable[..., Any]) -> Callable[..., Any]:
            def run(*args: Any) -> Any:
                start = time.perf_counter()
                outputs = jax.block_until_ready(call(*args))
                self._spent[index].append((time.perf_counter() - start) * 1e3)
                return outputs

            return run

        def forward(*args: Any) -> Any:
            outputs = timed(found.forward)(*args)
            self._params[index] = [p.shape for p in args[0]]
            self._maps[index] = outputs[0].shape
            return outputs

        return Executables(forward, timed(found.backward), timed(found.learn))

    def by_kind(self, names: list[str], recipe: Recipe) -> dict[str, float]:
        """Milliseconds of a step by kind of unit; batch norm and optimizer apart."""
        total: dict[str, float] = defaultdict(float)
        for index, unit in enumerate(self._units):
            # A step calls every unit forward and backward, but the last one once.
            calls = 1 if index == len(self._units) - 1 else 2
            times = self._spent[index]
            spent = sum(statistics.median(times[i::calls]) for i in range(calls))
            norm = optimizer = 0.0
            if index in self._params:
                kernel = self._params[index][0]
                optimizer = _optimizer_ms(recipe, self._params[index])
                if "BatchNorm" in repr(unit.graphdef):
                    norm = _norm_ms(self._maps[index])
            else:
                kernel = ()
            total["batch norm and activation"] += norm
            total["optimizer"] += optimizer
            total[_kind(names[index], kernel)] += max(0.0, spent - norm - optimizer)
        dispatch = _dispatch_ms() * (2 * len(self._units) - 1)
        return {name: round(ms, 2) for name, ms in total.items()} | {
            "of these, dispatch": round(dispatch, 2)
        }


def _names(model: classifier.Classifier) -> list[str]:
    """Kinds of unit in the order of `executables.split`."""
    return [
        type(unit).__name__
        for block in model.blocks
        for unit in (*block.units, block.shortcut)
        if unit is not None
    ]


def _kind(name: str, kernel: tuple[int, ...]) -> str:
    if name == "ConvUnit":
        return "1x1 convolution" if kernel[:2] == (1, 1) else "kxk convolution"
    return {
        "DepthwiseUnit": "depthwise convolution",
        "SqueezeExciteUnit": "squeeze-and-excitation",
        "ClassifierUnit": "classifier",
    }.get(name, name)


def plain_step(model: classifier.Classifier, recipe: Recipe) -> tuple[Any, list[Any]]:
    """Returns the training step of the whole network as one jitted program."""
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    params, stats = jax.tree.map(lambda a: jnp.array(a, copy=True), (params, stats))
    rule = optim.chain(recipe.optimizer)

    def loss_of(
        params: Arrays,
        stats: Arrays,
        images: jax.Array,
        labels: jax.Array,
        inputs: StepInputs,
    ) -> tuple[jax.Array, Arrays]:
        merged = nnx.merge(graphdef, params, stats, copy=True)
        logits = merged(images, Mode(train=True, momentum=inputs.norm_momentum))
        loss = recipe.task.loss(logits, (labels,), inputs.strengths)
        return loss, nnx.state(merged, nnx.BatchStat)

    @partial(jax.jit, donate_argnums=(0, 1, 2))
    def step(
        params: Arrays,
        stats: Arrays,
        optimizer: optax.OptState,
        images: jax.Array,
        labels: jax.Array,
        inputs: StepInputs,
    ) -> tuple[Any, Arrays, optax.OptState, jax.Array]:
        (loss, stats), grads = jax.value_and_grad(loss_of, has_aux=True)(
            params, stats, images, labels, inputs
        )
        updates, optimizer = rule.update(
            grads,
            optimizer,
            params,
            learning_rate=inputs.learning_rate,
            weight_decay=inputs.strengths.weight_decay,
        )
        return optax.apply_updates(params, updates), stats, optimizer, loss

    return step, [params, stats, rule.init(params)]


def _time(call: Callable[[], Any], rounds: int = 5) -> float:
    jax.block_until_ready(call())
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def _norm_ms(shape: tuple[int, ...]) -> float:
    x, channel = jnp.ones(shape), jnp.ones(shape[-1])

    @partial(jax.jit, compiler_options=compilation.options())
    def both(x: jax.Array, channel: jax.Array) -> tuple[jax.Array, tuple[jax.Array]]:
        y, vjp, _ = jax.vjp(
            lambda x: (lambda y, *rest: (y, rest))(
                *normalize_batch(  # pyright: ignore[reportGeneralTypeIssues]
                    x, channel, channel, None, "swish"
                )
            ),
            x,
            has_aux=True,
        )
        return y, vjp(y)

    return _time(lambda: both(x, channel))


def _optimizer_ms(recipe: Recipe, shapes: list[tuple[int, ...]]) -> float:
    rule = optim.chain(recipe.optimizer)
    params = tuple(map(jnp.ones, shapes))

    @partial(jax.jit, compiler_options=compilation.options())
    def update(
        params: tuple[jax.Array, ...], state: optax.OptState
    ) -> tuple[optax.Params, optax.OptState]:
        updates, state = rule.update(
            params,
            state,
            params,
            learning_rate=jnp.float32(1e-3),
            weight_decay=jnp.float32(1e-5),
        )
        return optax.apply_updates(params, updates), state

    state = rule.init(params)
    return _time(lambda: update(params, state))


def _dispatch_ms() -> float:
    """One call with as many small arrays as a unit's."""
    arrays = [jnp.ones(8)] * 10
    call = jax.jit(lambda *arrays: [a + 1 for a in arrays[:8]])
    return _time(lambda: call(*arrays), rounds=200)


def peak_gmacs() -> float:
    """Multiply-adds a second of a square float32 product, in billions."""
    matrix = jnp.ones((MATRIX, MATRIX))
    product = jax.jit(jnp.dot)
    return MATRIX**3 / _time(lambda: product(matrix, matrix), rounds=20) / 1e6


def main(options: Options) -> None:
    """Profiles the children and prints what was found."""
    recipe = Recipe(task=Classification(), optimizer=optim.Optimizer(name="adamw"))
    children = random_children(
        options.children, resolution=options.resolution, seed=options.seed
    )
    found = [profile(child, recipe, options.batch_size) for child in children]
    peak = peak_gmacs()
    record = {
        "peak_gmacs_per_s": peak,
        "share_of_peak": statistics.median(f["gmacs_per_s"] for f in found) / peak,
        "step_vs_plain_jit": statistics.median(f["step_vs_plain_jit"] for f in found),
        "children": found,
    }
    if options.json:
        print(json.dumps(record))
        return
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
