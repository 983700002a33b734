"""Training steps and evaluation of one network, a chain of compiled units."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from trainers.networks.units import Mode
from trainers.runtime.devices import Devices
from trainers.steps.executables import (
    Executables,
    Network,
    Recipe,
    StepInputs,
    UnitState,
    UpdateInputs,
    compiled,
)
from trainers.tasks.task import Batch, Observations, Task

_Arrays = TypeVar("_Arrays")


class ChainedStep:
    """`trainers.loop.Step` of a network's units, over a list of their states."""

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        executables: Callable[..., Executables] = compiled,
        devices: Devices | None = None,
    ) -> None:
        """Compiles nothing yet; a batch is split over `devices`, where given."""
        self._devices = devices
        self._network = network
        self.task = recipe.task
        self._run = [
            executables(unit, recipe, is_first=i == 0)
            for i, unit in enumerate(network.units)
        ]
        self._train = self._copied(jnp.asarray(True))  # noqa: FBT003
        self._evaluate = self._copied(jnp.asarray(False))  # noqa: FBT003
        self._one = self._copied(jnp.float32(1.0))

    def place(self, states: Sequence[UnitState]) -> list[UnitState]:
        """Returns initial states on the devices."""
        return self._copied(list(states))

    def __call__(
        self,
        states: Sequence[UnitState],
        batch: Batch,
        inputs: StepInputs,
    ) -> tuple[list[UnitState], Float[Array, ""]]:
        """Returns the states after one step, and the loss before it.

        The step overwrites the arrays of `states`, which are of no use afterwards.
        """
        if self._devices is not None:
            batch = self._devices.split(batch)
            inputs = self._devices.copy(inputs)
        images, *targets = batch
        update = UpdateInputs(
            learning_rate=inputs.learning_rate,
            weight_decay=inputs.strengths.weight_decay,
        )
        states = list(states)
        modes = self._modes(inputs)
        kept: dict[int, Any] = {}
        last = len(states) - 1

        def forward(unit: int, x: Array, shortcut: Array | None, mode: Mode) -> Array:
            state = states[unit]
            y, stats, residuals = self._run[unit].forward(
                state.trained.params, state.stats, x, shortcut, mode
            )
            kept[unit] = (x, shortcut, mode), stats, residuals
            return y

        def backward(unit: int, grad: Array) -> tuple[Array, Array | None]:
            given, stats, residuals = kept.pop(unit)
            old = states[unit]
            grad_x, grad_shortcut, trained = self._run[unit].backward(
                residuals, given, grad, old.trained, old.stats, update
            )
            states[unit] = UnitState(trained=trained, stats=stats)
            return grad_x, grad_shortcut

        x = self._forward(images, forward, modes)
        old = states[last]
        loss, grad, trained = self._run[last].learn(
            old.trained,
            old.stats,
            x,
            tuple(targets),
            modes[-1],
            inputs.strengths,
            update,
        )
        states[last] = UnitState(trained=trained, stats=old.stats)
        self._backward(grad, backward)
        return states, loss

    def observe(self, states: Sequence[UnitState], batch: Batch) -> Observations:
        """Returns what the task sees of the outputs for an evaluation batch.

        Runs the training executables with the running statistics, so that evaluation
        compiles next to nothing of its own.
        """
        if self._devices is not None:
            batch = self._devices.split(batch)
        images, *targets = batch
        mode = Mode(train=self._evaluate, momentum=self._one)

        def forward(unit: int, x: Array, shortcut: Array | None, mode: Mode) -> Array:
            state = states[unit]
            run = self._run[unit].forward
            return run(state.trained.params, state.stats, x, shortcut, mode)[0]

        x = self._forward(images, forward, [mode] * len(self._network.blocks))
        run, head = self._run[-1].forward, states[-1]
        outputs, *_ = run(head.trained.params, head.stats, x, None, mode)
        return _observer(self.task)(outputs, tuple(targets))

    def refit(
        self, states: Sequence[UnitState], batch: Batch, momentum: float
    ) -> list[UnitState]:
        """Returns the states with batch statistics moved towards those of `batch`.

        By the training executables: it compiles nothing of its own.
        """
        if self._devices is not None:
            batch = self._devices.split(batch)
        images, *_ = batch
        states = list(states)
        mode = Mode(train=self._train, momentum=self._copied(jnp.float32(momentum)))

        def forward(unit: int, x: Array, shortcut: Array | None, mode: Mode) -> Array:
            state = states[unit]
            y, stats, _ = self._run[unit].forward(
                state.trained.params, state.stats, x, shortcut, mode
            )
            states[unit] = UnitState(trained=state.trained, stats=stats)
            return y

        self._forward(images, forward, [mode] * len(self._network.blocks))
        return states

    def maps(
        self, states: Sequence[UnitState], batch: Batch
    ) -> list[tuple[int, Array, Array | None]]:
        """Returns what each unit but the last makes of a training batch.

        A unit's position in the network, its maps, and the shortcut added to them. By
        the training executables: it compiles nothing of its own.
        """
        images, *_ = batch if self._devices is None else self._devices.split(batch)
        seen: list[tuple[int, Array, Array | None]] = []

        def forward(unit: int, x: Array, shortcut: Array | None, mode: Mode) -> Array:
            state = states[unit]
            run = self._run[unit].forward
            y, *_ = run(state.trained.params, state.stats, x, shortcut, mode)
            seen.append((unit, y, shortcut))
            return y

        mode = Mode(train=self._train, momentum=self._one)
        self._forward(images, forward, [mode] * len(self._network.blocks))
        return seen

    def _copied(self, arrays: _Arrays) -> _Arrays:
        return arrays if self._devices is None else self._devices.copy(arrays)

    def _modes(self, inputs: StepInputs) -> list[Mode]:
        blocks = self._network.blocks
        if inputs.key is None:
            mode = Mode(train=self._train, momentum=inputs.norm_momentum)
            return [mode] * len(blocks)
        return [
            Mode(
                train=self._train,
                momentum=inputs.norm_momentum,
                key=key,
                dropout=inputs.strengths.dropout,
                drop_path=inputs.strengths.drop_path,
            )
            for key in _block_keys(inputs.key, len(blocks))
        ]

    def _forward(
        self, images: Array, run: Callable[..., Array], modes: Sequence[Mode]
    ) -> Array:
        """Runs every unit but the last."""
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
        raise AssertionError("a network's last unit is in its last block")

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


@lru_cache
def _observer(task: Task) -> Callable[..., Observations]:
    return jax.jit(task.observe)
