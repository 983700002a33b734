"""Pictures in, classes and activation maps out."""

import dataclasses
import json
import os

import numpy as np
import PIL.Image
import pytest

from nas import predict
from nas.pages import lettering, panels
from search_space.spec import ArchSpec, ClassifierHead, ConvStage, Stem
from trainers.data import framing
from trainers.deploy import saved


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
        head=ClassifierHead(channels=None),
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
    metadata = saved.ModelMetadata(
        mean=(100.0,) * channels,
        std=(1.0,) * channels,
        class_names=("dark", "bright"),
        weights="made by hand",
    )
    return saved.Model(spec=spec, network=model.network, metadata=metadata)


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
        (["net", "picture.png", "--output", "text.png"], "replace it with --overwrite"),
        (["net", "picture.png", "--output", "."], "it is no ordinary file"),
        (["net", "empty"], "a folder must hold pictures"),
        (["net", "pipe.png"], "pipe.png must be an image: it is no ordinary file"),
        (["net", "/dev/zero"], "/dev/zero must be an image: it is no ordinary file"),
    ],
)
def test_bad_input_ends_in_one_line(tmp_path, capsys, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    saved.save(tmp_path / "net", brightness_model())
    PIL.Image.fromarray(corner(148)[..., 0]).save("picture.png")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    assert predict.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert told in error


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a model and three pictures, one of them in a folder."""
    monkeypatch.chdir(tmp_path)
    saved.save(tmp_path / "net", brightness_model())
    (tmp_path / "more" / ".thumbnails").mkdir(parents=True)
    for name, value in (("a.png", 148), ("b.png", 0), ("more/c.png", 100)):
        PIL.Image.fromarray(corner(value)[..., 0]).save(name)
    (tmp_path / "more" / ".thumbnails" / "c.png").write_bytes(b"hidden")
    return tmp_path


@pytest.mark.usefixtures("place")
def test_several_pictures_and_a_folder_have_a_row_each(capsys):
    assert predict.main(["net", "a.png", "more", "b.png"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.endswith(".png")] == [
        "a.png", "more/c.png", "b.png", "Written  activation.png",
    ]  # fmt: skip
    whole = np.asarray(PIL.Image.open("activation.png"))
    one = panels.panel(
        corner(148), np.zeros((1, 1)), "", [("", 1.0)] * 2, framing.WHOLE
    )
    assert whole.shape == (3 * one.height, one.width, 3)


def test_json_is_all_there_is_on_standard_output(place, capsys):
    """1 / (1 + exp(-2)), as by hand above; refusals go to standard error as well."""
    (place / "bad.png").write_text("no picture")
    assert predict.main(["net", "a.png", "bad.png", "--json"]) == 2
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    (picture,) = document["pictures"]
    assert picture["picture"] == "a.png"
    (prediction,) = picture["predictions"]
    assert (prediction["model"], prediction["weights"]) == ("by-hand", "made by hand")
    best, other = prediction["classes"]
    assert (best["name"], other["name"]) == ("bright", "dark")
    assert best["probability"] == pytest.approx(1 / (1 + np.exp(-2)), rel=1e-4)
    (refused,) = document["refused"]
    assert refused["picture"] == "bad.png"
    assert printed.err == f"nas.predict: {refused['reason']}\n"
    assert document["drawn"] is None
    assert not (place / "activation.png").exists()


@pytest.mark.parametrize("make", [os.link, os.symlink, None])
@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
def test_an_input_is_never_replaced(place, capsys, make, flags):
    """By its own name, which is the default's, or by another name for it."""
    if make is None:
        os.rename("a.png", "activation.png")
    else:
        make("a.png", "activation.png")
    name = "a.png" if make else "activation.png"
    before = (place / name).read_bytes()
    assert predict.main(["net", name, *flags]) == 2
    assert "must not replace a picture" in capsys.readouterr().err
    assert (place / name).read_bytes() == before


def test_only_its_own_pngs_are_replaced_unasked(place, capsys):
    (place / "activation.png").write_bytes(b"of somebody's")
    assert predict.main(["net", "a.png"]) == 2
    assert (place / "activation.png").read_bytes() == b"of somebody's"
    assert predict.main(["net", "a.png", "--overwrite"]) == 0
    first = (place / "activation.png").read_bytes()
    assert predict.main(["net", "b.png"]) == 0
    assert (place / "activation.png").read_bytes() != first
    (place / "activation.png").unlink()
    (place / "precious").write_bytes(b"of somebody's")
    os.symlink("precious", "activation.png")
    assert predict.main(["net", "a.png"]) == 2
    assert predict.main(["net", "a.png", "--overwrite"]) == 0
    assert (place / "precious").read_bytes() == b"of somebody's"
    capsys.readouterr()


def test_names_do_not_command_the_terminal(place, capsys):
    model = brightness_model()
    metadata = dataclasses.replace(
        model.metadata,
        class_names=("\x1b[2Jdark", "b\x07right"),
        weights="\x1b]0;x\x07",
    )
    saved.save(place / "odd", dataclasses.replace(model, metadata=metadata))
    os.rename("a.png", "\x1b[1mA.png")
    assert predict.main(["odd", "\x1b[1mA.png", "b.png"]) == 0
    printed = capsys.readouterr()
    assert all(line.isprintable() for line in printed.out.splitlines())


def test_letters_are_drawn_by_a_font_that_has_them_or_spelled(monkeypatch):
    assert lettering.fitting("plain")[0] == "plain"
    monkeypatch.setattr(lettering, "_paths", tuple)  # no font on the system
    assert lettering.fitting("\u6f22 ok \u0939\u093f")[0] == (
        "\\u6f22 ok \\u0939\\u093f"
    )


@pytest.mark.skipif(not lettering._paths(), reason="the system has no fonts")
def test_a_font_of_the_system_has_more_letters():
    """Different letters look different, which boxes do not."""
    words = [
        text
        for text in ("\u043a\u043e\u0448\u043a\u0430", "\u03b4\u03c5\u03bf")
        if lettering.fitting(text)[0] == text
    ]
    for text in words:
        font = lettering.fitting(text)[1]
        masks = {bytes(font.getmask(letter)) for letter in set(text)}
        assert len(masks) == len(set(text))
    assert words
