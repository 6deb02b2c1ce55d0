"""Every family's output, however it is cut, gives the same deltas, and its markers never reach the text."""

import itertools
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_families import TEMPLATES, TOOLS, TRANSCRIPTS, markup_of
from msgspec import structs

from ore.backends.local.families import FORMS, family_of, in_prompt
from ore.backends.local.markup import Markup
from ore.backends.local.output_parser import OutputParser
from ore.core.callable_tools import callable_tools
from ore.core.deltas import Delta, Reasoning, Text, ToolArguments, ToolCall


def parse(pieces: Iterable[str], markup: Markup, *, calls: bool = True) -> list[Delta]:
    numbers = itertools.count(1)
    parser = OutputParser(markup, lambda: f"call_{next(numbers)}", calls=calls, tools=callable_tools(TOOLS))
    whole: list[Delta] = []
    for delta in [delta for piece in pieces for delta in parser.feed(piece)] + parser.finish():
        last = whole[-1] if whole else None
        if isinstance(delta, Text | Reasoning | ToolArguments) and type(last) is type(delta):
            whole[-1] = structs.replace(last, text=last.text + delta.text)  # type: ignore[union-attr]
        else:
            whole.append(delta)
    return whole


@pytest.mark.parametrize(("family", "template"), TEMPLATES.items(), ids=TEMPLATES)
def test_a_template_tells_its_family(family: str, template: str) -> None:
    assert family_of(template).call.family == family


def test_every_family_has_a_template_and_a_transcript() -> None:
    assert {form.family for form in FORMS} == TEMPLATES.keys()
    assert {family for family, _, _ in TRANSCRIPTS} | {"hermes"} == TEMPLATES.keys()


@pytest.mark.parametrize(
    ("template", "marks"),
    [
        ("{{ '<think>\n' }}", ("<think>", "</think>")),
        ("content.split('</think>')", ("<think>", "</think>")),
        ("[THINK] and [TOOL_CALLS]", ("[THINK]", "[/THINK]")),
        ("<|channel>thought", ("<|channel>thought", "<channel|>")),
        ("<|START_THINKING|>", ("<|START_THINKING|>", "<|END_THINKING|>")),
    ],
)
def test_a_template_tells_how_its_model_thinks(template: str, marks: tuple[str, str]) -> None:
    markup = family_of(template)
    assert (markup.thinks, (markup.think_open, markup.think_close)) == (True, marks)
    assert in_prompt(markup, "x" + marks[0] + "\n").thinking
    assert not in_prompt(markup, "x" + marks[1] + "\n\n").thinks
    assert parse("hm" + marks[1] + "\n\nYes.", in_prompt(markup, marks[0])) == [Reasoning("hm"), Text("Yes.")]
    assert parse(marks[0] + "hm" + marks[1] + "Yes.", markup) == [Reasoning("hm"), Text("Yes.")]


def test_a_template_without_a_sign_does_not_think() -> None:
    assert not family_of("{{ messages }}").thinks


def test_wrappers_around_answers_are_not_shown() -> None:
    markup = family_of("<think></think><response></response>")
    assert parse("<think>hm</think><response>Yes.</response>", markup) == [Reasoning("hm"), Text("Yes.")]


@pytest.mark.parametrize(("family", "text", "deltas"), TRANSCRIPTS)
def test_transcripts_however_they_are_cut(family: str, text: str, deltas: list[Delta]) -> None:
    markup = markup_of(family)
    assert parse([text], markup) == deltas
    assert parse(text, markup) == deltas
    for at in range(len(text)):
        assert parse([text[:at], text[at:]], markup) == deltas


@pytest.mark.parametrize(("family", "text", "deltas"), [row for row in TRANSCRIPTS if row[0] != "harmony"])
def test_transcripts_right_after_reasoning(family: str, text: str, deltas: list[Delta]) -> None:
    markup = structs.replace(markup_of(family), thinks=True)
    thought = f"<think>\nIs it {text[:40]}?\n</think>\n\n"
    assert parse(thought + text.lstrip(), markup)[1:] == [
        structs.replace(delta, text=delta.text.lstrip()) if isinstance(delta, Text) else delta for delta in deltas
    ]


@pytest.mark.parametrize(("family", "text", "deltas"), TRANSCRIPTS)
def test_a_stream_cut_short_shows_no_marker(family: str, text: str, deltas: list[Delta]) -> None:
    """A stream that ends inside a call, by the limit on tokens, gives no part of its markup as text."""
    if not any(isinstance(delta, ToolCall) for delta in deltas):
        return
    markup = markup_of(family)
    for at in range(len(text)):
        parser = OutputParser(markup, lambda: "c", tools=callable_tools(TOOLS))
        out = parser.feed(text[:at]) + parser.finish(cut=True)
        visible = "".join(delta.text for delta in out if isinstance(delta, Text))
        assert not [marker for marker in markup.markers if marker in visible]


@pytest.mark.parametrize("family", TEMPLATES)
def test_without_tools_nothing_is_lost(family: str) -> None:
    text = "Some <text> [with] {signs}."
    assert parse(text, markup_of(family), calls=False) == [Text(text)]


def soup() -> st.SearchStrategy[tuple[str, str]]:
    """Pieces of a family's transcripts and markers in any order."""
    return st.sampled_from(sorted(TEMPLATES)).flatmap(
        lambda family: st.tuples(st.just(family), st.lists(_pieces(family), max_size=6).map("".join))
    )


def _pieces(family: str) -> st.SearchStrategy[str]:
    markup = markup_of(family)
    row = markup.call
    words: list[Any] = [row.open, row.lead, row.before_name, row.before_arguments, row.after, row.close, row.before_raw]
    words += [row.after_raw, *markup.markers, "add", "patch", "{}", '{"a": 1}', "\n", " ", "x"]
    if row.parameters is not None:
        words += [row.parameters.before_key, row.parameters.before_value, row.parameters.close, "b"]
    texts = [text for name, text, _ in TRANSCRIPTS if name == family]
    return st.sampled_from([word for word in words if word] + texts) | st.text('ab<>[]|{}"\n', max_size=4)


# However the same text is cut into chunks, the deltas are the same once neighbours are joined.
@settings(deadline=None, max_examples=200)
@given(soup(), st.lists(st.integers(0, 300), max_size=8), st.booleans())
def test_any_chunking_gives_the_same(made: tuple[str, str], cuts: list[int], thinking: bool) -> None:
    family, text = made
    markup = markup_of(family)
    markup = structs.replace(markup, thinks=True, thinking=thinking) if not markup.channels else markup
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    whole = parse([text], markup)
    assert parse([text[a:b] for a, b in itertools.pairwise(edges)], markup) == whole == parse(text, markup)
