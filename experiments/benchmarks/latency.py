"""How long a network takes for one image: here, in PyTorch and in onnxruntime.

    pip install '.[onnx,peers]'
    python -m experiments.benchmarks.latency
    python -m experiments.benchmarks.latency --network runs/20250101-120000/best.json

One core, float32, fresh weights, images already in memory. PyTorch runs eagerly in
inference mode, with its usual layout and with channels last; ours and onnxruntime's
have batch norm folded into the convolutions; "grouped" is ours with XLA's grouped
convolution for the depthwise ones. All take turns, so that they see the same machine;
each round gives a median of its runs, and the median round is reported.

`--clock processor` counts the process's time on the core in place of the time that
passes: on a core shared with others the latter is mostly theirs. On one core of its
own the two agree.

By the wall clock on a core of a Xeon (results/latency.json): ours 14.6 ms, grouped
74.9, onnxruntime 11.7, PyTorch 22.3, with channels last 20.0. One of the five rounds
was disturbed, and took up to twice as long; hence the median round.
"""

# torch's types are unknown where it is not installed, as for `make test`.
# pyright: reportUnknownParameterType=false

import dataclasses
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated
from unittest import mock

import jax
import torch  # pyright: ignore[reportMissingImports]
import tyro

from experiments.benchmarks import torch_peer
from nas.execution import resources
from nas.runs import provenance
from nas.training import models
from search_space.files import write_whole
from search_space.spec import ArchSpec, Padding
from trainers.deploy import folding, latency
from trainers.networks.depthwise import native_conv

RESULT = Path("experiments/results/latency.json")

# Against onnxruntime; against PyTorch any ratio below 1 will do.
TARGET = 1.3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Measure a network here, in PyTorch and in onnxruntime."""

    network: Annotated[str, tyro.conf.arg(metavar="MODEL")] = "efficientnet-b0"
    """A JSON file, or a name such as efficientnet-b0; MBConv stages alone."""
    rounds: Annotated[int, tyro.conf.arg(metavar="N")] = 5
    """Turns of each implementation."""
    runs: Annotated[int, tyro.conf.arg(metavar="N")] = 50
    """Timed runs in a turn."""
    clock: latency.ClockName = "wall"
    """Time that passes, or time that this process computes."""
    output: Annotated[Path, tyro.conf.arg(metavar="FILE")] = RESULT
    """Where the figures go."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line for each implementation; returns 1 if a target is missed."""
    parsed = tyro.cli(
        Arguments, args=arguments, prog="python -m experiments.benchmarks.latency"
    )
    try:
        if parsed.rounds < 1 or parsed.runs < 1:
            raise ValueError(
                f"--rounds and --runs must be at least 1, got {parsed.rounds} and"
                f" {parsed.runs}"
            )
        if resources.claim_cores(1) is None:
            raise ValueError("a core must be free; stop what holds them all")
        spec = models.architecture(parsed.network)
        found = measure(
            spec, rounds=parsed.rounds, runs=parsed.runs, clock=parsed.clock
        )
        ratios = _ratios(found)
        document = {
            "version": 1,
            "command": provenance.command_line(),
            "git_commit": provenance.git_commit(),
            "versions": provenance.versions() | {"torch": torch.__version__},
            "device": latency.device(),
            "network": spec.name,
            "resolution": spec.resolution,
            "clock": parsed.clock,
            "median_ms_by_round": found,
            "ratios": ratios,
        }
        write_whole(parsed.output, json.dumps(document, indent=2) + "\n")
    except (ValueError, OSError) as error:
        return models.print_error("latency", error)
    print(
        f"{spec.name} at {spec.resolution} pixels on {latency.device()},"
        f" {parsed.clock} time"
    )
    for name, rounds in found.items():
        print(
            f"{name:24} {statistics.median(rounds):7.2f} ms"
            f"  (rounds {min(rounds):.2f} to {max(rounds):.2f})"
        )
    for name, ratio in ratios.items():
        print(f"ours to {name:16} {ratio:7.2f}")
    return int(ratios["onnxruntime"] > TARGET or ratios["PyTorch"] >= 1)


def measure(
    spec: ArchSpec, *, rounds: int, runs: int, clock: latency.ClockName
) -> dict[str, list[float]]:
    """Returns each implementation's median milliseconds of every round.

    Raises:
      ValueError: if PyTorch's side cannot build the network.
    """
    torch.set_num_threads(1)
    calls: dict[str, Callable[[], object]] = {
        "ours": latency.network_call(spec, batch_size=1),
        "ours, grouped": _grouped(spec),
        "onnxruntime": latency.onnxruntime_call(spec, batch_size=1, num_threads=1),
        "PyTorch, channels last": _torch(spec, torch.channels_last),
        "PyTorch": _torch(spec, torch.contiguous_format),
    }
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, run in calls.items():
            turn = latency.measure(run, runs=runs, clock=clock)
            found[name].append(turn.median_ms)
    return found


def _grouped(spec: ArchSpec) -> Callable[[], object]:
    """Ours, traced with the convolution that XLA has for this."""

    def native(
        x: jax.Array, kernel: jax.Array, stride: int, padding: Padding
    ) -> jax.Array:
        return native_conv(stride, padding, x, kernel)

    with mock.patch.object(folding, "depthwise_conv", native):
        return latency.network_call(spec, batch_size=1)


def _torch(spec: ArchSpec, layout: torch.memory_format) -> Callable[[], object]:
    network = torch_peer.build(spec).eval().to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    images = torch.randn(1, spec.in_channels, spec.resolution, spec.resolution)
    images = images.to(memory_format=layout)

    def run() -> None:
        with torch.inference_mode():
            network(images)

    return run


def _ratios(found: dict[str, list[float]]) -> dict[str, float]:
    """Ours to each peer's, by median rounds: below 1 is faster here."""
    middle = {name: statistics.median(rounds) for name, rounds in found.items()}
    return {
        name: middle["ours"] / value for name, value in middle.items() if name != "ours"
    }


if __name__ == "__main__":
    sys.exit(main())
