"""How long a network takes for a batch of images, measured on this device.

Networks are folded for inference (`folding`), compiled, and run once before the clock
starts. Pin the process to the cores meant before JAX starts
(`nas.execution.resources.claim_cores`).
"""

import dataclasses
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from flax import nnx

from search_space.spec import ArchSpec
from trainers.deploy import folding, saved
from trainers.networks import classifier
from trainers.networks.blocks import NetworkBlock
from trainers.networks.units import EVALUATION, Mode
from trainers.runtime import optional

TURNS = 5  # of calls that are compared with each other
_WARM_UP = 3  # runs: the first ones fault memory in

ClockName = Literal["wall", "processor"]
"""The time that passes; or that this process computes, for a core shared with others.

The two agree on one core of one's own. With more cores the latter is their sum, and it
does not see an accelerator.
"""
_CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latency:
    """Milliseconds for one batch: the median of `runs`, and the middle half of them."""

    median_ms: float
    lower_quartile_ms: float
    upper_quartile_ms: float
    runs: int


def measure(
    run: Callable[[], object],
    *,
    runs: int,
    clock: ClockName = "wall",
) -> Latency:
    """Times `run`, which must return when its result is there."""
    return _summary(_times(run, runs, _CLOCKS[clock]))


def in_turns(
    calls: Sequence[Callable[[], object]],
    *,
    runs: int,
    clock: ClockName = "wall",
    after_turn: Callable[[int], None],
) -> list[Latency]:
    """Times each of `calls`, which take turns: to be compared with each other.

    A machine that slows down for a minute then does so for all of them.

    Args:
      calls: as `measure` takes them.
      runs: of each, over all turns.
      clock: see `ClockName`.
      after_turn: is told the number of each turn that ends.
    """
    now = _CLOCKS[clock]
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(TURNS):
        for call, found in zip(calls, times, strict=True):
            found += _times(call, math.ceil(runs / TURNS), now)
        after_turn(turn + 1)
    return [_summary(found) for found in times]


def _times(
    run: Callable[[], object], runs: int, now: Callable[[], float]
) -> list[float]:
    for _ in range(_WARM_UP):
        run()
    times = []
    for _ in range(runs):
        start = now()
        run()
        times.append(1e3 * (now() - start))
    return times


def _summary(times: Sequence[float]) -> Latency:
    lower, median, upper = np.quantile(times, (0.25, 0.5, 0.75)).tolist()
    return Latency(
        median_ms=median,
        lower_quartile_ms=lower,
        upper_quartile_ms=upper,
        runs=len(times),
    )


def on_cpu() -> bool:
    """Tells whether it is the CPU that JAX measures here."""
    return jax.default_backend() == "cpu"


def device() -> str:
    """Names what is measured: the accelerator, or the CPU and how many cores of it."""
    kind = jax.devices()[0].device_kind
    if not on_cpu():
        return kind
    number = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    model = models[0] if models else platform.processor() or platform.machine()
    return f"{number} core{'s' if number != 1 else ''} of {model}"


def network_call(spec: ArchSpec, *, batch_size: int) -> Callable[[], object]:
    """Returns what runs a network once, compiled, in JAX; its weights do not matter."""
    network = folding.fold(classifier.build(spec, seed=0))
    return _call(network, _images(spec, batch_size))


def block_call(
    block: NetworkBlock, *, in_channels: int, in_size: int
) -> Callable[[], object]:
    """Returns what runs one block of a network alone, compiled, for one image."""
    maps = np.random.default_rng(0).normal(size=(1, in_size, in_size, in_channels))
    return _call(folding.fold_block(block), maps.astype(np.float32), EVALUATION)


def empty_call() -> Callable[[], object]:
    """Returns what computes next to nothing: what every call costs."""
    value = jax.device_put(np.zeros((1, 1, 1, 1), np.float32))
    negate = jax.jit(jax.numpy.negative).lower(value).compile()
    return lambda: negate(value).block_until_ready()


def _call(module: nnx.Module, images: np.ndarray, *modes: Mode) -> Callable[[], object]:
    graphdef, arrays = nnx.split(module)
    arrays = jax.device_get(arrays)

    def forward(images: jax.Array) -> jax.Array:
        # Weights are constants, as in what `nas.export` writes: XLA lays them out once.
        return nnx.merge(graphdef, arrays)(images, *modes)  # pyright: ignore[reportCallIssue]

    compiled = jax.jit(forward).lower(images).compile()
    on_device = jax.device_put(images)
    return lambda: compiled(on_device).block_until_ready()


def onnxruntime_call(
    spec: ArchSpec, *, batch_size: int, num_threads: int
) -> Callable[[], object]:
    """Returns what runs such a network once in onnxruntime on the CPU.

    Raises:
      ValueError: if onnx or onnxruntime is not installed.
    """
    if lack := optional.missing("onnx", "onnxruntime"):
        raise ValueError(f"measuring in onnxruntime {lack}")
    import onnxruntime  # pyright: ignore[reportMissingImports]  # an extra's

    from trainers.deploy import onnx_graph

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    session = onnxruntime.InferenceSession(
        onnx_graph.graph(saved.fresh(spec, seed=0)).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )
    inputs = {onnx_graph.INPUT: _images(spec, batch_size)}
    return lambda: session.run(None, inputs)


def _images(spec: ArchSpec, batch_size: int) -> np.ndarray:
    shape = (batch_size, spec.resolution, spec.resolution, spec.in_channels)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)
