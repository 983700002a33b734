"""Arrays by name, from the files that other people's trainers write.

Nothing in a file is run: safetensors holds arrays alone, and torch is told to read
weights alone. Names are anybody's text; messages show them escaped.
"""

import pickle
import re
import struct
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from search_space import files
from trainers.deploy import saved
from trainers.deploy.saved import WeightsError
from trainers.runtime import optional

Weights = dict[str, np.ndarray]

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
_LFS_POINTER = b"version https://git-lfs"
_MAX_DEPTH = 8  # of dictionaries in a PyTorch file; trainers' have 3
_MAX_VALUES = 1_000_000  # in them, arrays or not
_MAX_GROWTH = 8  # bytes in float32 to a byte of the file: float8 takes 4, tied ones 2
# A damaged pickle leads torch's reader anywhere: these are what it was seen to raise,
# and what the operations in it can.
_UNREADABLE = (
    pickle.UnpicklingError,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def read(path: Path) -> Weights:
    """Returns the arrays in a safetensors file, or in PyTorch's, by name.

    Names inside of dictionaries are joined with dots, as in `state_dict.bn1.bias`;
    what is neither array nor dictionary, an epoch's number or an optimizer's options,
    is passed over. PyTorch's floating-point arrays become float32.

    Raises:
      WeightsError: if the file is damaged, would have to be run, or needs torch. One
        line.
      OSError: if it cannot be read.
    """
    if path.suffix not in _SUFFIXES:
        raise WeightsError(
            f"weights must be a {', '.join(_SUFFIXES[:-1])} or .pth.tar file, got"
            f" {path}; convert it to safetensors"
        )
    size = _check_start(path)
    if path.suffix == ".safetensors":
        return saved.read_safetensors(path)
    if lack := optional.missing("torch"):
        raise WeightsError(f"{path} {lack}, or convert the file to safetensors")
    return _arrays(path, _load(path), size)


def _check_start(path: Path) -> int:
    """Refuses what is no file of weights at first sight; returns its size in bytes."""
    with files.open_quickly(path) as file:
        try:
            files.check_ordinary(file.fileno(), path, sys.maxsize)
        except ValueError as error:
            raise WeightsError(str(error)) from None
        start = file.read(len(_LFS_POINTER))
        size = file.seek(0, 2)
    if not start:
        raise WeightsError(
            f"{path} must hold weights, and is empty; write or copy it again"
        )
    if start == _LFS_POINTER:
        raise WeightsError(
            f"{path} must hold weights, and is a Git LFS pointer to them; fetch them"
            " with git lfs pull"
        )
    return size


def _load(path: Path) -> dict[Any, Any]:
    import torch  # pyright: ignore[reportMissingImports]

    _check_packing(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # says of TorchScript what we say below
            found = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise WeightsError(_explain(path, error)) from None
    if not isinstance(found, dict):
        raise WeightsError(
            f"{path} must hold arrays by name, got a {type(found).__name__}; save a"
            " network's state_dict()"
        )
    return found


def _check_packing(path: Path) -> None:
    """Refuses an archive that unpacks to more than a machine may hold."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, *_UNREADABLE):
        return  # the older format, or damaged: torch says what is wrong
    packed = sum(member.compress_size for member in members)
    if sum(member.file_size for member in members) > _MAX_GROWTH * packed:
        raise WeightsError(
            f"{path} must be as torch.save writes it, not compressed; save it again"
        )


def _explain(path: Path, error: BaseException) -> str:
    text = str(error)
    if "TorchScript" in text:
        return (
            f"{path} must hold weights alone, and is a TorchScript program; save its"
            " state_dict()"
        )
    if code := re.search(r"GLOBAL (\S+)", text):
        return (
            f"{path} must hold weights alone, and names code to run,"
            f" {saved.shown(code[1])}; if you trust it, torch.load it with"
            " weights_only=False and torch.save the state_dict in it"
        )
    reason = saved.shown(text.partition("\n")[0][:160]) or type(error).__name__
    return (
        f"{path} must be a whole PyTorch file of weights alone: {reason}; save or copy"
        " it again"
    )


def _arrays(path: Path, found: dict[Any, Any], size: int) -> Weights:
    import torch  # pyright: ignore[reportMissingImports]

    arrays: Weights = {}
    room = _MAX_GROWTH * size
    for name, value in _leaves(path, found):
        if not isinstance(value, torch.Tensor):
            continue
        # An array may be a few bytes that are read over and over.
        room -= 4 * value.numel()
        if room < 0:
            raise WeightsError(
                f"{path} must hold every array whole, and repeats its {size:,} bytes"
                f" more than {_MAX_GROWTH} times; save contiguous() arrays"
            )
        value = value.detach()
        try:
            value = value.float() if value.is_floating_point() else value
            arrays[name] = value.resolve_neg().numpy()
        except (TypeError, RuntimeError):
            raise WeightsError(
                f"{path} must hold dense arrays, and {saved.shown(name)} is none"
                f" ({value.dtype}, {value.layout}, {value.device}); save them as"
                " float32"
            ) from None
    return arrays


def _leaves(path: Path, found: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Yields all that dictionaries of dictionaries hold under text, arrays or not."""
    left = _MAX_VALUES
    waiting: list[tuple[str, int, Any]] = [("", 0, found)]
    while waiting:
        prefix, depth, values = waiting.pop()
        left -= len(values)
        if left < 0 or depth > _MAX_DEPTH:
            raise WeightsError(
                f"{path} must hold at most {_MAX_VALUES:,} values, {_MAX_DEPTH}"
                " dictionaries deep; save a network's state_dict()"
            )
        for key, value in values.items():
            if not isinstance(key, str):  # an optimizer's numbers
                continue
            if isinstance(value, dict):
                waiting.append((f"{prefix}{key}.", depth + 1, value))
            else:
                yield prefix + key, value
