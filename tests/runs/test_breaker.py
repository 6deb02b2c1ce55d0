"""What is remembered of a target: when it is left alone, when it is probed, and how often it may be retried."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ore.routing import breaker as module
from ore.routing.breaker import (
    FAILURES_TO_OPEN,
    FIRST_PAUSE,
    HALF_LIFE,
    LONGEST_OBEYED,
    LONGEST_PAUSE,
    MOST_RETRIES,
    Breaker,
    Breakers,
)


def failing(times: int, now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(times):
        breaker.asked(now)
        breaker.failed(now)
    return breaker


def test_it_opens_after_failures_in_a_row() -> None:
    """Not one failure earlier, and a whole answer starts the count anew."""
    assert failing(FAILURES_TO_OPEN - 1).seconds_left(0.0) == 0
    assert failing(FAILURES_TO_OPEN).seconds_left(0.0) == FIRST_PAUSE
    answered = failing(FAILURES_TO_OPEN - 1)
    answered.answered()
    answered.failed(0.0)
    assert not answered.is_open


def test_a_burst_of_failures_is_one_opening() -> None:
    """Those that were on their way when it opened do not make the pause longer: only a failed probe does."""
    assert failing(50).seconds_left(0.0) == FIRST_PAUSE


def test_one_that_always_breaks_off_is_left_alone() -> None:
    """A first word is no answer: a target that never gets further has failed as often."""
    breaker = Breaker()
    for _ in range(FAILURES_TO_OPEN):
        breaker.asked(0.0)
        breaker.began(0.0, 0.1)
        breaker.failed(0.0)
    assert breaker.seconds_left(0.0) == FIRST_PAUSE


def test_a_probe_that_breaks_off_has_failed() -> None:
    """Its first word let others in; the pause after it is longer all the same."""
    breaker = failing(FAILURES_TO_OPEN)
    breaker.asked(FIRST_PAUSE)
    breaker.began(FIRST_PAUSE, 0.1)
    assert (breaker.is_open, breaker.seconds_left(FIRST_PAUSE)) == (False, 0)
    breaker.failed(FIRST_PAUSE)
    assert breaker.seconds_left(FIRST_PAUSE) == 2 * FIRST_PAUSE


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
    breaker.answered()
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


def test_an_answer_does_not_shorten_a_pause_that_was_asked_for() -> None:
    """One request was told to come again in 30 s; another, which was asked before it, still gets its answer."""
    breaker = Breaker()
    breaker.asks_for_pause(0.0, 30.0)
    breaker.began(1.0, 0.1)
    breaker.answered()
    assert breaker.seconds_left(1.0) == 29.0


def test_retries_have_a_budget() -> None:
    """A tenth of the requests, and ten at once."""
    breaker = Breaker()
    assert retried(breaker) == MOST_RETRIES
    for _ in range(20):
        breaker.asked(0.0)
    assert retried(breaker) in (1, 2)


def retried(breaker: Breaker) -> int:
    """How often a target may be asked again right now; looking takes nothing."""
    for times in range(100):
        if not breaker.may_retry:
            return times
        breaker.asked(0.0, again=True)
    return 100


@given(st.lists(st.floats(0.001, 100), min_size=1))
def test_the_time_to_the_first_word_is_an_average(seconds: list[float]) -> None:
    """It stays between the shortest and the longest that were seen."""
    breaker = Breaker()
    for each in seconds:
        breaker.began(0.0, each)
    assert min(seconds) * 0.999 <= breaker.first_delta_seconds(0.0) <= max(seconds) * 1.001


def test_a_slow_first_word_is_forgotten() -> None:
    """One that is passed over because it was slow is never measured again, and would be passed over for ever."""
    breaker = Breaker()
    breaker.began(0.0, 32.0)
    assert breaker.first_delta_seconds(HALF_LIFE) == 16.0
    assert breaker.first_delta_seconds(20 * HALF_LIFE) < 0.001


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients may make up names of models; the targets that are really asked are not forgotten for them."""
    monkeypatch.setattr(module, "MOST_REMEMBERED", 10)
    breakers = Breakers()
    kept = breakers("real")
    for number in range(100):
        breakers(f"made-up-{number}")
        assert breakers("real") is kept
    assert len(breakers) == 10
