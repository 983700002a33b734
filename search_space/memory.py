"""How much memory a network takes, from its layers alone: no network is built.

A model in float32 of one device, in bytes:

    training    weights, gradients, the optimizer's state, activations
    inference   weights, activations

Activations grow with the batch, and every layer writes a map of its own. In inference
a map lives until its last reader is done; the peak is the largest sum at one layer, as
`search_space.cost` has it. In training it lives until its gradient has been computed:
what each convolution writes, what batch norm and the activation behind it make of that
(of a batch norm that an addition follows, the sum alone), what squeeze-and-excitation
scales. The gradients of a layer's output and input join them while its backward pass
runs.

Against what XLA reports for the compiled program of EfficientNet-B0 on a CPU
(`experiments.checks.xla_memory`), the model's total is 0.98 to 1.00 times the measured
one, in training (AdamW) and in inference, as long as every layer takes the whole batch
at once. Depthwise convolutions that take a few images at a time, as
`trainers.networks.depthwise` has them on a CPU, hold copies: inference of a batch of 8
takes 1.5 times the model's total at 96 pixels and 1.8 times at 224, that of one image
1.01 times; training of a batch of 8 takes 0.92 times at 96. A compiler for another
device may keep less, by fusing layers or by computing a map again.

Not counted: the images, the running statistics of batch norm, a runtime's workspace
and its compiled code.
"""

import itertools
from dataclasses import dataclass

from search_space import cost, primitives
from search_space.primitives import Layer
from search_space.spec import ArchSpec

_BYTES = 4  # float32


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes by what they hold; `gradients` and `optimizer` are 0 in inference."""

    weights: int
    gradients: int = 0
    optimizer: int = 0
    activations: int

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.weights + self.gradients + self.optimizer + self.activations


def inference(spec: ArchSpec, *, batch_size: int) -> Memory:
    """Returns what running `spec` forward takes, at its own resolution.

    Raises:
      ValueError: if the batch is empty.
    """
    _check_batch(batch_size)
    counted = cost.profile(spec)
    return Memory(
        weights=_BYTES * counted.num_params,
        activations=batch_size * counted.peak_activation_bytes,
    )


def training(spec: ArchSpec, *, batch_size: int, optimizer_slots: int) -> Memory:
    """Returns what a training step of `spec` takes, at its own resolution.

    Args:
      spec: the network.
      batch_size: images in a step.
      optimizer_slots: numbers that the optimizer keeps for each weight: 1 for
        momentum, 2 for Adam or for RMSProp with momentum.

    Raises:
      ValueError: if the batch is empty, or the number of slots negative.
    """
    _check_batch(batch_size)
    if optimizer_slots < 0:
        raise ValueError(f"optimizer_slots must be at least 0, got {optimizer_slots}")
    weights = _BYTES * cost.num_params(spec)
    return Memory(
        weights=weights,
        gradients=weights,
        optimizer=optimizer_slots * weights,
        activations=_BYTES * batch_size * _peak_in_training(spec),
    )


def _peak_in_training(spec: ArchSpec) -> int:
    """Elements live at the worst layer of one image's backward pass."""
    found = primitives.layers_of(spec)
    following = (*found[1:], None)
    kept = itertools.accumulate(map(_kept, found, following))
    return max(
        held + _input(layer) + _output(layer)
        for layer, held in zip(found, kept, strict=True)
    )


def _kept(layer: Layer, after: Layer | None) -> int:
    """Elements that the layer leaves for the backward pass."""
    if layer.op == "dense":
        return 0
    if layer.op == "batch_norm":  # normalized, and activated
        return 0 if after is not None and after.op == "add" else 2 * _output(layer)
    return _output(layer)


def _input(layer: Layer) -> int:
    return layer.in_channels * layer.in_size**2


def _output(layer: Layer) -> int:
    return layer.out_channels * layer.out_size**2


def _check_batch(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
