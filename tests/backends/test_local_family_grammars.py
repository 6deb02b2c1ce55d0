"""What a family's grammar lets through, written at random, is read as the calls and the JSON that were asked for."""

import itertools
import random
from collections.abc import Sequence
from typing import Any

import llguidance
import msgspec
import pytest
from local_families import ADD, PATCH, PING, TEMPLATES, markup_of
from msgspec import structs

from engines.asking import calls_of
from ore.backends.base import ModelRequest
from ore.backends.local.call_forms import plan_tools
from ore.backends.local.grammar import build_grammar
from ore.backends.local.markup import Markup
from ore.backends.local.output_parser import OutputParser
from ore.core.callable_tools import callable_tools
from ore.core.deltas import Delta, Text

TOKENIZER = llguidance.LLTokenizer("byte")
FIRST_SPECIAL, SPECIALS, END = 256, 5, TOKENIZER.eos_token
MIXED: dict[str, Any] = {
    "type": "function",
    "name": "mixed",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "kind": {"type": "string", "enum": ["red", "blue"]},
            "count": {"type": ["integer", "null"]},
            "maybe": {"type": ["string", "null"]},
            "list": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
        },
        "required": ["text", "kind", "list"],
        "additionalProperties": False,
    },
}
NESTED: dict[str, Any] = {
    "type": "function",
    "name": "nested",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"code": {"type": "string", "pattern": "^[a-z]{2}$"}},
        "required": ["code"],
        "additionalProperties": False,
    },
}
SQL = {"type": "custom", "name": "sql", "format": {"type": "grammar", "syntax": "regex", "definition": "[ab]{1,3}"}}
FREE = {"type": "custom", "name": "note"}
TOOLS = (ADD, PING, MIXED, NESTED, PATCH, SQL, FREE)
FORMAT = {
    "type": "json_schema",
    "name": "n",
    "strict": True,
    "schema": {
        "type": "object",
        "properties": {"yes": {"type": "boolean"}},
        "required": ["yes"],
        "additionalProperties": False,
    },
}


def grammar(markup: Markup, **fields: Any) -> str:
    request = ModelRequest(model="m", items=(), **fields)
    return build_grammar(request, plan_tools(request), markup)


def tokenized(markup: Markup) -> Markup:
    """The same markup with its first markers as control tokens: more than those the byte tokenizer does not have."""
    return structs.replace(markup, special=dict(zip(markup.markers, range(FIRST_SPECIAL, END), strict=False)))


class Sampler:
    """Writes what a grammar lets through: at random, but for a hint now and then that lets it come to an end."""

    def __init__(self, lark: str, markup: Markup, seed: int) -> None:
        self.matcher = llguidance.LLMatcher(TOKENIZER, llguidance.LLMatcher.grammar_from_lark(lark), log_level=0)
        assert not self.matcher.is_error(), self.matcher.get_error()
        self.names = {number: marker for marker, number in markup.special.items()}
        row = markup.call
        hints = [*markup.markers, row.open, row.close, '"', "}", "]", "\n", "{", "true", "1", "x"]
        hints += [row.parameters.close] if row.parameters is not None else []
        hints += [row.open + row.lead + row.before_name, row.before_name + "add" + row.before_arguments]
        self.hints = [self.tokens(markup, hint) for hint in hints if hint]
        self.dice = random.Random(seed)
        self.written: list[int] = []

    def tokens(self, markup: Markup, text: str) -> list[int]:
        return [
            token
            for piece in markup.pieces(text)
            for token in ([markup.special[piece]] if piece in markup.special else piece.encode())
        ]

    def take(self, tokens: Sequence[int]) -> bool:
        if self.matcher.validate_tokens(list(tokens)) < len(tokens):
            return False
        self.matcher.consume_tokens(list(tokens))
        self.written += tokens
        return True

    def run(self, limit: int = 1500) -> str | None:
        """A whole output, or None where none came about."""
        while len(self.written) < limit:
            if self.matcher.is_accepting() and self.dice.random() < 0.3:
                return self.text()
            if self.dice.random() < 0.5 and self.take(self.dice.choice(self.hints)):
                continue
            allowed = [token for token, bias in enumerate(self.matcher.compute_logit_bias()) if bias and token != END]
            if not allowed:
                assert self.matcher.is_accepting()
                return self.text()
            plain = [token for token in allowed if 32 <= token < 127 or token in self.names]
            self.take([self.dice.choice(plain if plain and self.dice.random() < 0.95 else allowed)])
        return None

    def text(self) -> str:
        runs = itertools.groupby(self.written, key=lambda token: token if token in self.names else None)
        return "".join(
            self.names[key] * len(list(run)) if key is not None else bytes(run).decode("utf-8", "replace")
            for key, run in runs
        )


def parse(text: str, markup: Markup, tools: Sequence[dict[str, Any]]) -> list[Delta]:
    numbers = itertools.count(1)
    parser = OutputParser(markup, lambda: f"call_{next(numbers)}", tools=callable_tools(tools))
    return parser.feed(text) + parser.finish()


def assert_holds(name: str, arguments: str) -> None:
    """The arguments match the tool's schema, checked by hand."""
    if name == "patch":
        assert arguments.strip("abc\n") == ""
        assert arguments
        return
    if name == "note":
        return
    if name == "sql":
        assert 1 <= len(arguments) <= 3
        assert set(arguments) <= {"a", "b"}
        return
    value = msgspec.json.decode(arguments)
    if name == "ping":
        assert value == {}
    elif name == "add":
        assert (set(value), type(value["a"]), type(value["b"])) == ({"a", "b"}, int, str)
    elif name == "nested":
        assert value["code"].isalpha()
        assert len(value["code"]) == 2
    else:
        assert {"text", "kind", "list"} <= value.keys() <= set(MIXED["parameters"]["properties"])
        assert isinstance(value["text"], str)
        assert value["kind"] in ("red", "blue")
        assert value.get("count") is None or type(value["count"]) is int
        assert value.get("maybe") is None or isinstance(value["maybe"], str)
        assert all(isinstance(each, bool) for each in value["list"])


def sampled(
    markup: Markup, tools: Sequence[dict[str, Any]], count: int, **fields: Any
) -> list[tuple[str, list[Delta]]]:
    lark = grammar(markup, tools=tuple(tools), **fields)
    texts = [text for seed in range(count) if (text := Sampler(lark, markup, seed).run()) is not None]
    assert len(texts) > count // 3
    return [(text, parse(text, markup, tools)) for text in texts]


FAMILIES = [(family, special) for family in TEMPLATES for special in (False, True)]


def marked(family: str, *, special: bool) -> Markup:
    markup = markup_of(family)
    return tokenized(markup) if special else markup


@pytest.mark.parametrize(("family", "special"), FAMILIES)
def test_a_required_call_is_made_with_arguments_that_hold(family: str, special: bool) -> None:
    for text, deltas in sampled(marked(family, special=special), TOOLS, 60, tool_choice="required"):
        calls = calls_of(deltas)
        assert calls, text
        assert not [delta for delta in deltas if isinstance(delta, Text)], text
        for name, arguments in calls:
            assert_holds(name, arguments)


@pytest.mark.parametrize("family", TEMPLATES)
@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool["name"])
def test_a_named_tool_is_called(family: str, tool: dict[str, Any]) -> None:
    choice = {"type": tool["type"], "name": tool["name"]}
    for text, deltas in sampled(marked(family, special=False), TOOLS, 6, tool_choice=choice, parallel_tool_calls=False):
        assert [name for name, _ in calls_of(deltas)] == [tool["name"]], text


@pytest.mark.parametrize(("family", "special"), FAMILIES)
def test_whatever_is_called_of_its_own_accord_holds(family: str, special: bool) -> None:
    for _, deltas in sampled(marked(family, special=special), TOOLS, 60):
        for name, arguments in calls_of(deltas):
            assert_holds(name, arguments)


@pytest.mark.parametrize(("family", "special"), FAMILIES)
def test_an_answer_is_json_unless_it_is_a_call(family: str, special: bool) -> None:
    for text, deltas in sampled(marked(family, special=special), (ADD,), 30, text_format=FORMAT):
        answer = "".join(delta.text for delta in deltas if isinstance(delta, Text))
        assert calls_of(deltas) or type(msgspec.json.decode(answer)["yes"]) is bool, text


@pytest.mark.parametrize("family", TEMPLATES)
def test_with_none_nothing_is_called(family: str) -> None:
    for _, deltas in (
        sampled(marked(family, special=False), (ADD, PING), 20, tool_choice="none") if family != "llama" else ()
    ):
        assert calls_of(deltas) == []


@pytest.mark.parametrize(("family", "special"), FAMILIES)
def test_reasoning_is_free_and_what_follows_is_held(family: str, special: bool) -> None:
    markup = markup_of(family)
    markup = structs.replace(markup, thinks=True, thinking=not markup.channels)
    markup = tokenized(markup) if special else markup
    lark = grammar(markup, tools=(ADD, PING), tool_choice="required")
    row = markup.call
    wild = f'{{"name": "add"}} {row.before_name}add{row.before_arguments} {row.close}'
    for marker in (*markup.special, markup.think_close):
        wild = wild.replace(marker, "")
    ahead = markup.think_open if markup.channels else ""
    ended = 0
    for seed in range(20):
        sampler = Sampler(lark, markup, seed)
        thought = ahead + wild + markup.think_close + (markup.channels.again if markup.channels else "\n\n")
        assert sampler.take(sampler.tokens(markup, thought))
        if (text := sampler.run()) is not None:
            ended += 1
            calls = calls_of(parse(text, markup, (ADD, PING)))
            assert calls, text
            for name, arguments in calls:
                assert_holds(name, arguments)
    assert ended > 5
