"""What is remembered of a target: when it is left alone, when it is probed, and how often it may be retried."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ore.routing.breaker import FAILURES_TO_OPEN, FIRST_PAUSE, LONGEST_OBEYED, LONGEST_PAUSE, MOST_RETRIES, Breaker


def failing(times: int, now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(times):
        breaker.asked(now)
        breaker.failed(now)
    return breaker


def test_it_opens_after_failures_in_a_row() -> None:
    """Not one failure earlier, and any answer starts the count anew."""
    assert failing(FAILURES_TO_OPEN - 1).seconds_left(0.0) == 0
    assert failing(FAILURES_TO_OPEN).seconds_left(0.0) == FIRST_PAUSE
    answered = failing(FAILURES_TO_OPEN - 1)
    answered.answered(0.1)
    answered.failed(0.0)
    assert not answered.is_open


def test_it_is_probed_once_after_the_pause() -> None:
    """While the probe is on its way nobody else asks; what comes of it decides."""
    breaker = failing(FAILURES_TO_OPEN)
    assert breaker.seconds_left(FIRST_PAUSE) == 0
    breaker.asked(FIRST_PAUSE)
    assert breaker.seconds_left(FIRST_PAUSE) > 0
    breaker.failed(FIRST_PAUSE)
    assert breaker.seconds_left(FIRST_PAUSE) == 2 * FIRST_PAUSE
    later = 3 * FIRST_PAUSE
    breaker.asked(later)
    breaker.answered(None)
    assert (breaker.is_open, breaker.seconds_left(later)) == (False, 0)


def test_a_probe_that_nobody_waited_for_does_not_block_the_next() -> None:
    """The client left before an answer came."""
    breaker = failing(FAILURES_TO_OPEN)
    breaker.asked(FIRST_PAUSE)
    breaker.left_unknown()
    assert breaker.seconds_left(FIRST_PAUSE) == 0


def test_pauses_grow_to_a_bound() -> None:
    """Twice as long each time, and never longer than a minute."""
    breaker, now = failing(FAILURES_TO_OPEN), 0.0
    for _ in range(10):
        now += breaker.seconds_left(now)
        breaker.asked(now)
        breaker.failed(now)
    assert breaker.seconds_left(now) == LONGEST_PAUSE


@given(st.floats(0, 10_000))
def test_retry_after_is_obeyed(seconds: float) -> None:
    """To the second, up to a bound: a quota that comes back tomorrow is asked about sooner."""
    breaker = Breaker()
    breaker.asks_for_pause(10.0, seconds)
    assert breaker.seconds_left(10.0) == pytest.approx(min(seconds, LONGEST_OBEYED))


def test_retries_have_a_budget() -> None:
    """A tenth of the requests, and ten at once."""
    breaker = Breaker()
    assert sum(breaker.may_retry() for _ in range(100)) == MOST_RETRIES
    for _ in range(20):
        breaker.asked(0.0)
    assert sum(breaker.may_retry() for _ in range(100)) in (1, 2)


@given(st.lists(st.floats(0.001, 100), min_size=1))
def test_the_time_to_the_first_word_is_an_average(seconds: list[float]) -> None:
    """It stays between the shortest and the longest that were seen."""
    breaker = Breaker()
    for each in seconds:
        breaker.answered(each)
    assert min(seconds) * 0.999 <= breaker.first_delta_seconds <= max(seconds) * 1.001
