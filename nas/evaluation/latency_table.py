"""Latencies of every distinct block of a search space, measured once on one device.

A network's latency is predicted as the sum over its blocks (stem, every repeated
layer, head), as in MnasNet's successors (https://arxiv.org/abs/1812.00332, section
3.2). Each block is measured alone, in a call of its own; what an empty call costs is
taken off each and added once.
"""

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import scipy.stats
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from search_space import codec, files, layers
from search_space.space import SearchSpace
from search_space.spec import (
    MAX_RESOLUTION,
    ArchSpec,
    ClassifierHead,
    ConvStage,
    Stem,
    explain,
)
from trainers.deploy import latency
from trainers.networks import classifier
from trainers.networks.blocks import NetworkBlock

_MAX_BYTES = 2**26  # a block takes some 200, and a space has thousands at most
_PROGRESS = 100  # blocks between two lines on the screen


@dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True, extra="forbid"))
class LatencyTable:
    """Milliseconds by block, for one image.

    Attributes:
      device: what was measured, for people.
      resolution: side in pixels of the images.
      activation: of the networks.
      call_ms: what a call costs that computes nothing.
      blocks_ms: by the block's `key`, without `call_ms`.
    """

    version: Literal[1] = 1
    space: str
    device: str
    resolution: int
    activation: str
    call_ms: float
    blocks_ms: dict[str, float]

    def predict(self, spec: ArchSpec) -> float:
        """Returns milliseconds for one image at the table's resolution.

        Raises:
          ValueError: if a block of `spec` is not in the table, or it does not fit the
            table's resolution. One line.
        """
        try:
            at = dataclasses.replace(spec, resolution=self.resolution)
        except ValidationError as error:
            raise ValueError(
                f"{spec.name} must fit the latency table's resolution, got"
                f" {self.resolution}: {explain(error)}; build a table for another"
            ) from None
        if spec.activation != self.activation:
            raise ValueError(
                f"the latency table is of networks with {self.activation}, and"
                f" {spec.name} has {spec.activation}; build one for its space"
            )
        total = self.call_ms
        for block in layers.blocks(at):
            found = self.blocks_ms.get(name := key(block))
            if found is None:
                raise ValueError(
                    f"the latency table of space {self.space} has no block {name};"
                    " build one for the space searched, with nas.profile --build-table"
                )
            total += found
        return total


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """How well sums of blocks predict networks that were measured whole.

    `mean_error` is the mean of |predicted - measured| / measured.
    """

    num_networks: int
    kendall_tau: float
    mean_error: float


def key(block: layers.Block) -> str:
    """Names what a block computes: its input's shape, its output's, and its part.

    Layers of a stage that do the same have the same key, wherever they stand.
    """
    part, kind = block.spec, type(block.spec).__name__
    if isinstance(part, ClassifierHead):
        kind = "Head"  # as in the tables of the time when there was no other
    elif not isinstance(part, Stem):
        part = dataclasses.replace(part, repeats=1, stride=block.stride)
    return (
        f"{block.in_size}x{block.in_size}x{block.in_channels}"
        f" -> {block.out_channels} {kind} {json.dumps(codec.to_json(part))}"
    )


def blocks_of(space: SearchSpace, resolution: int) -> dict[str, layers.Block]:
    """Returns every block that any architecture of `space` has, by key."""
    base = dataclasses.replace(space.base, resolution=resolution)
    stem = layers.stem_block(
        base.stem, in_channels=base.in_channels, in_size=resolution
    )
    found = [stem]
    maps = {stem.output}
    for offered in space.offered:
        entering, maps = maps, set[layers.MapShape]()
        for stage, (channels, size) in itertools.product(offered, sorted(entering)):
            if stage is None:
                maps.add(layers.MapShape(channels, size))
                continue
            own = layers.stage_blocks(stage, in_channels=channels, in_size=size)
            found += own[:2]  # the others are as the second
            maps.add(own[-1].output)
    for last in sorted(maps):
        found += layers.head_blocks(
            base.head, entering=(last,), num_classes=base.num_classes
        )
    return {key(block): block for block in found}


def build(
    space: SearchSpace,
    *,
    resolution: int,
    runs: int,
    clock: latency.ClockName = "wall",
    say: Callable[[str], None],
) -> LatencyTable:
    """Measures every distinct block of `space`; `say` takes lines for people."""
    found = blocks_of(space, resolution)
    device = latency.device()
    if clock != "wall":
        device += f", {clock} time"
    say(f"Compiling    {len(found)} distinct blocks of {space.name} for {device}")
    calls = [latency.empty_call()]
    for number, block in enumerate(found.values(), 1):
        calls.append(
            latency.block_call(
                _network_block(block, space.base),
                in_channels=block.in_channels,
                in_size=block.in_size,
            )
        )
        if number % _PROGRESS == 0:
            say(f"             {number} of {len(found)}")
    nothing, *measured = latency.in_turns(
        calls, runs=runs, clock=clock, after_turn=_turns(say, "blocks")
    )
    call_ms = nothing.median_ms
    blocks_ms = {
        name: max(0.0, block.median_ms - call_ms)
        for name, block in zip(found, measured, strict=True)
    }
    return LatencyTable(
        space=space.name,
        device=device,
        resolution=resolution,
        activation=space.base.activation,
        call_ms=call_ms,
        blocks_ms=blocks_ms,
    )


def check(
    table: LatencyTable,
    space: SearchSpace,
    *,
    num_networks: int,
    runs: int,
    clock: latency.ClockName = "wall",
    say: Callable[[str], None],
) -> Check:
    """Measures random networks of `space` and compares them with the predictions."""
    rng = np.random.default_rng(0)
    specs = [space.decode(rng.integers(space.num_choices)) for _ in range(num_networks)]
    calls = [
        latency.network_call(
            dataclasses.replace(spec, resolution=table.resolution), batch_size=1
        )
        for spec in specs
    ]
    found = latency.in_turns(
        calls, runs=runs, clock=clock, after_turn=_turns(say, "networks")
    )
    measured = np.array([network.median_ms for network in found])
    predicted = np.array([table.predict(spec) for spec in specs])
    tau, _ = scipy.stats.kendalltau(measured, predicted)
    return Check(
        num_networks=num_networks,
        kendall_tau=float(np.asarray(tau)),
        mean_error=float(np.mean(np.abs(predicted - measured) / measured)),
    )


def _turns(say: Callable[[str], None], what: str) -> Callable[[int], None]:
    return lambda turn: say(f"Measured     the {what}: {turn} of {latency.TURNS} turns")


_TABLE = TypeAdapter(LatencyTable)


def dumps(table: LatencyTable) -> str:
    """Returns the JSON text of `table`; `load` reads it."""
    return json.dumps(dataclasses.asdict(table), indent=1) + "\n"


def load(path: Path) -> LatencyTable:
    """Returns the table in a file.

    Raises:
      ValueError: if it is malformed. One line.
      OSError: if it cannot be read.
    """
    try:
        table = _TABLE.validate_json(files.read_bounded(path, _MAX_BYTES))
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error)}") from None
    if not all(0 <= ms < float("inf") for ms in table.blocks_ms.values()):
        raise ValueError(
            f"{path}: latencies must be finite and not negative; build it again"
        )
    return table


def _network_block(block: layers.Block, base: ArchSpec) -> NetworkBlock:
    """Builds the module of one block, inside a network that is thrown away."""
    part = block.spec
    if isinstance(part, Stem):
        return classifier.build(base, seed=0).blocks[0]
    # A stem that delivers the block's input; the resolution does not bind a network.
    entry = Stem(channels=block.in_channels, kernel=1, stride=1)
    if isinstance(part, ClassifierHead):
        stage = ConvStage(channels=block.in_channels, kernel=1, stride=1, repeats=1)
    else:
        stage = dataclasses.replace(part, repeats=1, stride=block.stride)
    spec = dataclasses.replace(
        base, stem=entry, stages=(stage,), resolution=MAX_RESOLUTION
    )
    network = classifier.build(spec, seed=0)
    return network.head if isinstance(part, ClassifierHead) else network.blocks[1]
