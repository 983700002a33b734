"""Tests for nas.execution.tune: what ended an attempt, from Ray's account of it.

The accounts are Ray 2.60's, with shorter paths.
"""

import pytest

from nas.execution.tune import exception_in

IN_A_METHOD = """\
\x1b[36mray::ChildTrainable.train()\x1b[39m (pid=7, ip=127.0.0.1, actor_id=ab, repr=...)
  File "/site/ray/tune/trainable/trainable.py", line 328, in train
    result = self.step()
  File "/home/me/evaluator.py", line 12, in evaluate
    return table[spec.name]
KeyError: 'mnasnet-a1'
"""
WHILE_SET_UP = """\
The actor died because of an error raised in its creation task, \
ray::ChildTrainable.__init__() (pid=7, ip=127.0.0.1, actor_id=ab, repr=...)
  File "/site/nas/worker.py", line 47, in setup
    _check_platform(allotment)
RuntimeError: a worker with 1 core and 1 GPU must find just that
"""
KILLED = """\
The actor died unexpectedly before finishing this task.
\tclass_name: ChildTrainable
\tactor_id: ab
\tpid: 7
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR
"""
NODE_LOST = """\
The actor died unexpectedly before finishing this task.
\tclass_name: ChildTrainable
The actor is dead because its node has died. Node Id: 12
"""
OUT_OF_MEMORY = """\
Task was killed due to the node running low on memory.
Memory on the node was 15.2GB / 16.0GB; top 10 memory users:
PID\tMEM(GB)\tCOMMAND
7\t9.10\tray::ChildTrainable.train
8\t0.30\tray::IDLE
"""
ARGUMENT_LOST = """\
ray::ChildTrainable.train() (pid=7, ip=127.0.0.1)
  At least one of the input arguments for this task could not be computed:
ray.exceptions.OwnerDiedError: Failed to retrieve object ff.
"""


def account(tmp_path, *attempts):
    path = tmp_path / "error.txt"
    path.write_text(
        "".join(
            f"Failure # {number} (occurred at 2026-11-27_11-00-00)\n{attempt}\n"
            for number, attempt in enumerate(attempts, start=1)
        )
    )
    return str(path)


@pytest.mark.parametrize(
    ("attempt", "reason"),
    [
        (IN_A_METHOD, "KeyError: 'mnasnet-a1' (evaluator.py, line 12, in evaluate)"),
        (
            WHILE_SET_UP,
            "RuntimeError: a worker with 1 core and 1 GPU must find just that "
            "(worker.py, line 47, in setup)",
        ),
    ],
)
def test_an_exception_is_told_from_a_worker_that_died(tmp_path, attempt, reason):
    assert exception_in(account(tmp_path, attempt)) == reason
    assert exception_in(account(tmp_path, KILLED, attempt)) == reason


@pytest.mark.parametrize("attempt", [KILLED, NODE_LOST, OUT_OF_MEMORY, ARGUMENT_LOST])
def test_dead_workers_and_lost_machines_are_no_exceptions(tmp_path, attempt):
    assert exception_in(account(tmp_path, attempt)) is None
    assert exception_in(account(tmp_path, KILLED, attempt)) is None
