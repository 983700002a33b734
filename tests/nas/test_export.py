"""Exported networks, loaded by something that does not import our packages."""

import dataclasses
import json
import os
import subprocess
import sys

import jax
import jax.export
import numpy as np
import PIL.Image
import pytest
import safetensors.numpy
import sklearn.datasets

from nas import export, predict
from search_space import codec, zoo
from search_space.spec import (
    ArchSpec,
    BottleneckStage,
    ClassifierHead,
    ConvStage,
    FusedMBConvStage,
    MBConvStage,
    SepConvStage,
    Stem,
)
from trainers.augment import geometric
from trainers.data import memory, pixels
from trainers.data.dataset import Dataset
from trainers.data.folder import FolderExamples
from trainers.deploy import folding, saved
from trainers.networks import classifier

onnxruntime = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")

SIDE = 48


def every_kind(activation="swish"):
    """Every stage, skip and pooling there is, strides on odd maps among them."""
    return ArchSpec(
        name="every-kind",
        resolution=SIDE,
        num_classes=7,
        activation=activation,
        stem=Stem(channels=8, pool=True),
        stages=(
            MBConvStage(channels=12, kernel=3, stride=1, expansion=1, repeats=2),
            MBConvStage(
                channels=16,
                kernel=5,
                stride=4,
                expansion=3,
                repeats=2,
                se_ratio=0.25,
                skip="pool",
            ),
            ConvStage(
                channels=8, kernel=3, stride=1, repeats=1, se_ratio=0.5, skip="pool"
            ),
            SepConvStage(channels=12, kernel=3, stride=2, repeats=1),
            BottleneckStage(channels=16, bottleneck=4, kernel=3, stride=1, repeats=2),
            FusedMBConvStage(
                channels=16,
                kernel=3,
                stride=1,
                expansion=2,
                repeats=1,
                se_ratio=0.25,
                stride_on="projection",
            ),
            FusedMBConvStage(
                channels=16, kernel=3, stride=1, expansion=1, repeats=1, se_ratio=0.25
            ),
        ),
        head=ClassifierHead(channels=24),
    )


def model_of(spec):
    """A model with nothing left at zero or one, and its own mean and deviation."""
    model = saved.fresh(spec, seed=0)
    rng = np.random.default_rng(1)
    for name, variable in saved.variables(model.network).items():
        if variable[...].ndim == 1:
            low = 0.5 if name.endswith(("variance", "scale")) else -0.5
            variable.set_value(rng.uniform(low, low + 1, variable.shape).astype("f4"))
    metadata = saved.ModelMetadata(
        mean=(120.0, 115.0, 110.0)[: spec.in_channels],
        std=(60.0, 61.0, 62.0)[: spec.in_channels],
        class_names=tuple(f"class {i}" for i in range(spec.num_classes)),
        weights="random",
    )
    return saved.Model(spec=spec, network=model.network, metadata=metadata)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """scikit-learn's two, as files and as the pixels that the network reads."""
    folder = tmp_path_factory.mktemp("photographs")
    pictures = [
        PIL.Image.fromarray(image).crop((0, 0, 420, 420))
        for image in sklearn.datasets.load_sample_images().images
    ]
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number}.png")
    size = (SIDE, SIDE)
    pixels = [
        np.asarray(p.resize(size, PIL.Image.Resampling.BILINEAR)) for p in pictures
    ]
    return folder, np.stack(pixels).astype(np.float32)


def logits_of(model, pixels):
    """Of the network as it was trained, batch norm and all."""
    forward, arrays = folding.logits_of(model.network)
    return np.asarray(jax.jit(forward)(arrays, model.metadata.standardise(pixels)))


def run_stablehlo(folder, pixels):
    blob = (folder / "network.stablehlo").read_bytes()
    return jax.export.deserialize(bytearray(blob)).call(pixels)


def run_onnx(folder, pixels):
    session = onnxruntime.InferenceSession(
        folder / "network.onnx", providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"pixels": pixels})[0]


def run_safetensors(folder, pixels):
    weights = safetensors.numpy.load_file(folder / "weights.safetensors")
    blob = (folder / "forward.stablehlo").read_bytes()
    return jax.export.deserialize(bytearray(blob)).call(weights, pixels)


RUN = {"stablehlo": run_stablehlo, "onnx": run_onnx, "safetensors": run_safetensors}


@pytest.mark.parametrize(
    ("activation", "convention"),
    [("swish", {}), ("relu6", {"padding": "symmetric", "norm_epsilon": 0.05})],
)
def test_every_format_gives_the_networks_logits(
    tmp_path, photographs, activation, convention
):
    spec = dataclasses.replace(every_kind(activation), **convention)
    model, (_, pixels) = model_of(spec), photographs
    want = logits_of(model, pixels)
    # A hundred times the tolerance below: else the photographs would not matter.
    assert np.median(want.std(axis=0)) > 0.01
    for name, run in RUN.items():
        export.write(tmp_path / name, model, name)
        for part in (pixels, pixels[:1]):  # a batch of any size
            got = np.asarray(run(tmp_path / name, part))
            np.testing.assert_allclose(got, want[: len(part)], atol=1e-4)


@pytest.mark.parametrize("name", RUN)
def test_the_script_beside_it_classifies_a_picture(tmp_path, photographs, name):
    """In a process that cannot find our packages."""
    model, (folder, pixels) = model_of(every_kind()), photographs
    export.write(tmp_path / "out", model, name)
    command = [sys.executable, "-P", str(tmp_path / "out" / "run.py")]
    done = subprocess.run(
        [*command, str(folder / "1.png")],
        cwd=tmp_path,
        env={"PATH": "", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    want = logits_of(model, pixels)[1]
    printed = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    best = np.argsort(-want)[:5]
    assert [text for _, text in printed] == [f"class {i}" for i in best]
    logits = [float(number) for number, _ in printed]
    np.testing.assert_allclose(logits, want[best], atol=2e-3)  # three digits printed


def write_odd_pictures(folder):
    """Pictures that read differently where anything is left out; their paths."""
    photograph = PIL.Image.fromarray(sklearn.datasets.load_sample_images().images[0])
    photograph = photograph.crop((10, 0, 330, 201))
    grey = photograph.convert("L")
    turned = PIL.Image.Exif()
    turned[0x0112] = 6
    deep = np.asarray(grey).astype(np.uint16) * 257
    clear = photograph.copy()
    clear.putalpha(grey)
    saves = {
        "upright.jpg": (photograph, {}),
        "turned.jpg": (photograph, {"exif": turned}),
        "grey.png": (grey, {}),
        "palette.gif": (photograph.quantize(30), {}),
        "clear.png": (clear, {}),
        "key.png": (photograph.quantize(30), {"transparency": 3}),
        "deep.png": (PIL.Image.fromarray(deep), {}),
        "12-bits.png": (PIL.Image.fromarray(deep >> 4), {}),
        "deep-turned.tif": (PIL.Image.fromarray(deep.astype(">u2")), {"exif": turned}),
        "cmyk.jpg": (photograph.convert("CMYK"), {}),
        "grey.webp": (grey, {"lossless": True}),
        "side.png": (photograph.resize((SIDE, SIDE)), {}),
    }
    for name, (picture, options) in saves.items():
        picture.save(folder / name, **options)
    (folder / "deep.pgm").write_bytes(
        b"P5\n%d %d\n65535\n" % grey.size + deep.astype(">u2").tobytes()
    )
    return sorted(folder.iterdir())


def as_training_reads(paths, spec):
    """Pixels of the pictures as the loader of a folder in memory has them."""
    examples = FolderExamples(
        paths=paths, labels=np.zeros(len(paths), int), channels=spec.in_channels
    )
    data = Dataset(
        name="odd",
        description="odd",
        class_names=["a"],
        channels=spec.in_channels,
        image_size=None,
        augmentation=geometric.NONE,
        train=examples,
        validation=examples,
    )
    ready = memory.prepare(data, spec.resolution)["train"]
    return np.asarray(ready.images) * ready.std + ready.mean


def small(channels):
    """Quickly compiled: what matters here is what it reads."""
    return ArchSpec(
        name="small",
        resolution=SIDE,
        in_channels=channels,
        num_classes=7,
        activation="relu",
        stem=Stem(channels=8, kernel=3, stride=2),
        stages=(ConvStage(channels=16, kernel=3, stride=2, repeats=1),),
        head=ClassifierHead(channels=None),
    )


@pytest.mark.parametrize(
    ("name", "channels"),
    [("onnx", 1), ("onnx", 3), ("stablehlo", 3), ("safetensors", 3)],
)
def test_training_prediction_and_the_script_read_the_same(tmp_path, name, channels):
    """Logits of odd pictures; the script's process cannot find our packages."""
    model = model_of(small(channels))
    kernel = classifier.classifier_of(model.network).kernel
    kernel.set_value(20 * kernel[...])  # pictures differ well above what is printed
    export.write(tmp_path / "out", model, name)
    (tmp_path / "pictures").mkdir()
    paths = write_odd_pictures(tmp_path / "pictures")
    want = logits_of(model, as_training_reads(paths, model.spec).astype(np.float32))
    assert np.median(want.std(axis=0)) > 0.1, "else the pictures would not matter"
    lines = (
        "import runpy, sys",
        "_, script, *pictures = sys.argv",
        "for picture in pictures:",
        "    print('picture')",
        "    sys.argv = [script, picture]",
        "    runpy.run_path(script, run_name='__main__')",
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", "\n".join(lines), tmp_path / "out/run.py", *paths],
        cwd=tmp_path,
        env={"PATH": "", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    for path, text, logits in zip(
        paths, done.stdout.split("picture\n")[1:], want, strict=True
    ):
        best = np.argsort(-logits)[:5]
        printed = [line.split(maxsplit=1) for line in text.splitlines()]
        got = [float(number) for number, _ in printed]
        np.testing.assert_allclose(got, logits[best], atol=2e-3, err_msg=path.name)
        assert printed[0][1] == f"class {best[0]}"
        top = predict.predict(model, pixels.decode(path)).top
        shares = np.exp(logits) / np.exp(logits).sum()
        found = [share for _, share in top]
        np.testing.assert_allclose(found, shares[best], atol=1e-3, err_msg=path.name)


@pytest.mark.parametrize("content", [None, b"no picture"])
def test_the_script_refuses_what_is_no_picture_in_a_line(tmp_path, content):
    export.write(tmp_path / "out", model_of(every_kind()), "onnx")
    if content:
        (tmp_path / "a.png").write_bytes(content)
    else:
        os.mkfifo(tmp_path / "a.png")
    done = subprocess.run(
        [sys.executable, "-P", "out/run.py", "a.png"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("run.py: a.png must be an image: it is")
    assert done.stderr.count("\n") == 1


def test_stablehlo_is_for_three_platforms(tmp_path):
    export.write(tmp_path / "out", model_of(every_kind()), "stablehlo")
    blob = (tmp_path / "out" / "network.stablehlo").read_bytes()
    assert set(jax.export.deserialize(bytearray(blob)).platforms) == {
        "cpu", "cuda", "tpu",
    }  # fmt: skip


def test_folding_leaves_no_statistics():
    folded = folding.fold(model_of(every_kind()).network)
    assert not [name for name in saved.variables(folded) if "norm" in name]


def test_activation_maps_average_to_the_logits(photographs):
    """arXiv:1512.04150, equation 2: the class score is the maps' sum over places."""
    model, (_, pixels) = model_of(every_kind()), photographs
    images = model.metadata.standardise(pixels)
    maps = np.asarray(folding.activation_maps(model.network, images))
    bias = np.asarray(model.network.blocks[-1].units[-1].bias[...])
    logits = logits_of(model, pixels)
    np.testing.assert_allclose(maps.mean((1, 2)) + bias, logits, atol=1e-5)


def test_an_exported_folder_is_a_model(tmp_path, photographs):
    model, (_, pixels) = model_of(every_kind()), photographs
    export.write(tmp_path / "out", model, "safetensors")
    again = saved.load(tmp_path / "out")
    assert (again.spec, again.metadata) == (model.spec, model.metadata)
    np.testing.assert_array_equal(logits_of(again, pixels), logits_of(model, pixels))


def test_a_zoo_name_exports_fresh_weights_and_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = every_kind()
    (tmp_path / "net.json").write_text(codec.dumps(spec))
    assert export.main(["net.json", "--format", "safetensors", "--seed", "3"]) == 0
    assert "freshly initialised from seed 3, not trained" in capsys.readouterr().out
    first = saved.load(tmp_path / "every-kind-safetensors")
    assert first.metadata.weights.endswith("not trained")


@pytest.fixture
def exported(tmp_path):
    folder = tmp_path / "exported"
    export.write(folder, model_of(every_kind()), "safetensors")
    return folder


def test_who_may_read_the_description_may_read_the_weights(exported):
    modes = {path.stat().st_mode for path in exported.iterdir()}
    assert len(modes) == 1


def damage_weights(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def other_architecture(folder):
    spec = zoo.load("mnasnet-b1")
    (folder / "architecture.json").write_text(codec.dumps(spec))


def wrong_names(folder):
    metadata = json.loads((folder / "model.json").read_text())
    metadata["class_names"].pop()
    (folder / "model.json").write_text(json.dumps(metadata))


def other_width(folder):
    text = (folder / "architecture.json").read_text()
    (folder / "architecture.json").write_text(
        text.replace('"channels": 24', '"channels": 32')
    )


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (damage_weights, "whole safetensors file"),
        (other_architecture, "class_names must have 1000 entries"),
        (wrong_names, "class_names must have 7 entries"),
        (other_width, "must be of shape (1, 1, 16, 32), got (1, 1, 16, 24)"),
        (lambda folder: (folder / "model.json").write_text("{"), "model.json"),
        (
            lambda folder: (folder / "architecture.json").unlink(),
            "does not; name a folder",
        ),
    ],
)
def test_a_damaged_model_ends_in_one_line(exported, capsys, damage, told):
    damage(exported)
    assert export.main([str(exported), "--output", str(exported / "again")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("nas.export: ")
    assert error.count("\n") == 1
    assert told in error


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nothing-b0"], "an architecture is a JSON file"),
        (["efficientnet-b0", "--format", "tflite"], "stablehlo, onnx, safetensors"),
        (["efficientnet-b0", "--output", __file__], "name another with --output"),
    ],
)
def test_a_bad_value_ends_in_one_line(capsys, arguments, told):
    assert export.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert told in error
