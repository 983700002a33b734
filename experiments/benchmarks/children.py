"""Children per hour: the same children trained here and in PyTorch eager.

    pip install '.[peers]'
    python -m experiments.benchmarks.children --peer torch

Each side is one process pinned to each core, with one thread. The sides take turns,
a child on every core at a time, so that both see the same machine; a side's seconds
count from the architecture to its validation accuracy. Both train on the same batches
with the same optimizer. First our side starts from an empty compilation cache, then
again in new processes with what that left behind.

Prints medians, totals and ratios (PyTorch's seconds over ours, above 1 is faster
here), and saves all children's figures to experiments/results/children.json.
"""

import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro
from rich.progress import track

from nas.runs import provenance
from search_space import codec, spaces, zoo
from search_space.files import write_whole
from search_space.spec import ArchSpec, with_dropout
from trainers import optim
from trainers.child import ChildConfig
from trainers.data import catalog
from trainers.data.placement import data_loader
from trainers.runtime import allocator, compilation

RESULTS = Path("experiments/results/children.json")
GROWTH = (10, 30, 100)  # children after which the running ratio is given


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which children, and how long they train."""

    peer: Literal["torch", "none"] = "none"
    """Whom to compare with."""
    children: int = 100
    """Random children of `mbconv` at 32x32."""
    warm_children: int = 100
    """How many of them are trained again, by both, with a full cache."""
    larger_children: int = 20
    """Children at 64x64."""
    large_steps: int = 10
    """Steps of EfficientNet-B0 at 224x224, batch 8; 0 leaves it out."""
    steps: int = 50
    """Training steps of a child."""
    batch_size: int = 64
    """Images in a step."""
    profiled: int = 3
    """Children whose steps are compared with the plainly jitted network's."""
    memory_children: int = 0
    """Different children, of two steps each, after which workers' memory is read."""
    seed: int = 0
    """Which children."""
    output: Path = RESULTS
    """Where the figures go."""


class Worker:
    """A process of one side on one core."""

    def __init__(self, side: str, core: int, config: ChildConfig, batches: Path):
        # Both sides with the allocator's settings that our workers get: PyTorch gains
        # from them too.
        environment = os.environ | allocator.environment() | {"PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "experiments.benchmarks.children_worker", side),
                *("--core", str(core), "--batches", str(batches)),
                *("--config", json.dumps(dataclasses.asdict(config))),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def start(self, spec: ArchSpec) -> None:
        """Sends a child; does not wait."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(json.loads(codec.dumps(spec))) + "\n")
        self._process.stdin.flush()

    def finish(self) -> dict[str, Any]:
        """Waits for the child's figures."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended with {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@contextlib.contextmanager
def workers(
    side: str, config: ChildConfig, batches: Path
) -> Generator[Sequence[Worker]]:
    """One worker for each core that this process may use."""
    started = [
        Worker(side, core, config, batches) for core in sorted(os.sched_getaffinity(0))
    ]
    try:
        yield started
    finally:
        for worker in started:
            worker.close()


def evaluate(
    side: Sequence[Worker], children: Sequence[ArchSpec]
) -> list[dict[str, Any]]:
    """One child on each core at the same time."""
    used = side[: len(children)]
    for worker, spec in zip(used, children, strict=True):
        worker.start(spec)
    return [worker.finish() for worker in used]


def take_turns(
    children: Sequence[ArchSpec],
    config: ChildConfig,
    batches: Path,
    *,
    peer: str,
    label: str,
) -> dict[str, list[dict[str, Any]]]:
    """Trains every child on our side, and on the peer's if there is one."""
    figures: dict[str, list[dict[str, Any]]] = {"ours": [], "torch": []}
    with contextlib.ExitStack() as stack:
        sides = {
            name: stack.enter_context(workers(name, config, batches))
            for name in (("ours", "torch") if peer == "torch" else ("ours",))
        }
        width = len(sides["ours"])
        starts = range(0, len(children), width)
        for start in track(starts, description=label):
            for name, side in sides.items():
                figures[name] += evaluate(side, children[start : start + width])
    return figures


def random_children(count: int, *, resolution: int, seed: int) -> list[ArchSpec]:
    """Different children of `mbconv`."""
    space = spaces.load("mbconv")
    rng = np.random.default_rng(seed)
    tokens = {}
    while len(tokens) < count:
        drawn = tuple(int(rng.integers(n)) for n in space.num_choices)
        tokens.setdefault(drawn)
    return [as_child(space.decode(list(drawn)), resolution) for drawn in tokens]


def as_child(spec: ArchSpec, resolution: int) -> ArchSpec:
    """What `trainers.child` makes of a spec for the handwritten digits."""
    return dataclasses.replace(
        spec,
        resolution=resolution,
        in_channels=1,
        num_classes=10,
        drop_path=0.0,
        head=with_dropout(spec.head, 0.0),
    )


def write_batches(path: Path, config: ChildConfig) -> None:
    """Writes the batches that our side trains on, for the other one."""
    loader = data_loader(catalog.load("digits", seed=0), config.resolution)
    train = list(
        loader.train_batches(batch_size=config.batch_size, steps=config.steps, seed=0)
    )
    evaluation = list(loader.eval_batches(batch_size=config.batch_size))
    keep = np.concatenate([np.asarray(mask) for *_, mask in evaluation])
    schedule = optim.Cosine(peak=config.learning_rate, warmup=config.warmup)
    np.savez(
        path,
        images=np.stack([np.asarray(images) for images, _ in train]),
        labels=np.stack([np.asarray(labels) for _, labels in train]),
        validation_images=np.concatenate(
            [np.asarray(images) for images, *_ in evaluation]
        )[keep],
        validation_labels=np.concatenate(
            [np.asarray(labels) for _, labels, _ in evaluation]
        )[keep],
        learning_rates=schedule.values(config.steps),
    )


def summary(figures: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians, totals, compile share and the ratio as the run grows."""
    ours = figures["ours"]
    seconds = [child["seconds"] for child in ours]
    compiling = sum(child["compile_seconds"] for child in ours)
    out: dict[str, Any] = {
        "children": len(ours),
        "ours_median_s": statistics.median(seconds),
        "ours_total_s": sum(seconds),
        "ours_images_per_s": statistics.median(c["images_per_second"] for c in ours),
        "compile_share": compiling / sum(seconds),
        "ours_accuracy": statistics.mean(c["accuracy"] for c in ours),
    }
    if theirs := figures["torch"]:
        peer = [child["seconds"] for child in theirs]
        counts = range(1, len(seconds) + 1)
        growth = {
            n: sum(peer[:n]) / sum(seconds[:n])
            for n in counts
            if n in GROWTH or n == len(seconds)
        }
        out |= {
            "torch_median_s": statistics.median(peer),
            "torch_total_s": sum(peer),
            "torch_accuracy": statistics.mean(c["accuracy"] for c in theirs),
            "ratio": sum(peer) / sum(seconds),
            "ratio_after": growth,
            "same_parameters": all(
                mine["num_params"] == other["num_params"]
                for mine, other in zip(ours, theirs, strict=True)
            ),
            "losses": {
                "ours": np.mean([c["losses"] for c in ours], axis=0).tolist(),
                "torch": np.mean([c["losses"] for c in theirs], axis=0).tolist(),
            },
        }
    return out


def main(options: Options) -> None:
    """Runs all measurements and saves after each."""
    config = ChildConfig(steps=options.steps, batch_size=options.batch_size)
    record: dict[str, Any] = provenance.of_result() | {
        "options": dataclasses.asdict(options) | {"output": str(options.output)},
        "ratio": {},
    }

    options.output.parent.mkdir(parents=True, exist_ok=True)

    def save(name: str, figures: dict[str, Any]) -> None:
        record[name] = figures
        write_whole(options.output, json.dumps(record, indent=1) + "\n")
        shown = {k: v for k, v in figures.items() if k not in ("losses", "each")}
        print(f"{name}: {json.dumps(shown, default=str)}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        os.environ[compilation.CACHE_VARIABLE] = str(Path(folder) / "cache")
        jax.config.update("jax_platforms", "cpu")
        small = random_children(options.children, resolution=32, seed=options.seed)
        _compare(options, config, small, Path(folder), "cold_32", record, save)
        warm = small[: options.warm_children]
        _compare(options, config, warm, Path(folder), "warm_32", record, save)
        if options.larger_children:
            larger = dataclasses.replace(config, resolution=64)
            children = random_children(
                options.larger_children, resolution=64, seed=options.seed
            )
            quiet = dataclasses.replace(options, peer="none")
            _compare(quiet, larger, children, Path(folder), "cold_64", record, save)
            _compare(options, larger, children, Path(folder), "warm_64", record, save)
        if options.large_steps:
            large = dataclasses.replace(
                config, resolution=224, batch_size=8, steps=options.large_steps
            )
            children = [as_child(zoo.load("efficientnet-b0"), 224)]
            for name in ("cold_b0_224", "warm_b0_224"):
                _compare(options, large, children, Path(folder), name, record, save)
        if options.profiled:
            steps = _profile(options)
            record["ratio"]["step_vs_plain_jit"] = steps["step_vs_plain_jit"]
            save("steps", steps)
        if options.memory_children:
            save("memory", _memory(options, config, Path(folder)))
    print(json.dumps(record["ratio"]))


def _compare(
    options: Options,
    config: ChildConfig,
    children: Sequence[ArchSpec],
    folder: Path,
    name: str,
    record: dict[str, Any],
    save: Callable[[str, dict[str, Any]], None],
) -> None:
    batches = folder / f"batches-{config.resolution}.npz"
    if not batches.exists():
        write_batches(batches, config)
    figures = take_turns(children, config, batches, peer=options.peer, label=name)
    summed = summary(figures)
    if "ratio" in summed:
        record["ratio"][name] = summed["ratio"]
    each = {
        side: [child["seconds"] for child in found] for side, found in figures.items()
    }
    save(name, summed | {"each": each})


def _profile(options: Options) -> dict[str, Any]:
    """Runs `step_profile` on one core, in a process that has not counted two."""
    core = str(min(os.sched_getaffinity(0)))
    command = [
        *("taskset", "-c", core, sys.executable, "-m"),
        *("experiments.benchmarks.step_profile", "--json"),
        *("--children", str(options.profiled), "--seed", str(options.seed)),
        *("--batch-size", str(options.batch_size)),
    ]
    environment = os.environ | allocator.environment()
    done = subprocess.run(
        command, stdout=subprocess.PIPE, check=True, text=True, env=environment
    )
    return json.loads(done.stdout)


def _memory(options: Options, config: ChildConfig, folder: Path) -> dict[str, Any]:
    """Resident memory of our workers while different children pass."""
    brief = dataclasses.replace(config, steps=2)
    children = random_children(
        options.memory_children, resolution=32, seed=options.seed
    )
    figures = take_turns(
        children, brief, folder / "unused.npz", peer="none", label="memory"
    )["ours"]
    marks = range(50, len(figures) + 1, 50)
    return {
        f"{measure}_after": {
            n: max(child[measure] for child in figures[n - 4 : n]) for n in marks
        }
        for measure in ("rss_mb", "peak_rss_mb")
    }


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
