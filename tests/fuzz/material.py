"""What the fuzzing damages: small whole runs, networks, tables and pictures.

Training itself is left out, here and in what is tried (`harness.stubs`): files and
command lines are what is fuzzed.
"""

import contextlib
import dataclasses
import io
import json
import os
import shutil
from pathlib import Path
from typing import Protocol

import numpy as np
import PIL.Image

from nas import report, scale, search, train
from nas.evaluation import latency_table
from nas.options import definition
from nas.runs import run_folder
from nas.scaling import grid
from search_space import codec, zoo
from search_space.spec import ArchSpec, ClassifierHead, MBConvStage, Stem

TINY = ArchSpec(
    name="tiny",
    resolution=8,
    activation="swish",
    stem=Stem(channels=8, stride=1),
    stages=(
        MBConvStage(
            channels=8, kernel=3, stride=2, expansion=2, repeats=1, se_ratio=0.25
        ),
    ),
    head=ClassifierHead(channels=16),
)
_FORMAT_1 = Path(__file__).parents[1] / "nas/runs/format1/search-flops"
_TRAIN = [
    *("tiny.json", "--resolution", "8", "--epochs", "2", "--batch-size", "256"),
    *("--save-every", "3", "--devices", "1"),
]
PICTURES = (
    "PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "ICO", "PCX", "SGI",
    "DDS", "JPEG2000", "AVIF", "QOI", "MPO", "BLP", "ICNS", "XBM", "MSP",
)  # fmt: skip


class Fit(Protocol):
    """The stand-in for training, which diverges after so many calls."""

    calls_left: int | None


def make(folder: Path, fit: Fit) -> None:
    """Puts everything into `folder`, which is new and the current one."""
    (folder / "tiny.json").write_text(codec.dumps(TINY))
    (folder / "torn.json").write_text("{")
    (folder / "empty").mkdir()
    os.mkfifo(folder / "fifo")
    PIL.Image.new("L", (20, 20), 90).save(folder / "ok.png")
    with contextlib.redirect_stdout(io.StringIO()):
        flags = ["--evaluator", "imagenet-surrogate", "--children", "6"]
        assert search.main([*flags, "--output", "searched"]) == 0
        assert train.main([*_TRAIN, "--output", "trained"]) == 0
        fit.calls_left = 1
        assert train.main([*_TRAIN, "--output", "halfway"]) == 1
        fit.calls_left = None
        assert scale.main(["tiny.json", "--phi", "0,1", "--output", "family"]) == 0
    _make_grid(folder)
    shutil.copytree(_FORMAT_1, folder / "of-format-1")
    with contextlib.redirect_stdout(io.StringIO()):
        assert report.main(["of-format-1"]) == 0
    table = latency_table.LatencyTable(
        space="mbconv", device="this", resolution=32, activation="swish", call_ms=0.1,
        blocks_ms={
            latency_table.key(block): 1.0
            for block in latency_table.layers.blocks(zoo.load("efficientnet-b0"))
        },
    )  # fmt: skip
    (folder / "table.json").write_text(latency_table.dumps(table))
    _make_pictures(folder)


def _make_grid(folder: Path) -> None:
    """A search for coefficients of which three networks are trained."""
    flags = ["tiny.json", "--search-coefficients", "--grid-step", "0.2"]
    _, asked = scale.parse(flags)
    searched = grid.plan(asked)
    made = run_folder.create(folder / "grid")
    record = definition.to_json(asked)
    header, *first = map(
        json.loads, (folder / "searched" / "journal.jsonl").read_text().splitlines()
    )
    header |= {
        "kind": grid.KIND,
        "num_trials": searched.networks.size,
        "definition": record,
    }
    lines = [header]
    for index, child in enumerate(first[:3]):
        lines.append(child | {"index": index, "asked": index + 1, "tokens": [0, index]})
    made.journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    shutil.copy(folder / "searched" / "config.json", made.config)


def _make_pictures(folder: Path) -> None:
    pictures = folder / "pictures"
    pictures.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    image = PIL.Image.fromarray(noise)
    for kind in PICTURES:
        mode = {"XBM": "1", "MSP": "1", "BLP": "P"}.get(kind, "RGB")
        with contextlib.suppress(OSError, KeyError, ValueError):  # not built in
            image.convert(mode).save(pictures / kind.lower(), kind)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """A folder in which one input after the other is tried, made anew from `whole`."""

    whole: Path
    place: Path

    def clear(self) -> None:
        """Leaves nothing in the place but links to the material."""
        for entry in self.place.iterdir():
            if not entry.is_symlink() or not (self.whole / entry.name).exists():
                _remove(entry)
        for entry in self.whole.iterdir():
            link = self.place / entry.name
            if not link.is_symlink():
                link.symlink_to(entry)

    def copy(self, name: str) -> Path:
        """Returns a fresh copy of a folder of the material, inside the place."""
        to = self.fresh("out-" + name)
        shutil.copytree(self.whole / name, to)
        return to

    def fresh(self, name: str) -> Path:
        """Returns a path in the place where nothing is."""
        _remove(self.place / name)
        return self.place / name


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
