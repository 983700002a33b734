"""Training steps made of compiled units that different networks share.

Compiling a whole network costs 20 CPU-seconds, and a search asks for thousands of
different ones. Here the compiled program is one unit: its forward pass, and its
backward pass together with its optimizer's update. A step runs them in a chain from
Python. A search space has a few hundred distinct units, so after some children
everything is there: in this process, and through JAX's persistent cache in the others
and in later runs.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from trainers import compilation, optim
from trainers.networks.classifier import Classifier
from trainers.networks.units import Mode

_MAX_UNITS = 4096  # executables kept; the spaces here have a few hundred distinct units

Leaves = tuple[Array, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is compiled into a step.

    Attributes:
      optimizer: the update rule.
      label_smoothing: share of the target spread over all classes.
      ema: keep an exponential moving average of weights and batch statistics.
    """

    optimizer: optim.Optimizer = dataclasses.field(default_factory=optim.Optimizer)
    label_smoothing: float = 0.0
    ema: bool = False


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class StepInputs:
    """What differs between steps: scalars on the device, and the random key.

    `key` None switches dropout and stochastic depth off.
    """

    learning_rate: Array
    norm_momentum: Array
    ema_decay: Array
    key: Array | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class UnitState:
    """One unit's arrays: weights, batch statistics, optimizer state, averages."""

    params: Leaves
    stats: Leaves
    optimizer: Any
    ema: tuple[Leaves, Leaves] | None


@dataclasses.dataclass(frozen=True)
class _UnitDef:
    """A unit without its arrays; equal for units of equal hyperparameters."""

    graphdef: nnx.GraphDef
    params: Any  # a PyTreeDef
    stats: Any  # a PyTreeDef

    def call(
        self,
        params: Leaves,
        stats: Leaves,
        x: Array,
        shortcut: Array | None,
        mode: Mode,
    ) -> tuple[Array, Leaves]:
        unit = nnx.merge(
            self.graphdef,
            jax.tree.unflatten(self.params, params),
            jax.tree.unflatten(self.stats, stats),
            copy=True,  # batch statistics are updated inside a trace
        )
        y = unit(x, shortcut, mode)
        return y, tuple(jax.tree.leaves(nnx.state(unit, nnx.BatchStat)))


@dataclasses.dataclass(frozen=True)
class _BlockPlan:
    """Which units a block runs: positions in the network's list."""

    units: tuple[int, ...]
    skip: bool
    shortcut: int | None


@dataclasses.dataclass(frozen=True)
class Network:
    """The static part of a network: units and wiring."""

    units: tuple[_UnitDef, ...]
    blocks: tuple[_BlockPlan, ...]
    dtype: str


def split(model: Classifier, recipe: Recipe) -> tuple[Network, list[UnitState]]:
    """Returns the network's static part and its initial training state."""
    defs: list[_UnitDef] = []
    states: list[UnitState] = []
    rule = optim.chain(recipe.optimizer)

    # Optimizer state starts out constant: told from one number, it compiles nothing.
    def initial(params: Leaves) -> Any:
        values = rule.init(tuple(jnp.zeros((1,) * p.ndim) for p in params))
        shapes = jax.eval_shape(rule.init, params)
        return jax.tree.map(
            lambda value, like: np.full(like.shape, np.ravel(value)[0], like.dtype),
            values,
            shapes,
        )

    def add(unit: nnx.Module) -> int:
        graphdef, params, stats = nnx.split(unit, nnx.Param, nnx.BatchStat)
        (params, params_def), (stats, stats_def) = map(
            jax.tree.flatten, (params, stats)
        )
        params, stats = jax.device_put((tuple(params), tuple(stats)))
        defs.append(_UnitDef(graphdef, params_def, stats_def))
        states.append(
            UnitState(
                params=params,
                stats=stats,
                optimizer=jax.device_put(initial(params)),
                ema=(params, stats) if recipe.ema else None,
            )
        )
        return len(defs) - 1

    blocks = tuple(
        _BlockPlan(
            units=tuple(add(unit) for unit in block.units),
            skip=block.skip,
            shortcut=None if block.shortcut is None else add(block.shortcut),
        )
        for block in model.blocks
    )
    return Network(tuple(defs), blocks, model.dtype), states


@dataclasses.dataclass(frozen=True)
class _Executables:
    """The jitted functions of one unit."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    classify: Callable[..., Any]


@lru_cache(maxsize=_MAX_UNITS)
def _executables(unit: _UnitDef, recipe: Recipe, *, is_first: bool) -> _Executables:
    rule = optim.chain(recipe.optimizer)
    jit = partial(jax.jit, compiler_options=compilation.options())

    @jit
    def forward(params, stats, x, shortcut, mode):
        def call(params, x, shortcut):
            return unit.call(params, stats, x, shortcut, mode)

        if is_first:  # nobody needs the gradient of the images
            y, vjp, stats = jax.vjp(
                lambda params: call(params, x, shortcut), params, has_aux=True
            )
        else:
            y, vjp, stats = jax.vjp(call, params, x, shortcut, has_aux=True)
        return y, stats, vjp

    @jit
    def backward(vjp, grad, state, stats, inputs):
        grads, *through = vjp(grad)
        grad_x, grad_shortcut = through or (None, None)
        return grad_x, grad_shortcut, _update(rule, grads, state, stats, inputs)

    @jit
    def classify(state, x, labels, mode, inputs):
        def loss_of(params, x):
            logits, stats = unit.call(params, state.stats, x, None, mode)
            return _loss(logits, labels, recipe.label_smoothing), stats

        (loss, stats), (grads, grad_x) = jax.value_and_grad(
            loss_of, argnums=(0, 1), has_aux=True
        )(state.params, x)
        return loss, grad_x, _update(rule, grads, state, stats, inputs)

    return _Executables(forward, backward, classify)


def _loss(
    logits: Float[Array, "batch classes"],
    labels: Int[Array, " batch"],
    smoothing: float,
) -> Float[Array, ""]:
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return optax.softmax_cross_entropy(logits, targets).mean()


def _update(
    rule: optax.GradientTransformationExtraArgs,
    grads: Leaves,
    state: UnitState,
    stats: Leaves,
    inputs: StepInputs,
) -> UnitState:
    updates, optimizer = rule.update(
        grads, state.optimizer, state.params, learning_rate=inputs.learning_rate
    )
    params = jax.tree.map(jnp.add, state.params, updates)
    ema = None
    if state.ema is not None:
        ema = jax.tree.map(
            lambda old, new: inputs.ema_decay * old + (1 - inputs.ema_decay) * new,
            state.ema,
            (params, stats),
        )
    return UnitState(params=params, stats=stats, optimizer=optimizer, ema=ema)


class ChainedStep:
    """Training steps and evaluation of one network, unit by unit."""

    def __init__(self, network: Network, recipe: Recipe) -> None:
        self._network = network
        self._run = [
            _executables(unit, recipe, is_first=i == 0)
            for i, unit in enumerate(network.units)
        ]
        self._train = jnp.asarray(True)  # noqa: FBT003
        self._evaluate = jnp.asarray(False)  # noqa: FBT003
        self._one = jnp.float32(1.0)

    def __call__(
        self,
        states: Sequence[UnitState],
        images: Float[Array, "batch height width channels"],
        labels: Int[Array, " batch"],
        inputs: StepInputs,
    ) -> tuple[list[UnitState], Float[Array, ""]]:
        """Returns the states after one step, and the loss before it."""
        states = list(states)
        modes = self._modes(inputs)
        vjps: dict[int, Any] = {}
        new_stats: dict[int, Leaves] = {}
        last = len(states) - 1

        def forward(unit: int, x: Array, shortcut: Array | None, mode: Mode) -> Array:
            state = states[unit]
            y, new_stats[unit], vjps[unit] = self._run[unit].forward(
                state.params, state.stats, x, shortcut, mode
            )
            return y

        def backward(unit: int, grad: Array) -> tuple[Array, Array | None]:
            grad_x, grad_shortcut, states[unit] = self._run[unit].backward(
                vjps.pop(unit), grad, states[unit], new_stats[unit], inputs
            )
            return grad_x, grad_shortcut

        x = self._forward(images, forward, modes)
        loss, grad, states[last] = self._run[last].classify(
            states[last], x, labels, modes[-1], inputs
        )
        self._backward(grad, backward)
        return states, loss

    def count_correct(
        self,
        states: Sequence[UnitState],
        images: Float[Array, "batch height width channels"],
        labels: Int[Array, " batch"],
        mask: Float[Array, " batch"],
    ) -> Float[Array, ""]:
        """Returns how many images with a true mask are classified correctly.

        NaN if a logit is not finite. Runs the training executables with the running
        statistics, so that evaluation compiles nothing of its own.
        """
        mode = Mode(train=self._evaluate, momentum=self._one)

        def forward(unit: int, x: Array, shortcut: Array | None, mode: Mode) -> Array:
            state = states[unit]
            run = self._run[unit].forward
            return run(state.params, state.stats, x, shortcut, mode)[0]

        x = self._forward(images, forward, [mode] * len(self._network.blocks))
        classifier = self._run[-1].forward
        logits, *_ = classifier(states[-1].params, states[-1].stats, x, None, mode)
        return _count_correct(logits, labels, mask)

    def _modes(self, inputs: StepInputs) -> list[Mode]:
        blocks = self._network.blocks
        if inputs.key is None:
            mode = Mode(train=self._train, momentum=inputs.norm_momentum)
            return [mode] * len(blocks)
        return [
            Mode(train=self._train, momentum=inputs.norm_momentum, key=key)
            for key in _block_keys(inputs.key, len(blocks))
        ]

    def _forward(
        self, images: Array, run: Callable[..., Array], modes: Sequence[Mode]
    ) -> Array:
        """Runs every unit but the classifier."""
        x = images.astype(self._network.dtype)
        last = len(self._network.units) - 1
        for block, mode in zip(self._network.blocks, modes, strict=True):
            added = None
            if block.skip:
                added = x
                if block.shortcut is not None:
                    added = run(block.shortcut, x, None, mode)
            for unit in block.units:
                if unit == last:
                    return x
                x = run(unit, x, added if unit == block.units[-1] else None, mode)
        raise AssertionError("a network ends in its classifier")

    def _backward(
        self, grad: Array, run: Callable[[int, Array], tuple[Array, Array | None]]
    ) -> None:
        last = len(self._network.units) - 1
        for block in reversed(self._network.blocks):
            grad_shortcut = None
            for unit in reversed(block.units):
                if unit == last:
                    continue
                grad, through = run(unit, grad)
                grad_shortcut = grad_shortcut if through is None else through
            if grad_shortcut is not None:
                if block.shortcut is not None:
                    grad_shortcut, _ = run(block.shortcut, grad_shortcut)
                grad = grad + grad_shortcut


@partial(jax.jit, static_argnums=1)
def _block_keys(key: Array, num_blocks: int) -> list[Array]:
    return [jax.random.fold_in(key, i) for i in range(num_blocks)]


@jax.jit
def _count_correct(
    logits: Float[Array, "batch classes"],
    labels: Int[Array, " batch"],
    mask: Float[Array, " batch"],
) -> Float[Array, ""]:
    correct = jnp.sum((logits.argmax(-1) == labels) * mask)
    return jnp.where(jnp.isfinite(logits).all(), correct, jnp.nan)
