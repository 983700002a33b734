"""The training step of one network, compiled whole and sharded over local devices.

For long training of one network: compiling takes tens of seconds once, and XLA fuses
across units. Many short-lived children use `chained.ChainedStep` instead.

The batch is split over the devices and the weights are copied to each; the compiled
program computes what it would on one device, batch norm's statistics included.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from trainers import optim
from trainers.networks.classifier import Classifier, classifier_of
from trainers.networks.units import EVALUATION, BatchNorm, Mode
from trainers.phases import Strengths
from trainers.runtime.devices import Devices
from trainers.steps.executables import Leaves, Recipe, StepInputs
from trainers.tasks.task import Batch, Observations

T = TypeVar("T")
Prepare = Callable[[Array, Batch, Strengths], Batch]
"""(key, batch, strengths) -> what to train on: stronger augmentation, mixing."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkState:
    """A network's arrays: weights, batch statistics, optimizer state, averages."""

    params: Leaves
    stats: Leaves
    optimizer: Any
    ema: tuple[Leaves, Leaves] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Definition:
    """A network without its arrays."""

    graphdef: nnx.GraphDef[Classifier]
    params: Any  # a PyTreeDef
    stats: Any  # a PyTreeDef

    def run(
        self, params: Leaves, stats: Leaves, images: Array, mode: Mode
    ) -> tuple[Array, Leaves]:
        network = nnx.merge(
            self.graphdef,
            jax.tree.unflatten(self.params, params),
            jax.tree.unflatten(self.stats, stats),
            copy=True,  # batch statistics are updated inside a trace
        )
        outputs = network(images, mode)
        return outputs, tuple(jax.tree.leaves(nnx.state(network, nnx.BatchStat)))


class JittedStep:
    """`trainers.loop.Step` of a whole network, over a `NetworkState`."""

    def __init__(
        self,
        network: Classifier,
        recipe: Recipe,
        *,
        devices: Devices,
        prepare: Prepare | None = None,
        accumulation: int = 1,
        head_only: bool = False,
        ema: bool = False,
        decay_biases: bool = False,
    ) -> None:
        """Compiles nothing yet.

        Args:
          network: gives the structure and the initial weights.
          recipe: task and update rule.
          devices: over which batches are split.
          prepare: what is done to a batch before the network sees it.
          accumulation: parts that a batch is cut into; their gradients are averaged,
            and batch norm sees one part at a time.
          head_only: train the classifier alone, with the rest as in evaluation.
          ema: keep a moving average of the weights and the batch statistics.
          decay_biases: let the biases of squeeze-and-excitation and of the classifier
            decay as kernels do; batch norm's never do.
        """
        self._network = network
        self.task = recipe.task
        self._ema = ema
        self._prepare = prepare
        self._accumulation = accumulation
        self._head_only = head_only
        self._devices = devices
        graphdef, params, stats = nnx.split(network, nnx.Param, nnx.BatchStat)
        self._definition = _Definition(
            graphdef=graphdef,
            params=jax.tree.structure(params),
            stats=jax.tree.structure(stats),
        )
        head = classifier_of(network)
        trained = {id(value) for value in (head.kernel, head.bias)}
        self._trained = tuple(
            not head_only or id(variable) in trained
            for _, variable in nnx.to_flat_state(_live(network, nnx.Param))
        )
        decayed = _outside_batch_norm(network) if decay_biases else None
        self._rule = optim.chain(
            recipe.optimizer, decayed and _chosen(decayed, self._trained)
        )
        self._step = jax.jit(
            self._train, donate_argnums=0, out_shardings=devices.everywhere
        )
        self._observe = jax.jit(self._observed)
        self._refit = jax.jit(self._refitted, out_shardings=devices.everywhere)

    def initial(self) -> NetworkState:
        """Returns the state to start from, on the devices."""
        _, params, stats = nnx.split(self._network, nnx.Param, nnx.BatchStat)
        params, stats = tuple(jax.tree.leaves(params)), tuple(jax.tree.leaves(stats))
        ema = jax.tree.map(jnp.copy, (params, stats)) if self._ema else None
        state = NetworkState(
            params=params,
            stats=stats,
            optimizer=self._rule.init(_chosen(params, self._trained)),
            ema=ema,
        )
        return self.place(state)

    def place(self, state: NetworkState) -> NetworkState:
        """Copies a state to every device."""
        # Own buffers: a step gives its input's memory to its output.
        return self._devices.copy(jax.tree.map(jnp.array, state))

    def __call__(
        self,
        states: NetworkState,
        batch: Batch,
        inputs: StepInputs,
    ) -> tuple[NetworkState, Float[Array, ""]]:
        """Returns the state after one step, and the loss before it.

        The step overwrites the arrays of `states`, which are of no use afterwards.
        """
        batch, inputs = self._devices.split(batch), self._devices.copy(inputs)
        return self._step(states, batch, inputs)

    def observe(self, states: NetworkState, batch: Batch) -> Observations:
        """Returns what the task sees of the outputs for an evaluation batch."""
        return self._observe(states.params, states.stats, self._devices.split(batch))

    def refit(
        self, states: NetworkState, batch: Batch, momentum: float
    ) -> NetworkState:
        """Returns the state with batch statistics moved towards those of `batch`."""
        images, *_ = self._devices.split(batch)
        stats = self._refit(states.params, states.stats, images, jnp.float32(momentum))
        return dataclasses.replace(states, stats=stats)

    def network(self, state: NetworkState) -> Classifier:
        """Returns a network of its own with the weights and statistics of `state`."""
        params, stats = jax.device_get((state.params, state.stats))
        return nnx.merge(
            self._definition.graphdef,
            jax.tree.unflatten(self._definition.params, params),
            jax.tree.unflatten(self._definition.stats, stats),
            copy=True,
        )

    def _train(
        self, state: NetworkState, batch: Batch, inputs: StepInputs
    ) -> tuple[NetworkState, Float[Array, ""]]:
        key = inputs.key
        if self._prepare is not None:
            if key is None:
                raise ValueError("augmentation needs the schedule's seed, got None")
            key, prepare_key = jax.random.split(key)
            batch = self._prepare(prepare_key, batch, inputs.strengths)
        grads, stats, loss = self._gradients(state, batch, inputs, key)
        return self._update(state, grads, stats, inputs), loss

    def _gradients(
        self,
        state: NetworkState,
        batch: Batch,
        inputs: StepInputs,
        key: Array | None,
    ) -> tuple[Leaves, Leaves, Array]:
        chosen = _chosen(state.params, self._trained)

        def loss_of(
            chosen: Leaves, stats: Leaves, batch: Batch, key: Array | None
        ) -> tuple[Array, Leaves]:
            params = _merged(state.params, chosen, self._trained)
            images, *targets = batch
            mode = EVALUATION if self._head_only else _training(inputs, key)
            outputs, stats = self._definition.run(params, stats, images, mode)
            loss = self.task.loss(outputs, tuple(targets), inputs.strengths)
            return loss, stats

        gradient = jax.value_and_grad(loss_of, has_aux=True)
        if self._accumulation == 1:
            (loss, stats), grads = gradient(chosen, state.stats, batch, key)
            return grads, stats, loss

        def add(
            carry: tuple[Leaves, Leaves, Array], part: tuple[Array, Batch]
        ) -> tuple[tuple[Leaves, Leaves, Array], None]:
            stats, total, loss_total = carry
            index, batch = part
            own = None if key is None else jax.random.fold_in(key, index)
            (loss, stats), grads = gradient(chosen, stats, batch, own)
            return (stats, jax.tree.map(jnp.add, total, grads), loss_total + loss), None

        parts = self._accumulation
        zeros = jax.tree.map(jnp.zeros_like, chosen)
        carry = (state.stats, zeros, jnp.float32(0))
        xs = jnp.arange(parts), jax.tree.map(lambda values: _cut(values, parts), batch)
        (stats, total, loss), _ = jax.lax.scan(add, carry, xs)
        return jax.tree.map(lambda g: g / parts, total), stats, loss / parts

    def _update(
        self, state: NetworkState, grads: Leaves, stats: Leaves, inputs: StepInputs
    ) -> NetworkState:
        chosen = _chosen(state.params, self._trained)
        updates, optimizer = self._rule.update(
            grads,
            state.optimizer,
            chosen,
            learning_rate=inputs.learning_rate,
            weight_decay=inputs.strengths.weight_decay,
        )
        params = _merged(
            state.params, jax.tree.map(jnp.add, chosen, updates), self._trained
        )
        ema, decay = state.ema, inputs.ema_decay
        if ema is not None:
            ema = jax.tree.map(
                lambda old, new: decay * old + (1 - decay) * new, ema, (params, stats)
            )
        return NetworkState(params=params, stats=stats, optimizer=optimizer, ema=ema)

    def _refitted(
        self, params: Leaves, stats: Leaves, images: Array, momentum: Array
    ) -> Leaves:
        mode = Mode(train=True, momentum=momentum)
        return self._definition.run(params, stats, images, mode)[1]

    def _observed(self, params: Leaves, stats: Leaves, batch: Batch) -> Observations:
        images, *targets = batch
        outputs, _ = self._definition.run(params, stats, images, EVALUATION)
        return self.task.observe(outputs, tuple(targets))


def averaged(state: NetworkState) -> NetworkState:
    """Returns a state whose weights and statistics are the averaged ones.

    Raises:
      ValueError: if no averages are kept.
    """
    if state.ema is None:
        raise ValueError("there are no averaged weights; give an EMA decay above 0")
    params, stats = state.ema
    return dataclasses.replace(state, params=params, stats=stats)


def _training(inputs: StepInputs, key: Array | None) -> Mode:
    return Mode(
        train=True,
        momentum=inputs.norm_momentum,
        key=key,
        dropout=inputs.strengths.dropout,
        drop_path=inputs.strengths.drop_path,
    )


def _live(
    network: Classifier, kind: type[nnx.Variable[Array]]
) -> nnx.State[str, nnx.Variable[Array]]:
    """The network's own variables of a kind, in the order in which they are split."""
    found = {
        path: node for path, node in nnx.iter_graph(network) if isinstance(node, kind)
    }
    return nnx.from_flat_state(found)


def _outside_batch_norm(network: Classifier) -> tuple[bool, ...]:
    """Whether each weight is not one of batch norm's, in the order of the split."""
    norms = {
        id(value)
        for _, node in nnx.iter_graph(network)
        if isinstance(node, BatchNorm)
        for value in (node.scale, node.bias)
    }
    return tuple(
        id(variable) not in norms
        for _, variable in nnx.to_flat_state(_live(network, nnx.Param))
    )


def _chosen(params: tuple[T, ...], which: Sequence[bool]) -> tuple[T, ...]:
    return tuple(p for p, chosen in zip(params, which, strict=True) if chosen)


def _merged(params: Leaves, chosen: Leaves, which: Sequence[bool]) -> Leaves:
    rest = iter(chosen)
    return tuple(
        next(rest) if is_chosen else p
        for p, is_chosen in zip(params, which, strict=True)
    )


def _cut(values: Array, parts: int) -> Array:
    """Cuts a batch into parts of equal size, taking from every device for each."""
    return values.reshape(-1, parts, *values.shape[1:]).swapaxes(0, 1)
