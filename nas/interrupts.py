"""Ctrl-C and SIGTERM: the first ends the search in good order, the second at once."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn


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
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
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


def _quit(number: int) -> NoReturn:
    # Workers die with their driver: Ray sees to that. The journal is on the disk.
    os._exit(128 + number)
