"""How long each trial has been at it, for --child-time-limit."""

import time
from collections.abc import Callable, Hashable

# Looks come ten times a second. Where one is later than this, the driver itself was
# held up: it was stopped, its machine slept, or its controller was learning.
_LONGEST_PAUSE_SECONDS = 1.0
# What arrives is taken one at a time, so a trial that is late may have arrived.
_QUIET_LOOKS = 3
_MOST_PATIENCE_SECONDS = 10.0


class TrialClocks:
    """Clocks of trials under way, which stand still while the driver does.

    A trial is overdue once it is late and nothing has arrived for a few looks; or at
    the latest some seconds after that, on a machine where something always arrives.
    """

    def __init__(
        self, limit_seconds: float | None, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Of trials that may each take `limit_seconds`; for ever where it is None."""
        self._limit = limit_seconds
        self._now = now
        self._started: dict[Hashable, float] = {}
        self._last_look = now()
        self._quiet_looks = 0

    def start(self, trial: Hashable) -> None:
        """A worker has begun with the trial."""
        self._started[trial] = self._now()
        self._quiet_looks = 0

    def stop(self, trial: Hashable) -> None:
        """The trial has ended, or its worker has."""
        self._started.pop(trial, None)
        self._quiet_looks = 0

    def overdue(self) -> list[Hashable]:
        """Looks at the clocks, and returns the trials to be stopped."""
        if self._limit is None:
            return []
        now = self._now()
        paused = now - self._last_look
        self._last_look = now
        if paused > _LONGEST_PAUSE_SECONDS:
            self._quiet_looks = 0
            for trial, started in self._started.items():
                self._started[trial] = min(now, started + paused)
        self._quiet_looks += 1
        patience = _MOST_PATIENCE_SECONDS if self._quiet_looks <= _QUIET_LOOKS else 0.0
        return [
            trial
            for trial, started in self._started.items()
            if now - started > self._limit + patience
        ]
