"""Tests of what is said of a search: display, progress, scalars."""

import io
import re

import pytest
from rich.console import Console
from tensorboardX.proto.event_pb2 import Event

from nas.monitoring.display import LiveDisplay, PlainDisplay, describe
from nas.monitoring.progress import Progress
from nas.monitoring.scalars import Scalars
from nas.study.metrics import ACCURACY, LATENCY_MS, NUM_MACS, NUM_PARAMS, Metric
from nas.study.trial import Trial
from search_space import zoo
from tests.nas import trials

OBJECTIVES = (ACCURACY, NUM_MACS)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def completed(index, reward, **metrics):
    measured = {"accuracy": 0.9, "num_macs": 385_814_752} | metrics
    return trials.completed(index, reward=reward, metrics=measured)


def pending(index):
    return Trial(index=index, tokens=(0,), spec=zoo.load("mnasnet-b1"), seed=0)


def start(num_trials, **options):
    return Progress(num_trials=num_trials, objectives=OBJECTIVES, **options)


def test_pace_and_time_left_by_hand():
    """Ten seconds for each child, so 360 an hour; six of ten left, a minute."""
    clock = Clock()
    progress = start(10, clock=clock)
    assert progress.children_per_hour is None
    for index in range(4):
        clock.now += 10.0
        progress.finished(completed(index, 0.1 * index))
    assert progress.children_per_hour == pytest.approx(360.0)
    assert progress.seconds_left == pytest.approx(60.0)
    clock.now += 40.0  # four more children's worth of nothing
    assert progress.children_per_hour == pytest.approx(180.0)


def test_a_resumed_search_counts_all_children_and_times_its_own():
    clock = Clock()
    earlier = [completed(0, 0.9), trials.infeasible(1, "no")]
    progress = start(4, earlier=earlier, clock=clock)
    assert (progress.num_done, progress.num_infeasible) == (2, 1)
    assert progress.best == earlier[0]
    assert progress.seconds_left is None
    clock.now += 30.0
    progress.finished(completed(2, 0.5))
    assert progress.best == earlier[0]
    assert progress.seconds_left == pytest.approx(30.0)


def shown(children, *, terminal, seconds_apart=1.0):
    clock = Clock()
    text = io.StringIO()
    console = Console(
        file=text, force_terminal=terminal, width=150, force_interactive=terminal
    )
    progress = start(len(children), clock=clock)
    plain = PlainDisplay(console, progress, clock)
    with LiveDisplay(console, progress) if terminal else plain as screen:
        for child in children:
            progress.started(pending(child.index))
            screen.started(pending(child.index))
            clock.now += seconds_apart
            progress.finished(child)
            screen.finished(child)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.getvalue())  # colours, moves


def test_plain_lines_tell_reward_accuracy_and_size():
    lines = shown([completed(0, 0.81), completed(1, 0.79)], terminal=False).splitlines()
    assert lines == [
        "[1/2] child 0: reward 0.8100, accuracy 90.00%, 386M multiply-adds; best so "
        "far; 3,600 an hour, about 1 s left",
        "[2/2] child 1: reward 0.7900, accuracy 90.00%, 386M multiply-adds; best "
        "0.8100",
    ]


def test_thousands_of_quick_children_do_not_make_thousands_of_lines():
    children = [completed(index, 0.5) for index in range(1000)]
    lines = shown(children, terminal=False, seconds_apart=0.01).splitlines()
    assert len(lines) == pytest.approx(10.0 / 0.5, abs=3)
    assert lines[-1].startswith("[1000/1000]")


@pytest.mark.parametrize("terminal", [True, False])
def test_a_reason_is_text_and_not_markup(terminal):
    text = shown(
        [trials.infeasible(0, "[bold]oom[/nonsense]\nline two")], terminal=terminal
    )
    assert "[bold]oom[/nonsense] line two" in text


def test_the_live_view_ends_with_the_counts():
    text = shown([completed(0, 0.5), trials.infeasible(1, "no")], terminal=True)
    assert "2 of 2 done, 0 under way, 1 infeasible" in text
    assert "child 0: reward 0.5000" in text


def events(folder):
    """Reads TensorBoard's files by their format, not by the writer's library."""
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = Event()
            event.ParseFromString(data[12 : 12 + length])
            for value in event.summary.value:
                yield value.tag, event.step, value.simple_value
            data = data[16 + length :]


def test_scalars_have_one_step_a_child_over_a_resume(tmp_path):
    children = [completed(0, 0.25), completed(1, 0.75), completed(2, 0.5)]
    for earlier, later in ((0, 2), (2, 3)):
        progress = start(3, earlier=children[:earlier])
        scalars = Scalars(tmp_path, progress)
        for child in children[earlier:later]:
            progress.finished(child)
            scalars.finished(child)
        scalars.close()
    logged = list(events(tmp_path))
    rewards = [(step, value) for tag, step, value in logged if tag == "child/reward"]
    best = [value for tag, _, value in logged if tag == "search/best_reward"]
    assert rewards == [(1, 0.25), (2, 0.75), (3, 0.5)]
    assert best == [0.25, 0.75, 0.75]


def test_every_metric_is_logged_under_its_name(tmp_path):
    progress = start(1)
    scalars = Scalars(tmp_path, progress)
    trial = completed(0, 0.25, latency_ms=12.5)
    progress.finished(trial)
    scalars.finished(trial)
    scalars.close()
    logged = {tag: value for tag, _, value in events(tmp_path)}
    assert logged["child/latency_ms"] == 12.5
    assert logged["child/num_params"] == 4_000_000


def test_a_child_is_described_by_what_the_search_weighs():
    speed = Metric(name="throughput", unit="images/s", goal="max")
    trial = completed(3, 0.5, throughput=9123.4)
    assert describe(trial, (ACCURACY, speed)) == (
        "child 3: reward 0.5000, accuracy 90.00%, throughput 9123 images/s, "
        "386M multiply-adds"
    )
    assert describe(trial, OBJECTIVES) == (
        "child 3: reward 0.5000, accuracy 90.00%, 386M multiply-adds"
    )
    three = (ACCURACY, LATENCY_MS, NUM_PARAMS)
    assert describe(completed(3, 0.5, latency_ms=12.5), three) == (
        "child 3: reward 0.5000, accuracy 90.00%, latency_ms 12.5 ms, 4M parameters, "
        "386M multiply-adds"
    )
