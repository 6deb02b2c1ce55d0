"""Free text out of the JSON that stands for it, whoever the model's provider is."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ore.backends.base import ModelRequest
from ore.backends.chat_completions import ChatCompletions
from ore.backends.dialect import Dialect
from ore.backends.free_text import MAX_SHOWN_GRAMMAR, FreeText
from ore.backends.messages import Messages
from ore.backends.profiles import Profile
from ore.backends.responses import Responses

ESCAPES = st.sampled_from(["\\", '"', "n", "u", "x", "d83d", "de00", "\\ud83d", "\\ude00", "\\u00e9", "\n", "😀"])


def read(raw: str, size: int) -> str:
    free = FreeText()
    return "".join(free.feed(raw[at : at + size]) for at in range(0, len(raw), size)) + free.end()


@given(st.text(), st.integers(1, 5), st.booleans())
def test_it_comes_out_as_it_was_wrapped(text: str, size: int, ascii_only: bool) -> None:
    """Whatever the text and however its JSON is cut."""
    assert read(json.dumps({"input": text}, ensure_ascii=ascii_only), size) == text


@given(st.lists(ESCAPES).map("".join), st.integers(1, 8))
def test_whatever_a_model_escapes_can_be_encoded(inside: str, size: int) -> None:
    """And does not depend on the cuts."""
    raw = f'{{"input": "{inside}"}}'
    text = read(raw, size)
    assert text == read(raw, len(raw))
    text.encode()


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ('{"input": "cut \\', "cut "),
        ('{"input": "cut \\u00', "cut "),
        ('{"input": "cut \\ud83d\\ude', "cut "),
        ('{"input": "a\nb"}', "a\nb"),
        (r'{"input": "\u00e9\ud83d\ude00"}', "é😀"),
        (r'{"input": "\ud83d, \ude00, \ud83d"}', "\ufffd, \ufffd, \ufffd"),
        (r'{"input": "\d \u12 \uwhat"}', r"\d \u12 \uwhat"),
        ('{"input": "x", "why": "y"}', "x"),
        ("{}", ""),
        ('{"other": 1}', '{"other": 1}'),
        ('{"input": 1}', '{"input": 1}'),
        ('"plain"', "plain"),
        ("not json", "not json"),
        ('{"x": 1, "input": "late"}', "late"),
    ],
)
def test_sloppy_json_is_read(raw: str, text: str) -> None:
    """What a model wrote is lost in no case."""
    assert read(raw, len(raw)) == read(raw, 1) == text


@pytest.mark.parametrize("dialect", [ChatCompletions(), Messages(), Responses()], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize(
    ("syntax", "definition", "told"),
    [
        ("lark", "start: /a+/", "Poems.\nThe input must match this Lark grammar:\nstart: /a+/"),
        ("lark", "x" * (MAX_SHOWN_GRAMMAR + 1), "Poems."),
        ("regex", "a+", "Poems."),
    ],
)
def test_a_grammar_that_no_schema_says_is_told_in_words(
    dialect: Dialect, syntax: str, definition: str, told: str
) -> None:
    """In every dialect, unless it is too long; a regular expression stands in the schema."""
    form = {"type": "grammar", "syntax": syntax, "definition": definition}
    poem = {"type": "custom", "name": "poem", "description": "Poems.", "format": form}
    (tool,) = dialect.ask(ModelRequest(model="m", items=(), tools=(poem,)), Profile(), "p").body["tools"]
    shown = tool.get("function", tool)
    assert shown["description"] == told
    schema = shown.get("parameters") or shown["input_schema"]
    assert schema["properties"]["input"].get("pattern") == ("^(a+)$" if syntax == "regex" else None)
