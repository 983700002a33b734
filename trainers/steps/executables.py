"""Compiled units that different networks share.

Compiling a whole network costs 20 CPU-seconds, and a search asks for thousands of
different ones. Here the compiled program is one unit: its forward pass, and its
backward pass together with its optimizer's update. A step runs them in a chain from
Python (`trainers.steps.chained`). A search space has a few hundred distinct units, so
after some children everything is there: in this process, and through JAX's persistent
cache in the others and in later runs.
"""

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array

from trainers import optim
from trainers.networks.classifier import Classifier
from trainers.networks.units import Mode
from trainers.phases import Strengths
from trainers.runtime.programs import Program
from trainers.tasks.task import Targets, Task

_MAX_UNITS = 4096  # executables kept; the spaces here have a few hundred distinct units

Leaves = tuple[Array, ...]
Given = tuple[Array, Array | None, Mode]
"""What a unit was called with: maps, the block's input where it adds that, and how."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is compiled into a step.

    Attributes:
      task: what is learned.
      optimizer: the update rule.
    """

    task: Task
    optimizer: optim.Optimizer = dataclasses.field(default_factory=optim.Optimizer)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class UpdateInputs:
    """What the update of weights takes: scalars on the device."""

    learning_rate: float | Array
    weight_decay: float | Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class StepInputs:
    """What differs between steps: scalars on the device, and the random key.

    `key` None switches dropout and stochastic depth off.
    """

    learning_rate: float | Array
    norm_momentum: float | Array
    ema_decay: float | Array
    strengths: Strengths
    key: Array | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """One unit's weights and their optimizer state."""

    params: Leaves
    optimizer: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class UnitState:
    """One unit's arrays: what the optimizer updates, and the batch statistics."""

    trained: Trained
    stats: Leaves


@dataclasses.dataclass(frozen=True)
class _Layout:
    """How a module's arrays are handed to executables: its vectors joined into one.

    Every array costs microseconds of dispatch in each call, and most of a network's
    arrays are vectors of some hundred numbers.
    """

    tree: Any  # a PyTreeDef
    shapes: tuple[tuple[int, ...], ...]

    def join(self, module: Any) -> Leaves:
        """Returns the leaves of `module`, the vectors among them as a last one.

        New arrays, because training steps overwrite them in place.
        """
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(module)]
        vectors = [leaf for leaf in leaves if leaf.ndim == 1]
        joined = (np.concatenate(vectors),) if vectors else ()
        others = (leaf for leaf in leaves if leaf.ndim != 1)
        return jax.device_put((*others, *joined), may_alias=False)

    def split(self, arrays: Leaves) -> Any:
        """Returns what `join` was given."""
        sizes = [shape[0] for shape in self.shapes if len(shape) == 1]
        pieces = jnp.split(arrays[-1], np.cumsum(sizes)[:-1]) if sizes else ()
        vectors, others = iter(pieces), iter(arrays)
        leaves = [
            next(vectors) if len(shape) == 1 else next(others) for shape in self.shapes
        ]
        return jax.tree.unflatten(self.tree, leaves)


def _layout(module: Any) -> _Layout:
    leaves, tree = jax.tree.flatten(module)
    return _Layout(tree, tuple(np.shape(leaf) for leaf in leaves))


@dataclasses.dataclass(frozen=True)
class UnitDef:
    """A unit without its arrays; equal for units of equal hyperparameters."""

    graphdef: nnx.GraphDef[nnx.Module]
    params: _Layout
    stats: _Layout

    def call(
        self,
        params: Leaves,
        stats: Leaves,
        x: Array,
        shortcut: Array | None,
        mode: Mode,
    ) -> tuple[Array, Leaves]:
        """Returns the unit's maps, and its batch statistics afterwards."""
        unit = nnx.merge(
            self.graphdef,
            self.params.split(params),
            self.stats.split(stats),
            copy=True,  # batch statistics are updated inside a trace
        )
        y = unit(x, shortcut, mode)
        new_stats = jax.tree.leaves(nnx.state(unit, nnx.BatchStat))
        return y, (jnp.concatenate(new_stats),) if new_stats else ()


@dataclasses.dataclass(frozen=True, eq=False)
class _Wiring:
    """Where the values that a vjp closes over come from; None: from those kept."""

    tree: Any  # a PyTreeDef
    inputs: tuple[int | None, ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Residuals:
    """A vjp as an executable's output, without the inputs of that executable.

    As outputs those would be copied: for a depthwise convolution more memory traffic
    than its arithmetic causes.
    """

    kept: Leaves
    wiring: _Wiring = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(cls, vjp: Callable[..., Any], inputs: Any) -> "_Residuals":
        position = {id(leaf): i for i, leaf in enumerate(jax.tree.leaves(inputs))}
        leaves, tree = jax.tree.flatten(vjp)
        sources = tuple(position.get(id(leaf)) for leaf in leaves)
        kept = [
            leaf for leaf, source in zip(leaves, sources, strict=True) if source is None
        ]
        return cls(tuple(kept), _Wiring(tree, sources))

    def vjp(self, inputs: Any) -> Callable[..., Any]:
        given, kept = jax.tree.leaves(inputs), iter(self.kept)
        return jax.tree.unflatten(
            self.wiring.tree,
            [next(kept) if i is None else given[i] for i in self.wiring.inputs],
        )


@dataclasses.dataclass(frozen=True)
class _UnitPositions:
    """The units that a block runs, as positions in the network's list."""

    units: tuple[int, ...]
    skip: bool
    shortcut: int | None


@dataclasses.dataclass(frozen=True)
class Network:
    """The static part of a network: units and wiring."""

    units: tuple[UnitDef, ...]
    blocks: tuple[_UnitPositions, ...]
    dtype: str


def split(model: Classifier, recipe: Recipe) -> tuple[Network, list[UnitState]]:
    """Returns the network's static part and its initial training state."""
    defs: list[UnitDef] = []
    states: list[UnitState] = []

    def add(unit: nnx.Module) -> int:
        graphdef, *modules = nnx.split(unit, nnx.Param, nnx.BatchStat)
        layouts = [_layout(module) for module in modules]
        defs.append(UnitDef(graphdef, *layouts))
        params, stats = map(_Layout.join, layouts, modules)
        trained = Trained(
            params=params,
            optimizer=jax.device_put(
                _initial(recipe.optimizer, tuple(leaf.shape for leaf in params)),
                may_alias=False,
            ),
        )
        states.append(UnitState(trained=trained, stats=stats))
        return len(defs) - 1

    blocks = tuple(
        _UnitPositions(
            units=tuple(add(unit) for unit in block.units),
            skip=block.skip,
            shortcut=None if block.shortcut is None else add(block.shortcut),
        )
        for block in model.blocks
    )
    return Network(tuple(defs), blocks, model.dtype), states


@lru_cache(maxsize=_MAX_UNITS)
def _initial(optimizer: optim.Optimizer, shapes: tuple[tuple[int, ...], ...]) -> Any:
    """The optimizer's initial state for weights of these shapes, as NumPy arrays."""
    rule = optim.chain(optimizer)
    # Each array starts out constant: told from one number, this compiles nothing.
    like = tuple(jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes)
    values = rule.init(tuple(jnp.zeros((1,) * len(shape)) for shape in shapes))
    return jax.tree.map(
        lambda value, like: np.full(like.shape, np.ravel(value)[0], like.dtype),
        values,
        jax.eval_shape(rule.init, like),
    )


@dataclasses.dataclass(frozen=True)
class Executables:
    """The compiled functions of one unit; `learn` is the last one's."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    learn: Callable[..., Any]


@lru_cache(maxsize=_MAX_UNITS)
def compiled(unit: UnitDef, recipe: Recipe, *, is_first: bool) -> Executables:
    """Returns the functions of a unit, which compile when they are first called."""
    rule = optim.chain(recipe.optimizer)

    def linearized(
        x: Array, shortcut: Array | None, params: Leaves, stats: Leaves, mode: Mode
    ) -> tuple[Array, Leaves, _Residuals]:
        def call(
            params: Leaves, x: Array, shortcut: Array | None
        ) -> tuple[Array, Leaves]:
            return unit.call(params, stats, x, shortcut, mode)

        if is_first:  # nobody needs the gradient of the images
            y, vjp, new_stats = jax.vjp(
                lambda params: call(params, x, shortcut), params, has_aux=True
            )
        else:
            y, vjp, new_stats = jax.vjp(call, params, x, shortcut, has_aux=True)
        return y, new_stats, _Residuals.of(vjp, (params, stats, x, shortcut, mode))

    def transposed(
        grad: Array,
        given: Given,
        kept: Leaves,
        trained: Trained,
        stats: Leaves,
        inputs: UpdateInputs,
    ) -> tuple[list[Any], Trained]:
        x, shortcut, mode = given
        wiring = jax.eval_shape(
            lambda *args: linearized(*args)[2],
            *(x, shortcut, trained.params, stats, mode),
        ).wiring
        vjp = _Residuals(kept, wiring).vjp((trained.params, stats, *given))
        grads, *through = vjp(grad)
        return through, _update(rule, grads, trained, inputs)

    def learned(
        x: Array,
        targets: Targets,
        trained: Trained,
        stats: Leaves,
        mode: Mode,
        strengths: Strengths,
        inputs: UpdateInputs,
    ) -> tuple[Array, Array, Trained]:
        def loss_of(params: Leaves, x: Array) -> Array:
            outputs, _ = unit.call(params, stats, x, None, mode)
            return recipe.task.loss(outputs, targets, strengths)

        loss, (grads, grad_x) = jax.value_and_grad(loss_of, argnums=(0, 1))(
            trained.params, x
        )
        return loss, grad_x, _update(rule, grads, trained, inputs)

    name = repr((unit, recipe, is_first))
    run_forward = Program(linearized, f"forward {name}")
    run_backward = Program(transposed, f"backward {name}", donated=[3])
    run_learn = Program(learned, f"learn {name}", donated=[2])
    num_stats = 1 if unit.stats.shapes else 0

    def forward(
        params: Leaves, stats: Leaves, x: Array, shortcut: Array | None, mode: Mode
    ) -> tuple[Array, Leaves, Leaves]:
        y, *rest = run_forward(x, shortcut, params, stats, mode)
        return y, tuple(rest[:num_stats]), tuple(rest[num_stats:])

    def backward(
        kept: Leaves,
        given: Given,
        grad: Array,
        trained: Trained,
        stats: Leaves,
        inputs: UpdateInputs,
    ) -> tuple[Array | None, Array | None, Trained]:
        outputs = run_backward(grad, given, kept, trained, stats, inputs)
        tree = jax.tree.structure(trained)
        through = outputs[: len(outputs) - tree.num_leaves]
        grad_x, grad_shortcut = (*through, None, None)[:2]
        return grad_x, grad_shortcut, tree.unflatten(outputs[len(through) :])

    def learn(
        trained: Trained,
        stats: Leaves,
        x: Array,
        targets: Targets,
        mode: Mode,
        strengths: Strengths,
        inputs: UpdateInputs,
    ) -> tuple[Array, Array, Trained]:
        loss, grad_x, *rest = run_learn(
            x, targets, trained, stats, mode, strengths, inputs
        )
        return loss, grad_x, jax.tree.structure(trained).unflatten(rest)

    return Executables(forward, backward, learn)


def _update(
    rule: optax.GradientTransformationExtraArgs,
    grads: Leaves,
    old: Trained,
    inputs: UpdateInputs,
) -> Trained:
    updates, optimizer = rule.update(
        grads,
        old.optimizer,
        old.params,
        learning_rate=inputs.learning_rate,
        weight_decay=inputs.weight_decay,
    )
    params = jax.tree.map(jnp.add, old.params, updates)
    return Trained(params=params, optimizer=optimizer)
