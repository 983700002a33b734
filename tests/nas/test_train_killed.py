"""A training run that is killed at any moment goes on as if nothing had been.

What `kill -9` leaves is what is on the disk at that moment. So a run is watched: before
each change that Python makes to its folder (Orbax's threads included) the folder is
copied, and each copy that is not like one before it is resumed.
"""

import contextlib
import os
import shutil
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nas import train
from nas.training import run as training
from search_space import codec
from search_space.spec import ArchSpec, ClassifierHead, MBConvStage, Stem
from tests.nas.losses import read as losses_in
from trainers.networks.classifier import classifier_of
from trainers.steps.jitted import NetworkState
from trainers.tasks.classification import Classification

SMALL = ArchSpec(
    name="small",
    resolution=8,
    activation="relu",
    stem=Stem(channels=8, stride=1),
    stages=(MBConvStage(channels=8, kernel=3, stride=2, expansion=1, repeats=1),),
    head=ClassifierHead(channels=8),
)
# Two epochs of 8 steps: `last` is saved after 5, 8, 10, 15 and 16, `best` after 8 and
# 16, which is better (see `Step.observe`), so that the first one is removed.
FLAGS = [
    *("--dataset", "digits", "--batch-size", "128", "--epochs", "2"),
    *("--save-every", "5"),
    *("--ema-decay", "0", "--devices", "1"),
]


class Step:
    """`JittedStep` without a network: arithmetic that depends on all that came before.

    The weights are one number, which a model has as its classifier's first bias.
    """

    task = Classification()

    def __init__(self, network, *_, **__):
        self._network = network

    def initial(self):
        zero = jnp.zeros(1)
        return NetworkState(params=(zero,), stats=(zero,), optimizer=zero, ema=None)

    def place(self, state):
        return jax.tree.map(jnp.array, state)

    def __call__(self, states, batch, inputs):
        images, labels = batch
        seen = np.float32(np.asarray(images)[:, 0, 0].mean() + np.asarray(labels).sum())
        weight = states.params[0] * 0.5 + seen * 1e-3 + inputs.learning_rate
        momentum = states.optimizer * 0.9 + weight
        state = NetworkState(
            params=(weight,),
            stats=(states.stats[0] + 1,),
            optimizer=momentum,
            ema=None,
        )
        return state, jnp.float32(np.asarray(momentum)[0])

    def observe(self, states, batch):
        *_, mask = batch
        correct = mask.sum() * states.stats[0][0] / 100  # as many percent as steps
        return {"correct": correct, "seen": mask.sum()}

    def refit(self, states, batch, momentum):
        del batch, momentum
        return states  # it has no batch statistics

    def network(self, state):
        bias = classifier_of(self._network).bias
        values = np.array(bias[...])
        values[0] = np.asarray(state.params[0])[0]
        bias.set_value(values)
        return self._network


class Watch:
    """Copies a folder whenever something in it is about to change."""

    def __init__(self, folder, copies):
        self.folder, self.copies = folder, copies
        self.kept, self._seen = [], set()
        self._lock = threading.Lock()
        self._is_copying = threading.local()

    def event(self, event, arguments):
        if getattr(self._is_copying, "now", False) or not changes(event, arguments):
            return
        paths = [str(a) for a in arguments if isinstance(a, str | bytes | os.PathLike)]
        if not any(str(self.folder) in os.path.abspath(path) for path in paths):
            return
        self._is_copying.now = True
        try:
            with self._lock, contextlib.suppress(FileNotFoundError, shutil.Error):
                self._copy()
        finally:
            self._is_copying.now = False

    def _copy(self):
        if not self.folder.exists():
            return
        found = tree(self.folder)
        if found not in self._seen:
            self._seen.add(found)
            copy = self.copies / f"{len(self._seen):03}"
            shutil.copytree(
                self.folder, copy, ignore=shutil.ignore_patterns("tensorboard", ".lock")
            )
            self.kept.append(copy)


WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def changes(event, arguments):
    if event == "open":
        return bool((arguments[2] or 0) & WRITES)
    return event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


def tree(folder):
    left_out = {"tensorboard", ".lock", "config.json"}
    return frozenset(
        (str(path.relative_to(folder)), path.read_bytes() if path.is_file() else None)
        for path in folder.rglob("*")
        if not left_out & set(path.relative_to(folder).parts)
    )


_WATCHES = []


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    (folder / "small.json").write_text(codec.dumps(SMALL))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "JittedStep", Step)
        patch.setenv("MBCONV_NAS_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        cache = jax.config.jax_compilation_cache_dir
        yield folder
        jax.config.update("jax_compilation_cache_dir", cache)


@pytest.fixture(scope="module")
def watched(home):
    """The copies, and the run, which nobody disturbed."""
    watch = Watch(home / "whole", home / "copies")
    watch.copies.mkdir()
    # A hook cannot be removed: it only looks while there is a watch.
    sys.addaudithook(lambda *event: [watch.event(*event) for watch in _WATCHES])
    _WATCHES.append(watch)
    try:
        assert train.main(["small.json", "--output", "whole", *FLAGS]) == 0
    finally:
        _WATCHES.clear()
    return watch.kept, home / "whole"


def newest(folder):
    """The step of a folder's latest checkpoint, 0 without one."""
    if not folder.exists():
        return 0
    return max((int(p.name) for p in folder.iterdir() if p.name.isdigit()), default=0)


def is_between(copy):
    """Whether `best` is ahead of `last`."""
    return newest(copy / "best") > newest(copy / "last")


def go_on(copies, whole, capsys):
    for copy in copies:
        status = train.main(["--resume", str(copy), "--devices", "1"])
        said = capsys.readouterr()
        if not (copy / "training.json").exists():  # it was no run yet
            assert (status, said.err.count("\n")) == (2, 1)
            continue
        assert status == 0, (copy.name, said.err, sorted(copy.rglob("*")))
        for name in ("losses.jsonl", "result.json", "model/weights.safetensors"):
            assert (copy / name).read_bytes() == (whole / name).read_bytes(), copy.name


def test_the_moments_are_all_there(watched):
    """Seven checkpoints are written, each with more than ten changes to the folder."""
    copies, whole = watched
    assert len(losses_in(whole / "losses.jsonl")) == 16
    assert len(copies) > 70
    steps = {(newest(copy / "best"), newest(copy / "last")) for copy in copies}
    assert {(8, 5), (8, 8), (16, 15), (16, 16)} <= steps


def test_some_moments_can_be_gone_on_from(watched, capsys):
    copies, whole = watched
    between = [copy for copy in copies if is_between(copy)]
    assert len(between) > 10
    go_on([*copies[::20], *between[::8]], whole, capsys)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_moment_can_be_gone_on_from(watched, capsys):
    copies, whole = watched
    go_on(copies, whole, capsys)
