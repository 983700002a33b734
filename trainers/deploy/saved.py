"""A network on the disk: a folder that needs none of this code to be read.

    architecture.json     the architecture (`search_space.codec`)
    weights.safetensors   its arrays by name, batch norm's statistics among them
    model.json            what its input means and its outputs are called

safetensors files hold arrays and nothing that runs.
"""

import dataclasses
import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import jax.numpy as jnp
import numpy as np
import psutil
import safetensors
import safetensors.numpy
from flax import nnx
from jaxtyping import Array, Float, Num
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from search_space import codec, cost, files
from search_space.spec import ArchSpec, explain, shorten
from trainers.data.framing import WHOLE, Framing
from trainers.data.pixels import Interpolation
from trainers.networks import classifier
from trainers.networks.classifier import Classifier

ARCHITECTURE = "architecture.json"
WEIGHTS = "weights.safetensors"
METADATA = "model.json"

_MAX_METADATA_BYTES = 2**28  # a million names of classes
_LISTED = 3  # names of arrays in a message
_MAX_SHOWN = 200  # characters of a text from a file in a message
_STRICT = ConfigDict(strict=True, extra="forbid")


class WeightsError(ValueError):
    """Weights that cannot be read, or are not those of the network. One line."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ModelMetadata:
    """What a network needs to be told beside its weights.

    Attributes:
      mean: of each channel's pixels, from 0 to 255; subtracted first.
      std: likewise; divided by.
      class_names: in the order of the logits.
      weights: where the weights come from, in a line for people.
      crop: as in `Framing`: of the pictures that the network was measured with.
      interpolation: likewise.
    """

    version: Literal[1] = 1
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    class_names: tuple[str, ...]
    weights: str
    crop: Annotated[float, Field(gt=0, le=1)] = WHOLE.crop
    interpolation: Interpolation = WHOLE.interpolation

    @property
    def framing(self) -> Framing:
        """What a picture goes through before its pixels are standardised."""
        return Framing(crop=self.crop, interpolation=self.interpolation)

    def standardise(
        self, pixels: Num[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        """Returns what the network reads, of pixels from 0 to 255."""
        mean, std = (jnp.asarray(v, jnp.float32) for v in (self.mean, self.std))
        return (pixels.astype(jnp.float32) - mean) / std


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A network with what it takes to use it."""

    spec: ArchSpec
    network: Classifier
    metadata: ModelMetadata


Variable = nnx.Variable[Any]
"""Of an array: NumPy's as it is drawn or read, JAX's after training."""


def variables(network: Classifier) -> dict[str, Variable]:
    """Returns the network's live arrays by name, such as `blocks.0.units.0.kernel`.

    Setting one of them (`set_value`) changes the network.
    """
    return {
        ".".join(map(str, ("blocks", position, *path))): node
        for position, block in enumerate(network.blocks)
        for path, node in nnx.iter_graph(block)
        if isinstance(node, nnx.Variable)
    }


def arrays(network: Classifier) -> dict[str, np.ndarray]:
    """Returns the network's arrays by name, on the host."""
    return {
        name: np.asarray(variable[...]) for name, variable in variables(network).items()
    }


def names_of(network: Classifier, wanted: Collection[Variable]) -> list[str]:
    """Returns the names of some of the network's own arrays, in the order given."""
    names = {id(variable): name for name, variable in variables(network).items()}
    return [names[id(variable)] for variable in wanted]


def assign(network: Classifier, values: Mapping[str, np.ndarray]) -> None:
    """Puts `values` into the network, all of its arrays by name.

    Raises:
      WeightsError: if a name is missing, unknown, or of another shape, or a number is
        not finite; the network is unchanged then.
    """
    own = variables(network)
    if missing := sorted(own.keys() - values.keys()):
        raise WeightsError(
            f"weights must hold every array; missing are {_some(missing)}; give the"
            " architecture that the weights belong to"
        )
    if unknown := sorted(values.keys() - own.keys()):
        raise WeightsError(
            f"weights must be those of the architecture; it has no"
            f" {_some(unknown)}; give the one that they belong to"
        )
    for name, variable in own.items():
        if variable.shape != values[name].shape:
            raise WeightsError(
                f"{name} must be of shape {variable.shape}, got {values[name].shape};"
                " give the architecture that the weights belong to"
            )
    whole = {name: checked(name, values[name]) for name in own}
    for name, variable in own.items():
        variable.set_value(whole[name])


def checked(name: str, values: np.ndarray) -> np.ndarray:
    """Returns weights in float32.

    Raises:
      WeightsError: if they are no floating-point numbers, not finite, or the negative
        variance of a batch normalization.
    """
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise WeightsError(
            f"{name} must hold floating-point numbers, got {values.dtype}; give weights"
            " that are not quantized"
        )
    with np.errstate(over="ignore"):
        array = np.asarray(values, np.float32)
    if not np.isfinite(array).all():
        raise WeightsError(
            f"{name} must hold finite numbers in float32, got"
            f" {array[~np.isfinite(array)][0]}; give weights of a training that went"
            " well"
        )
    if name.endswith(("variance", "running_var")) and (array < 0).any():
        raise WeightsError(
            f"{name} must hold variances of at least 0, got {array.min()}; give the"
            " weights that belong there"
        )
    return array


def shown(text: str) -> str:
    r"""Returns a text from a file as a message shows it.

    On a line, bounded, and without what commands a terminal.

    >>> shown("bn1.bias"), shown("bn1\x1b[2J")
    ('bn1.bias', "'bn1\\x1b[2J'")
    """
    return text if text.isprintable() and len(text) <= _MAX_SHOWN else shorten(text)


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays in a safetensors file.

    Raises:
      ValueError: if it is no ordinary file, not whole, or holds a type that numpy
        lacks. One line.
      OSError: if it cannot be read.
    """
    with files.open_quickly(path) as file:
        files.check_ordinary(file.fileno(), path, psutil.virtual_memory().total)
    try:
        return safetensors.numpy.load_file(path)
    except FileNotFoundError:
        raise
    except (safetensors.SafetensorError, KeyError) as error:
        raise WeightsError(
            f"{path} must be a whole safetensors file of numpy's types, got:"
            f" {shown(' '.join(str(error).split()))}; write or copy it again"
        ) from None


def save(folder: Path, model: Model) -> None:
    """Writes the three files into `folder`, which is made if need be.

    Raises:
      OSError: if they cannot be written, or `folder` is a link.
    """
    files.make_folder(folder)
    save_weights(folder, model)
    save_description(folder, model)


def save_weights(folder: Path, model: Model) -> None:
    """Writes weights.safetensors; raises OSError if it cannot."""
    write_safetensors(folder / WEIGHTS, arrays(model.network))


def write_safetensors(path: Path, values: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name; raises OSError if it cannot."""
    # The format writes memory as it lies: a transposed view would come out wrong.
    whole = {name: np.ascontiguousarray(value) for name, value in values.items()}
    # Its own `save_file` makes files that nobody else may read, whatever the umask.
    _write(path, safetensors.numpy.save(whole))


def save_description(folder: Path, model: Model) -> None:
    """Writes architecture.json and model.json; raises OSError if it cannot."""
    _write(folder / ARCHITECTURE, codec.dumps(model.spec))
    text = json.dumps(dataclasses.asdict(model.metadata), indent=2)
    _write(folder / METADATA, text + "\n")


def _write(path: Path, content: str | bytes) -> None:
    """Writes a file of a model's folder, which is a run's: no link is followed."""
    files.write_whole(path, content, within=path.parent.parent)


def load(folder: Path) -> Model:
    """Returns the model in `folder`.

    Raises:
      ValueError: if a file is malformed, or the weights are not the architecture's.
        One line.
      OSError: if a file is missing or cannot be read.
    """
    spec = codec.load_file(folder / ARCHITECTURE)
    check_fits(spec)
    metadata = _read_metadata(folder / METADATA, spec)
    network = classifier.build(spec, seed=0)
    weights = read_safetensors(folder / WEIGHTS)
    try:
        assign(network, weights)
    except WeightsError as error:
        raise WeightsError(f"{folder / WEIGHTS}: {error}") from None
    return Model(spec=spec, network=network, metadata=metadata)


def check_fits(spec: ArchSpec) -> None:
    """Raises WeightsError if the network's weights alone exceed the memory here."""
    size, here = 4 * cost.num_params(spec), psutil.virtual_memory().total
    if size > here:
        raise WeightsError(
            f"a network's weights must fit this machine's memory of {here / 1e9:.3g} GB"
            f", got {size / 1e9:.3g} GB for {spec.name}; take a smaller architecture"
        )


def fresh(spec: ArchSpec, *, seed: int) -> Model:
    """Returns a model with freshly drawn weights, for pixels scaled to -1 ... 1.

    Raises:
      WeightsError: if it would exceed the memory here.
    """
    check_fits(spec)
    middle = (127.5,) * spec.in_channels
    return Model(
        spec=spec,
        network=classifier.build(spec, seed=seed),
        metadata=ModelMetadata(
            mean=middle,
            std=middle,
            class_names=tuple(str(i) for i in range(spec.num_classes)),
            weights=f"freshly initialised from seed {seed}, not trained",
        ),
    )


_METADATA = TypeAdapter(ModelMetadata)


def _read_metadata(path: Path, spec: ArchSpec) -> ModelMetadata:
    try:
        metadata = _METADATA.validate_json(
            files.read_bounded(path, _MAX_METADATA_BYTES)
        )
    except ValidationError as error:
        raise WeightsError(f"{path}: {explain(error)}") from None
    lengths = {
        "mean": (len(metadata.mean), spec.in_channels),
        "std": (len(metadata.std), spec.in_channels),
        "class_names": (len(metadata.class_names), spec.num_classes),
    }
    for name, (got, wanted) in lengths.items():
        if got != wanted:
            raise WeightsError(
                f"{path}: {name} must have {wanted} entries, as the architecture"
                f" beside it has, got {got}"
            )
    if not all(map(math.isfinite, (*metadata.mean, *metadata.std))):
        raise WeightsError(f"{path}: mean and std must be finite, got {metadata.mean}")
    return metadata


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(map(shown, names[:_LISTED])) + more
