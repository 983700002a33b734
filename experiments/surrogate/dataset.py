"""Accel-NASBench's networks as tokens and measurements, read from its tarball.

The tarball is `anb_dataset_jsons`, of https://github.com/afzalxo/Accel-NASBench
(Apache-2.0): 5,138 networks, a JSON file each. It is read as a stream, nothing is
written to the disk, and sizes are limited, so that a wrong or hostile file ends in one
line.
"""

import math
import tarfile
import zlib
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from search_space import spaces
from search_space.space import SearchSpace
from trainers.surrogate import TOP1

SPACE = "accel-nasbench"
_MAX_FILES = 20_000
_MAX_BYTES = 64_000  # the largest has 1.4 KB
_LETTERS = {"expansion": "e", "kernel": "k", "layers": "l", "se_ratio": "se"}
_SE_RATIO = 0.25

_Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class _Throughput(_Record):
    throughput_mean: _Positive | None


class _Latency(_Record):
    latency_mean: _Positive | None


class _Metrics(_Record):
    val_top1: Annotated[float, Field(ge=0.0, le=100.0)]


class _Platforms(_Record):
    """The benchmark's names; images a second and milliseconds."""

    throughput_a100: _Throughput
    throughput_3090: _Throughput
    throughput_tpuv2: _Throughput
    throughput_tpuv3: _Throughput
    throughput_zcu102: _Throughput
    throughput_vck190: _Throughput
    latency_zcu102: _Latency
    latency_vck190: _Latency


class _Network(_Record):
    architecture: dict[str, int | bool]
    metrics: _Metrics
    platform_perf: _Platforms


class DatasetError(ValueError):
    """A tarball that is not Accel-NASBench's. One line."""


def read(path: Path) -> tuple[NDArray[np.int32], dict[str, NDArray[np.float64]]]:
    """Returns tokens [n, 28] of the `accel-nasbench` space, and what was measured.

    Measurements [n]: `top1` in percent, `throughput-*` in images a second,
    `latency-*` in milliseconds; NaN where a measurement is missing. Networks are in
    the order of their files' names.

    Raises:
      DatasetError: if the file is no such tarball. One line.
    """
    space = spaces.load(SPACE)
    rows: dict[str, tuple[list[int], dict[str, float]]] = {}
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                if member.size > _MAX_BYTES or len(rows) == _MAX_FILES:
                    raise DatasetError(
                        f"{path} must hold at most {_MAX_FILES} files of {_MAX_BYTES} "
                        f"bytes, got {member.name[:100]!r} with {member.size} bytes "
                        f"after {len(rows)} others; {_REMEDY}"
                    )
                file = archive.extractfile(member)
                if file is not None:
                    rows[member.name] = _parse(file.read(), space, member.name)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"cannot read {path}: {error}; {_REMEDY}") from None
    if not rows:
        raise DatasetError(f"{path} holds no networks; {_REMEDY}")
    ordered = [rows[name] for name in sorted(rows)]
    return (
        np.array([tokens for tokens, _ in ordered], np.int32),
        {
            name: np.array([measured[name] for _, measured in ordered])
            for name in ordered[0][1]
        },
    )


_REMEDY = "name anb_dataset_jsons.tar.gz of https://github.com/afzalxo/Accel-NASBench"


def _parse(
    data: bytes, space: SearchSpace, name: str
) -> tuple[list[int], dict[str, float]]:
    try:
        network = _Network.model_validate_json(data)
        tokens = _tokens(network.architecture, space)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "file"
        raise DatasetError(
            f"{name[:100]!r}: {field}: {first['msg']}; {_REMEDY}"
        ) from None
    except (KeyError, ValueError) as error:
        raise DatasetError(
            f"{name[:100]!r} is no network of the {SPACE} space: {error}; {_REMEDY}"
        ) from None
    measured = {TOP1: network.metrics.val_top1}
    for platform, found in network.platform_perf:
        value = (
            found.throughput_mean
            if isinstance(found, _Throughput)
            else found.latency_mean
        )
        measured[objective_name(platform)] = math.nan if value is None else value
    return tokens, measured


def objective_name(platform: str) -> str:
    """Returns our name of a measurement.

    >>> objective_name("throughput_3090"), objective_name("latency_zcu102")
    ('throughput-rtx3090', 'latency-zcu102')
    """
    return platform.replace("_", "-").replace("-3090", "-rtx3090")


def _tokens(architecture: dict[str, int | bool], space: SearchSpace) -> list[int]:
    tokens: list[int] = []
    for decision in space.decisions:
        stage, what = decision.name.removeprefix("stage").split(".")
        value = architecture[f"block{stage}_{_LETTERS[what]}"]
        choice = _SE_RATIO * value if what == "se_ratio" else value
        tokens.append(decision.choices.index(choice))
    return tokens
