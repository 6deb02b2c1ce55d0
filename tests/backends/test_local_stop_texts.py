"""Stop texts are found across the borders of tokens, and nothing that could be one shows too early."""

from hypothesis import given
from hypothesis import strategies as st

from ore.backends.local.stop_texts import StopTexts

TEXT = st.text("abc", max_size=4)


@given(st.lists(TEXT, max_size=12), st.lists(st.text("abc", min_size=1, max_size=3), max_size=3))
def test_what_comes_out_is_what_stands_before_the_first_stop_text(texts: list[str], stops: list[str]) -> None:
    """However the text is cut into pieces; and the numbers come in order."""
    found = StopTexts(tuple(stops))
    out: list[tuple[str, int]] = []
    fed = ""
    for number, text in enumerate(texts):
        fed += text
        out += found.feed(text, number)
        if found.hit:
            break
    else:
        out += found.rest()
    places = [place for stop in stops if (place := fed.find(stop)) >= 0]
    assert found.hit == bool(places)
    assert "".join(text for text, _ in out) == (fed[: min(places)] if places else fed)
    assert [number for _, number in out] == sorted(number for _, number in out)


def test_only_what_could_be_a_stop_text_is_held_back() -> None:
    """The rest comes at once."""
    found = StopTexts(("END",))
    assert found.feed("one ", 1) == [("one ", 1)]
    assert found.feed("E", 2) == []
    assert found.feed("x", 3) == [("E", 2), ("x", 3)]
    assert found.feed("two EN", 4) == []
    assert found.feed("D three", 5) == [("two ", 4)]
    assert found.hit
