"""What is known of model families, and how it is put to use."""

import pytest

from ore.backends.profiles import Profile
from ore.protocol.configuration import EFFORTS


@pytest.mark.parametrize(
    ("known", "wanted", "said"),
    [
        ((), "xhigh", "xhigh"),
        (("low", "medium", "high"), "medium", "medium"),
        (("low", "high", "max"), "medium", "low"),
        (("high", "low"), "xhigh", "high"),
        (("low", "medium", "high"), "minimal", "low"),
        (("medium", "high"), "none", "medium"),
        (("none", "low"), "minimal", "none"),
    ],
)
def test_a_model_makes_no_more_effort_than_was_asked_for(known: tuple[str, ...], wanted: str, said: str) -> None:
    """Unless the least that it can make is more."""
    assert Profile(efforts=known).nearest_effort(wanted) == said


@pytest.mark.parametrize("wanted", EFFORTS)
def test_who_is_known_to_take_every_effort_is_told_what_was_asked_for(wanted: str) -> None:
    assert Profile().nearest_effort(wanted) == Profile(efforts=EFFORTS).nearest_effort(wanted) == wanted
