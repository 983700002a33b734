"""Classifies pictures and shows where each network looked.

    python -m nas.predict runs/20250101-120000 picture.jpg
    python -m nas.predict baseline deeper wider compound picture.jpg --output maps.png
    python -m nas.predict runs/20250101-120000 holidays/ more.jpg --json

prints the five likeliest classes of each picture with their probabilities, and writes a
PNG with the class activation map of the likeliest laid over the picture
(arXiv:1512.04150): a row for each picture, several models side by side, as in
EfficientNet's figure 7. Of a folder all files are taken. With --json, a JSON object
goes to standard output, and a PNG is written where --output names one.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import tyro
from flax import nnx
from jaxtyping import Float, Num

from nas.options import command_line, terminal
from nas.pages import panels
from nas.training import models
from trainers.data import listing, pixels
from trainers.deploy import folding, saved
from trainers.networks import classifier

DRAWN = Path("activation.png")
_TOP = 5
_MOST_ROWS = 50  # of a PNG: 17,000 pixels
_GREY, _RGB = 1, 3

Picture = Num[np.ndarray, "height width channels"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model makes of a picture.

    `top` has classes and probabilities, the likeliest first. `heat` is the activation
    map of the first, from 0 to 1, as fine as the last maps are.
    """

    top: tuple[tuple[str, float], ...]
    heat: Float[np.ndarray, "rows columns"]


Predictor = Callable[[Picture], Prediction]


def resized(
    model: saved.Model, picture: Picture
) -> Num[np.ndarray, "resolution resolution _"]:
    """Returns the central square of `picture` as `model` is shown it.

    Raises:
      ValueError: if the model reads pictures of neither one channel nor three.
    """
    channels = model.spec.in_channels
    if channels not in (_GREY, _RGB):
        raise ValueError(
            f"pictures have 1 or 3 channels, and {model.spec.name} reads {channels}"
        )
    picture = pixels.to_channels(picture, channels)
    return model.metadata.framing.central(picture, model.spec.resolution)


def predict(model: saved.Model, picture: Picture) -> Prediction:
    """Classifies the central square of `picture`; raises as `resized`."""
    return predictor(model)(picture)


def predictor(model: saved.Model) -> Predictor:
    """Returns `predict` of `model`, which compiles once for all pictures."""
    network = folding.fold(model.network)
    graphdef, arrays = nnx.split(network)
    bias = classifier.classifier_of(network).bias[...]
    forward = jax.jit(
        lambda arrays, images: folding.activation_maps(
            nnx.merge(graphdef, arrays), images
        )
    )

    def predict(picture: Picture) -> Prediction:
        image = resized(model, picture).astype(np.float32)[np.newaxis]
        maps = forward(arrays, model.metadata.standardise(jnp.asarray(image)))[0]
        probabilities = np.asarray(jax.nn.softmax(maps.mean((0, 1)) + bias))
        order = np.argsort(-probabilities)[:_TOP]
        heat = np.asarray(maps[..., order[0]])
        span = np.ptp(heat)
        names = model.metadata.class_names
        return Prediction(
            top=tuple((names[i], float(probabilities[i])) for i in order),
            heat=(heat - heat.min()) / span if span > 0 else np.zeros_like(heat),
        )

    return predict


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Classify pictures and show where each network looked."""

    inputs: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="MODEL... PICTURE..."),
    ]
    """Folders of models or of training runs; and then pictures, or folders of them."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The PNG to write; by default activation.png, and none with --json."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print a JSON object instead of lines for people."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write the PNG over a file that nas.predict did not write."""


@command_line.command("nas.predict")
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status.

    2: something cannot be read or written; other pictures are classified even so.
    """
    parsed = tyro.cli(Arguments, args=arguments, prog="python -m nas.predict")
    try:
        names, paths = _sorted_inputs(parsed.inputs)
        output = parsed.output or (None if parsed.json else DRAWN)
        if output is not None:
            panels.check_writable(output, inputs=paths, overwrite=parsed.overwrite)
        loaded = [models.model(name, seed=0) for name in names]
        session = _Session(loaded, draws=output is not None, prints=not parsed.json)
        for path in paths:
            session.classify(path, is_one_of_several=len(paths) > 1)
        if output is not None and session.rows:
            panels.save(panels.page(session.rows), output)
    except (ValueError, OSError) as error:
        return models.print_error("nas.predict", error)
    drawn = output if session.rows else None
    if parsed.json:
        sys.stdout.write(json.dumps(session.document(drawn), indent=2) + "\n")
    elif drawn:
        note = "" if len(session.rows) == len(paths) else _rows_in_words(session)
        sys.stdout.write(f"Written  {drawn}{note}\n")
    return 2 if session.refused else 0


class _Session:
    """The pictures of one command, and what has been found of them so far."""

    def __init__(
        self, loaded: Sequence[saved.Model], *, draws: bool, prints: bool
    ) -> None:
        self.rows: list[list[PIL.Image.Image]] = []
        self.refused: list[dict[str, str]] = []
        self._classified: list[dict[str, Any]] = []
        self._models = [(model, predictor(model)) for model in loaded]
        self._draws, self._prints = draws, prints

    def classify(self, path: Path, *, is_one_of_several: bool) -> None:
        """Shows what each model makes of a picture; complains if it is none."""
        try:
            picture = pixels.decode(path)
        except ValueError as error:
            self.refused.append({"picture": str(path), "reason": str(error)})
            models.print_error("nas.predict", error)
            return
        if is_one_of_several:
            self._say(str(path))
        row, found = [], []
        for model, predict in self._models:
            prediction = predict(picture)
            self._describe(model, prediction)
            found.append(_entry(model, prediction))
            title = model.spec.name
            if is_one_of_several:
                title += f": {path.name}"
            if self._draws and len(self.rows) < _MOST_ROWS:
                row.append(
                    panels.panel(
                        picture,
                        prediction.heat,
                        title,
                        prediction.top,
                        model.metadata.framing,
                    )
                )
        if row:
            self.rows.append(row)
        self._classified.append({"picture": str(path), "predictions": found})

    def document(self, drawn: Path | None) -> dict[str, Any]:
        """Returns what --json prints."""
        return {
            "version": 1,
            "pictures": self._classified,
            "refused": self.refused,
            "drawn": None if drawn is None else str(drawn),
        }

    @property
    def num_classified(self) -> int:
        """Number of pictures that could be read."""
        return len(self._classified)

    def _describe(self, model: saved.Model, prediction: Prediction) -> None:
        self._say(f"{model.spec.name} ({model.metadata.weights})")
        for name, share in prediction.top:
            self._say(f"  {share:6.1%}  {name}")
        if prediction.heat.size == 1:
            self._say(
                f"  no activation map: at {model.spec.resolution} pixels the last"
                " maps are a single place"
            )

    def _say(self, text: str) -> None:
        if self._prints:
            terminal.say(text)


def _rows_in_words(session: _Session) -> str:
    return f" with {len(session.rows)} of {session.num_classified} pictures"


def _entry(model: saved.Model, prediction: Prediction) -> dict[str, Any]:
    return {
        "model": model.spec.name,
        "weights": model.metadata.weights,
        "classes": [{"name": n, "probability": p} for n, p in prediction.top],
    }


def _sorted_inputs(inputs: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Returns the models among the arguments, and the files of pictures.

    Raises:
      ValueError: if there are no models or no pictures.
      OSError: if a folder cannot be read.
    """
    # The first is a model whatever it looks like, and what is wrong with it is told.
    names = [n for i, n in enumerate(inputs) if i == 0 or models.is_model(n)]
    paths: list[Path] = []
    for name in inputs[1:]:
        path = Path(os.path.expanduser(name))
        if models.is_model(name):
            continue
        if not path.is_dir():
            paths.append(path)
            continue
        (files,) = listing.below([path]).files
        if not files:
            raise ValueError(
                f"a folder must hold pictures, or be a model's, and {path} does not;"
                " name another"
            )
        paths += files
    if not paths:
        raise ValueError(
            "a model and a picture are required, got"
            f" {' '.join(inputs) or 'nothing'}; the model goes first"
        )
    return names, paths


if __name__ == "__main__":
    sys.exit(main())
