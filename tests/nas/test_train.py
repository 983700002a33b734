"""Training runs through the command: resuming, sharding, transfer, bad input."""

import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import jax
import numpy as np
import PIL.Image
import pytest

from nas import train
from nas.training import fitting
from search_space import codec, zoo
from search_space.spec import ArchSpec, ClassifierHead, MBConvStage, Stem
from tests.nas.losses import read as losses_in
from trainers import checkpoint, recipes
from trainers.deploy import saved

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
    head=ClassifierHead(channels=16, dropout=0.2),
    drop_path=0.2,
)
# Six epochs of 998 digits, with everything that draws random numbers.
FLAGS = [
    *("--dataset", "digits", "--resolution", "8"),
    *("--epochs", "6", "--batch-size", "128"),
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
    losses = losses_in(whole / "losses.jsonl")
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
    logits = model.network(model.metadata.standardise(images))
    accuracy = float((np.asarray(logits).argmax(-1) == labels).mean())
    result = json.loads((whole / "result.json").read_text())
    assert accuracy == pytest.approx(result["test"]["accuracy of EMA"])


def in_phases(*lengths, resolutions):
    """Returns `TrainingConfig.phases`, its one phase cut into several."""
    one = recipes.TrainingConfig.phases

    def phases(config, num_examples, spec):
        (whole,) = one(config, num_examples, spec)
        assert whole.steps == sum(lengths)
        return tuple(
            dataclasses.replace(whole, resolution=side, steps=steps)
            for side, steps in zip(resolutions, lengths, strict=True)
        )

    return phases


def test_phases_that_are_alike_are_one_long_one(whole, monkeypatch):
    """Their border is at a step where nothing else happens."""
    alike = in_phases(13, 34, resolutions=(8, 8))
    monkeypatch.setattr(recipes.TrainingConfig, "phases", alike)
    assert train.main(["tiny.json", "--output", "phases", *FLAGS]) == 0
    np.testing.assert_array_equal(
        losses_in(whole.parent / "phases" / "losses.jsonl"),
        losses_in(whole / "losses.jsonl"),
    )


def test_a_phase_has_its_own_resolution(whole, monkeypatch):
    """The second phase goes on at 8 pixels with what the first learned at 4."""
    growing = in_phases(4, 4, resolutions=(4, 8))
    monkeypatch.setattr(recipes.TrainingConfig, "phases", growing)
    flags = [*FLAGS, "--epochs", "1"]
    assert train.main(["tiny.json", "--output", "growing", *flags]) == 0
    losses = losses_in(whole.parent / "growing" / "losses.jsonl")
    first = losses_in(whole / "losses.jsonl")
    assert len(losses) == 8
    assert abs(losses[0] - first[0]) > 1e-4  # other pixels, the same weights
    assert saved.load(whole.parent / "growing" / "model").spec.resolution == 8


# Three stages of 15, 15 and 17 steps at 4, 6 and 8 pixels.
PROGRESSIVE = [
    *FLAGS,
    *("--progressive", "--stages", "3", "--first-resolution", "4"),
    *("--randaugment-ops", "1", "--randaugment-magnitude", "9"),
]


@pytest.fixture(scope="module")
def grown(home):
    """An uninterrupted progressive run, and what it said."""
    command = [sys.executable, "-m", "nas.train", "tiny.json", "--output", "grown"]
    done = subprocess.run(
        [*command, *PROGRESSIVE], cwd=home, check=True, capture_output=True, text=True
    )
    return home / "grown", done.stdout


def test_a_progressive_run_says_its_stages_and_leaves_the_whole_network(grown):
    folder, said = grown
    # Magnitude 5 to 9, mixup 0 to 0.2, CutMix 0 to 1, dropout 0.1 to 0.2.
    assert [line for line in said.splitlines() if line.startswith("Stage ")] == [
        "Stage       1 of 3, to step 15: 4 pixels, dropout 0.1, RandAugment 5",
        "Stage       2 of 3, to step 30: 6 pixels, dropout 0.15, RandAugment 7,"
        " mixup 0.1, cutmix 0.5",
        "Stage       3 of 3, to step 47: 8 pixels, dropout 0.2, RandAugment 9,"
        " mixup 0.2, cutmix 1",
    ]
    assert len(losses_in(folder / "losses.jsonl")) == 47
    assert saved.load(folder / "model").spec.resolution == 8


DIE_AT = (
    "append = training._append_losses\n"
    "def die(path, start, losses):\n"
    "    append(path, start, losses)\n"
    "    if start >= {at}: os.kill(os.getpid(), 9)\n"
    "training._append_losses = die\n"
)


@pytest.mark.parametrize(
    "at",
    [
        pytest.param(5, marks=pytest.mark.slow),
        15,  # the first steps of the second stage
        pytest.param(40, marks=pytest.mark.slow),
    ],
)
def test_killed_in_any_stage_and_resumed_gives_the_same_losses(grown, home, at):
    script = f"{DIE}{DIE_AT.format(at=at)}train.main(sys.argv[1:])\n"
    name = f"stage-{at}"
    command = [sys.executable, "-c", script, "tiny.json", "--output", name]
    done = subprocess.run([*command, *PROGRESSIVE], cwd=home, capture_output=True)
    assert done.returncode == -9, done.stderr.decode()
    assert train.main(["--resume", name, "--devices", "1"]) == 0
    for file in ("losses.jsonl", "result.json"):
        found, wanted = home / name / file, grown[0] / file
        if file == "result.json":
            assert found.read_text() == wanted.read_text()
        else:
            np.testing.assert_array_equal(losses_in(found), losses_in(wanted))


DIE = (
    "import os, sys\nfrom nas import train\nfrom nas.training import run as training\n"
)
AFTER_LOSSES = (
    "append = training._append_losses\n"
    "def die(path, start, losses):\n"
    "    append(path, start, losses)\n"
    "    if start >= 16: os.kill(os.getpid(), 9)\n"
    "training._append_losses = die\n"
)
BETWEEN_BEST_AND_LAST = (
    "save = training.Checkpoints.save\n"
    "def die(self, step, state, facts):\n"
    "    save(self, step, state, facts)\n"
    "    if self._folder.name == 'best': os.kill(os.getpid(), 9)\n"
    "training.Checkpoints.save = die\n"
)


@pytest.mark.parametrize(
    ("name", "moment", "most"),
    [
        ("cut", AFTER_LOSSES, 47),
        pytest.param("between", BETWEEN_BEST_AND_LAST, 46, marks=pytest.mark.slow),
    ],
)
def test_killed_and_resumed_gives_the_same_losses(whole, home, name, moment, most):
    """kill -9, with losses or the best weights on the disk that `last` is behind."""
    script = f"{DIE}{moment}train.main(sys.argv[1:])\n"
    command = [sys.executable, "-c", script, "tiny.json", "--output", name, *FLAGS]
    done = subprocess.run(command, cwd=home, check=False, capture_output=True)
    assert done.returncode == -9, done.stderr.decode()
    assert 0 < len(losses_in(home / name / "losses.jsonl")) < most
    assert train.main(["--resume", name, "--devices", "1"]) == 0
    np.testing.assert_array_equal(
        losses_in(home / name / "losses.jsonl"),
        losses_in(whole / "losses.jsonl"),
    )
    assert (home / name / "result.json").read_text() == (
        whole / "result.json"
    ).read_text()


def has_taken_over(process):
    """Whether the process handles SIGTERM, which Python itself does not."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    mask = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(mask.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize(
    ("name", "until", "times"),
    [
        ("importing", None, 1),
        ("compiling", "Compiling", 2),
        ("saving", "Step", 1),  # after every step
    ],
)
def test_ctrl_c_ends_in_one_line(home, name, until, times):
    flags = [*FLAGS, "--epochs", "400", "--save-every", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "nas.train", "tiny.json", "--output", name, *flags],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(Path(train.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    if until is None:
        while not has_taken_over(process):
            time.sleep(0.01)
    else:
        while not process.stdout.readline().startswith(until):
            assert process.poll() is None
        time.sleep(0.5)
    for _ in range(times):
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    last = out.splitlines()[-1]
    if until is None:
        assert (out, err) == ("nas.train: interrupted\n", "")
        return
    assert last == f"Go on with  python -m nas.train --resume {name}"
    assert train.parse(["--resume", name]).options.training.epochs == 400


def contents(folder):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_finished_run_that_is_resumed_changes_nothing(whole, capsys):
    before = contents(whole)
    capsys.readouterr()
    assert train.main(["--resume", str(whole)]) == 0
    assert contents(whole) == before
    said = capsys.readouterr().out
    result = json.loads((whole / "result.json").read_text())
    assert "nothing is changed" in said
    assert f"Test        accuracy {result['test']['accuracy']:.2%}" in said


def test_what_is_said_before_the_first_step(capsys):
    short = [*FLAGS, "--epochs", "0.4", "--warmup-epochs", "0.5"]
    assert train.main(["tiny.json", "--output", "said", *short]) == 0
    said = capsys.readouterr().out.splitlines()
    headings = [line.split()[0] for line in said]
    for earlier, later in itertools.pairwise(
        ["Loading", "Data", "Resolution", "Warm-up", "Reading", "Compiling", "Step"]
    ):
        assert headings.index(earlier) < headings.index(later)
    assert any("of 0.5 epochs takes all 0.4" in line for line in said)


def test_final_trains_on_validation_images_too_and_keeps_the_last_weights(home, capsys):
    """1,497 digits that are not for the test are 12 steps of 128, not 8 of 998."""
    flags = [*FLAGS, "--epochs", "1", "--mixup", "0", "--cutmix", "0"]
    assert train.main(["tiny.json", "--output", "final", "--final", *flags]) == 0
    said = capsys.readouterr().out
    assert "the last weights are kept" in said
    assert "Reading     1,497 images" in said
    result = json.loads((home / "final" / "result.json").read_text())
    assert result["steps"] == round(1497 / 128)
    assert set(result) == {"version", "steps", "test"}
    assert not (home / "final" / "best").exists()
    metadata = saved.load(home / "final" / "model").metadata
    assert "training and validation images together" in metadata.weights
    last = checkpoint.Checkpoints(home / "final" / "last")
    with last:
        assert last.step == 12


def unfinished(run, copy):
    shutil.copytree(run, copy)
    (copy / "result.json").unlink()
    return copy


def test_a_run_of_an_earlier_version_goes_on_with_a_line(whole, home, capsys):
    """It has no data.json, and null stood for the architecture's resolution."""
    run = unfinished(whole, home / "earlier")
    (run / "data.json").unlink()
    options = json.loads((run / "training.json").read_text())
    options["training"]["resolution"] = None
    del options["final"]
    (run / "training.json").write_text(json.dumps(options))
    assert train.main(["--resume", str(run), "--devices", "1"]) == 0
    assert "Unchecked" in capsys.readouterr().out
    assert (run / "result.json").read_text() == (whole / "result.json").read_text()


def test_other_data_are_refused_and_nothing_is_touched(whole, home, capsys):
    run = unfinished(whole, home / "other")
    data = json.loads((run / "data.json").read_text())
    data["class_names"][3] = "drei"
    (run / "data.json").write_text(json.dumps(data))
    before = contents(run)
    told = refused(capsys, "--resume", str(run))
    assert "class 'drei' is now called '3'" in told
    assert contents(run) == before


def test_a_run_finds_its_relative_folder_from_elsewhere(home, capsys, monkeypatch):
    """And not the one of the same name that is there."""
    rng = np.random.default_rng(0)
    for root, names in (("pictures", "ab"), ("elsewhere/pictures", "cd")):
        for name in names:
            (home / root / name).mkdir(parents=True)
            for i in range(9):
                pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
                PIL.Image.fromarray(pixels).save(home / root / name / f"{i}.png")
    flags = ["--batch-size", "4", "--epochs", "1", "--devices", "1"]
    data = ["--dataset", "./pictures", "--validation", "4"]
    assert train.main(["tiny.json", "--output", "rel", *data, *flags]) == 0
    (home / "rel" / "result.json").unlink()
    monkeypatch.chdir(home / "elsewhere")
    assert train.main(["--resume", str(home / "rel"), "--devices", "1"]) == 0
    assert saved.load(home / "rel" / "model").metadata.class_names == ("a", "b")
    (home / "rel" / "result.json").unlink()
    (home / "pictures" / "b").rename(home / "pictures" / "c")
    assert "class 'b' is now called 'c'" in refused(
        capsys, "--resume", str(home / "rel")
    )


@pytest.mark.parametrize(
    ("own", "image_size", "asked", "side"),
    [
        (224, (64, 64), "data", 64),
        (224, (48, 64), "data", 48),
        (224, (28, 28), "data", 32),  # no network has anything left of less
        (224, (300, 400), "data", 224),
        (224, None, "data", 224),
        (260, None, "data", 260),  # a scaled member keeps its own
        (260, (28, 28), "architecture", 260),
        (224, (28, 28), 96, 96),
        (8, (28, 28), "data", 8),
    ],
)
def test_resolutions(own, image_size, asked, side):
    dataset = types.SimpleNamespace(image_size=image_size)
    spec = types.SimpleNamespace(resolution=own)
    found, why = fitting.resolution_of(spec, dataset, asked)
    assert found == side
    assert str(own) in why or side == own


def test_the_recipes_say_where_their_resolution_comes_from():
    found = {name: config.resolution for name, config in recipes.RECIPES.items()}
    assert found.pop("short") == "data"
    assert set(found) == {
        "efficientnet", "efficientnetv2", "efficientnetv2-m", "efficientnetv2-l"
    }  # fmt: skip
    assert set(found.values()) == {"architecture"}


def test_an_unknown_recipe_ends_with_those_there_are(capsys):
    with pytest.raises(SystemExit) as ended:
        train.main(["tiny.json", "--recipe", "efficientnetv3"])
    assert ended.value.code == 2
    assert "efficientnetv2-m" in capsys.readouterr().err


@pytest.mark.slow
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
        losses_in(home / "four" / "losses.jsonl"),
        losses_in(whole / "losses.jsonl"),
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


TINY_DIGITS = ["tiny.json", "--dataset", "digits", "--output", "refused"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "an architecture is required"),
        (["efficientnet-b9"], "got 'efficientnet-b9'"),
        (["tiny.json", "--dataset", "digit"], "unknown data set 'digit'"),
        (["tiny.json", "--head-only"], "--head-only needs trained weights"),
        (["tiny.json", "--save-every", "0"], "--save-every must be at least 1"),
        (["efficientnet-b0", "--resolution", "16"], "at least the total stride 32"),
        (["tiny.json", "--resolution", "0"], "resolution must be at least 1 pixel"),
        (["tiny.json", "--resolution", "-8"], "resolution must be at least 1 pixel"),
        (["tiny.json", "--final", "--validation", "9"], "--final holds nothing out"),
        (["tiny.json", "--init", "tiny.json"], "weights must be a .safetensors, .pth"),
        (["tiny.json", "--init", "none.safetensors"], "none.safetensors"),
        (["tiny.json", "--devices", "64", "--output", "x64"], "got 64 of"),
        (["--resume", "nowhere"], "training.json"),
        (
            [*TINY_DIGITS, "--progressive", "--first-resolution", "1"],
            "first_resolution must be from 2, the total stride of tiny, to 8, where",
        ),
        (
            [*TINY_DIGITS, "--train-share", "0.1"],
            "train_share must leave at least 2 pixels",
        ),
        ([*TINY_DIGITS, "--progressive", "--stages", "1"], "stages must be from 2"),
        (
            [*TINY_DIGITS, "--progressive", "--epochs", "0.001"],
            "stages must have a step each",
        ),
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
    (home / "damaged" / "result.json").unlink()
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
