"""EfficientNet's recipe from training to prediction: one crop and one filter."""

import json

import jax
import numpy as np
import PIL.Image
import pytest

from nas import predict, train
from nas.pages import panels
from search_space import codec
from search_space.spec import ArchSpec, ClassifierHead, MBConvStage, Stem
from trainers.data import catalog
from trainers.deploy import saved

TINY = ArchSpec(
    name="tiny",
    resolution=8,
    activation="swish",
    stem=Stem(channels=8, stride=1),
    stages=(
        MBConvStage(
            channels=8, kernel=3, stride=2, expansion=2, repeats=1, se_ratio=0.25
        ),
    ),
    head=ClassifierHead(channels=16, dropout=0.2),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run of the recipe on the digits of 8x8 pixels."""
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "tiny.json").write_text(codec.dumps(TINY))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MBCONV_NAS_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        cache = jax.config.jax_compilation_cache_dir
        flags = ["--recipe", "efficientnet", "--output", "run", "--devices", "1"]
        flags += ["--dataset", "digits"]
        flags += ["--epochs", "4", "--batch-size", "64", "--warmup-epochs", "1"]
        flags += ["--learning-rate", "0.05", "--ema-decay", "0.5", "--eval-crop", "0.7"]
        assert train.main(["tiny.json", *flags]) == 0
        yield folder / "run"
        jax.config.update("jax_compilation_cache_dir", cache)


def cropped(image):
    """0.7 of 8 pixels are 5.6, from 1.2 to 6.8; enlarged to 8 by Pillow's cubic."""
    picture = PIL.Image.fromarray(image[..., 0])
    box = (1.2, 1.2, 6.8, 6.8)
    resized = picture.resize((8, 8), PIL.Image.Resampling.BICUBIC, box)
    return np.asarray(resized)[..., np.newaxis]


def test_the_model_is_measured_kept_and_used_with_one_crop_and_filter(run):
    model = saved.load(run / "model")
    assert (model.metadata.crop, model.metadata.interpolation) == (0.7, "bicubic")
    test = catalog.load_test("digits")
    images = [test[i][0] for i in range(len(test))]
    labels = np.array([test[i][1] for i in range(len(test))])
    pixels = np.stack([cropped(image) for image in images])
    logits = np.asarray(model.network(model.metadata.standardise(pixels)))
    result = json.loads((run / "result.json").read_text())
    accuracy = (logits.argmax(-1) == labels).mean()
    assert accuracy == pytest.approx(result["test"]["accuracy of EMA"])
    assert accuracy > 0.17  # of 300, guessing gets that with odds of one in 10,000
    whole = np.asarray(model.network(model.metadata.standardise(np.stack(images))))
    assert np.abs(whole - logits).max() > 0.1  # the crop matters
    for number in range(5):
        np.testing.assert_array_equal(
            predict.resized(model, images[number]), pixels[number]
        )
        found = predict.predict(model, images[number])
        assert found.top[0][0] == model.metadata.class_names[logits[number].argmax()]


def test_the_heat_lies_over_what_the_network_was_shown(run):
    model = saved.load(run / "model")
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[15:85, 15:85] = 255  # the central 0.7
    found = predict.Prediction(top=(("a", 1.0),), heat=np.zeros((1, 1)))
    drawn = np.asarray(
        panels.panel(picture, found.heat, "tiny", found.top, model.metadata.framing)
    )
    inside = slice(8 + 5, 8 + panels.SIDE - 5)  # its edge is blended with the rest
    assert (drawn[inside, inside] == 255).all()


def test_a_model_of_an_older_version_has_the_whole_square(run, tmp_path):
    for name in (saved.ARCHITECTURE, saved.WEIGHTS, saved.METADATA):
        (tmp_path / name).write_bytes((run / "model" / name).read_bytes())
    metadata = json.loads((tmp_path / saved.METADATA).read_text())
    del metadata["crop"], metadata["interpolation"]
    (tmp_path / saved.METADATA).write_text(json.dumps(metadata))
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 1), np.uint8)
    np.testing.assert_array_equal(predict.resized(saved.load(tmp_path), image), image)


def test_a_run_of_an_older_version_goes_on_with_the_whole_square(run):
    options = json.loads((run / train.OPTIONS).read_text())
    for name in ("eval_crop", "interpolation", "decay_biases"):
        del options["training"][name]
    found = train._JSON.validate_json(json.dumps(options), extra="forbid").training
    assert (found.eval_crop, found.interpolation) == (1.0, "bilinear")
    assert not found.decay_biases
