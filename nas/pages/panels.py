"""Pictures under what a network looked at, side by side in a PNG."""

import io
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.PngImagePlugin
import plotly.colors
from jaxtyping import Float, Num

from nas.pages import lettering
from trainers.data import pixels
from trainers.data.framing import Framing

SIDE = 320  # pixels of each picture
_MARGIN, _LINE = 8, 16
_OPACITY = 0.45
_GREY, _RGB = 1, 3

_KEYWORD, _WRITER = "Software", "mbconv-nas, nas.predict"
_HEAD = 1_000  # bytes; what says who wrote a PNG comes first


def panel(
    picture: Num[np.ndarray, "height width channels"],
    heat: Float[np.ndarray, "rows columns"],
    title: str,
    top: Iterable[tuple[str, float]],
    framing: Framing,
) -> PIL.Image.Image:
    """Draws what `framing` keeps of `picture` under `heat`, and the classes below.

    Heat of a single place says nothing, and is left out.
    """
    picture = np.rint(pixels.to_channels(picture, _RGB)).astype(np.uint8)
    shown = PIL.Image.fromarray(framing.central(picture, SIDE))
    if heat.size > 1:
        shown = PIL.Image.blend(shown, _overlay(heat), _OPACITY)
    lines = [("", title), *((f"{share:6.1%}  ", name) for name, share in top)]
    height = SIDE + 2 * _MARGIN + _LINE * len(lines)
    drawn = PIL.Image.new("RGB", (SIDE + 2 * _MARGIN, height), "white")
    drawn.paste(shown, (_MARGIN, _MARGIN))
    draw = PIL.ImageDraw.Draw(drawn)
    for number, parts in enumerate(lines):
        _write_line(draw, SIDE + _MARGIN + _LINE * number, parts)
    return drawn


def page(rows: Sequence[Sequence[PIL.Image.Image]]) -> PIL.Image.Image:
    """Puts panels together, those of a row side by side."""
    heights = [max(drawn.height for drawn in row) for row in rows]
    width = max(sum(drawn.width for drawn in row) for row in rows)
    whole = PIL.Image.new("RGB", (width, sum(heights)), "white")
    for number, row in enumerate(rows):
        left, upper = 0, sum(heights[:number])
        for drawn in row:
            whole.paste(drawn, (left, upper))
            left += drawn.width
    return whole


def check_writable(path: Path, *, inputs: Iterable[Path], overwrite: bool) -> None:
    """Refuses to replace an input, and what is not ours unless it is to be replaced.

    Raises:
      ValueError: with the remedy. One line.
    """
    if not os.path.lexists(path):
        return
    for given in inputs:
        if path.exists() and given.exists() and path.samefile(given):
            raise ValueError(
                f"the PNG must not replace a picture that it is made from, {path};"
                " name another with --output"
            )
    status = path.lstat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
        raise ValueError(
            f"cannot write {path}: it is no ordinary file; name another with --output"
        )
    if not (overwrite or _is_ours(path)):
        raise ValueError(
            f"{path} is there already, and nas.predict did not write it; name another"
            " with --output, or replace it with --overwrite"
        )


def save(drawn: PIL.Image.Image, path: Path) -> None:
    """Writes a PNG in place of what was at `path`; a link is not followed.

    Raises:
      OSError: if it cannot be written. One line.
    """
    about, encoded = PIL.PngImagePlugin.PngInfo(), io.BytesIO()
    about.add_text(_KEYWORD, _WRITER)
    drawn.save(encoded, format="PNG", pnginfo=about)
    try:
        path.unlink(missing_ok=True)
        with path.open("xb") as file:
            file.write(encoded.getbuffer())
    except OSError as error:
        raise OSError(
            f"cannot write {path}: {error.strerror}; name another with --output"
        ) from None


def _is_ours(path: Path) -> bool:
    if path.is_symlink():
        return False
    with path.open("rb") as file:
        return f"{_KEYWORD}\0{_WRITER}".encode() in file.read(_HEAD)


def _write_line(
    draw: PIL.ImageDraw.ImageDraw, upper: float, parts: Iterable[str]
) -> None:
    """Writes each of `parts` in a font that has its letters, one after the other."""
    left = float(_MARGIN)
    for part in parts:
        text, font = lettering.fitting(pixels.printable(part))
        draw.text((left, upper), text, fill="black", font=font)
        left += font.getlength(text)


def _overlay(heat: Float[np.ndarray, "rows columns"]) -> PIL.Image.Image:
    coarse = PIL.Image.fromarray(np.uint8(255 * heat))
    smooth = np.asarray(coarse.resize((SIDE, SIDE), PIL.Image.Resampling.BICUBIC))
    colours = np.array(
        plotly.colors.sample_colorscale(
            "Turbo", np.linspace(0, 1, 256), colortype="tuple"
        )
    )
    return PIL.Image.fromarray(np.uint8(255 * colours[smooth]))
