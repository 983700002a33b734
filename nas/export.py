"""Writes a network in a form that runs without this package.

    python -m nas.export runs/20250101-120000 --format onnx
    python -m nas.export efficientnet-b0 --format stablehlo --output b0

makes a folder with the network, `run.py` that classifies a picture with it,
`pictures.py` that reads the picture as training did, and the architecture.

stablehlo: one file for CPU, CUDA and TPU, run by JAX. onnx: standard operators, run by
onnxruntime and others. Both take a batch of any size, and have batch normalization
folded into the convolutions. safetensors: the weights as they are, to train on, and
beside them the forward pass without weights, as StableHLO.
"""

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import jax
import jax.export
import jax.numpy as jnp
import tyro
from flax import nnx
from jaxtyping import Array, Float

from nas.options import command_line, terminal
from nas.training import models
from search_space import files
from trainers.data import pixels
from trainers.deploy import folding, saved
from trainers.runtime import optional

PLATFORMS = ("cpu", "cuda", "tpu")

_LONGEST_NAME = 60  # characters, of four bytes at most: file systems take 255 bytes

_READ_PICTURE = '''"""Classifies a picture: python run.py picture.jpg. Needs {needs}."""
import json, pathlib, sys
import numpy as np
{imports}

here = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(here))
import pictures  # the file beside this one: reads pictures as training did

if len(sys.argv) != 2:
    sys.exit("usage: python run.py PICTURE")
names = json.loads((here / "model.json").read_text(encoding="utf-8"))["class_names"]
try:
    picture = pictures.read(
        pathlib.Path(sys.argv[1]), {side}, {channels}, {crop!r}, {interpolation!r}
    )
except ValueError as error:
    sys.exit(f"run.py: {{pictures.printable(str(error))}}")
{load}
pixels = picture[np.newaxis]
logits = np.asarray({call})[0]
for i in np.argsort(-logits)[:5]:
    print(f"{{logits[i]:8.3f}}  {{pictures.printable(names[i])}}")
'''


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Format:
    """How one format is written, and the lines of `run.py` that differ."""

    write: Callable[[Path, saved.Model], None]
    needs: str
    imports: str
    load: str
    call: str


def write(folder: Path, model: saved.Model, file_format: str) -> None:
    """Writes `model` in `file_format` into a new or empty folder, and how to run it.

    Raises:
      ValueError: if the format is unknown, or needs a package that is not there.
      OSError: if the folder cannot be written or has something in it.
    """
    chosen, spec = _format(file_format), model.spec
    _check_channels(spec.in_channels)
    script = _READ_PICTURE.format(
        needs=chosen.needs,
        imports=chosen.imports,
        load=chosen.load,
        call=chosen.call,
        side=spec.resolution,
        channels=spec.in_channels,
        crop=model.metadata.crop,
        interpolation=model.metadata.interpolation,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"cannot use {folder} as output folder: {error.strerror}; name another"
            " with --output"
        ) from None
    if entry := next(folder.iterdir(), None):
        raise FileExistsError(
            f"the output folder must be new or empty, and {folder} holds"
            f" {entry.name!r}; name another with --output"
        )
    place = folder.resolve()  # whoever names a link means where it points
    saved.save_description(place, model)
    chosen.write(place, model)
    files.write_whole(place / "run.py", script)
    # One implementation: what decoded the training images goes with the network.
    files.write_whole(place / "pictures.py", inspect.getsource(pixels))


def default_output(name: str, file_format: str) -> str:
    """Returns the folder for a network of that name, in the current one.

    A name may come from anybody's file, and does not choose the place.

    >>> default_output("efficientnet-b0", "onnx"), default_output("../../x", "onnx")
    ('efficientnet-b0-onnx', 'x-onnx')
    """
    plain = re.sub(r"[^\w.-]+", "_", name).lstrip("._-")[:_LONGEST_NAME]
    return f"{plain or 'network'}-{file_format}"


def _check_channels(channels: int) -> None:
    if channels not in pixels.CHANNELS:
        raise ValueError(
            f"pictures have {', '.join(map(str, pixels.CHANNELS))} channels, and the"
            f" network reads {channels}; run.py cannot be written for it"
        )


def _format(name: str) -> _Format:
    if name not in _FORMATS:
        raise ValueError(
            f"--format must be one of {', '.join(_FORMATS)}, got {name[:40]!r}"
        )
    if name == "onnx" and (lack := optional.missing("onnx")):
        raise ValueError(f"--format onnx {lack}")
    return _FORMATS[name]


def _write_stablehlo(folder: Path, model: saved.Model) -> None:
    forward, arrays = folding.logits_of(folding.fold(model.network))
    arrays = jax.device_get(arrays)

    def logits(
        pixels: Float[Array, "batch height width channels"],
    ) -> Float[Array, "batch classes"]:
        return forward(arrays, model.metadata.standardise(pixels))

    exported = jax.export.export(jax.jit(logits), platforms=PLATFORMS)
    blob = exported(_pixels(model)).serialize()
    files.write_whole(folder / "network.stablehlo", bytes(blob))


def _write_safetensors(folder: Path, model: saved.Model) -> None:
    saved.save_weights(folder, model)
    graphdef, state = nnx.split(model.network)

    def logits(
        weights: dict[str, Array],
        pixels: Float[Array, "batch height width channels"],
    ) -> Float[Array, "batch classes"]:
        network = nnx.merge(graphdef, state, copy=True)
        for name, variable in saved.variables(network).items():
            variable.set_value(weights[name])
        return network(model.metadata.standardise(pixels))

    shapes = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), saved.arrays(model.network)
    )
    exported = jax.export.export(jax.jit(logits), platforms=PLATFORMS)
    blob = exported(shapes, _pixels(model)).serialize()
    files.write_whole(folder / "forward.stablehlo", bytes(blob))


def _write_onnx(folder: Path, model: saved.Model) -> None:
    from trainers.deploy import onnx_graph  # an extra's package

    blob = onnx_graph.graph(model).SerializeToString()
    files.write_whole(folder / "network.onnx", blob)


def _pixels(model: saved.Model) -> jax.ShapeDtypeStruct:
    (batch,) = jax.export.symbolic_shape("batch")
    side, channels = model.spec.resolution, model.spec.in_channels
    return jax.ShapeDtypeStruct((batch, side, side, channels), jnp.float32)


_FORMATS = {
    "stablehlo": _Format(
        write=_write_stablehlo,
        needs="jax, flatbuffers, numpy and pillow",
        imports="import jax.export",
        load=(
            "network = jax.export.deserialize("
            '(here / "network.stablehlo").read_bytes())'
        ),
        call="network.call(pixels)",
    ),
    "onnx": _Format(
        write=_write_onnx,
        needs="onnxruntime, numpy and pillow",
        imports="import onnxruntime",
        load=(
            'network = onnxruntime.InferenceSession(here / "network.onnx",'
            ' providers=["CPUExecutionProvider"])'
        ),
        call='network.run(None, {"pixels": pixels})[0]',
    ),
    "safetensors": _Format(
        write=_write_safetensors,
        needs="jax, flatbuffers, numpy, safetensors and pillow",
        imports="import jax.export, safetensors.numpy",
        load=(
            'weights = safetensors.numpy.load_file(here / "weights.safetensors")\n'
            "network = jax.export.deserialize("
            '(here / "forward.stablehlo").read_bytes())'
        ),
        call="network.call(weights, pixels)",
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write a network as StableHLO, ONNX or safetensors, to run without this code."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A training run's or a model's folder; or an architecture: a JSON file, or a name
    such as efficientnet-b0, which gets fresh weights."""
    format: Annotated[str, tyro.conf.arg(metavar="|".join(_FORMATS))] = "stablehlo"
    """The format to write."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """A new or empty folder; by default named after the network and the format."""
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Of fresh weights, where there are no trained ones."""


@command_line.command("nas.export")
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    jax.config.update("jax_platforms", "cpu")  # nothing is run, only written down
    try:
        parsed = command_line.parse(
            arguments,
            Arguments(model=tyro.MISSING),
            program="nas.export",
            description=__doc__ or "",
        )
        _format(parsed.format)
        model = models.model(parsed.model, seed=parsed.seed)
        folder = parsed.output or Path(default_output(model.spec.name, parsed.format))
        write(folder, model, parsed.format)
    except (command_line.UsageError, ValueError, OSError) as error:
        return models.print_error("nas.export", error)
    terminal.say(f"Weights  {model.metadata.weights}")
    terminal.say(f"Written  {folder}; python {folder / 'run.py'} picture.jpg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
