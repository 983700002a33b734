"""Files of weights as trainers write them, whole and damaged."""

import os
import random
import warnings
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from trainers.deploy import weight_files
from trainers.deploy.saved import WeightsError

WHY = "pip install '.[torch]'"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 18587504\n"


@pytest.mark.parametrize("dtype", ["float64", "float16", jnp.bfloat16])
def test_safetensors_of_any_floating_point_type_are_read(tmp_path, dtype):
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file({"bias": np.array([1.5, -3.0], dtype)}, path)
    found = weight_files.read(path)["bias"]
    np.testing.assert_array_equal(found.astype(np.float32), [1.5, -3.0])


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin", ".pth.tar"])
@pytest.mark.parametrize(
    ("content", "told"),
    [("", "is empty; write or copy it again"), (POINTER, "fetch them with git lfs")],
)
def test_files_without_weights_are_refused_with_the_remedy(
    tmp_path, suffix, content, told
):
    path = tmp_path / f"weights{suffix}"
    path.write_text(content)
    with pytest.raises(WeightsError, match=told):
        weight_files.read(path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="must be an ordinary file"):
        weight_files.read(tmp_path / "weights.pth")


def test_other_kinds_of_files_are_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"must be a \.safetensors, .*safetensors$"):
        weight_files.read(tmp_path / "weights.h5")


def refusal(path):
    """Why the file is refused; empty if it is not. Other errors are not caught."""
    try:
        weight_files.read(path)
    except WeightsError as error:
        return str(error)
    return ""


def test_damaged_safetensors_end_in_one_line(tmp_path):
    path = tmp_path / "weights.safetensors"
    whole = safetensors.numpy.save({"a\x1b[31m": np.arange(6, dtype=np.float32)})
    rng = random.Random(0)
    for _ in range(300):
        damaged = bytearray(whole[: rng.randrange(1, len(whole) + 1)])
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        assert refusal(path).isprintable()


def save(tmp_path, value, **options):
    torch = pytest.importorskip("torch", reason=WHY)
    torch.save(value, tmp_path / "weights.pth", **options)
    return tmp_path / "weights.pth"


def test_pytorch_files_of_any_type_wrapped_or_not_are_read_in_float32(tmp_path):
    torch = pytest.importorskip("torch", reason=WHY)
    bias = torch.tensor([1.5, -3.0])
    path = save(
        tmp_path,
        {
            "epoch": 3,
            "optimizer": {"state": {0: {"momentum": bias}}, "param_groups": [{}]},
            "model": {
                "bfloat16": bias.bfloat16(),
                "float16": bias.half(),
                "float64": bias.double(),
                "parameter": torch.nn.Parameter(bias),
                "seen": torch.tensor(7),
            },
        },
    )
    found = weight_files.read(path)
    assert found.pop("model.seen") == 7
    kinds = ("bfloat16", "float16", "float64", "parameter")
    assert found.keys() == {f"model.{kind}" for kind in kinds}
    for array in found.values():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, [1.5, -3.0])


CYCLIC = {}
CYCLIC["again"] = CYCLIC


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda _: {"model": print}, "weights alone, and names code .*print; if"),
        (lambda torch: torch.nn.Linear(2, 2), "names code to run, torch.nn.modules"),
        (lambda torch: [torch.zeros(2)], "must hold arrays by name, got a list"),
        (lambda torch: {"a": torch.zeros(2).to_sparse()}, "hold dense arrays, and a"),
        (lambda torch: {"a": torch.zeros(1).expand(2**40)}, "hold every array whole"),
        (lambda _: CYCLIC, "8 dictionaries deep"),
    ],
)
def test_pytorch_files_of_other_things_are_refused_with_the_remedy(
    tmp_path, make, told
):
    torch = pytest.importorskip("torch", reason=WHY)
    with pytest.raises(WeightsError, match=told) as caught:
        weight_files.read(save(tmp_path, make(torch)))
    assert str(caught.value).isprintable()


def test_packed_pytorch_files_are_not_unpacked(tmp_path):
    torch = pytest.importorskip("torch", reason=WHY)
    path = save(tmp_path, {"a": torch.zeros(100_000)})
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(WeightsError, match=r"as torch\.save writes it, not compressed"):
        weight_files.read(path)


def test_torchscript_is_refused_without_a_warning(tmp_path):
    torch = pytest.importorskip("torch", reason=WHY)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pt")
    with pytest.raises(WeightsError, match="is a TorchScript program; save its"):
        weight_files.read(tmp_path / "script.pt")


@pytest.mark.parametrize("as_zip", [True, False])
def test_damaged_pytorch_files_end_in_one_line(tmp_path, as_zip):
    torch = pytest.importorskip("torch", reason=WHY)
    value = {"module": {"a\x1b[31m": torch.arange(6.0), "b": torch.zeros(2, 3)}}
    path = save(tmp_path, value, _use_new_zipfile_serialization=as_zip)
    whole, rng = path.read_bytes(), random.Random(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged[: rng.randrange(1, 2 * len(damaged))])
        assert refusal(path).isprintable()
