"""Writes a network in a form that runs without this package.

    python -m nas.export runs/20250101-120000 --format onnx
    python -m nas.export efficientnet-b0 --format stablehlo --output b0

makes a folder with the network, `run.py` that classifies a picture with it, and the
architecture. stablehlo: one file for CPU, CUDA and TPU, run by JAX. onnx: standard
operators, run by onnxruntime and others. Both take a batch of any size, and have batch
normalization folded into the convolutions. safetensors: the weights as they are, to
train on, and beside them the forward pass without weights, as StableHLO.
"""

import dataclasses
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

from nas import models
from trainers import folding, optional, saved

PLATFORMS = ("cpu", "cuda", "tpu")

_READ_PICTURE = '''"""Classifies a picture: python run.py picture.jpg. Needs {needs}."""
import json, pathlib, sys
import numpy as np, PIL.Image, PIL.ImageOps
{imports}

here = pathlib.Path(__file__).parent
names = json.loads((here / "model.json").read_text())["class_names"]
{load}
picture = PIL.Image.open(sys.argv[1]).convert("{mode}")
picture = PIL.ImageOps.fit(picture, ({side}, {side}), PIL.Image.Resampling.BILINEAR)
pixels = np.asarray(picture, np.float32).reshape(1, {side}, {side}, {channels})
logits = np.asarray({call})[0]
for i in np.argsort(-logits)[:5]:
    print(f"{{logits[i]:8.3f}}  {{names[i]}}")
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
    """Writes `model` in `file_format` into a new or empty folder, with its `run.py`.

    Raises:
      ValueError: if the format is unknown, or needs a package that is not there.
      OSError: if the folder cannot be written or has something in it.
    """
    chosen, spec = _format(file_format), model.spec
    script = _READ_PICTURE.format(
        needs=chosen.needs,
        imports=chosen.imports,
        load=chosen.load,
        call=chosen.call,
        mode=_mode(spec.in_channels),
        side=spec.resolution,
        channels=spec.in_channels,
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
    saved.save_description(folder, model)
    chosen.write(folder, model)
    (folder / "run.py").write_text(script)


def _mode(channels: int) -> str:
    modes = {1: "L", 3: "RGB", 4: "RGBA"}
    if channels not in modes:
        raise ValueError(
            f"pictures have {', '.join(map(str, modes))} channels, and the network"
            f" reads {channels}; run.py cannot be written for it"
        )
    return modes[channels]


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
        return forward(arrays, model.card.standardise(pixels))

    exported = jax.export.export(jax.jit(logits), platforms=PLATFORMS)
    (folder / "network.stablehlo").write_bytes(exported(_pixels(model)).serialize())


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
        return network(model.card.standardise(pixels))

    shapes = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), saved.arrays(model.network)
    )
    exported = jax.export.export(jax.jit(logits), platforms=PLATFORMS)
    blob = exported(shapes, _pixels(model)).serialize()
    (folder / "forward.stablehlo").write_bytes(blob)


def _write_onnx(folder: Path, model: saved.Model) -> None:
    from trainers import onnx_graph  # an extra's package

    blob = onnx_graph.graph(model).SerializeToString()
    (folder / "network.onnx").write_bytes(blob)


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


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parsed = tyro.cli(Arguments, args=arguments, prog="python -m nas.export")
    jax.config.update("jax_platforms", "cpu")  # nothing is run, only written down
    try:
        _format(parsed.format)
        model = models.model(parsed.model, seed=parsed.seed)
        folder = parsed.output or Path(f"{model.spec.name}-{parsed.format}")
        write(folder, model, parsed.format)
    except (ValueError, OSError) as error:
        return models.complain("nas.export", error)
    sys.stdout.write(f"Weights  {model.card.weights}\n")
    sys.stdout.write(f"Written  {folder}; python {folder / 'run.py'} picture.jpg\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
