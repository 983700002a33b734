import pytest

from experiments.benchmarks import default_search
from nas.runs import journal


def _child(index: int, *, reward: float, finished: float, worker: int):
    return journal.Trained(
        index=index,
        asked=index + 1,
        tokens=(0,),
        num_macs=100 + index,
        num_params=1,
        finished=finished,
        worker=journal.Worker(host="here", pid=worker),
        reward=reward,
        accuracy=reward / 2,
        losses=(1.0,),
        num_steps=1,
        images_per_second=1.0,
        seconds=journal.Seconds(compile=1.0, train=2.0, eval=1.0),
    )


def test_figures_of_a_search_counted_by_hand():
    children = (
        _child(0, reward=0.1, finished=1_005.0, worker=1),
        _child(1, reward=0.4, finished=1_006.0, worker=2),
        _child(2, reward=0.3, finished=1_009.5, worker=1),  # waited half a second
        _child(3, reward=0.2, finished=1_010.1, worker=2),  # waited a tenth
    )
    header = journal.Header(
        created=1_000.0, num_children=4, definition={}, dataset="", versions={}
    )
    read = journal.Contents(
        header=header, children=children, num_bytes=0, num_last_bytes=0
    )

    figures = default_search.summary(read)

    assert figures["first_reward_s"] == pytest.approx(5.0)
    assert figures["first_quarter"] == pytest.approx(0.1)
    assert figures["last_quarter"] == pytest.approx(0.2)
    assert figures["best"] == {"reward": 0.4, "accuracy": 0.2, "num_macs": 101}
    assert figures["compile_share"] == pytest.approx(1 / 4)
    assert figures["wait_s"] == pytest.approx(0.3)
