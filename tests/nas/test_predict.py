"""Pictures in, classes and activation maps out."""

import dataclasses

import numpy as np
import PIL.Image
import pytest

from nas import predict
from search_space.spec import ArchSpec, ConvStage, Head, Stem
from trainers import saved


def brightness_model(channels=1):
    """Hand-made: class 1 answers to bright places, class 0 to dark ones.

    The stem and the stage hand the picture on: pixels minus 100, kept where positive.
    """
    spec = ArchSpec(
        name="by-hand",
        resolution=4,
        in_channels=channels,
        num_classes=2,
        activation="relu",
        stem=Stem(channels=1, kernel=1, stride=1),
        stages=(ConvStage(channels=1, kernel=1, stride=1, repeats=1),),
        head=Head(channels=None),
    )
    model = saved.fresh(spec, seed=0)
    for name, variable in saved.variables(model.network).items():
        if name.endswith("kernel"):
            variable.set_value(np.ones(variable.shape, np.float32))
        if name.endswith("variance"):  # so that batch norm divides by one
            variable.set_value(np.full(variable.shape, 1 - 1e-3, np.float32))
    classifier = model.network.blocks[-1].units[-1]
    classifier.kernel.set_value(np.array([[0.0, 1.0]], np.float32))
    classifier.bias.set_value(np.array([1.0, 0.0], np.float32))
    card = saved.Card(
        mean=(100.0,) * channels,
        std=(1.0,) * channels,
        class_names=("dark", "bright"),
        weights="made by hand",
    )
    return saved.Model(spec=spec, network=model.network, card=card)


def corner(value):
    """A black 4x4 picture with one pixel of `value`."""
    picture = np.zeros((4, 4, 1), np.uint8)
    picture[0, 3] = value
    return picture


def test_probabilities_and_heat_by_hand():
    """One pixel of 148 gives 48 after the mean, a mean over 16 places of 3.

    The logits are 1 and 3, the probability of `bright` is 1 / (1 + exp(-2)).
    """
    found = predict.predict(brightness_model(), corner(148))
    assert found.top[0] == ("bright", pytest.approx(1 / (1 + np.exp(-2)), rel=1e-4))
    assert found.top[1][0] == "dark"
    want = np.zeros((4, 4))
    want[0, 3] = 1
    np.testing.assert_allclose(found.heat, want, atol=1e-6)


def test_a_map_without_relief_is_cold():
    found = predict.predict(brightness_model(), corner(0))
    assert found.top[0][0] == "dark"
    assert not found.heat.any()


def test_colour_reads_grey_and_grey_reads_colour():
    grey = predict.predict(brightness_model(channels=3), corner(148))
    assert grey.top[0] == ("bright", pytest.approx(1 / (1 + np.exp(1 - 9)), rel=1e-4))
    colour = predict.predict(brightness_model(), np.repeat(corner(148), 3, axis=2))
    assert colour.top == predict.predict(brightness_model(), corner(148)).top


def test_the_command_writes_panels_side_by_side(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved.save(tmp_path / "net", brightness_model())
    PIL.Image.fromarray(corner(148)[..., 0]).save("picture.png")
    assert predict.main(["net", "net", "picture.png", "--output", "maps.png"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("88.1%  bright") == 2  # 1 / (1 + exp(-2))
    pixels = np.asarray(PIL.Image.open("maps.png"), int)
    left, right = np.split(pixels, 2, axis=1)
    np.testing.assert_array_equal(left, right)
    # Turbo is red at its top and blue at its bottom.
    hot, cold = left[8 + 20, 8 + 300], left[8 + 300, 8 + 20]
    assert hot[0] > hot[2]
    assert cold[2] > cold[0]


def test_maps_of_a_single_place_leave_the_picture_alone(tmp_path, capsys):
    model = brightness_model()
    spec = dataclasses.replace(model.spec, resolution=1)
    saved.save(tmp_path / "net", dataclasses.replace(model, spec=spec))
    grey = np.full((4, 4), 148, np.uint8)
    PIL.Image.fromarray(grey).save(tmp_path / "grey.png")
    paths = [str(tmp_path / name) for name in ("net", "grey.png", "out.png")]
    assert predict.main([*paths[:2], "--output", paths[2]]) == 0
    assert "no activation map: at 1 pixels" in capsys.readouterr().out
    drawn = np.asarray(PIL.Image.open(paths[2]))[8:328, 8:328]
    assert (drawn == 148).all()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["only-one"], "a model and a picture are required"),
        (["net", "none.png"], "none.png must be an image"),
        (["net", "text.png"], "text.png must be an image"),
        (["absent", "picture.png"], "an architecture is a JSON file"),
        (["net", "picture.png", "--output", "no/maps.png"], "cannot write no/maps.png"),
    ],
)
def test_bad_input_ends_in_one_line(tmp_path, capsys, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    saved.save(tmp_path / "net", brightness_model())
    PIL.Image.fromarray(corner(148)[..., 0]).save("picture.png")
    (tmp_path / "text.png").write_text("no picture")
    assert predict.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert told in error
