"""Two commits train five fixed networks with the same losses.

    python -m experiments.checks.losses BEFORE [AFTER]

For refactorings, whose losses should be the same to the bit. BEFORE and AFTER are
anything that git takes for a commit; without AFTER it is this checkout as it stands.
Both are unpacked to a temporary folder and run there by their own command lines, on
digits, in processes of their own: two networks as a search's children, unit by unit,
and three at length, compiled whole. Among the five are all kinds of stages, every
optimizer, feature maps in bfloat16, and all that regularizes, averages and accumulates.

What rounding does to a network is measured in the same run: BEFORE trains it once more
from weights that are one unit in their last digit off (`nudged_weights`). AFTER may
start a hair from BEFORE, and then part from it a few times as far as that run does, at
no step further: where rounding grows to chaos, the steps before say whether two
commits do the same.

Prints for each network the relative difference of the first losses, the largest over
all steps, and the largest difference of the accuracies it was evaluated at; then the
same of the nudged weights. Returns 1 if any is beyond rounding, and 2 if a commit
cannot be had or a command fails.

Measured (JAX 0.10.2, CPU) on "bottlenecks at 8 pixels" alone: a commit whose weights do
not decay is beyond rounding, with losses that differ by 1.5e-3 at most, where nudged
weights make 1.0e-4. A decay of 1e-5 would be within rounding there: 5.7e-4, and 9.8e-4.
Two commits between which only names changed: the same to the bit. All five together
have not been run with this verdict yet.
"""

import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import tyro

from experiments.checks import nudged_weights

# Of the first losses, relative: eight units in the last digit of a float32.
FIRST_TOLERANCE = 8 * 2.0**-23
# A refactoring may round in many places, the nudged weights are off in one: this many
# times their differences are rounding still.
MARGIN = 10
# Three of 300 test images, and what is more for the nudged weights, twice: logits that
# rounding tips over.
ACCURACY_TOLERANCE = 0.01

_ROOT = Path(__file__).parents[2]
_SEED = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compare the losses of two commits."""

    before: Annotated[str, tyro.conf.Positional]
    """A commit."""
    after: Annotated[str | None, tyro.conf.Positional] = None
    """Another; by default this checkout as it stands, committed or not."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A network, and the command line that trains it.

    `architecture` is the file's content for nas.train, and None where nas.search has
    a space of one network.
    """

    flags: tuple[str, ...]
    architecture: Mapping[str, Any] | None = None

    @property
    def program(self) -> str:
        """The command that trains it."""
        return "nas.search" if self.architecture is None else "nas.train"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """What came of a network: the loss of every step, and accuracies by name."""

    losses: tuple[float, ...]
    accuracies: Mapping[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """How far a training parts from another: losses relative, step by step."""

    losses: tuple[float, ...]
    accuracy: float

    @classmethod
    def of(cls, first: Trained, second: Trained) -> Self:
        """Returns the difference of two that report the same steps and accuracies."""
        return cls(
            losses=tuple(
                abs(a - b) / abs(a)
                for a, b in zip(first.losses, second.losses, strict=True)
            ),
            accuracy=max(
                abs(accuracy - second.accuracies[name])
                for name, accuracy in first.accuracies.items()
            ),
        )

    def is_beyond(self, rounding: "Difference") -> bool:
        """Whether it is more than rounding does: no step may be, nor any accuracy."""
        if not self.losses[0] <= FIRST_TOLERANCE:
            return True
        reached = itertools.accumulate(rounding.losses, max, initial=FIRST_TOLERANCE)
        next(reached)
        return (
            any(
                not found <= MARGIN * most
                for found, most in zip(self.losses, reached, strict=True)
            )
            or self.accuracy > ACCURACY_TOLERANCE + 2 * rounding.accuracy
        )

    def __str__(self) -> str:
        return (
            f"losses differ by {self.losses[0]:.1e} at first, {max(self.losses):.1e} at"
            f" most, accuracies by {self.accuracy:.2%}"
        )


def child(space: str, *restrictions: str, flags: tuple[str, ...]) -> Network:
    """Returns the only network of a space that is restricted to one."""
    return Network(
        flags=(
            *("--space", space, "--controller", "random", "--children", "1"),
            *(part for text in restrictions for part in ("--restrict", text)),
            *("--workers", "1", "--batch-size", "32", "--resolution", "32"),
            *flags,
        ),
    )


def at_length(
    *stages: Mapping[str, Any], activation: str, drop: float, flags: tuple[str, ...]
) -> Network:
    """Returns a small network of these stages, for nas.train."""
    architecture = {
        "name": "small",
        "resolution": 32,
        "in_channels": 3,
        "num_classes": 10,
        "activation": activation,
        "stem": {"channels": 8, "kernel": 3, "stride": 1, "pool": False},
        "stages": stages,
        "head": {"channels": 32, "dropout": drop},
        "drop_path": drop,
    }
    return Network(
        architecture={"version": 1, "architecture": architecture},
        flags=("--devices", "1", *flags),
    )


def stage(kind: str, channels: int, *, stride: int, **rest: Any) -> dict[str, Any]:
    """Returns a stage of two layers as an architecture's file has it."""
    squeezes = {} if kind in ("sepconv", "bottleneck") else {"se_ratio": 0.0}
    return {
        "kind": kind,
        "channels": channels,
        "kernel": 3,
        "stride": stride,
        "repeats": 2,
        **squeezes,
        **rest,
    }


NETWORKS = {
    "mbconv child": child(
        "mbconv",
        *("*.layers=1,2,3", "stage[012346].layers=2", "stage5.layers=3"),
        *("*.width=1.0", "stage[0246].kernel=3", "stage[135].kernel=5"),
        *("stage0.expansion=1", "stage[1-6].expansion=3"),
        *("stage[0135].se_ratio=0.25", "stage[246].se_ratio=0.0"),
        flags=("--steps", "16", "--target-flops", "250M"),
    ),
    "mnasnet child": child(
        "mnasnet",
        *("stage[06].layers=1", "stage[1245].layers=2", "stage3.layers=3"),
        *("*.width=1.0", "stage[0246].kernel=3", "stage[135].kernel=5"),
        *("stage0.op=sepconv", "stage[15].op=conv", "stage[2346].op=mbconv3"),
        *("stage[03].se_ratio=0.0", "stage[12456].se_ratio=0.25"),
        *("stage[024].skip=identity", "stage[13].skip=pool", "stage[56].skip=none"),
        flags=(
            *("--steps", "16", "--target-flops", "226M"),
            *("--optimizer", "sgd", "--learning-rate", "0.02", "--dtype", "bfloat16"),
        ),
    ),
    "everything at once": at_length(
        stage("mbconv", 8, stride=2, expansion=4, se_ratio=0.25, skip="identity"),
        stage("conv", 16, stride=2, se_ratio=0.25, skip="pool"),
        activation="swish",
        drop=0.3,
        flags=(
            *("--recipe", "efficientnet", "--resolution", "32", "--epochs", "1"),
            *("--batch-size", "64", "--accumulation", "2", "--save-every", "6"),
            *("--warmup-epochs", "0.2", "--learning-rate", "0.1"),
            *("--mixup", "0.2", "--cutmix", "1.0", "--ema-decay", "0.9"),
        ),
    ),
    "plain in bfloat16": at_length(
        stage("conv", 16, stride=2, skip="identity"),
        stage("sepconv", 24, stride=2),
        activation="relu",
        drop=0.0,
        flags=(
            *("--resolution", "16", "--epochs", "2", "--batch-size", "64"),
            *("--optimizer", "sgd", "--dtype", "bfloat16", "--ema-decay", "0"),
            *("--label-smoothing", "0", "--learning-rate", "0.1"),
        ),
    ),
    "bottlenecks at 8 pixels": at_length(
        stage("bottleneck", 32, stride=2, bottleneck=16),
        stage("mbconv", 16, stride=1, expansion=1, skip="pool"),
        activation="relu6",
        drop=0.2,
        flags=(
            *("--resolution", "8", "--epochs", "2", "--batch-size", "64"),
            *("--learning-rate", "0.02", "--mixup", "0.4", "--weight-decay", "0.01"),
        ),
    ),
}


class CheckError(RuntimeError):
    """A commit cannot be compared. One line."""


def main(arguments: Arguments) -> int:
    """Prints a line for each network; returns the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            before = unpacked(arguments.before, Path(folder) / "before")
            after = (
                _ROOT
                if arguments.after is None
                else unpacked(arguments.after, Path(folder) / "after")
            )
        except CheckError as error:
            print(error, file=sys.stderr)
            return 2
        return max(_status(name, before, after) for name in NETWORKS)


def _status(name: str, before: Path, after: Path) -> int:
    """Compares one network; what happens to it keeps no other from being compared."""
    try:
        return int(compared(name, before, after))
    except CheckError as error:
        print(error, file=sys.stderr, flush=True)
        return 2


def unpacked(commit: str, folder: Path) -> Path:
    """Unpacks the files of a commit of this repository to `folder`, and returns it.

    Raises:
      CheckError: if git knows no such commit.
    """
    folder.mkdir()
    archive = subprocess.run(
        ["git", "archive", "--format=tar", f"{commit}^{{tree}}"],
        cwd=_ROOT,
        capture_output=True,
        check=False,
    )
    if archive.returncode != 0:
        raise CheckError(
            f"BEFORE and AFTER must be commits of this repository, got {commit!r}:"
            f" {archive.stderr.decode().strip()}"
        )
    subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, check=True)
    return folder


def compared(name: str, before: Path, after: Path) -> bool:
    """Trains a network in both checkouts and prints a line; returns if they differ.

    Raises:
      CheckError: if a command fails, or they report other steps and accuracies.
    """
    network = NETWORKS[name]
    first, second = (trained(network, checkout) for checkout in (before, after))
    if [*first.accuracies] != [*second.accuracies] or (
        len(first.losses) != len(second.losses)
    ):
        raise CheckError(
            f"{name}: both commits must report the same steps and accuracies, got"
            f" {len(first.losses)} and {len(second.losses)} steps,"
            f" {', '.join(first.accuracies)} and {', '.join(second.accuracies)}"
        )
    told = (
        f"{name:23} {len(first.losses):3} steps, {first.losses[0]:.3f} to"
        f" {first.losses[-1]:.3f}:"
    )
    if first == second:
        print(told, "the same to the bit", flush=True)
        return False
    found = Difference.of(first, second)
    rounding = Difference.of(first, trained(network, before, nudge=True))
    differs = found.is_beyond(rounding)
    print(
        f"{told} {'beyond' if differs else 'within'} rounding, {found}; of nudged"
        f" weights {rounding}",
        flush=True,
    )
    return differs


def trained(network: Network, checkout: Path, *, nudge: bool = False) -> Trained:
    """Trains a network by the command line of a checkout.

    With `nudge`, its weights start one unit in the last digit off.

    Raises:
      CheckError: if the command fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        home, run = Path(folder), Path(folder) / "run"
        (home / "small.json").write_text(json.dumps(network.architecture))
        if nudge:
            shutil.copy(nudged_weights.__file__, home / "sitecustomize.py")
        model = [] if network.architecture is None else [str(home / "small.json")]
        command = [
            *(sys.executable, "-m", network.program, *model, *network.flags),
            *("--dataset", "digits", "--seed", str(_SEED), "--output", str(run)),
        ]
        done = subprocess.run(
            command,
            cwd=checkout,
            env=os.environ | {"PYTHONPATH": f"{checkout}{os.pathsep}{home}"},
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            output = (done.stdout + done.stderr).decode(errors="replace").strip()
            raise CheckError(f"{' '.join(command)} failed in {checkout}:\n{output}")
        return _child(run) if network.architecture is None else _run(run)


def _child(run: Path) -> Trained:
    """Reads the first child of a search."""
    lines = (run / "journal.jsonl").read_text().splitlines()[1:]
    child = json.loads(lines[0])
    if "losses" not in child:
        raise CheckError(f"the child must be trained, got {lines[0][:300]}")
    return Trained(losses=tuple(child["losses"]), accuracies=_accuracies(child))


def _run(run: Path) -> Trained:
    """Reads a run of nas.train."""
    lines = map(json.loads, (run / "losses.jsonl").read_text().splitlines())
    result = json.loads((run / "result.json").read_text())
    return Trained(
        losses=tuple(loss for line in lines for loss in line["losses"]),
        accuracies=_accuracies(result),
    )


def _accuracies(value: Any, path: str = "") -> dict[str, float]:
    """Every number in a JSON value that is named an accuracy, wherever it stands."""
    if not isinstance(value, dict):
        return {}
    found: dict[str, float] = {}
    for name, inner in value.items():
        if name.startswith("accuracy") and isinstance(inner, float | int):
            found[f"{path}{name}"] = inner
        found |= _accuracies(inner, f"{path}{name}.")
    return found


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments, description=__doc__)))
