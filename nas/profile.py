"""Shows what an architecture costs, layer by layer, and how fast it is here.

    python -m nas.profile efficientnet-b0
    python -m nas.profile runs/20250101-120000/best.json --resolution 160 --json
    python -m nas.profile efficientnet-b0 --latency
    python -m nas.profile --build-table accel-nasbench --output table.json

Multiply-adds, parameters and activation memory are counted (`search_space.cost`), for
one image. Latency is measured on this device, and never an estimate; a table of
latencies holds every distinct block of a search space, for
`python -m nas.search --target-latency`.
"""

import dataclasses
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from nas.evaluation import latency_table
from nas.execution import resources
from nas.options import command_line, terminal
from nas.options.quantity import format_flops
from nas.training import models
from search_space import cost, spaces
from search_space.cost import Cost, LayerCost
from search_space.decisions import parse_restrictions
from search_space.files import write_whole
from search_space.spec import ArchSpec, explain
from trainers.deploy import latency
from trainers.deploy.latency import ClockName
from trainers.runtime import optional

_MIB = 2**20
_WIDTH = 120  # columns of a table that goes to a file or a pipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatencyOptions:
    """How latency is measured."""

    latency: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Measure how long the network takes on this device."""
    batch_size: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Images at a time."""
    cores: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Cores to measure on, where the device is a CPU."""
    runs: Annotated[int, tyro.conf.arg(metavar="N")] = 50
    """Timed runs, after warming up."""
    clock: ClockName = "wall"
    """Time that passes, or time that this process computes: for one core, of a CPU,
    that others use as well."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableOptions:
    """A table of latencies for a search space."""

    build_table: Annotated[str | None, tyro.conf.arg(metavar="SPACE")] = None
    """Measure every distinct block of this space and keep the latencies."""
    restrict: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]],
        tyro.conf.arg(metavar="DECISION=CHOICES"),
    ] = ()
    """Keep only these choices of a decision, as nas.search does. Repeatable."""
    networks: Annotated[int, tyro.conf.arg(metavar="N")] = 50
    """Whole networks to measure, to say how well the table predicts them."""
    output: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("latency.json")
    """The table."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Show what an architecture costs, layer by layer, and how fast it is here."""

    model: Annotated[
        str | None, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")
    ] = None
    """A JSON file, a model's or a training run's folder, or a name such as
    efficientnet-b0."""
    resolution: Annotated[int | None, tyro.conf.arg(metavar="PIXELS")] = None
    """Another side of the input than the architecture's own."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print JSON instead of tables."""
    latency: LatencyOptions = LatencyOptions()
    table: TableOptions = TableOptions()


@command_line.command("nas.profile")
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    console = terminal.screen()
    if not console.is_terminal:
        console.width = _WIDTH
    try:
        parsed = command_line.parse(
            arguments,
            Arguments(),
            program="nas.profile",
            description=__doc__ or "",
        )
        _check(parsed)
        if parsed.table.build_table is not None:
            _build_table(parsed)
        else:
            _show(parsed, console)
    except (command_line.UsageError, ValueError, OSError) as error:
        return models.print_error("nas.profile", error)
    return 0


def _check(parsed: Arguments) -> None:
    options = parsed.latency
    for name, value, least in (
        ("batch-size", options.batch_size, 1),
        ("cores", options.cores, 1),
        ("runs", options.runs, 1),
        ("networks", parsed.table.networks, 2),  # a rank correlation needs two
    ):
        if value < least:
            raise ValueError(f"--{name} must be at least {least}, got {value}")
    if options.clock == "processor" and options.cores != 1:
        raise ValueError(
            "--clock processor adds up what the cores compute, so --cores must be 1,"
            f" got {options.cores}"
        )
    if (parsed.model is None) == (parsed.table.build_table is None):
        raise ValueError(
            "one thing at a time: give an architecture to profile, or --build-table"
            f" and a space; got {parsed.model!r} and {parsed.table.build_table!r}"
        )


def _show(parsed: Arguments, console: Console) -> None:
    assert parsed.model is not None  # `_check` saw to it
    spec = _at_resolution(models.architecture(parsed.model), parsed.resolution)
    counted = cost.profile(spec)
    measured = _latencies(spec, parsed.latency) if parsed.latency.latency else {}
    if parsed.json:
        document = _document(spec, counted) | {"latency": measured}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return
    console.print(_layer_table(counted))
    console.print(_stage_table(counted))
    terminal.say(
        f"{spec.name} at {spec.resolution} pixels: {counted.num_macs:,} multiply-adds, "
        f"{counted.num_params:,} parameters, "
        f"{counted.peak_activation_bytes / _MIB:.1f} MiB of maps at the peak"
    )
    for name, found in measured.items():
        terminal.say(f"{name:<12} {_describe(found)}")


def _at_resolution(spec: ArchSpec, resolution: int | None) -> ArchSpec:
    if resolution is None:
        return spec
    try:
        return dataclasses.replace(spec, resolution=resolution)
    except ValidationError as error:
        raise ValueError(f"--resolution: {explain(error)}") from None


def _latencies(spec: ArchSpec, options: LatencyOptions) -> dict[str, Any]:
    """Measures in JAX, then in onnxruntime where it is installed."""
    _pin(options.cores)  # before JAX starts its threads
    _check_clock(options.clock)
    found = {
        "jax": latency.measure(
            latency.network_call(spec, batch_size=options.batch_size),
            runs=options.runs,
            clock=options.clock,
        )
    }
    if not optional.missing("onnx", "onnxruntime"):
        run = latency.onnxruntime_call(
            spec, batch_size=options.batch_size, num_threads=options.cores
        )
        found["onnxruntime"] = latency.measure(
            run, runs=options.runs, clock=options.clock
        )
    about = {
        "batch_size": options.batch_size,
        "clock": options.clock,
        "device": latency.device(),
    }
    return {name: dataclasses.asdict(value) | about for name, value in found.items()}


def _pin(cores: int) -> None:
    if resources.claim_cores(cores) is None:
        raise resources.ResourceError(
            f"--cores {cores} must be free for the measurement, of"
            f" {resources.local_cores()} that this process may use; stop what holds"
            " them, or ask for fewer"
        )


def _check_clock(clock: ClockName) -> None:
    if clock == "processor" and not latency.on_cpu():
        raise ValueError(
            "--clock processor does not see an accelerator's work; use --clock wall,"
            f" or JAX_PLATFORMS=cpu to measure the CPU, got {latency.device()}"
        )


def _describe(found: dict[str, Any]) -> str:
    return (
        f"{found['median_ms']:.2f} ms for a batch of {found['batch_size']} (middle half"
        f" {found['lower_quartile_ms']:.2f} to {found['upper_quartile_ms']:.2f} of"
        f" {found['runs']} runs) on {found['device']}, {found['clock']} time"
    )


def _layer_table(counted: Cost) -> Table:
    table = Table(title="Layers")
    table.add_column("layer", no_wrap=True)
    for name in ("output", "multiply-adds", "%", "parameters", "%", "maps MiB"):
        table.add_column(name, justify="right", no_wrap=True)
    for layer in counted.layers:
        if layer.num_macs or layer.num_params or layer.layer.op != "batch_norm":
            table.add_row(
                f"{layer.layer.name} {_window(layer)}".strip(),
                _output(layer),
                f"{layer.num_macs:,}",
                f"{layer.num_macs / counted.num_macs:.1%}",
                f"{layer.num_params:,}",
                f"{layer.num_params / counted.num_params:.1%}",
                f"{layer.activation_bytes / _MIB:.2f}",
            )
    return table


def _window(layer: LayerCost) -> str:
    if layer.layer.op not in ("conv", "depthwise_conv"):
        return ""
    kernel, stride = layer.layer.kernel, layer.layer.stride
    return f"{kernel}x{kernel}" + (f"/{stride}" if stride > 1 else "")


def _output(layer: LayerCost) -> str:
    size = layer.layer.out_size
    return f"{size}x{size}x{layer.layer.out_channels}"


def _stage_table(counted: Cost) -> Table:
    table = Table(title="Stages")
    for name in ("stage", "output", "multiply-adds", "%", "parameters", "%"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for name, layers in _by_stage(counted):
        macs = sum(layer.num_macs for layer in layers)
        params = sum(layer.num_params for layer in layers)
        table.add_row(
            name,
            _output(layers[-1]),
            format_flops(macs),
            f"{macs / counted.num_macs:.1%}",
            format_flops(params),
            f"{params / counted.num_params:.1%}",
        )
    return table


def _by_stage(counted: Cost) -> list[tuple[str, list[LayerCost]]]:
    def stage(layer: LayerCost) -> str:
        return layer.layer.name.split(".")[0]

    return [
        (name, list(layers))
        for name, layers in itertools.groupby(counted.layers, stage)
    ]


def _document(spec: ArchSpec, counted: Cost) -> dict[str, Any]:
    return {
        "version": 1,
        "name": spec.name,
        "resolution": spec.resolution,
        "num_macs": counted.num_macs,
        "num_params": counted.num_params,
        "peak_activation_bytes": counted.peak_activation_bytes,
        "stages": [
            {
                "name": name,
                "num_macs": sum(layer.num_macs for layer in layers),
                "num_params": sum(layer.num_params for layer in layers),
            }
            for name, layers in _by_stage(counted)
        ],
        "layers": [
            {
                "name": layer.layer.name,
                "op": layer.layer.op,
                "output": [layer.layer.out_size] * 2 + [layer.layer.out_channels],
                "kernel": layer.layer.kernel,
                "stride": layer.layer.stride,
                "num_macs": layer.num_macs,
                "num_params": layer.num_params,
                "activation_bytes": layer.activation_bytes,
            }
            for layer in counted.layers
        ],
    }


def _build_table(parsed: Arguments) -> None:
    options = parsed.table
    assert options.build_table is not None  # the caller saw to it
    space = spaces.load(options.build_table)
    space = space.restrict(parse_restrictions(options.restrict))
    _pin(parsed.latency.cores)
    _check_clock(parsed.latency.clock)
    say = _say_at_once
    table = latency_table.build(
        space,
        resolution=parsed.resolution or space.base.resolution,
        runs=parsed.latency.runs,
        clock=parsed.latency.clock,
        say=say,
    )
    write_whole(options.output, latency_table.dumps(table))
    say(f"Written      {options.output}")
    check = latency_table.check(
        table,
        space,
        num_networks=options.networks,
        runs=parsed.latency.runs,
        clock=parsed.latency.clock,
        say=say,
    )
    say(
        f"Prediction   of {check.num_networks} measured networks: Kendall tau"
        f" {check.kendall_tau:.3f}, mean error {check.mean_error:.1%} of the latency"
    )


def _say_at_once(text: str) -> None:
    """Prints a line that is of interest now, also where a file takes it."""
    terminal.say(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
