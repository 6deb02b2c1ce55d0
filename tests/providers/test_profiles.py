"""What is known of model families, and how it is put to use."""

import re

import pytest

from ore.backends.profiles import Profile, _made_of, _rows
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


def names_of(pattern: str) -> list[str]:
    """Names that a pattern is plausibly meant for."""
    plain = re.sub(r"\[(.)[^]]*\]", r"\1", pattern)
    return [plain.replace("*", rest) for rest in ("", "-2027", "-chat", ":8b")]


@pytest.mark.parametrize("at", range(len(_rows())))
def test_every_row_makes_a_difference(at: int) -> None:
    """To at least one of the models that the rows are about; a later row may not make it pointless."""
    rows = _rows()
    row, others = rows[at], [*rows[:at], *rows[at + 1 :]]
    names = [name for each in rows for pattern in each.models for name in names_of(pattern)]
    differs = (_made_of(rows, kind, name) != _made_of(others, kind, name) for kind in row.kinds for name in names)
    assert any(differs), row.models


def test_the_parts_stand_in_order() -> None:
    """As the head of the file says."""
    order = [("openai",), ("responses",), ("anthropic",), ("chat_completions",)]
    parts = [
        ("chat_completions",) if set(row.kinds) <= {"chat_completions", "ollama"} else row.kinds for row in _rows()
    ]
    assert parts == sorted(parts, key=order.index)
