"""First weights of a training run: heads, stems, and what they are taken for."""

import dataclasses
import re

import numpy as np
import pytest

from nas import train
from nas.training import initial, models
from search_space import codec, zoo
from search_space.spec import ArchSpec, ClassifierHead, MBConvStage, Stem
from trainers.deploy import saved
from trainers.networks import classifier

SPEC = ArchSpec(
    name="one-block",
    resolution=8,
    num_classes=4,
    activation="swish",
    stem=Stem(channels=8),
    stages=(MBConvStage(channels=8, kernel=3, stride=1, expansion=1, repeats=1),),
    head=ClassifierHead(channels=16),
)
SHAPES = {
    "conv_stem.weight": (8, 3, 3, 3),
    "blocks.0.0.conv_dw.weight": (8, 1, 3, 3),
    "blocks.0.0.conv_pw.weight": (8, 8, 1, 1),
    "conv_head.weight": (16, 8, 1, 1),
    "classifier.weight": (4, 16),
    "classifier.bias": (4,),
} | {
    f"{norm}.{kind}": (channels,)
    for norm, channels in {
        "bn1": 8, "blocks.0.0.bn1": 8, "blocks.0.0.bn2": 8, "bn2": 16,
    }.items()
    for kind in ("weight", "bias", "running_mean", "running_var")
}  # fmt: skip


@pytest.fixture
def weights():
    rng = np.random.default_rng(0)
    return {n: rng.uniform(0.1, 1, s).astype(np.float32) for n, s in SHAPES.items()}


@pytest.fixture
def file(tmp_path, weights):
    saved.write_safetensors(tmp_path / "timm.safetensors", weights)
    return str(tmp_path / "timm.safetensors")


def start(spec, init, **options):
    return initial.network(spec, str(init), seed=3, **options)


def test_weights_without_a_classifier_get_a_new_one(tmp_path, weights):
    path = tmp_path / "headless.safetensors"
    headless = {n: a for n, a in weights.items() if not n.startswith("classifier")}
    saved.write_safetensors(path, headless)
    network, report = start(SPEC, path)
    assert "which have no classifier: a new one for 4 classes" in report
    found, fresh = map(saved.arrays, (network, classifier.build(SPEC, seed=3)))
    new = {name for name in found if np.array_equal(found[name], fresh[name])}
    assert new == {"blocks.2.units.1.kernel", "blocks.2.units.1.bias"}
    stem = weights["conv_stem.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(found["blocks.0.units.0.kernel"], stem)


def test_weights_for_colour_read_grey_as_they_read_grey_in_colour(file):
    grey = dataclasses.replace(SPEC, in_channels=1)
    summed, report = start(grey, file, stem="sum")
    assert "the first kernel summed over the channels" in report
    colour, _ = start(SPEC, file, stem="sum")
    images = np.random.default_rng(1).normal(size=(2, 8, 8, 1)).astype(np.float32)
    want = np.asarray(colour(images.repeat(3, -1)))
    np.testing.assert_allclose(summed(images), want, rtol=1e-5)


def test_weights_for_grey_read_colour_that_is_grey_alike(tmp_path, weights):
    weights["conv_stem.weight"] = weights["conv_stem.weight"][:, :1]
    path = tmp_path / "grey.safetensors"
    saved.write_safetensors(path, weights)
    spread, report = start(SPEC, path, stem="sum")
    assert "the first kernel spread over the channels" in report
    grey, _ = start(dataclasses.replace(SPEC, in_channels=1), path)
    images = np.random.default_rng(1).normal(size=(2, 8, 8, 1)).astype(np.float32)
    want = np.asarray(grey(images))
    np.testing.assert_allclose(spread(images.repeat(3, -1)), want, rtol=1e-5)


@pytest.mark.parametrize(
    ("channels", "rule", "told"),
    [
        (1, "exact", r"3 channels \(RGB\), and these have 1 channel \(grey\); give "
         "--init-stem sum to sum the first kernel"),
        (4, "exact", "and these have 4 channels"),
        (4, "sum", "needs 1 channel on one side, got weights for 3 channels"),
    ],
)  # fmt: skip
def test_other_channels_are_refused_with_the_remedy(file, channels, rule, told):
    spec = dataclasses.replace(SPEC, in_channels=channels)
    with pytest.raises(saved.WeightsError, match=told):
        start(spec, file, stem=rule)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, r"padding 'same' and epsilon 0.001 \(TensorFlow's; timm's tf_ models\);"
         r' for .* set "padding": "symmetric", "norm_epsilon": 1e-05 in its JSON'),
        ({"name": "mnasnet-b1"}, r"timm's tf_ .* train mnasnet-b1-pytorch instead"),
        ({"name": "mnasnet-b1-pytorch", "padding": "symmetric", "norm_epsilon": 1e-5},
         r"padding 'symmetric' and epsilon 1e-05 \(PyTorch's; timm's without tf_\); for"
         r" TensorFlow's .* train mnasnet-b1 instead"),
        ({"norm_epsilon": 1e-5}, r"'same' and epsilon 1e-05, as the architecture says"),
    ],
)  # fmt: skip
def test_a_file_is_said_to_be_taken_for_one_convention(file, changes, told):
    _, report = start(dataclasses.replace(SPEC, **changes), file)
    assert re.search(told, report)


def test_a_models_folder_says_where_it_was_another_network(tmp_path):
    theirs = dataclasses.replace(SPEC, padding="symmetric", activation="relu")
    saved.save(tmp_path, saved.fresh(theirs, seed=0))
    _, report = start(SPEC, tmp_path)
    assert "trained with another activation, padding, and give other outputs" in report
    _, report = start(theirs, tmp_path)
    assert report.endswith("the classifier included")


def test_words_from_a_file_are_shown_escaped(tmp_path, weights):
    path = tmp_path / "timm.safetensors"
    front = "\x1b[2J."
    saved.write_safetensors(path, {front + n: a for n, a in weights.items()})
    _, report = start(SPEC, path)
    assert report.isprintable()
    assert r"read under '\x1b[2J.'" in report


def test_the_command_refuses_colour_weights_for_grey_digits(
    file, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("MBCONV_NAS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "net.json").write_text(codec.dumps(SPEC))
    model = str(tmp_path / "net.json")
    assert train.main([model, "--init", file, "--output", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--init-stem sum" in line
    assert not (tmp_path / "run").exists()
    assert train.main([model, "--init-stem", "sum"]) == 2
    assert "give them with --init" in capsys.readouterr().err


def test_a_pytorch_name_is_an_architecture_for_commands():
    name = "mnasnet-a1-pytorch"
    assert models.architecture(name) == zoo.load(name)
