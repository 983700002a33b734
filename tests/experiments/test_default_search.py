import pytest

from experiments.benchmarks import default_search
from nas.runs import journal
from nas.study.trial import Worker
from tests.nas import trials
from trainers.measurement import Seconds


def _child(index: int, *, reward: float, finished: float, worker: int):
    return trials.completed(
        index,
        reward=reward,
        finished=finished,
        worker=Worker(host="here", pid=worker),
        metrics={"accuracy": reward / 2, "num_macs": 100 + index},
        seconds=Seconds(compile=1.0, train=2.0, eval=1.0),
    )


def test_figures_of_a_search_counted_by_hand():
    children = (
        _child(0, reward=0.1, finished=1_005.0, worker=1),
        _child(1, reward=0.4, finished=1_006.0, worker=2),
        _child(2, reward=0.3, finished=1_009.5, worker=1),  # waited half a second
        _child(3, reward=0.2, finished=1_010.1, worker=2),  # waited a tenth
    )
    read = journal.Contents(
        header=trials.header(created=1_000.0, num_trials=4),
        trials=children,
        again=(),
        num_bytes=0,
        first_line=b"",
        last_line=b"",
    )

    figures = default_search.summary(read)

    assert figures["first_reward_s"] == pytest.approx(5.0)
    assert figures["first_quarter"] == pytest.approx(0.1)
    assert figures["last_quarter"] == pytest.approx(0.2)
    assert figures["best"] == {"reward": 0.4, "accuracy": 0.2, "num_macs": 101}
    assert figures["compile_share"] == pytest.approx(1 / 4)
    assert figures["wait_s"] == pytest.approx(0.3)
