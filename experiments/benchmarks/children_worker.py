"""One side of the benchmark `children`, pinned to a core: children in, seconds out.

Reads a line of JSON for each child, a spec, and answers with a line of JSON.
"""

import argparse
import dataclasses
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from trainers.runtime import optional


def main() -> None:
    """Pins itself, loads one side, and answers until its input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=("ours", "torch"))
    parser.add_argument("--core", type=int, required=True)
    parser.add_argument("--config", required=True, help="a ChildConfig as JSON")
    parser.add_argument("--batches", required=True, help="written by `children`")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {arguments.core})  # before any library counts the cores
    os.environ["OMP_NUM_THREADS"] = "1"
    config = json.loads(arguments.config)
    if arguments.side == "ours":
        evaluate = _ours(config)
    else:
        evaluate = _torch(config, arguments.batches)
    for line in sys.stdin:
        start = time.perf_counter()
        answer = evaluate(line)
        answer["seconds"] = time.perf_counter() - start
        answer["rss_mb"] = _resident_mb()
        answer["peak_rss_mb"] = (
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        )
        print(json.dumps(answer), flush=True)


def _ours(config: dict[str, Any]) -> Callable[[str], dict[str, Any]]:
    import jax  # after the pinning

    from search_space import codec
    from trainers import child
    from trainers.data import catalog
    from trainers.measurement import Infeasible
    from trainers.runtime import compilation

    jax.config.update("jax_platforms", "cpu")
    compilation.use_cache(compilation.default_cache_folder())
    dataset = catalog.load("digits", seed=0)
    child_config = child.ChildConfig(**config)

    def evaluate(line: str) -> dict[str, Any]:
        outcome = child.evaluate(
            codec.loads(line), dataset=dataset, config=child_config, seed=0
        )
        if isinstance(outcome, Infeasible):
            return {"infeasible": outcome.reason}
        return dataclasses.asdict(outcome)

    return evaluate


def _torch(config: dict[str, Any], path: str) -> Callable[[str], dict[str, Any]]:
    if lack := optional.missing("torch"):
        sys.exit(f"experiments.benchmarks.children: --peer torch {lack}")
    import torch  # pyright: ignore[reportMissingImports]

    from experiments.benchmarks import torch_peer
    from search_space import codec

    torch.set_num_threads(1)
    torch.manual_seed(0)
    batches = torch_peer.Batches.load(path)

    def evaluate(line: str) -> dict[str, Any]:
        losses, accuracy, num_params = torch_peer.evaluate(
            codec.loads(line),
            batches,
            weight_decay=config["weight_decay"],
            smoothing=config["label_smoothing"],
        )
        return {"losses": losses, "accuracy": accuracy, "num_params": num_params}

    return evaluate


def _resident_mb() -> float:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() / 2**20


if __name__ == "__main__":
    main()
