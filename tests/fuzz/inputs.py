"""Inputs of every kind, each made from a number alone: the same in every run."""

import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from nas.training import models
from tests.fuzz import damage, harness
from tests.fuzz.harness import Input
from tests.fuzz.material import Bench

_NOT_TRIED = {"--help", "--download"}  # the second would use the network
_FIRST = {
    "search": [], "scale": ["tiny.json"], "train": ["tiny.json"],
    "predict": ["trained", "ok.png"], "export": ["tiny.json"], "profile": ["tiny.json"],
    "report": ["searched"], "calibrate": [],
}  # fmt: skip
_WRITING = ("search", "train", "scale", "export", "calibrate")


def flags_of() -> dict[str, list[str]]:
    """The flags of each command, out of its --help."""
    found = {}
    for command in harness.MAINS:
        shown = harness.help_of(command)
        names = set(re.findall(r"--[a-z][a-z0-9-]+", shown))
        found[command] = sorted(names - _NOT_TRIED)
    return found


class Inputs:
    """Makes the input of a number, and puts its files into place."""

    def __init__(self, bench: Bench, surroundings: Path, seed: int) -> None:
        self._bench = bench
        self._secret = surroundings / "secrets" / "mine"
        self._seed = seed
        self._flags = flags_of()

    def make(self, number: int) -> Input:
        """Returns the input; its files are under the bench's place."""
        rng = random.Random(f"{self._seed}-{number}")
        kinds = list(_KINDS)
        weights = [weight for weight, _ in _KINDS.values()]
        (kind,) = rng.choices(kinds, weights)
        self._bench.clear()
        made = _KINDS[kind][1](self, rng)
        return Input(
            command=made.command,
            arguments=made.arguments,
            what=f"{kind}: {made.what}",
            searches=made.searches,
        )

    def command_line(self, rng: random.Random) -> Input:
        """Flags and values at random; a search of them ends before its first child."""
        command = rng.choice(
            ["search"] * 4 + ["train"] * 3 + ["scale"] * 3
            + ["predict", "export", "profile", "profile", "report"]
            + ["calibrate"] * 2
        )  # fmt: skip
        arguments = list(_FIRST[command])
        chance = rng.random()
        if chance < 0.12 and arguments:
            arguments[rng.randrange(len(arguments))] = rng.choice(damage.VALUES)
        elif chance < 0.16:
            arguments = [rng.choice(damage.VALUES) for _ in range(rng.randrange(4))]
        for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
            arguments.append(rng.choice(self._flags[command]))
            if rng.random() < 0.93:
                arguments.append(rng.choice(damage.VALUES))
        if command in _WRITING and not {"--output", "--resume"} & set(arguments):
            arguments += ["--output", "out"]
        return Input(
            command=command,
            arguments=tuple(arguments),
            what="",
            searches=False,
        )

    def searched(self, rng: random.Random) -> Input:
        """A search's folder, sometimes one of format 1."""
        run, children = rng.choice(
            [("searched", 6), ("searched", 6), ("of-format-1", 12)]
        )
        names = ["journal.jsonl"] * 5 + ["policy.jsonl", "config.json", "report.html"]
        return self._of_run(
            rng, run,
            names if run == "of-format-1" else [*names, "controller.npz"],
            [
                ("report", "{run}"),
                ("report", "{run}", "--serve", "--port", "0"),
                ("report", "{run}", "searched", "--output", "out.html"),
                ("search", "--resume", "{run}", "--children", f"{children + 1}"),
                ("search", "--resume", "{run}", "--children", f"{children}"),
            ],
        )  # fmt: skip

    def grid(self, rng: random.Random) -> Input:
        """The folder of a search for coefficients."""
        return self._of_run(
            rng, "grid", ["journal.jsonl"] * 3 + ["config.json"],
            [("report", "{run}"), ("scale", "--resume", "{run}")],
        )  # fmt: skip

    def training(self, rng: random.Random) -> Input:
        """A training run's folder, halfway or at its end."""
        run = rng.choice(["halfway", "halfway", "trained"])
        names = ["training.json", "losses.jsonl", "config.json", "architecture.json"]
        if run == "trained":
            names += ["result.json", "model/model.json"]
        return self._of_run(rng, run, names, [("train", "--resume", "{run}")])

    def checkpoint(self, rng: random.Random) -> Input:
        """A file of a checkpoint."""
        run = rng.choice(["halfway", "halfway", "trained"])
        whole = self._bench.whole / run
        names = [
            str(path.relative_to(whole))
            for folder in ("last", "best")
            for path in sorted((whole / folder).rglob("*"))
            if path.is_file()
        ]
        return self._of_run(rng, run, names, [("train", "--resume", "{run}")])

    def model(self, rng: random.Random) -> Input:
        """A model's folder."""
        return self._of_run(
            rng, "trained",
            [f"{models.TRAINED}/{name}" for name in
             ("model.json", "weights.safetensors", "weights.safetensors",
              "architecture.json")],
            [
                ("predict", "{run}", "ok.png", "--output", "out.png"),
                ("predict", "trained", "{run}", "ok.png", "--output", "out.png"),
                ("export", "{run}", "--format", "safetensors", "--output", "out"),
                ("profile", "{run}"),
                ("scale", "{run}", "--phi", "0", "--output", "out"),
                ("train", "tiny.json", "--init", "{run}", "--output", "out"),
                ("train", "tiny.json", "--init", "{run}/model/weights.safetensors",
                 "--output", "out"),
            ],
        )  # fmt: skip

    def architecture(self, rng: random.Random) -> Input:
        """An architecture's file, of a search, a family or by hand."""
        name = rng.choice(
            ["tiny.json", "tiny.json", "searched/best.json", "family/phi-1.json",
             "family/family.json", "searched/pareto.json"]
        )  # fmt: skip
        return self._of_file(
            rng, name,
            [
                ("profile", "{file}"),
                ("profile", "{file}", "--json"),
                ("scale", "{file}", "--phi", "0,1", "--output", "out"),
                ("scale", "{file}", "--preset", "efficientnet", "--output", "out"),
                ("export", "{file}", "--format", "safetensors"),
            ],
        )  # fmt: skip

    def table(self, rng: random.Random) -> Input:
        """A table of latencies."""
        command = (
            "search", "--target-latency", "30ms", "--latency-table", "{file}",
            "--output", "out",
        )  # fmt: skip
        return self._of_file(rng, "table.json", [command])

    def picture(self, rng: random.Random) -> Input:
        """A picture to be classified, or among those to be trained on."""
        name = rng.choice(sorted((self._bench.whole / "pictures").iterdir())).name
        predict = ("predict", "trained", "{file}", "--output", "out.png")
        made = self._of_file(rng, f"pictures/{name}", [predict])
        if rng.random() < 0.2:
            data = self._bench.place / "out-data"
            for label in "ab":
                (data / label).mkdir(parents=True, exist_ok=True)
                for number in range(6):
                    shutil.copy(
                        self._bench.whole / "ok.png", data / label / f"{number}.png"
                    )
            damaged = Path(made.arguments[1])
            if damaged.is_file():
                shutil.copy(damaged, data / "a" / f"x{damaged.suffix or '.png'}")
            command = ("tiny.json", "--dataset", "./out-data", "--output", "out")
            return Input(command="train", arguments=command, what=made.what)
        return made

    def _of_run(
        self,
        rng: random.Random,
        run: str,
        names: list[str],
        commands: list[tuple[str, ...]],
    ) -> Input:
        folder = self._bench.copy(run)
        how = self._damage(rng, folder / (name := rng.choice(names)))
        command, *arguments = rng.choice(commands)
        return Input(
            command=command,
            arguments=tuple(a.format(run=f"out-{run}") for a in arguments),
            what=f"{run}/{name} {how}",
        )

    def _of_file(
        self, rng: random.Random, name: str, commands: list[tuple[str, ...]]
    ) -> Input:
        path = self._bench.fresh("out-file" + Path(name).suffix)
        shutil.copy(self._bench.whole / name, path)
        how = self._damage(rng, path)
        command, *arguments = rng.choice(commands)
        return Input(
            command=command,
            arguments=tuple(a.format(file=path.name) for a in arguments),
            what=f"{name} {how}",
        )

    def _damage(self, rng: random.Random, path: Path) -> str:
        """Damages a file, or puts something else in its place; says which."""
        if rng.random() < 0.88:
            data = path.read_bytes()
            if path.suffix == ".safetensors" and rng.random() < 0.6:
                path.write_bytes(damage.of_safetensors(rng, data))
            else:
                path.write_bytes(damage.of_file(rng, data))
            return "damaged"
        path.unlink()
        how = rng.choice(list(_INSTEAD))
        _INSTEAD[how](path, self._secret)
        return how


def _enormous(path: Path, secret: Path) -> None:
    del secret
    with path.open("wb") as file:
        file.truncate(2**41)


# What stands in a file's place, if anything; the other path is of a file elsewhere.
_INSTEAD: dict[str, Callable[[Path, Path], object]] = {
    "removed": lambda *_: None,
    "emptied": lambda path, _: path.touch(),
    "a pipe": lambda path, _: os.mkfifo(path),
    "a link": lambda path, secret: path.symlink_to(secret),
    "a hard link": lambda path, secret: path.hardlink_to(secret),
    "a link to a folder": lambda path, secret: path.symlink_to(secret.parent),
    "a link to a device": lambda path, _: path.symlink_to("/dev/zero"),
    "a folder": lambda path, _: path.mkdir(),
    "enormous": _enormous,
}

_KINDS: dict[str, tuple[int, Callable[[Inputs, random.Random], Input]]] = {
    "command line": (46, Inputs.command_line),
    "search": (16, Inputs.searched),
    "grid": (3, Inputs.grid),
    "training run": (6, Inputs.training),
    "checkpoint": (4, Inputs.checkpoint),
    "model": (7, Inputs.model),
    "architecture": (11, Inputs.architecture),
    "latency table": (3, Inputs.table),
    "picture": (4, Inputs.picture),
}
