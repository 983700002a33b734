"""Tests for nas.runs.journal."""

import json
import resource
import signal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.runs import journal
from nas.study.metrics import ACCURACY, NUM_MACS, NUM_PARAMS
from nas.study.trial import CompletedTrial, InfeasibleTrial, Worker
from trainers.measurement import Seconds

HEADER = journal.Header(
    kind="search",
    created=1.7e9,
    num_trials=10,
    definition={"space": "mbconv", "restrict": ["a=1"]},
    metrics=(ACCURACY, NUM_MACS, NUM_PARAMS),
    objectives=("accuracy", "num_macs"),
    dataset="digits",
    versions={"jax": "0.10.2"},
)

# A short alphabet: building the table of all characters takes seconds.
_texts = st.text('a\n"\\<é\u2028😀\0', max_size=20)
_amounts = st.floats(0, 1e6, allow_nan=False)
_workers = st.none() | st.builds(Worker, host=_texts, pid=st.integers(0, 2**22))
_seconds = st.builds(Seconds, compile=_amounts, train=_amounts, eval=_amounts)
_numbers = st.integers(0, 10**12) | st.floats(-1e9, 1e9)
_metrics = st.fixed_dictionaries(
    {"accuracy": _numbers, "num_macs": _numbers, "num_params": _numbers},
    optional={"latency_ms": _numbers},
)


def completed(index, *, asked=None, reward=0.5, accuracy=0.9, num_macs=10**8):
    return CompletedTrial(
        index=index,
        asked=index + 1 if asked is None else asked,
        tokens=(index, 1),
        metrics={"accuracy": accuracy, "num_macs": num_macs, "num_params": 1_000},
        finished=1.7e9 + index,
        worker=Worker(host="here", pid=1),
        reward=reward,
        spread={"accuracy": 0.01},
        losses=(2.3, 1.1),
        num_steps=2,
        seconds=Seconds(compile=1.0, train=2.0, eval=0.1),
    )


@st.composite
def _trials(draw):
    """Trials in an order that a search can lead to."""
    asked = 0
    trials = []
    for index in draw(st.permutations(range(draw(st.integers(0, 6))))):
        asked = max(asked, index + 1) + draw(st.integers(0, 2))
        basics = {
            "index": index,
            "asked": draw(st.sampled_from([asked, None])),
            "tokens": tuple(draw(st.lists(st.integers(0, 9), max_size=4))),
            "metrics": draw(_metrics),
            "finished": draw(_amounts),
            "worker": draw(_workers),
        }
        if draw(st.booleans()):
            trial = InfeasibleTrial(**basics, infeasible=draw(_texts))
        else:
            trial = CompletedTrial(
                **basics,
                reward=draw(st.floats(-10, 10)),
                spread=draw(st.dictionaries(st.just("accuracy"), _amounts)),
                losses=tuple(draw(st.lists(_amounts, max_size=3))),
                num_steps=draw(st.integers(0, 1000)),
                seconds=draw(_seconds),
            )
        trials.append(trial)
    return trials


def write(path, trials):
    journal.create(path, HEADER)
    with journal.Writer(path, journal.read(path)) as writer:
        for trial in trials:
            writer.append(trial)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A module's folder: Hypothesis runs one test's examples in one fixture."""
    return tmp_path_factory.mktemp("journal")


@settings(deadline=None)  # each example syncs a disk
@given(trials=_trials())
def test_what_is_appended_is_read_back(folder, trials):
    path = folder / "round-trip.jsonl"
    path.unlink(missing_ok=True)
    contents = journal.read(write(path, trials))
    assert contents.header == HEADER
    assert list(contents.trials) == trials
    assert contents.num_bytes == path.stat().st_size


@settings(deadline=None)
@given(trials=_trials(), data=st.data())
def test_a_journal_cut_anywhere_keeps_its_complete_lines(folder, trials, data):
    path = folder / "cut.jsonl"
    path.unlink(missing_ok=True)
    whole = write(path, trials).read_bytes()
    header_ends = whole.index(b"\n") + 1
    cut = data.draw(st.integers(header_ends, len(whole)))
    path.write_bytes(whole[:cut])

    num_left = whole[:cut].count(b"\n") - 1
    contents = journal.read(path)
    assert list(contents.trials) == trials[:num_left]

    # The rest appended again makes the file that was never cut.
    with journal.Writer(path, contents) as writer:
        for trial in trials[num_left:]:
            writer.append(trial)
    assert path.read_bytes() == whole


def test_every_line_is_json_with_the_promised_keys(tmp_path):
    path = write(tmp_path / "j", [completed(0)])
    header, trial = map(json.loads, path.read_text().splitlines())
    assert header["version"] == 2
    assert header["metrics"][0] == {"name": "accuracy", "unit": "share", "goal": "max"}
    assert trial["tokens"] == [0, 1]
    assert trial["metrics"]["num_macs"] == 10**8


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda _: b"garbage", "line 3: line: Invalid JSON"),
        (lambda _: b"", "line 3"),
        (lambda line: line.replace(b'"reward":0.5', b'"reward":"0.5"'), "reward"),
        (lambda line: line.replace(b'"reward":0.5', b'"reward":NaN'), "reward"),
        (lambda line: line.replace(b'"reward":0.5,', b""), "reward"),
        (lambda line: line.replace(b'"accuracy":0.9', b'"accuracy":"a"'), "accuracy"),
        (lambda line: line.replace(b'{"index"', b'{"extra":1,"index"'), "extra"),
        (lambda line: line.replace(b'"index":1', b'"index":0'), "twice"),
        (lambda line: line.replace(b'"asked":2', b'"asked":1'), "asked"),
        (lambda line: line.replace(b'"tokens":[1', b'"tokens":[-1'), "tokens"),
        (lambda _: b"[" * 100_000, "line 3"),
    ],
)
def test_a_damaged_middle_is_refused_in_one_line(tmp_path, damage, told):
    path = write(tmp_path / "j", [completed(0), completed(1), completed(2)])
    lines = path.read_bytes().split(b"\n")
    damaged = damage(lines[2])
    assert damaged != lines[2]
    lines[2] = damaged
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(journal.JournalError, match="line 3") as error:
        journal.read(path)
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1_000


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(folder, data):
    path = folder / "bytes.jsonl"
    path.write_bytes(data)
    with pytest.raises(journal.JournalError):
        journal.read(path)


def test_an_endless_line_is_refused(tmp_path):
    path = tmp_path / "j"
    path.write_bytes(b"x" * (journal.MAX_LINE_BYTES + 1))
    with pytest.raises(journal.JournalError, match="longer than"):
        journal.read(path)


def test_a_missing_journal_is_named(tmp_path):
    with pytest.raises(journal.JournalError, match=r"gone.*No such file"):
        journal.read(tmp_path / "gone")


def test_a_newer_version_is_refused(tmp_path):
    path = write(tmp_path / "j", [])
    path.write_text(path.read_text().replace('"version":2', '"version":3'))
    with pytest.raises(journal.JournalError, match="version"):
        journal.read(path)


def test_objectives_must_be_metrics():
    facts = {name: getattr(HEADER, name) for name in type(HEADER).model_fields}
    with pytest.raises(ValueError, match="'speed' is none of the metrics"):
        journal.Header(**facts | {"objectives": ("speed",)})


def test_what_was_added_is_read_on(tmp_path):
    path = write(tmp_path / "j", [completed(0)])
    before = journal.read(path)
    with journal.Writer(path, before) as writer:
        writer.append(completed(1))
    after = journal.read(path, before)
    assert after == journal.read(path)
    assert after.header is before.header


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_journal_in_anothers_place_is_read_anew(tmp_path, number):
    path = write(tmp_path / "j", [completed(0), completed(1)])
    before = journal.read(path)
    path.unlink()
    write(path, [completed(index, reward=0.25) for index in range(number)])
    after = journal.read(path, before)
    assert after == journal.read(path)
    assert after.header is not before.header


def test_a_journal_is_never_replaced(tmp_path):
    path = write(tmp_path / "j", [completed(0)])
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        journal.create(path, HEADER)
    assert path.read_bytes() == before


def test_a_link_is_not_written_through(tmp_path):
    victim = write(tmp_path / "victim", [])
    link = tmp_path / "j"
    link.symlink_to(victim)
    before = victim.read_bytes()
    with pytest.raises(OSError, match="symbolic links"):
        journal.Writer(link, journal.read(link))
    assert victim.read_bytes() == before


def test_a_full_disk_loses_only_the_child_that_did_not_fit(tmp_path):
    """A limit on file sizes stands in for the full disk: the write is cut short."""
    path = write(tmp_path / "j", [completed(0)])
    size = path.stat().st_size
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limits[1]))
    try:
        with (
            journal.Writer(path, journal.read(path)) as writer,
            pytest.raises(OSError, match="too large"),
        ):
            writer.append(completed(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.stat().st_size == size + 100
    assert journal.read(path).trials == (completed(0),)
