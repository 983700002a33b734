"""A fitted predictor in place of training: ImageNet accuracy and speed from tokens.

The predictors are boosted regression trees over the tokens of one search space, made
by `python -m experiments.surrogate.fit` and shipped as `imagenet_surrogate.npz`: plain
arrays, read without unpickling, and a JSON text that says what they predict, how they
were made, and how far off they were on networks held out. What they return is a
prediction; whoever shows it shows its error too.

Shapes: n sequences of D tokens; m models that differ in the data they were fitted to;
t trees each, all complete and of the same depth. A tree's node i has the children
2i + 1 (its token is at most the threshold) and 2i + 2 (it is above).
"""

import dataclasses
import functools
import importlib.resources
import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

FILE_NAME = "imagenet_surrogate.npz"
TOP1 = "top1"
# Never taken: what a leaf above the last level is filled up with.
NEVER = 255
_MAX_BYTES = 20_000_000
# About so many tree nodes are visited at once; more would leave the cache.
_BLOCK = 400_000


Floats = NDArray[np.float64]


class SurrogateError(ValueError):
    """A file that is no set of predictors. One line."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class HeldOut(_Record):
    """Errors on networks that a model was not fitted to, one number for each fold.

    `rmse` is in percentage points where there is a ceiling, and relative (0.01 is one
    percent) where there is none.
    """

    kendall_tau: Annotated[tuple[float, ...], Field(min_length=1)]
    rmse: Annotated[tuple[float, ...], Field(min_length=1)]


class Description(_Record):
    """What a predictor predicts.

    Its trees add up to the logarithm of the quantity or, if there is a `ceiling`, of
    what is missing to that: equal steps there are equally hard to make.
    """

    unit: str
    ceiling: float | None
    held_out: HeldOut

    def to_log(self, values: Floats) -> Floats:
        """Returns what trees are fitted to, for values in the unit."""
        return np.log(values if self.ceiling is None else self.ceiling - values)

    def from_log(self, logarithms: Floats) -> Floats:
        """The inverse of `to_log`."""
        found = np.exp(logarithms)
        return found if self.ceiling is None else self.ceiling - found

    @property
    def error(self) -> str:
        """The mean held-out errors in words."""
        tau, rmse = np.mean(self.held_out.kendall_tau), np.mean(self.held_out.rmse)
        shown = f"{rmse:.1%}" if self.ceiling is None else f"{rmse:.2f} points"
        return f"held-out RMSE {shown}, Kendall tau {tau:.3f}"


class About(_Record):
    """The JSON text of the file."""

    format: Literal["mbconv-nas-surrogate"] = "mbconv-nas-surrogate"
    version: Literal[1] = 1
    space: str
    num_choices: tuple[int, ...]
    source: str
    licence: str
    recipe: str
    predictors: dict[str, Description]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Forest:
    """A model's prediction is its base plus, for each of its trees, a leaf.

    `decisions` and `thresholds` uint8 [m, t, nodes], `leaves` float32
    [m, t, nodes + 1], `bases` float64 [m].
    """

    decisions: NDArray[np.uint8]
    thresholds: NDArray[np.uint8]
    leaves: NDArray[np.float32]
    bases: Floats

    def __post_init__(self) -> None:
        """Rejects arrays that do not fit together, or are not finite."""
        models, trees, nodes = self.decisions.shape
        shapes = self.thresholds.shape, self.leaves.shape, self.bases.shape
        if shapes != ((models, trees, nodes), (models, trees, nodes + 1), (models,)):
            raise SurrogateError(
                f"trees must have a leaf more than nodes, got shapes "
                f"{self.decisions.shape}, {', '.join(map(str, shapes))}"
            )
        if nodes & (nodes + 1) or min(models, trees, nodes) == 0:
            raise SurrogateError(
                f"trees must be complete and not empty, got shape {(models, trees)} "
                f"of {nodes} nodes"
            )
        kinds = [array.dtype.str for array in self.arrays().values()]
        if kinds != ["|u1", "|u1", "<f4", "<f8"]:
            raise SurrogateError(f"trees must be u1, u1, f4 and f8, got {kinds}")
        if not (np.isfinite(self.leaves).all() and np.isfinite(self.bases).all()):
            raise SurrogateError("leaves and bases must be finite")

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Returns the fields by name, as they are stored."""
        return {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self)
        }

    @functools.cached_property
    def _questions(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The distinct splits, and which of them each node asks [m * t * nodes].

        Tokens are few, so are splits: each is asked once, then answers are looked up.
        """
        split = self.decisions.astype(np.int64) * (NEVER + 1) + self.thresholds
        asked, question = np.unique(split, return_inverse=True)
        return asked, question.reshape(-1).astype(np.int32)

    def __call__(self, tokens: NDArray[np.int32]) -> Floats:
        """Returns each model's prediction [m, n] for tokens [n, D]."""
        models, trees, nodes = self.decisions.shape
        asked, question = self._questions
        above = tokens[:, asked // (NEVER + 1)] > asked % (NEVER + 1)
        first_node = np.arange(models * trees, dtype=np.int32) * nodes
        first_leaf = np.arange(models * trees, dtype=np.int32) * (nodes + 1)
        leaves = self.leaves.reshape(-1)
        found = np.empty((models, len(tokens)))
        rows = max(1, _BLOCK // (models * trees))
        for start in range(0, len(tokens), rows):
            answers = above[start : start + rows]
            node = np.zeros((len(answers), models * trees), np.int32)
            for _ in range((nodes + 1).bit_length() - 1):
                asks = question.take(first_node + node)
                node = 2 * node + 1 + np.take_along_axis(answers, asks, axis=1)
            values = leaves.take(first_leaf + (node - nodes))
            sums = values.reshape(-1, models, trees).sum(axis=2, dtype=np.float64)
            found[:, start : start + rows] = sums.T + self.bases[:, None]
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predictor:
    """Predicts one quantity, in `about.unit`."""

    about: Description
    num_choices: tuple[int, ...]
    forest: Forest

    def __post_init__(self) -> None:
        """Rejects trees that ask of decisions that there are not."""
        if self.forest.decisions.max() >= len(self.num_choices):
            raise SurrogateError(
                f"trees must ask of {len(self.num_choices)} decisions, got decision "
                f"{self.forest.decisions.max()}"
            )

    def predict(self, tokens: ArrayLike) -> tuple[Floats, Floats]:
        """Returns means [n] and standard deviations [n] over the models.

        The deviation says where the models disagree, for want of data; it is smaller
        than the error, and zero where there is one model.

        Raises:
          ValueError: if tokens are not integers [n, D] within the choices.
        """
        given = np.asarray(tokens)
        counts = np.asarray(self.num_choices)
        if given.ndim != 2 or given.shape[1] != len(counts):  # noqa: PLR2004
            raise ValueError(
                f"tokens must be [n, {len(counts)}], got shape {given.shape}"
            )
        if not np.issubdtype(given.dtype, np.integer):
            raise ValueError(f"tokens must be integers, got {given.dtype}")
        if ((given < 0) | (given >= counts)).any():
            raise ValueError(f"tokens must be below {self.num_choices}, got others")
        values = self.about.from_log(self.forest(given.astype(np.int32)))
        return values.mean(axis=0), values.std(axis=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Surrogate:
    """The predictors of a file, by name; `about` says where they come from."""

    about: About
    predictors: Mapping[str, Predictor]

    @classmethod
    def build(cls, about: About, forests: Mapping[str, Forest]) -> Self:
        """Puts together what `about` describes and the trees of the same names."""
        return cls(
            about=about,
            predictors={
                name: Predictor(
                    about=described, num_choices=about.num_choices, forest=forests[name]
                )
                for name, described in about.predictors.items()
            },
        )

    def save(self, path: Path) -> None:
        """Writes the file that `load` reads.

        Raises:
          OSError: if it cannot be written.
        """
        text = self.about.model_dump_json(indent=1).encode()
        arrays = {
            f"{name}/{field}": array
            for name, predictor in self.predictors.items()
            for field, array in predictor.forest.arrays().items()
        }
        np.savez_compressed(path, about=np.frombuffer(text, np.uint8), **arrays)  # pyright: ignore[reportArgumentType]  # its own flag is a keyword as well


def load(path: Path | None = None) -> Surrogate:
    """Reads predictors from `path`, by default those that come with the package.

    Raises:
      SurrogateError: if the file is missing, damaged or of another version. One line.
    """
    place = importlib.resources.files("trainers") / FILE_NAME if path is None else path
    remedy = "write it with python -m experiments.surrogate.fit TARBALL"
    try:
        with place.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise SurrogateError(f"more than {_MAX_BYTES} bytes")
        return _parse(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise SurrogateError(f"{place}: {field}: {first['msg']}; {remedy}") from None
    except KeyError as error:
        raise SurrogateError(f"{place} lacks {error}; {remedy}") from None
    except (
        OSError,
        EOFError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise SurrogateError(
            f"{place} is no file of predictors: {error}; {remedy}"
        ) from None


def _parse(data: bytes) -> Surrogate:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(member.file_size for member in archive.infolist()) > _MAX_BYTES:
            raise SurrogateError(f"unpacks to more than {_MAX_BYTES} bytes")
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        about = About.model_validate_json(file["about"].tobytes())
        forests = {
            name: Forest(
                **{
                    field.name: file[f"{name}/{field.name}"]
                    for field in dataclasses.fields(Forest)
                }
            )
            for name in about.predictors
        }
    return Surrogate.build(about, forests)
