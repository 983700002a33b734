"""Architectures as JSON files, strictly read.

    {"version": 2, "architecture": {...}, "found": {...}}

`architecture` is an `ArchSpec`, field by field. `found`, which may be absent, is any
JSON object that tells how the architecture was found; it is checked to be JSON and
otherwise not looked at. `padding`, `norm_epsilon` and the head's `kind`, which came
later, are written where they are not the default, so that other files stay what they
were: a head without a kind is a classifier's. `version` is the lowest that has all of
the architecture: 2 with stages of kind `fused_mbconv`, else 1, which has none.
`architecture.schema.json` describes the file to editors and to other programs. It is
generated: `python -m search_space.codec` prints it. The schema cannot say that the
resolution must be at least the total stride, nor how many layers there may be in all,
nor which stages a version has.
"""

import dataclasses
import json
import math
import pathlib
import re
import sys
from collections.abc import Mapping
from typing import Any, Literal, cast

from pydantic import ConfigDict, JsonValue, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from search_space import files
from search_space.spec import (
    ArchSpec,
    ClassifierHead,
    FusedMBConvStage,
    Head,
    Stage,
    Stem,
    explain,
    shorten,
)

VERSION = 2
MAX_SIZE = 2**20  # characters; the longest spec allowed has some 20,000
MAX_DEPTH = 64

_LATER = ("padding", "norm_epsilon")  # fields that the first files did not have

SCHEMA_PATH = pathlib.Path(__file__).with_name("architecture.schema.json")


class ArchitectureError(ValueError):
    """A text that is not an architecture; the message is one line."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(strict=True, extra="forbid"))
class _Document:
    version: Literal[1, 2]
    architecture: ArchSpec
    found: dict[str, JsonValue] | None = None


_DOCUMENT = TypeAdapter(_Document)


def dumps(spec: ArchSpec, found: Mapping[str, JsonValue] | None = None) -> str:
    """Returns the JSON text of `spec`; `loads` is its inverse.

    Args:
      spec: the architecture.
      found: how it was found, as a JSON object, if that is to be kept with it.

    Raises:
      ArchitectureError: if `found` is not JSON, or so large that `loads` would
        refuse the text.
    """
    document: dict[str, Any] = {
        "version": max(map(version_of, spec.stages)),
        "architecture": to_json(spec),
    }
    if found is not None:
        document["found"] = dict(found)
    try:
        text = json.dumps(document, indent=2)
    except (TypeError, ValueError, RecursionError) as error:
        raise ArchitectureError(f"found must be JSON: {error}") from error
    _parse(text)
    return text + "\n"


def to_json(part: ArchSpec | Stem | Stage | Head) -> dict[str, Any]:
    """Returns an architecture, or a part of one, as it stands in a file."""
    later = ("kind",) if isinstance(part, ClassifierHead) else _LATER
    omitted = {
        field.name
        for field in dataclasses.fields(part)
        if field.name in later and getattr(part, field.name) == field.default
    }
    values = dataclasses.asdict(part)
    if isinstance(part, ArchSpec):
        values["head"] = to_json(part.head)
    return {name: value for name, value in values.items() if name not in omitted}


def loads(text: str) -> ArchSpec:
    """Returns the architecture in a JSON text.

    Raises:
      ArchitectureError: if the text is anything but what `dumps` writes; the message
        names the first field at fault, the rule and the value.
    """
    _parse(text)
    try:
        document = _DOCUMENT.validate_json(text)
    except ValidationError as error:
        raise ArchitectureError(explain(error)) from error
    for i, stage in enumerate(document.architecture.stages):
        if document.version < (needed := version_of(stage)):
            raise ArchitectureError(
                f"version must be {needed} for {stage.kind} in architecture.stages.{i},"
                f' got {document.version}; write "version": {needed}'
            )
    return document.architecture


def version_of(stage: Stage) -> int:
    """Returns the first version of files that has stages of this kind."""
    return 2 if isinstance(stage, FusedMBConvStage) else 1


def load_file(path: pathlib.Path | str) -> ArchSpec:
    """Returns the architecture in a JSON file.

    Raises:
      ArchitectureError: as `loads`, the path in front of the message.
      OSError: if the file cannot be read.
    """
    try:
        # A character takes at most four bytes.
        data = files.read_bounded(pathlib.Path(path), 4 * MAX_SIZE)
    except ValueError as error:
        raise ArchitectureError(str(error)) from error
    try:
        return loads(data.decode())
    except UnicodeDecodeError as error:
        raise ArchitectureError(
            f"{path}: text must be UTF-8: {error.reason}"
        ) from error
    except ArchitectureError as error:
        raise ArchitectureError(f"{path}: {error}") from error


def schema() -> str:
    """Returns the JSON Schema of the file, as `architecture.schema.json` holds it."""
    document = _DOCUMENT.json_schema()
    document["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    document["title"] = "Architecture"
    return json.dumps(document, indent=2) + "\n"


def _parse(text: str) -> None:
    """Refuses what is no JSON object of a known version, before any of it is used."""
    if len(text) > MAX_SIZE:
        raise ArchitectureError(
            f"text must be at most {MAX_SIZE} characters, got {len(text)}"
        )
    if (depth := _depth(text)) > MAX_DEPTH:
        raise ArchitectureError(
            f"text must be nested at most {MAX_DEPTH} deep, got {depth}"
        )
    try:
        document: object = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise ArchitectureError(
            f"text must be JSON: {error.msg} at line {error.lineno},"
            f" column {error.colno}"
        ) from error
    except ArchitectureError:
        raise
    except ValueError as error:  # an integer of more digits than Python converts
        raise ArchitectureError(f"text must hold shorter numbers: {error}") from error
    if not isinstance(document, dict):
        raise ArchitectureError(f"text must be an object, got {shorten(document)}")
    fields = cast("dict[str, object]", document)
    version = fields.get("version")
    # A boolean is equal to 1, and so is 1.0.
    if type(version) is not int or not 1 <= version <= VERSION:
        raise ArchitectureError(
            f"version must be from 1 to {VERSION}, got {shorten(version)};"
            f" a file of another version needs the program that wrote it"
        )
    if not _is_finite(found := fields.get("found")):
        raise ArchitectureError(
            f"found must hold finite numbers only, got {shorten(found)}"
        )


def _is_finite(value: object) -> bool:
    match value:
        case float():
            return math.isfinite(value)
        case dict():
            return all(map(_is_finite, cast("dict[str, object]", value).values()))
        case list():
            return all(map(_is_finite, cast("list[object]", value)))
        case _:
            return True


# Possessive, and with the closing quote optional, so that no text takes more than one
# pass; brackets inside strings do not nest.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


def _depth(text: str) -> int:
    depth = deepest = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        if match[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif match[0] in "]}":
            depth -= 1
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ArchitectureError(
                f"field {shorten(key)} must be given once, got it again with"
                f" {shorten(value)}"
            )
        found[key] = value
    return found


if __name__ == "__main__":
    sys.stdout.write(schema())
