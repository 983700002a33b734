"""Ctrl-C and SIGTERM: a search ends in good order, a training run at once.

Nothing heavier than the standard library is imported here: commands take signals over
before they import what takes seconds.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Generator
from types import FrameType
from typing import NoReturn, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """The search was asked to stop. Not an Exception: nothing should swallow it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_status = 128 + signal_number  # as shells count


class Interrupts:
    """Catches signals; `check` raises what arrived while `deferred`."""

    def __init__(self) -> None:
        self._arrived: int | None = None
        self._deferred = False

    def install(self) -> None:
        """Takes SIGINT and SIGTERM over, also from a library that took them."""
        for number in _SIGNALS:
            signal.signal(number, self._handle)

    @contextlib.contextmanager
    def deferred(self) -> Generator[None]:
        """Holds the first signal back until `check` is called.

        An exception out of a handler can come up in the middle of anything, callbacks
        that swallow it included; `check` is called where it is safe.
        """
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def check(self) -> None:
        """Raises Interrupted if a signal has arrived."""
        if self._arrived is not None:
            raise Interrupted(self._arrived)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._arrived is not None:
            _quit(number)
        self._arrived = number
        if not self._deferred:
            raise Interrupted(number)


class Departure:
    """Ends the process at the first SIGINT or SIGTERM, whatever it is doing.

    For work of which every state on the disk can be gone on with: ended like this it
    leaves what `kill -9` leaves, and libraries' threads get no chance to complain. A
    thread does it, because Python's handlers run in the main thread, which may be
    compiling for a minute.
    """

    def __init__(self, last_words: str) -> None:
        """Takes nothing over yet; `last_words` is the line to end with."""
        self.last_words = last_words
        self._has_signal = False

    def begin(self) -> None:
        """Takes the signals over, from the main thread."""
        reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        threading.Thread(target=self._wait, args=(reader,), daemon=True).start()
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._handlers = {n: signal.signal(n, self._handle) for n in _SIGNALS}

    def end(self) -> None:
        """Gives them back to whatever had them."""
        for number, handler in self._handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._writer)

    def __enter__(self) -> Self:
        """Begins."""
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends."""
        self.end()

    def _wait(self, reader: int) -> None:
        """Reads the numbers of signals as they arrive."""
        while number := os.read(reader, 1):
            if number[0] in _SIGNALS:
                self._leave(number[0])
        os.close(reader)

    def _leave(self, number: int) -> NoReturn:
        start = "\n" if os.isatty(1) else ""  # after the terminal's ^C
        with contextlib.suppress(OSError):  # nobody reads it
            os.write(1, f"{start}{self.last_words}\n".encode(errors="replace"))
        os._exit(128 + number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._has_signal:  # the line may be stuck where nobody reads it
            os._exit(128 + number)
        self._has_signal = True


def _quit(number: int) -> NoReturn:
    # Workers die with their driver: Ray sees to that. The journal is on the disk.
    os._exit(128 + number)
