"""The memory model against what XLA reports for the compiled program of B0.

    python -m experiments.checks.xla_memory

EfficientNet-B0 at three resolutions, a batch of 8, AdamW; the plainly jitted network.
XLA's bytes are the program's arguments and its temporary buffers, less the images,
which the model does not count. Nothing is run. The model must be within a twentieth.

With JAX 0.10.2 on a CPU, when depthwise convolutions took the whole batch at once:

    program     pixels   model in MB     XLA in MB    ratio
    inference       96          35.3          35.9    0.982
    training        96         217.1         217.4    0.998
    inference      160          60.5          61.3    0.987
    training       160         451.5         453.9    0.995
    inference      224          98.2          99.2    0.990
    training       224         803.1         808.1    0.994

Since they take a few images at a time the check fails. XLA holds copies in inference:
54.5 MB at 96 pixels and 176.3 MB at 224, where its own convolution takes 35.6 MB at 96;
one image of 224 pixels takes 31.1 MB, and the model says 30.8. In training it holds
less than the model says: 200.8 MB at 96.
"""

import dataclasses
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from search_space import memory, zoo
from search_space.spec import ArchSpec
from trainers import optim
from trainers.networks import classifier
from trainers.networks.units import Mode

Arrays = nnx.State[str, nnx.Variable[jax.Array]]

TOLERANCE = 0.05
BATCH = 8
RESOLUTIONS = (96, 160, 224)

_BYTES = 4  # float32
_ADAMW_SLOTS = 2


def main() -> int:
    """Prints a line for each program; returns 1 if the model is off in any."""
    kinds: dict[str, tuple[Callable[..., int], Callable[..., memory.Memory]]] = {
        "inference": (_inference_bytes, memory.inference),
        "training": (_training_bytes, _training_model),
    }
    failed = False
    print("program     pixels   model in MB     XLA in MB    ratio")
    for resolution in RESOLUTIONS:
        spec = dataclasses.replace(zoo.load("efficientnet-b0"), resolution=resolution)
        for kind, (measure, model) in kinds.items():
            found = measure(spec)
            ratio = model(spec, batch_size=BATCH).total / found
            failed |= abs(ratio - 1) > TOLERANCE
            print(
                f"{kind:12}{resolution:6}{ratio * found / 1e6:14.1f}"
                f"{found / 1e6:14.1f}{ratio:9.3f}",
                flush=True,
            )
    return int(failed)


def _training_model(spec: ArchSpec, *, batch_size: int) -> memory.Memory:
    return memory.training(spec, batch_size=batch_size, optimizer_slots=_ADAMW_SLOTS)


def _inference_bytes(spec: ArchSpec) -> int:
    graphdef, arrays = nnx.split(classifier.build(spec, seed=0))
    images, _ = _inputs(spec)
    program = jax.jit(lambda arrays, images: nnx.merge(graphdef, arrays)(images))
    return _program_bytes(program.lower(arrays, images).compile(), images)


def _training_bytes(spec: ArchSpec) -> int:
    model = classifier.build(spec, seed=0)
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    rule = optim.chain(optim.Optimizer(name="adamw"))

    def step(
        params: Arrays,
        stats: Arrays,
        state: optax.OptState,
        images: jax.Array,
        labels: jax.Array,
    ) -> tuple[optax.Updates, Arrays, optax.OptState]:
        def loss_of(params: Arrays) -> tuple[jax.Array, Arrays]:
            network = nnx.merge(graphdef, params, stats, copy=True)
            logits = network(images, Mode(train=True, momentum=0.9))
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return loss.mean(), nnx.state(network, nnx.BatchStat)

        grads, new_stats = jax.grad(loss_of, has_aux=True)(params)
        updates, new_state = rule.update(
            grads,
            state,
            params,
            learning_rate=jnp.float32(0.1),
            weight_decay=jnp.float32(1e-5),
        )
        return optax.apply_updates(params, updates), new_stats, new_state

    images, labels = _inputs(spec)
    state = jax.eval_shape(rule.init, params)
    program = jax.jit(step, donate_argnums=(0, 1, 2))
    lowered = program.lower(params, stats, state, images, labels)
    return _program_bytes(lowered.compile(), images)


def _inputs(spec: ArchSpec) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    shape = (BATCH, spec.resolution, spec.resolution, spec.in_channels)
    return (
        jax.ShapeDtypeStruct(shape, jnp.float32),
        jax.ShapeDtypeStruct(shape[:1], jnp.int32),
    )


def _program_bytes(program: jax.stages.Compiled, images: jax.ShapeDtypeStruct) -> int:
    found = program.memory_analysis()
    if found is None:
        raise RuntimeError("XLA must report its memory here, and does not")
    # Outputs share the memory of the arguments that are donated.
    held = found.argument_size_in_bytes + found.temp_size_in_bytes
    return held - _BYTES * images.size


if __name__ == "__main__":
    sys.exit(main())
