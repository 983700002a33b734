"""The first signal ends a process that departs at once, whatever it is doing."""

import signal
import subprocess
import sys
import time

import pytest

from nas.execution.interrupts import Departure

# A minute in C, which no Python handler interrupts, with the main thread in it.
BUSY = (
    "import hashlib\n"
    "print('busy', flush=True)\n"
    "hashlib.pbkdf2_hmac('sha1', b'', b'', 10**8)"
)
# A library's thread that complains at the end, in a process that cleans up.
THREADS = (
    "import threading, time\n"
    "threading.Thread(target=lambda: time.sleep(60)).start()\n"
    "print('busy', flush=True)\n"
    "try: time.sleep(60)\n"
    "finally: print('cleaned up')"
)
SCRIPT = (
    "from nas.execution.interrupts import Departure\nwith Departure('Go on with it'):\n"
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("work", [BUSY, THREADS])
@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_ends_it_with_one_line(number, work, times):
    indented = "".join(f"    {line}\n" for line in work.splitlines())
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT + indented],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "busy\n"
    for _ in range(times):
        process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (out, err) == ("Go on with it\n", "")
    assert process.returncode == 128 + number


def test_signals_go_back_to_whatever_had_them():
    before = signal.getsignal(signal.SIGINT)
    with Departure("never said"):
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before
    assert signal.set_wakeup_fd(-1) == -1


def test_other_signals_are_none_of_its_business():
    """pytest-timeout's alarm is one."""
    heard = []
    before = signal.signal(signal.SIGALRM, lambda *_: heard.append(1))
    try:
        with Departure("never said"):
            signal.raise_signal(signal.SIGALRM)
            time.sleep(0.2)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert heard == [1]
