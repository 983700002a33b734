"""How long is left, by hand."""

from nas.monitoring.pace import Pace


def test_what_is_left_counts_evaluation_and_leaves_out_compilation():
    """Ten steps of 2 s after 60 s of compiling, then 5 s of evaluation; 30 are left."""
    now, compiled = 1_000.0, 0.0
    pace = Pace(done=20, num_steps=60, clock=lambda: now - compiled)
    pace.begin_part(20)
    now, compiled = now + 60.0 + 2.0, 60.0
    assert pace.steps_per_second(21) == 0.5
    assert pace.seconds_left(21) == 39 * 2.0
    now += 9 * 2.0
    assert pace.steps_per_second(30) == 0.5
    assert pace.seconds_left(30) == 30 * 2.0
    now += 5.0
    assert pace.seconds_left(30) == 30 * 2.5
    pace.begin_part(30)
    now += 2.0
    assert pace.steps_per_second(31) == 0.5
    assert pace.seconds_left(31) == 29 * 27.0 / 11
