"""Files and arguments from anywhere: a use or one line, never a traceback.

Hypothesis damages what the program wrote itself, a place at a time.
"""

import contextlib
import io
import json
import os
import pickle
import shutil
import sys
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nas import profile, report, scale, search, train
from nas.evaluation import latency_table
from nas.execution import driver
from nas.monitoring import policy_log
from nas.options import definition
from nas.options.definition import Definition
from nas.runs import journal, provenance, run_folder
from nas.study.trial import Worker
from search_space import codec, spaces, zoo
from tests.nas import trials
from trainers.deploy import saved

SPACE = spaces.load("accel-nasbench")
TOKENS = SPACE.encode(zoo.load("efficientnet-b0"))
HUGE = 10**400
few = settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
hostile = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([HUGE, -HUGE, 10**9, 2**63, 1e308, -1e308, -1]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["x" * 100_000, "../../etc/passwd", "\x1b]0;title\x07", "a:b"]),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
    st.just(json.loads("[" * 500 + "]" * 500)),
)


def places(document, path=()):
    """Every path into a JSON document."""
    yield path
    if isinstance(document, dict):
        for key, value in document.items():
            yield from places(value, (*path, key))
    elif isinstance(document, list):
        for key, value in enumerate(document[:3]):
            yield from places(value, (*path, key))


@st.composite
def damaged(draw, document):
    """The document's text with one place of it replaced, removed, or cut at."""
    copy = json.loads(json.dumps(document))
    *path, last = draw(st.sampled_from(list(places(document))[1:]))
    inside = copy
    for key in path:
        inside = inside[key]
    match draw(st.integers(0, 3)):
        case 0:
            del inside[last]
        case 1 if isinstance(inside, dict):
            inside[draw(st.text(max_size=5))] = draw(hostile)
        case 2:
            text = json.dumps(document).encode()
            at = draw(st.integers(0, len(text)))
            return text[:at] + draw(st.binary(max_size=4)) + text[at + 1 :]
        case _:
            inside[last] = draw(hostile)
    return json.dumps(copy).encode()


def used_or_refused(main, *arguments):
    """Runs a command; returns its status, which is a success or a line of complaint."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(list(arguments))
        except SystemExit as box:  # tyro's box around an unknown flag
            return box.code
    error = err.getvalue()
    assert status in (0, 2)
    if status == 2:
        assert error.count("\n") == 1
        assert error.strip().isprintable()
        assert len(error) < 3_000
    return status


def refusal(read):
    """What `read` raises, as a line; None if it succeeds."""
    try:
        read()
    except (ValueError, OSError) as error:
        text = str(error)
        assert 0 < len(text) < 3_000
        assert "\n" not in text
        return text
    return None


HEADER = trials.header(
    Definition(
        search=definition.SearchOptions(space="accel-nasbench"),
        evaluation=definition.EvaluationOptions(evaluator="imagenet-surrogate"),
    ),
    num_trials=3,
).model_dump(mode="json")
CHILD = trials.completed(
    0, tokens=TOKENS, worker=Worker(host="h", pid=1), spread={"accuracy": 0.01}
).model_dump(mode="json")
FAILURE = trials.infeasible(1, "diverged", tokens=TOKENS).model_dump(mode="json")
# Of format 1, which is still read.
OLD_HEADER = {key: HEADER[key] for key in ("created", "definition", "versions")} | {
    "journal": "mbconv-nas", "version": 1, "num_children": 3, "dataset": "none",
}  # fmt: skip
OLD_CHILD = {key: CHILD[key] for key in ("tokens", "finished", "worker", "losses")} | {
    "index": 0, "asked": 1, "num_macs": 10**8, "num_params": 10**6, "reward": 0.5,
    "accuracy": 0.5, "num_steps": 2, "images_per_second": 1.0, "objective": None,
    "seconds": {"compile": 1.0, "train": 1.0, "eval": 1.0},
}  # fmt: skip
POLICY = {
    "children": 1,
    "entropy": 1.0,
    "probabilities": [[1 / n] * n for n in SPACE.num_choices],
}


def run_of(path, *lines, policy=b""):
    path.mkdir(exist_ok=True)
    folder = run_folder.RunFolder(path)
    texts = [text if isinstance(text, bytes) else json.dumps(text).encode()
             for text in lines]  # fmt: skip
    folder.journal.write_bytes(b"".join(text + b"\n" for text in texts))
    folder.policy.write_bytes(policy)
    return folder


@few
@given(header=damaged(HEADER))
def test_a_damaged_header(tmp_path, header):
    folder = run_of(tmp_path / "run", header, CHILD)
    used_or_refused(report.main, str(folder.path))
    other = run_of(tmp_path / "b", HEADER)
    output = str(tmp_path / "c.html")
    used_or_refused(report.main, str(folder.path), str(other.path), "--output", output)


@few
@given(child=st.one_of(damaged(CHILD), damaged(FAILURE)))
def test_a_damaged_child(tmp_path, child):
    folder = run_of(tmp_path / "run", HEADER, child)
    used_or_refused(report.main, str(folder.path))
    used_or_refused(search.main, "--resume", str(folder.path), "--children", "1")


def test_the_old_lines_are_lines_of_format_1(tmp_path):
    folder = run_of(tmp_path / "run", OLD_HEADER, OLD_CHILD)
    assert journal.read(folder.journal).format == 1


@few
@given(
    header=st.one_of(st.just(json.dumps(OLD_HEADER).encode()), damaged(OLD_HEADER)),
    child=st.one_of(st.just(json.dumps(OLD_CHILD).encode()), damaged(OLD_CHILD)),
)
def test_a_damaged_journal_of_format_1(tmp_path, header, child):
    folder = run_of(tmp_path / "run", header, child)
    used_or_refused(report.main, str(folder.path))
    used_or_refused(search.main, "--resume", str(folder.path), "--children", "1")


@st.composite
def snapshots(draw, whole):
    """Arrays by name: one of another shape, type or value, left out, or new."""
    copy = dict(whole)
    name = draw(st.sampled_from(sorted(copy)))
    match draw(st.integers(0, 3)):
        case 0:
            del copy[name]
        case 1:
            copy[draw(st.text("abc/.", min_size=1, max_size=5))] = np.zeros(3)
        case 2:
            copy[name] = np.ravel(copy[name])[: draw(st.integers(0, 3))]
        case _:
            kind = draw(st.sampled_from(["f8", "i8", "u1", "U3", "M8[s]", "c16"]))
            fill = draw(st.sampled_from([0, 1, 200]))
            copy[name] = np.full(np.shape(copy[name]), fill).astype(kind)
    return copy


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search of seven children, and what it kept of its controller."""
    path = tmp_path_factory.mktemp("searched") / "run"
    flags = ["--evaluator", "imagenet-surrogate", "--children", "7"]
    assert used_or_refused(search.main, *flags, "--output", str(path)) == 0
    return run_folder.RunFolder(path)


@settings(few, max_examples=15)
@given(data=st.data())
def test_a_damaged_snapshot_costs_no_child(tmp_path_factory, searched, data):
    """It may be anything: a search goes on, with each child once."""
    with np.load(searched.controller) as file:
        whole = {name: file[name] for name in file.files}
    path = tmp_path_factory.mktemp("copy") / "run"
    shutil.copytree(searched.path, path)
    folder = run_folder.RunFolder(path)
    if data.draw(st.booleans()):
        np.savez(folder.controller, **data.draw(snapshots(whole)))
    else:
        old = folder.controller.read_bytes()
        at = data.draw(st.integers(0, len(old)))
        folder.controller.write_bytes(
            old[:at] + data.draw(st.binary(max_size=9)) + old[at + 3 :]
        )
    assert used_or_refused(search.main, "--resume", str(path), "--children", "9") == 0
    found = journal.read(folder.journal).trials
    assert sorted(trial.index for trial in found) == list(range(9))
    assert len({trial.tokens for trial in found}) == 9


@few
@given(line=damaged(POLICY))
def test_a_damaged_log_of_the_policy(tmp_path, line):
    folder = run_of(tmp_path / "run", HEADER, CHILD, policy=line + b"\n")
    found = policy_log.read(folder.policy, SPACE.num_choices)
    num_lines = line.count(b"\n") + 1  # damage may cut it in two
    assert 1 <= len(found.entries) + (found.damage is not None) <= num_lines
    assert "\n" not in (found.damage or "")
    assert used_or_refused(report.main, str(folder.path)) == 0


@few
@given(text=damaged(json.loads(codec.dumps(zoo.load("mobilenet-v2"), {"by": "x"}))))
def test_a_damaged_architecture(tmp_path, text):
    path = tmp_path / "network.json"
    path.write_bytes(text)
    used_or_refused(profile.main, str(path), "--json")


TABLE = latency_table.LatencyTable(
    space="mine", device="this", resolution=32, activation="relu6", call_ms=0.1,
    blocks_ms={
        latency_table.key(block): 1.0
        for block in latency_table.layers.blocks(zoo.load("mobilenet-v2"))
    },
)  # fmt: skip


@few
@given(text=damaged(json.loads(latency_table.dumps(TABLE))))
def test_a_damaged_table_of_latencies(tmp_path, text):
    path = tmp_path / "table.json"
    path.write_bytes(text)
    network = zoo.load("mobilenet-v2")
    refusal(lambda: latency_table.load(path).predict(network))


METADATA = {
    "version": 1, "mean": [1.0], "std": [2.0], "class_names": ["a"], "weights": "w",
}  # fmt: skip


@few
@given(text=damaged(METADATA))
def test_a_damaged_card_of_a_model(tmp_path, text):
    spec = zoo.load("mobilenet-v2")
    (tmp_path / saved.ARCHITECTURE).write_text(codec.dumps(spec))
    (tmp_path / saved.METADATA).write_bytes(text)
    # It is for one channel and one class where the network has three and a thousand,
    # so that not even the whole one gets as far as the weights.
    assert refusal(lambda: saved.load(tmp_path))


@few
@given(text=damaged({"version": 1, "starts": [{"seed": 1}]}))
def test_a_damaged_config(tmp_path, text):
    folder = run_folder.RunFolder(tmp_path)
    folder.config.write_bytes(text)
    refusal(lambda: provenance.write_config(folder, command=[], options={}, seed=0))


@few
@given(text=damaged(json.loads(train._JSON.dump_json(train.Options()))))
def test_damaged_options_of_a_training(tmp_path, text):
    (tmp_path / train.OPTIONS).write_bytes(text)
    refusal(lambda: train.parse(["--resume", str(tmp_path)]))


VALUES = st.one_of(
    st.text(max_size=12),
    st.integers().map(str),
    st.sampled_from(
        ["nan", "inf", "-1", "0", "1e999", "9" * 5_000, "~nobody", "../..", "a:b", "=",
         "os:path", "os:nothing", "\x1b[2J", "x" * 5_000, "*.kernel=3", "[", "400M"]
    ),
)  # fmt: skip
FLAGS = st.sampled_from(
    ["--children", "--target-flops", "--space", "--restrict", "--controller", "--seed",
     "--rewards-per-update", "--reward", "--exponent-below", "--beta", "--objective",
     "--cost", "--evaluator", "--target", "--target-latency", "--latency-table",
     "--dataset", "--data-dir",
     "--validation", "--steps", "--batch-size", "--resolution", "--learning-rate",
     "--resume", "--workers", "--nonsense"]
)  # fmt: skip


@few
@given(given_flags=st.lists(st.tuples(FLAGS, VALUES), min_size=1, max_size=3))
def test_arguments_of_a_search(tmp_path_factory, monkeypatch, given_flags):
    monkeypatch.setattr(driver, "_carry_on", lambda *_: 0)
    output = tmp_path_factory.mktemp("out")
    flags = [part for pair in given_flags for part in pair]
    used_or_refused(search.main, *flags, "--output", str(output))


@few
@given(
    first=VALUES,
    given_flags=st.lists(
        st.tuples(
            st.sampled_from(
                ["--phi", "--target-flops", "--target-memory", "--alpha", "--beta",
                 "--gamma", "--preset", "--memory-batch", "--rounding"]
            ),
            VALUES | st.floats().map(str),
        ),
        max_size=3,
    ),
)  # fmt: skip
def test_arguments_of_scaling(tmp_path_factory, first, given_flags):
    output = tmp_path_factory.mktemp("out")
    flags = [part for pair in given_flags for part in pair]
    for architecture in (first, "efficientnet-lite0"):
        used_or_refused(
            scale.main, architecture, *flags, "--output", str(output / "family")
        )


@few
@given(words=st.lists(VALUES, max_size=3))
def test_arguments_of_a_report_and_a_profile(words):
    used_or_refused(report.main, *words)
    used_or_refused(profile.main, *words)


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_text("mine")
    return path


@pytest.mark.parametrize(
    "name",
    [
        ".lock",
        "journal.jsonl",
        "config.json",
        "tensorboard",
        "policy.jsonl",
        "controller.npz",
    ],
)
def test_a_run_with_a_link_is_not_resumed_nor_is_the_link_read(tmp_path, secret, name):
    folder = run_of(tmp_path / "run", HEADER, CHILD)
    if name == "journal.jsonl":
        (tmp_path / "real").write_bytes(folder.journal.read_bytes())
        secret = tmp_path / "real"
    before = secret.read_bytes()
    (folder.path / name).unlink(missing_ok=True)
    (folder.path / name).symlink_to(secret)
    assert used_or_refused(search.main, "--resume", str(folder.path)) == 2
    is_read = name in ("journal.jsonl", "policy.jsonl")
    assert used_or_refused(report.main, str(folder.path)) == (2 if is_read else 0)
    assert secret.read_bytes() == before


def test_a_report_does_not_write_through_links(tmp_path, secret):
    folder = run_of(tmp_path / "run", HEADER, CHILD)
    for path in (folder.report, folder.best, folder.pareto):
        path.symlink_to(secret)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.symlink_to(secret)
    assert used_or_refused(report.main, str(folder.path)) == 0
    assert secret.read_text() == "mine"
    assert not folder.report.is_symlink()


@pytest.mark.parametrize("name", ["journal.jsonl", "policy.jsonl"])
@pytest.mark.parametrize("what", ["pipe", "sparse", "device", "line"])
def test_what_is_endless_or_enormous_is_refused_at_once(tmp_path, name, what):
    folder = run_of(tmp_path / "run", HEADER, CHILD)
    path = folder.path / name
    path.unlink()
    if what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "sparse":
        with path.open("wb") as file:
            file.truncate(2**40)
    else:
        path.write_bytes(b"[" * 100_000_000 + b"\n")
    start = time.process_time()
    # A report does without the policy's log, but for a link: it could be published.
    is_needed = name == "journal.jsonl" or what == "device"
    assert used_or_refused(report.main, str(folder.path)) == (2 if is_needed else 0)
    assert time.process_time() - start < 2.0 + (not is_needed)
    if not is_needed:
        assert "Left out: " in folder.report.read_text()


def test_an_enormous_architecture_is_refused_at_once(tmp_path):
    path = tmp_path / "network.json"
    with path.open("wb") as file:
        file.truncate(2**30)
    start = time.process_time()
    assert used_or_refused(profile.main, str(path)) == 2
    wide = json.loads(codec.dumps(zoo.load("mobilenet-v2")))
    wide["architecture"]["stages"][0]["channels"] = 10**9
    path.write_text(json.dumps(wide))
    assert used_or_refused(profile.main, str(path)) == 2
    assert time.process_time() - start < 1.0


def test_weights_beyond_the_memory_are_refused_before_they_are_made():
    stage = {
        "kind": "mbconv", "channels": 16_384, "kernel": 3, "stride": 1,
        "expansion": 16, "repeats": 256,
    }  # fmt: skip
    wide = json.loads(codec.dumps(zoo.load("mobilenet-v2")))
    wide["architecture"]["stages"] = [stage] * 4
    with pytest.raises(ValueError, match="must fit this machine's memory"):
        saved.fresh(codec.loads(json.dumps(wide)), seed=0)


class Bomb:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return (exec, ("import sys; sys.exploded = True",))


def _archive(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **{k: np.array(v, object) for k, v in arrays.items()})
    return buffer.getvalue()


def test_nothing_in_a_run_s_folder_is_run(tmp_path, monkeypatch):
    record = json.loads(json.dumps(HEADER))
    record["definition"]["search"]["space"] = "evil:space"
    folder = run_of(tmp_path / "run", record, CHILD)
    monkeypatch.syspath_prepend(folder.path)
    (folder.path / "evil.py").write_text("import sys; sys.exploded = True")
    for name in ("searcher.pkl", "config.pkl", "experiment_state.pkl", "last.npz"):
        (folder.path / name).write_bytes(pickle.dumps(Bomb()))
    assert used_or_refused(report.main, str(folder.path)) == 2
    assert used_or_refused(search.main, "--resume", str(folder.path)) == 2
    plain = run_of(tmp_path / "run", HEADER, CHILD)
    assert used_or_refused(report.main, str(plain.path)) == 0
    for content in (pickle.dumps(Bomb()), _archive(state_0000=[Bomb()])):
        plain.controller.write_bytes(content)
        plain.journal.write_bytes(
            json.dumps(HEADER).encode() + b"\n" + json.dumps(CHILD).encode() + b"\n"
        )
        resumed = ("--resume", str(plain.path), "--children", "2")
        assert used_or_refused(search.main, *resumed) == 0
    assert not hasattr(sys, "exploded")
