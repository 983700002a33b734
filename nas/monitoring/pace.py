"""How fast a training run is, and how long the rest of it takes."""

from collections.abc import Callable


class Pace:
    """Of the steps since it was made; `clock` gives seconds, without compilation.

    What is done between steps counts towards the time that is left, as it comes again:
    evaluation and checkpoints. Compilation does not come again.
    """

    def __init__(
        self, *, done: int, num_steps: int, clock: Callable[[], float]
    ) -> None:
        """Starts at the step `done` of `num_steps`."""
        self._first, self._num_steps, self._clock = done, num_steps, clock
        self._began = clock()
        self._part = (done, self._began)

    def begin_part(self, done: int) -> None:
        """Steps are counted and timed from here for `steps_per_second`."""
        self._part = (done, self._clock())

    def steps_per_second(self, done: int) -> float:
        """The rate of the part so far, training alone."""
        first, began = self._part
        return (done - first) / max(self._clock() - began, 1e-9)

    def seconds_left(self, done: int) -> float:
        """What the rest takes, at the average pace so far; after the first step."""
        each = (self._clock() - self._began) / (done - self._first)
        return each * (self._num_steps - done)
