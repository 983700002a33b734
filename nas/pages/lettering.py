r"""Text on pictures, in whatever script it is: a font that has its letters.

Pillow's own font has Latin letters alone, and draws boxes for others. The system's
fonts are looked through for one that has them all; letters that none has are written
as escapes, such as \u6f22.
"""

import functools
import os
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

Font = PIL.ImageFont.FreeTypeFont | PIL.ImageFont.ImageFont

SIZE = 12  # pixels
_SUFFIXES = (".ttf", ".otf", ".ttc")
_MOST_FONTS = 500  # looked through: a second, where none has the letters
_ODD = (
    *("bold", "italic", "oblique", "light", "black", "thin", "mono", "serif"),
    *("math", "symbol", "emoji", "condensed"),
)
_UNASSIGNED = "\U0010fffe"  # never a letter: what it looks like is no letter


def fitting(text: str) -> tuple[str, Font]:
    """Returns `text` as it can be drawn, and the font to draw it with."""
    best, lacked = _default(), _lacking(_default(), text)
    for path in _paths() if lacked else ():
        font = _load(path)
        if font is not None and len(lacks := _lacking(font, text)) < len(lacked):
            best, lacked = font, lacks
        if not lacked:
            break
    shown = "".join(_escape(letter) if letter in lacked else letter for letter in text)
    return shown, best


def _escape(letter: str) -> str:
    return letter.encode("ascii", "backslashreplace").decode()


def _lacking(font: Font, text: str) -> set[str]:
    return {letter for letter in text if not _has(font, letter)}


@functools.cache
def _has(font: Font, letter: str) -> bool:
    # Joiners have no looks of their own.
    if letter.isspace() or unicodedata.category(letter) == "Cf":
        return True
    return _look(font, letter) != _look(font, _UNASSIGNED)


@functools.cache
def _look(font: Font, letter: str) -> bytes:
    if isinstance(font, PIL.ImageFont.FreeTypeFont):
        # Shaping would put a circle under an accent that stands alone.
        font = font.font_variant(layout_engine=PIL.ImageFont.Layout.BASIC)
    drawn = PIL.Image.new("L", (3 * SIZE, 3 * SIZE))
    PIL.ImageDraw.Draw(drawn).text((SIZE, SIZE), letter, fill=255, font=font)
    return drawn.tobytes()


@functools.cache
def _default() -> Font:
    return PIL.ImageFont.load_default(SIZE)


@functools.cache
def _load(path: Path) -> Font | None:
    try:
        return PIL.ImageFont.truetype(path, SIZE)
    except OSError:  # a font of bitmaps has its own sizes; or it is damaged
        return None


@functools.cache
def _paths() -> tuple[Path, ...]:
    """Returns the system's fonts, plain ones first."""
    found = {path for folder in _folders() for path in _files(folder)}
    return tuple(sorted(found, key=_oddity)[:_MOST_FONTS])


def _oddity(path: Path) -> tuple[int, str]:
    name = path.name.lower()
    return sum(word in name.replace("sansserif", "") for word in _ODD), str(path)


def _files(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        for name in names:
            if name.lower().endswith(_SUFFIXES):
                yield Path(place, name)


def _folders() -> list[Path]:
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        return [Path(os.environ.get("WINDIR", r"C:\Windows"), "Fonts")]
    if sys.platform == "darwin":
        roots = [home / "Library", Path("/Library"), Path("/System/Library")]
        return [root / "Fonts" for root in roots]
    shared = os.environ.get("XDG_DATA_DIRS", "/usr/local/share:/usr/share").split(":")
    own = [home / ".local/share/fonts", home / ".fonts"]
    return own + [Path(folder, "fonts") for folder in shared if folder]
