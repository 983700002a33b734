"""Ten thousand damaged files and command lines: a use or one line, nothing else.

`make test` tries sixty inputs; `make fuzz` tries FUZZ_INPUTS (10,000) from FUZZ_SEED
(0), and FUZZ_PROCESSES (300) of them in processes of their own. With FUZZ_LOG it notes
each in that file, and a run that was stopped goes on from it.
"""

import collections
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.fuzz import harness
from tests.fuzz.inputs import Inputs

# Here a library's warning is no error: a user would not even see most of them.
pytestmark = pytest.mark.filterwarnings("ignore")

_SLICE = 60
_ROOM_BYTES = 8 * 2**30  # that an input may have allocated at most
_SECONDS = int(os.environ.get("FUZZ_SECONDS", "60"))


def _try(inputs: Inputs, number: int, stubs, surroundings: Path) -> dict:
    """Tries one input; returns what there is to note of it."""
    tried = inputs.make(number)
    stubs.searches = tried.searches
    before = harness.state_of(surroundings)
    start = time.perf_counter()
    ending = harness.run(tried, seconds=_SECONDS)
    fault = ending.fault
    if harness.state_of(surroundings) != before:
        fault = "wrote outside"
    return {
        "number": number,
        "kind": tried.what.partition(":")[0],
        "what": tried.what,
        "argv": [tried.command, *(a[:80] for a in tried.arguments)],
        "status": ending.status,
        "fault": fault,
        "seconds": round(time.perf_counter() - start, 2),
        "details": ending.details,
    }


def _faults(notes: list[dict]) -> list[str]:
    return [f"{n['number']} {n['fault']}: {n['argv']} {n['what']}\n{n['details']}"
            for n in notes if n["fault"]]  # fmt: skip


def test_a_slice_of_damaged_files_and_command_lines(bench, stubs):
    whole, surroundings = bench
    inputs = Inputs(whole, surroundings, seed=int(os.environ.get("FUZZ_SEED", "0")))
    notes = [_try(inputs, number, stubs, surroundings) for number in range(_SLICE)]
    assert _faults(notes) == []
    # Neither everything is refused nor everything used: the damage is of some depth.
    ended = collections.Counter(note["status"] for note in notes)
    assert ended[0] > _SLICE / 10
    assert ended[2] > _SLICE / 10


@pytest.mark.fuzz
@pytest.mark.timeout(0)
def test_ten_thousand_damaged_files_and_command_lines(bench, stubs, tmp_path):
    whole, surroundings = bench
    log = Path(os.environ.get("FUZZ_LOG", tmp_path / "fuzz.jsonl"))
    seed = int(os.environ.get("FUZZ_SEED", "0"))
    total = int(os.environ.get("FUZZ_INPUTS", "10000"))
    notes = _noted(log)
    limit = psutil.Process().memory_info().vms + _ROOM_BYTES
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    inputs = Inputs(whole, surroundings, seed)
    try:
        with log.open("a") as file:
            for number in range(total):
                if number in notes:
                    continue
                # What ends this process is found where the next run goes on.
                begun = {"number": number, "fault": "ended the process"}
                for note in (begun, _try(inputs, number, stubs, surroundings)):
                    file.write(json.dumps(note) + "\n")
                    file.flush()
                    notes[number] = note
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    kinds = collections.Counter(n.get("kind", "?") for n in notes.values())
    statuses = collections.Counter(n.get("status") for n in notes.values())
    sys.stdout.write(f"\n{len(notes)} inputs: {dict(kinds)}, {dict(statuses)}\n")
    nothing = {"argv": "", "what": "", "details": ""}
    assert _faults([nothing | note for note in notes.values()]) == []


def _noted(log: Path) -> dict[int, dict]:
    """The last note of each input in a log."""
    if not log.exists():
        return {}
    lines = map(json.loads, log.read_text().splitlines())
    return {note["number"]: note for note in lines}


@pytest.mark.fuzz
@pytest.mark.timeout(0)
def test_the_same_in_processes_of_their_own(bench):
    """Command lines alone: what a process adds are its streams, imports and end."""
    whole, surroundings = bench
    inputs = Inputs(whole, surroundings, seed=1)
    number = tried = 0
    faults = []
    total = int(os.environ.get("FUZZ_PROCESSES", "300"))
    while tried < total:
        number += 1
        made = inputs.make(number)
        if made.command in ("search", "scale", "train") or "--serve" in made.arguments:
            continue  # might train or serve for long
        if any("\0" in argument for argument in made.arguments):
            continue  # cannot be passed to a process
        tried += 1
        before = harness.state_of(surroundings)
        try:
            ended = subprocess.run(
                [sys.executable, *harness.as_process(made.command, made.arguments)],
                capture_output=True, text=True, errors="replace", check=False,
                stdin=subprocess.DEVNULL, timeout=5 * _SECONDS,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            fault = "hang"
        else:
            is_usage = "─" in ended.stderr
            fault = harness.fault_of(
                ended.returncode, ended.stdout, ended.stderr, is_usage=is_usage
            )
        if harness.state_of(surroundings) != before:
            fault = "wrote outside"
        if fault:
            faults.append((fault, made))
    assert faults == []
