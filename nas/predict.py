"""Classifies a picture and shows where each network looked.

    python -m nas.predict runs/20250101-120000 picture.jpg
    python -m nas.predict baseline deeper wider compound picture.jpg --output maps.png

prints the five likeliest classes with their probabilities, and writes a PNG with the
class activation map of the likeliest laid over the picture (arXiv:1512.04150), for
several models side by side, as in EfficientNet's figure 7.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import PIL.ImageDraw
import plotly.colors
import tyro
from flax import nnx
from jaxtyping import Float, UInt8

from nas import command_line, models, terminal
from trainers import folding, saved
from trainers.data import pixels

SIDE = 320  # pixels of each panel
_TOP = 5
_MARGIN, _LINE = 8, 16
_OPACITY = 0.45
_GREY, _RGB = 1, 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model makes of a picture.

    `top` has classes and probabilities, the likeliest first. `heat` is the activation
    map of the first, from 0 to 1, as fine as the last maps are.
    """

    top: tuple[tuple[str, float], ...]
    heat: Float[np.ndarray, "rows columns"]


def resized(
    model: saved.Model, picture: UInt8[np.ndarray, "height width channels"]
) -> UInt8[np.ndarray, "resolution resolution channels"]:
    """Returns the central square of `picture` as `model` reads it.

    Raises:
      ValueError: if the model reads pictures of neither one channel nor three.
    """
    channels = model.spec.in_channels
    if channels not in (_GREY, _RGB):
        raise ValueError(
            f"pictures have 1 or 3 channels, and {model.spec.name} reads {channels}"
        )
    if picture.shape[2] != channels:
        picture = pixels.to_channels(picture, channels)
    box = pixels.central_square(*picture.shape[:2])
    return pixels.resize(picture, model.spec.resolution, box)


def predict(
    model: saved.Model, picture: UInt8[np.ndarray, "height width channels"]
) -> Prediction:
    """Classifies the central square of `picture`; raises as `resized`."""
    image = resized(model, picture)[np.newaxis]
    network = folding.fold(model.network)
    graphdef, arrays = nnx.split(network)
    bias = folding.classifier_of(network).bias[...]
    maps = jax.jit(
        lambda arrays, images: folding.activation_maps(
            nnx.merge(graphdef, arrays), images
        )
    )(arrays, model.card.standardise(jnp.asarray(image)))[0]
    probabilities = np.asarray(jax.nn.softmax(maps.mean((0, 1)) + bias))
    order = np.argsort(-probabilities)[:_TOP]
    heat = np.asarray(maps[..., order[0]])
    span = np.ptp(heat)
    return Prediction(
        top=tuple((model.card.class_names[i], float(probabilities[i])) for i in order),
        heat=(heat - heat.min()) / span if span > 0 else np.zeros_like(heat),
    )


def panel(
    picture: UInt8[np.ndarray, "height width channels"],
    prediction: Prediction,
    title: str,
) -> PIL.Image.Image:
    """Draws the central square of `picture` under the heat, and the classes below.

    Heat of a single place says nothing, and is left out.
    """
    if picture.shape[2] == _GREY:
        picture = pixels.to_channels(picture, _RGB)
    square = pixels.resize(picture, SIDE, pixels.central_square(*picture.shape[:2]))
    shown = PIL.Image.fromarray(square)
    if prediction.heat.size > 1:
        shown = PIL.Image.blend(shown, _overlay(prediction.heat), _OPACITY)
    height = SIDE + 2 * _MARGIN + _LINE * (len(prediction.top) + 1)
    drawn = PIL.Image.new("RGB", (SIDE + 2 * _MARGIN, height), "white")
    drawn.paste(shown, (_MARGIN, _MARGIN))
    draw = PIL.ImageDraw.Draw(drawn)
    lines = [title, *(f"{share:6.1%}  {name}" for name, share in prediction.top)]
    for number, line in enumerate(lines):
        draw.text((_MARGIN, SIDE + _MARGIN + _LINE * number), line, fill="black")
    return drawn


def _overlay(heat: Float[np.ndarray, "rows columns"]) -> PIL.Image.Image:
    coarse = PIL.Image.fromarray(np.uint8(255 * heat))
    smooth = np.asarray(coarse.resize((SIDE, SIDE), PIL.Image.Resampling.BICUBIC))
    colours = np.array(
        plotly.colors.sample_colorscale(
            "Turbo", np.linspace(0, 1, 256), colortype="tuple"
        )
    )
    return PIL.Image.fromarray(np.uint8(255 * colours[smooth]))


def _save(page: PIL.Image.Image, path: Path) -> None:
    try:
        page.save(path, format="PNG")
    except OSError as error:
        raise OSError(
            f"cannot write {path}: {error.strerror}; name another with --output"
        ) from None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Classify a picture and show where each network looked."""

    inputs: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL... PICTURE")
    ]
    """Folders of models or of training runs, and a picture's file at the end."""
    output: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("activation.png")
    """The PNG to write."""


@command_line.command("nas.predict")
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parsed = tyro.cli(Arguments, args=arguments, prog="python -m nas.predict")
    try:
        if len(parsed.inputs) < 2:  # noqa: PLR2004
            raise ValueError(
                "a model and a picture are required, got"
                f" {' '.join(parsed.inputs) or 'nothing'}"
            )
        *names, file = parsed.inputs
        picture = pixels.decode(Path(file))
        panels = []
        for name in names:
            model = models.model(name, seed=0)
            found = predict(model, picture)
            terminal.say(f"{model.spec.name} ({model.card.weights})")
            for label, probability in found.top:
                terminal.say(f"  {probability:6.1%}  {label}")
            if found.heat.size == 1:
                terminal.say(
                    f"  no activation map: at {model.spec.resolution} pixels the last"
                    " maps are a single place"
                )
            panels.append(panel(picture, found, model.spec.name))
        width = sum(drawn.width for drawn in panels)
        page = PIL.Image.new("RGB", (width, max(p.height for p in panels)), "white")
        for number, drawn in enumerate(panels):
            page.paste(drawn, (number * drawn.width, 0))
        _save(page, parsed.output)
    except (ValueError, OSError) as error:
        return models.complain("nas.predict", error)
    terminal.say(f"Written  {parsed.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
