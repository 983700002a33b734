"""Tests for nas.execution.trial_clocks, on a clock that the tests turn."""

import pytest

from nas.execution.trial_clocks import TrialClocks


class Driver:
    """Looks at its clocks every tenth of a second, as long as it is not held up."""

    def __init__(self, limit_seconds):
        self.time = 1000.0
        self.clocks = TrialClocks(limit_seconds, now=lambda: self.time)

    def runs(self, seconds, *, arriving=False):
        """Returns what was overdue at the last look; something may arrive at each."""
        overdue = []
        for number in range(round(10 * seconds)):
            self.time += 0.1
            if arriving:
                self.clocks.start(f"other {number}")
                self.clocks.stop(f"other {number}")
            overdue = self.clocks.overdue()
        return overdue


def test_a_child_that_takes_longer_than_the_limit_is_overdue():
    driver = Driver(5.0)
    driver.clocks.start("a")
    assert driver.runs(3.0) == []
    driver.clocks.start("b")
    assert driver.runs(1.9) == []
    assert driver.runs(0.3) == ["a"]
    driver.clocks.stop("a")
    assert driver.runs(2.5) == []
    assert driver.runs(0.5) == ["b"]


def test_without_a_limit_no_child_is():
    driver = Driver(None)
    driver.clocks.start("a")
    assert driver.runs(1e4) == []


def test_what_has_arrived_is_taken_before_a_child_is_given_up():
    """Results wait in a queue, of which one is taken between two looks."""
    driver = Driver(5.0)
    driver.clocks.start("last in the queue")
    assert driver.runs(4.9) == []
    assert driver.runs(3.0, arriving=True) == []
    driver.clocks.stop("last in the queue")
    assert driver.runs(1.0) == []


def test_a_child_that_hangs_is_given_up_though_others_arrive_all_the_time():
    driver = Driver(5.0)
    driver.clocks.start("a")
    assert driver.runs(14.9, arriving=True) == []
    assert driver.runs(0.2, arriving=True) == ["a"]


@pytest.mark.parametrize("paused", [2.0, 60.0, 1e6])
def test_a_pause_of_the_driver_counts_for_no_child(paused):
    driver = Driver(5.0)
    driver.clocks.start("a")
    assert driver.runs(2.0) == []
    driver.time += paused
    assert driver.runs(2.8) == []
    assert driver.runs(0.6) == ["a"]  # five seconds after all, without the pause


def test_pauses_one_after_another_do_not_save_a_child_that_hangs():
    """A controller that learns for seconds after each outcome is a pause, too."""
    driver = Driver(5.0)
    driver.clocks.start("a")
    for _ in range(13):
        driver.time += 1.5
        driver.runs(0.5)
    driver.time += 1.5
    assert driver.runs(0.9) == ["a"]
