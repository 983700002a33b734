"""Training runs through the command: resuming, sharding, transfer, bad input."""

import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from nas import train, training
from search_space import codec, zoo
from search_space.spec import ArchSpec, Head, MBConvStage, Stem
from trainers import saved

TINY = ArchSpec(
    name="tiny",
    resolution=8,
    activation="swish",
    stem=Stem(channels=8, stride=1),
    stages=(
        MBConvStage(
            channels=8, kernel=3, stride=2, expansion=2, repeats=2, se_ratio=0.25
        ),
    ),
    head=Head(channels=16, dropout=0.2),
    drop_path=0.2,
)
# Six epochs of 998 digits, with everything that draws random numbers.
FLAGS = [
    *("--resolution", "8", "--epochs", "6", "--batch-size", "128"),
    *("--save-every", "5", "--ema-decay", "0.9", "--learning-rate", "0.02"),
    *("--mixup", "0.2", "--cutmix", "1.0"),
    *("--devices", "1"),
]


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """A folder with the tiny architecture, and a compilation cache for all tests."""
    folder = tmp_path_factory.mktemp("train")
    (folder / "tiny.json").write_text(codec.dumps(TINY))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MBCONV_NAS_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        cache = jax.config.jax_compilation_cache_dir
        yield folder
        jax.config.update("jax_compilation_cache_dir", cache)


@pytest.fixture(scope="module")
def whole(home):
    """An uninterrupted run."""
    assert train.main(["tiny.json", "--output", "whole", *FLAGS]) == 0
    return home / "whole"


def test_a_run_learns_and_says_what_on_the_test_split(whole):
    losses = training.read_losses(whole / "losses.jsonl")
    result = json.loads((whole / "result.json").read_text())
    assert len(losses) == result["steps"] == round(6 * 998 / 128)
    assert losses[-3:].mean() < losses[:3].mean()
    assert set(result["test"]) == {"accuracy", "accuracy of EMA"}
    # Of 300 test digits, guessing gets 10 %; above 17 % has odds of one in 10,000.
    assert max(result["test"].values()) > 0.17


def test_the_model_it_leaves_has_the_accuracy_it_states(whole):
    from sklearn.datasets import load_digits

    from trainers.data import catalog

    model = saved.load(whole / "model")
    assert model.spec.in_channels == 1
    test = catalog.load_test("digits")
    images = np.stack([test[i][0] for i in range(len(test))])
    labels = np.array([test[i][1] for i in range(len(test))])
    assert images.shape[1:] == (*load_digits().images.shape[1:], 1)
    logits = model.network(model.card.standardise(images))
    accuracy = float((np.asarray(logits).argmax(-1) == labels).mean())
    result = json.loads((whole / "result.json").read_text())
    assert accuracy == pytest.approx(result["test"]["accuracy of EMA"])


def test_killed_and_resumed_gives_the_same_losses(whole, home):
    """kill -9 in the middle, with losses on the disk that no checkpoint covers."""
    script = (
        "import os, sys\nfrom nas import train, training\n"
        "append = training._append_losses\n"
        "def die(path, start, losses):\n"
        "    append(path, start, losses)\n"
        "    if start >= 16: os.kill(os.getpid(), 9)\n"
        "training._append_losses = die\n"
        "train.main(sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", script, "tiny.json", "--output", "cut", *FLAGS]
    done = subprocess.run(command, cwd=home, check=False, capture_output=True)
    assert done.returncode == -9, done.stderr.decode()
    assert 16 < len(training.read_losses(home / "cut" / "losses.jsonl")) < 47
    assert train.main(["--resume", "cut", "--devices", "1"]) == 0
    np.testing.assert_array_equal(
        training.read_losses(home / "cut" / "losses.jsonl"),
        training.read_losses(whole / "losses.jsonl"),
    )
    assert (home / "cut" / "result.json").read_text() == (
        whole / "result.json"
    ).read_text()


def test_several_devices_give_the_losses_of_one(whole, home):
    """Four virtual CPU devices, in a process of their own, with parts as well."""
    flags = [*FLAGS[:-2], "--devices", "4"]
    code = "import sys; from nas import train; sys.exit(train.main(sys.argv[1:]))"
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", code, "tiny.json", "--output", "four", *flags],
        cwd=home,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(
        training.read_losses(home / "four" / "losses.jsonl"),
        training.read_losses(whole / "losses.jsonl"),
        rtol=1e-2,  # sums in another order, over 47 steps
    )


def test_init_takes_a_run_and_gives_it_a_new_head(whole, home, capsys):
    flags = ["--init", str(whole), "--head-only", "--epochs", "0.5", "--ema-decay", "0"]
    assert train.main(["tiny.json", "--output", "head", *FLAGS, *flags]) == 0
    assert "the classifier included" in capsys.readouterr().out
    before = saved.arrays(saved.load(whole / "model").network)
    after = saved.arrays(saved.load(home / "head" / "model").network)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    last = "blocks.3.units.1"  # after the stem and two layers, behind the 1x1
    assert changed == {f"{last}.kernel", f"{last}.bias"}


def refused(capsys, *arguments):
    assert train.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("nas.train: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "an architecture is required"),
        (["efficientnet-b9"], "got 'efficientnet-b9'"),
        (["tiny.json", "--dataset", "digit"], "unknown data set 'digit'"),
        (["tiny.json", "--head-only"], "--head-only needs trained weights"),
        (["tiny.json", "--save-every", "0"], "--save-every must be at least 1"),
        (["efficientnet-b0", "--resolution", "16"], "at least the total stride 32"),
        (["tiny.json", "--init", "tiny.json"], ".safetensors, .pth, .pt or .bin"),
        (["tiny.json", "--init", "none.safetensors"], "none.safetensors"),
        (["tiny.json", "--devices", "64", "--output", "x64"], "got 64 of"),
        (["--resume", "nowhere"], "training.json"),
    ],
)
def test_a_bad_value_ends_in_one_line(capsys, arguments, told):
    assert told in refused(capsys, *arguments)


def test_weights_of_another_architecture_are_refused(capsys, whole):
    told = refused(capsys, "mnasnet-b1", "--init", str(whole), "--resolution", "32")
    assert "weights must" in told


def test_a_resumed_run_keeps_its_options(capsys, whole):
    told = refused(capsys, "--resume", str(whole), "--seed", "7")
    assert "keeps what it was started with" in told


def test_a_damaged_checkpoint_ends_in_one_line(capsys, whole, home):
    shutil.copytree(whole, home / "damaged")
    for file in (home / "damaged" / "last").rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            file.write_bytes(file.read_bytes()[:100])
    assert train.main(["--resume", str(home / "damaged"), "--devices", "1"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "must be a whole checkpoint" in error


def test_the_efficientnet_recipe_is_the_default_of_its_name():
    parsed = train.parse(["efficientnet-b0", "--recipe", "efficientnet"])
    found = parsed.options.training
    assert (found.epochs, found.batch_size, found.optimizer) == (350, 4096, "rmsprop")
    # 0.016 for each 256 images, 5 epochs of warm-up, then 0.97 every 2.4 epochs.
    per_epoch = 1_281_167 / 4096
    rates = found.learning_rates(1_281_167)
    assert rates.max() == pytest.approx(0.256, rel=2 / (5 * per_epoch))
    assert rates[round(5 * per_epoch)] == pytest.approx(0.256 * 0.97**2, rel=1e-4)
    assert rates[0] == 0
    assert rates[int(10 * per_epoch)] == pytest.approx(0.256 * 0.97**4, rel=1e-4)
    assert zoo.load("efficientnet-b0").drop_path == 0.2
