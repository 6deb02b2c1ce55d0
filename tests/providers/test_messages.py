"""The Messages dialect: what goes to the provider, and what comes of its answers."""

import base64
import gc
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ore.backends.base import JsonObject, ModelRequest, Sampling
from ore.backends.dialect import Unintelligible, UpstreamError, packed
from ore.backends.messages import Messages
from ore.backends.messages.decoder import MessagesDecoder, Reading
from ore.backends.messages.schemas import Room, closed
from ore.backends.profiles import Profile, profile_of
from ore.backends.provider import Provider, ProviderOptions
from ore.backends.upstream import Upstream, UpstreamOptions
from ore.core.callable_tools import callable_tools
from ore.core.deltas import (
    Annotation,
    Begin,
    Delta,
    Finish,
    Reasoning,
    ReasoningState,
    ReasoningSummary,
    Refusal,
    Text,
    ToolArguments,
    ToolCall,
    Usage,
    WholeItem,
)
from ore.errors import HTTPFault, InvalidRequest, ModelFailed, TooManyRequests, Unavailable
from providers import messages_server as api
from providers.messages_server import BINDING, KEY, MessagesServer, messages_server
from providers.stub_server import Asked, Play, events

OPUS, NEW, OLD, OLDEST = "claude-opus-4-8", "claude-opus-5-5", "claude-sonnet-4-5", "claude-3-haiku-20240307"
ALL = (
    OPUS,
    NEW,
    OLD,
    OLDEST,
    "claude-opus-4-6",
    "claude-opus-5",
    "claude-haiku-5-5",
    "claude-fable-5",
    "claude-sonnet-5-5",
)
DIALECT = Messages()
PNG = "data:image/png;base64,iVBORw0KGgo="
WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}, "strict": False}
CLOCK = {**WEATHER, "name": "clock"}
PATCH = {"type": "custom", "name": "patch", "description": "Patches."}
CITY = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 1}},
    "required": ["name"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "name": "city", "schema": CITY, "strict": True}


def user(*content: Any) -> JsonObject:
    parts = [{"type": "input_text", "text": part} if isinstance(part, str) else part for part in content]
    return {"type": "message", "role": "user", "content": parts}


def said(*texts: str) -> JsonObject:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": t} for t in texts]}


def operator(text: str, role: str = "developer") -> JsonObject:
    return {"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]}


def call(call_id: str, name: str = "weather", arguments: str = "{}", **fields: Any) -> JsonObject:
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments, **fields}


def output(call_id: str, value: Any = "sunny", **fields: Any) -> JsonObject:
    return {"type": "function_call_output", "call_id": call_id, "output": value, **fields}


def thought(text: str, origin: str = "claude") -> JsonObject:
    block = {"type": "thinking", "thinking": text, "signature": api.signature(text)}
    return {"type": "reasoning", "summary": [], "state": packed(origin, block)}


def body(*items: JsonObject, model: str = OPUS, **fields: Any) -> JsonObject:
    """What is sent, which the server would take."""
    request = ModelRequest(model=model, items=items or (user("Hi"),), **fields)
    asked = DIALECT.ask(request, profile_of("anthropic", model), "claude")
    sent: JsonObject = json.loads(json.dumps(asked.body))
    headers = {**DIALECT.key_headers(KEY), "content-type": "application/json", **asked.headers}
    api.check(Asked("POST", "/v1/messages", headers, sent))
    return sent


def turns(sent: JsonObject) -> list[tuple[str, list[Any]]]:
    """The messages without their breakpoints; text as it is."""
    return [(message["role"], [_plain(block) for block in message["content"]]) for message in sent["messages"]]


def _plain(block: JsonObject) -> Any:
    bare = {key: value for key, value in block.items() if key != "cache_control"}
    return bare["text"] if bare["type"] == "text" else bare


def decoded(*blocks: list[api.Block], **reading: Any) -> list[Delta]:
    return played(api.message(*blocks), **reading)


def played(answer: list[api.Block], **reading: Any) -> list[Delta]:
    decoder = MessagesDecoder(Reading(origin="claude", **reading))
    return [delta for event in answer for delta in decoder.feed(json.dumps(event).encode())]


def tools(*asked: JsonObject) -> dict[str, Any]:
    return {tool.shown: tool for tool in callable_tools(asked)}


class TestConversation:
    def test_instructions_and_leading_words_of_the_operator_are_the_system_prompt(self) -> None:
        """They are blocks in order, and the last of them ends a prefix that is cached."""
        sent = body(operator("Two.", "system"), operator(" "), user("Hi"), instructions="One.")
        assert [block["text"] for block in sent["system"]] == ["One.", "Two."]
        assert ["cache_control" in block for block in sent["system"]] == [False, True]

    def test_the_operator_in_the_middle_has_a_role_of_its_own_where_the_model_knows_it(self) -> None:
        """It follows the user's turn, for the API takes it nowhere else."""
        items = (user("A"), operator("Be short."), user("B"), said("C"), operator("Alone."), said("D"), user("E"))
        assert turns(body(*items)) == [
            ("user", ["A", "B"]),
            ("system", ["Be short."]),
            ("assistant", ["C"]),
            ("user", ["<operator>\nAlone.\n</operator>"]),
            ("assistant", ["D"]),
            ("user", ["E"]),
        ]

    def test_elsewhere_the_operator_speaks_in_the_users_turn(self) -> None:
        """In its place, and marked as what it is."""
        sent = body(user("A"), operator("Be short."), user("B"), model=OLD)
        assert turns(sent) == [("user", ["A", "<operator>\nBe short.\n</operator>", "B"])]

    @pytest.mark.parametrize("model", ALL)
    def test_roles_alternate_and_nobody_is_blank(self, model: str) -> None:
        """Blank text is left out, neighbours become one turn, and the user has the first and the last word."""
        sent = body(said("A", " "), user(""), said("B"), user("C"), user("D"), said("E "), model=model)
        assert turns(sent) == [
            ("user", ["(The conversation begins with the assistant.)"]),
            ("assistant", ["A"]),
            ("user", ["(Go on.)"]),
            ("assistant", ["B"]),
            ("user", ["C", "D"]),
            ("assistant", ["E "]),
            ("user", ["(Go on.)"]),
        ]

    def test_a_conversation_of_nothing_can_be_sent(self) -> None:
        """Instructions alone are enough to begin."""
        assert turns(body(operator("Say something."))) == [("user", ["(Go on.)"])]

    def test_results_come_at_once_first_and_together(self) -> None:
        """Wherever the outputs stand, they answer all calls of the turn before, in the order of the calls."""
        items = (
            user("A"),
            said("Let me see."),
            call("c1"),
            call("c2"),
            user("Well?"),
            output("c2", "two"),
            output("c1"),
        )
        roles = turns(body(*items, tools=(WEATHER,)))
        assert [role for role, _ in roles] == ["user", "assistant", "user"]
        assert [(block["tool_use_id"], block["content"][0]["text"]) for block in roles[2][1][:2]] == [
            ("c1", "sunny"),
            ("c2", "two"),
        ]
        assert roles[2][1][2:] == ["Well?"]

    def test_a_call_without_an_output_is_answered_all_the_same(self) -> None:
        """The API takes no call that is not."""
        items = (user("A"), {"type": "local_shell_call", "call_id": "c1", "action": {"command": ["ls"]}})
        (result,) = turns(body(*items, tools=({"type": "local_shell"},)))[2][1]
        assert result["content"] == [{"type": "text", "text": "(There is no result of this call.)"}]

    def test_foreign_call_ids_are_mapped_and_repeated_ones_told_apart(self) -> None:
        """The same id gives the same id in every request."""
        items = (user("A"), call("fc:1/ä"), output("fc:1/ä"), call("c"), output("c"), call("c"), output("c"))
        blocks = [block for _, content in turns(body(*items, tools=(WEATHER,))) for block in content]
        ids = [block["id"] for block in blocks if not isinstance(block, str) and block["type"] == "tool_use"]
        assert ids[0].startswith("call_") and ids[1:] == ["c", "c_2"]
        assert ids[0] in json.dumps(body(*items[:3], tools=(WEATHER,)))

    def test_calls_of_all_kinds_go_back_as_the_functions_that_they_were_shown_as(self) -> None:
        """Free text is one string argument, a namespace is part of the name, broken JSON is kept as text."""
        items = (
            user("A"),
            {"type": "custom_tool_call", "call_id": "c1", "name": "patch", "input": "+x"},
            {"type": "custom_tool_call_output", "call_id": "c1", "output": "done"},
            call("c2", "clock", '{"zone"', namespace="time"),
            output("c2", "no", status="failed"),
            {"type": "shell_call", "call_id": "c3", "action": {"commands": ["ls"]}},
            {"type": "shell_call_output", "call_id": "c3", "output": [{"stdout": "a\n", "outcome": {"type": "exit"}}]},
        )
        namespace = {"type": "namespace", "name": "time", "description": "", "tools": [CLOCK]}
        sent = body(*items, tools=(CLOCK, PATCH, namespace, {"type": "shell"}))
        blocks = [block for _, content in turns(sent)[1:] for block in content]
        assert [(b["name"], b["input"]) for b in blocks if b["type"] == "tool_use"] == [
            ("patch", {"input": "+x"}),
            ("time__clock", {"arguments": '{"zone"'}),
            ("shell", {"commands": ["ls"], "timeout_ms": None, "max_output_length": None}),
        ]
        results = [block for block in blocks if block["type"] == "tool_result"]
        assert [result.get("is_error") for result in results] == [None, True, None]

    def test_images_and_files_are_blocks(self) -> None:
        """By data or by URL; text files are documents with their name."""
        pdf, text = (base64.b64encode(data).decode() for data in (b"%PDF-1.7", "Grüße".encode()))
        parts = (
            {"type": "input_image", "image_url": PNG, "detail": "auto"},
            {"type": "input_image", "image_url": "https://x.test/a.jpg", "detail": "auto"},
            {"type": "input_file", "file_data": pdf},
            {"type": "input_file", "file_url": "https://x.test/a.pdf"},
            {"type": "input_file", "filename": "a.txt", "file_data": f"data:text/plain;base64,{text}"},
            {"type": "input_file", "filename": "a.png", "file_data": PNG},
        )
        ((_, blocks),) = turns(body(user(*parts)))
        image = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
        assert [block["source"] for block in blocks] == [
            image,
            {"type": "url", "url": "https://x.test/a.jpg"},
            {"type": "base64", "media_type": "application/pdf", "data": pdf},
            {"type": "url", "url": "https://x.test/a.pdf"},
            {"type": "text", "media_type": "text/plain", "data": "Grüße"},
            image,
        ]
        assert [block.get("title") for block in blocks] == [None, None, None, None, "a.txt", None]

    def test_results_may_hold_images(self) -> None:
        """As what the user says may."""
        sent = body(user("A"), call("c"), output("c", [{"type": "input_image", "image_url": PNG}]), tools=(WEATHER,))
        assert turns(sent)[2][1][0]["content"][0]["type"] == "image"

    def test_a_model_that_sees_little_is_told_so(self) -> None:
        """Images become a remark, text files text."""
        sight = Profile()
        parts = (
            {"type": "input_image", "image_url": PNG},
            {"type": "input_file", "filename": "a", "file_data": "YQ=="},
        )
        told = DIALECT.ask(ModelRequest(model="m", items=(user(*parts),)), sight, "x").body["messages"][0]["content"]
        assert [block["text"] for block in told] == [
            "(Here was an image, which this model cannot see.)",
            "File 'a':\na",
        ]

    @pytest.mark.parametrize(
        "part",
        [
            {"type": "input_image", "image_url": "data:image/tiff;base64,AA=="},
            {"type": "input_image", "image_url": "data:image/png,AA"},
            {"type": "input_image", "image_url": None, "file_id": "file_1"},
            {"type": "input_file", "file_id": "file_1"},
            {"type": "input_file", "filename": "a.zip", "file_data": "/////w=="},
            {"type": "input_audio", "input_audio": {}},
        ],
    )
    def test_what_cannot_be_said_is_refused(self, part: JsonObject) -> None:
        """The message says what to send instead."""
        with pytest.raises(InvalidRequest, match=r"Send|Encode") as refused:
            body(user(part))
        assert refused.value.param == "input"


class TestThinking:
    def test_thinking_goes_back_before_what_it_led_to(self) -> None:
        """To the letter, and only what this provider made; nothing ends with it."""
        items = (
            user("A"),
            thought("I need it."),
            thought("Foreign.", origin="other"),
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Raw."}]},
            said("Let me see."),
            call("c"),
            output("c"),
            thought("Cut off."),
        )
        sent = body(*items, tools=(WEATHER,), reasoning={"effort": "high"})
        assert [block["type"] for block in sent["messages"][1]["content"]] == ["thinking", "text", "tool_use"]
        assert sent["messages"][1]["content"][0]["thinking"] == "I need it."
        assert "Cut off." not in json.dumps(sent)

    def test_redacted_thinking_goes_back_too(self) -> None:
        """It is opaque."""
        block = {"type": "redacted_thinking", "data": "x." + api.signature("x")}
        item = {"type": "reasoning", "summary": [], "state": packed("claude", block)}
        sent = body(user("A"), item, said("B"), user("C"), reasoning={"effort": "low"})
        assert sent["messages"][1]["content"][0] == block

    def test_what_does_not_think_now_is_not_shown_its_thinking(self) -> None:
        """The API would pass over it, or refuse it."""
        assert "thinking" not in json.dumps(body(user("A"), thought("x"), said("B"), user("C")))

    @pytest.mark.parametrize(
        ("model", "effort", "thinking", "said_effort"),
        [
            (OPUS, None, None, None),
            (OPUS, "none", None, None),
            (OPUS, "minimal", {"type": "adaptive", "display": "omitted"}, "low"),
            (OPUS, "xhigh", {"type": "adaptive", "display": "omitted"}, "xhigh"),
            ("claude-opus-4-6", "xhigh", {"type": "adaptive", "display": "omitted"}, "high"),
            ("claude-opus-4-6", "max", {"type": "adaptive", "display": "omitted"}, "max"),
            ("claude-opus-5", None, {"type": "adaptive", "display": "omitted"}, None),
            ("claude-opus-5", "none", {"type": "disabled"}, None),
            ("claude-fable-5", "none", {"type": "adaptive", "display": "omitted"}, "low"),
            (OLD, "low", {"type": "enabled", "budget_tokens": 2048}, None),
            (OLD, "max", {"type": "enabled", "budget_tokens": 48_000}, None),
            (OLDEST, "high", None, None),
        ],
    )
    def test_effort_is_said_as_the_model_takes_it(
        self, model: str, effort: Any, thinking: Any, said_effort: Any
    ) -> None:
        """As a level, as a budget of at most three quarters of the answer, or not at all."""
        sent = body(model=model, reasoning=None if effort is None else {"effort": effort})
        assert sent.get("thinking") == thinking
        assert sent.get("output_config", {}).get("effort") == said_effort

    def test_bound_thinking_that_no_longer_fits_is_let_go(self) -> None:
        """The client may have changed instructions or tools; the request must not fail for that."""
        request = ModelRequest(model=NEW, items=(user("A"), thought("x"), said("B"), user("C")))
        asked = DIALECT.ask(request, profile_of("anthropic", NEW), "claude")
        assert asked.headers == {"anthropic-beta": BINDING}
        assert asked.body["thinking"]["block_binding"] == {"prefix_mismatch_behavior": "drop_block"}
        assert body(*request.items, model=NEW)["messages"][1]["content"][0]["type"] == "thinking"

    def test_too_small_an_answer_leaves_no_room_to_think(self) -> None:
        """The smallest budget is 1024 tokens."""
        sent = body(model=OLD, reasoning={"effort": "high"}, max_output_tokens=1200)
        assert "thinking" not in sent and sent["max_tokens"] == 1200

    def test_a_turn_that_was_begun_without_thinking_is_ended_without(self) -> None:
        """A model with a budget is refused otherwise; one that adapts is not."""
        items = (user("A"), call("c"), output("c"))
        fields: Any = {"tools": (WEATHER,), "reasoning": {"effort": "high"}}
        assert "thinking" not in body(*items, model=OLD, **fields)
        assert "thinking" in body(*items, **fields)
        assert "thinking" in body(*items, said("B"), user("C"), model=OLD, **fields)

    def test_a_summary_is_asked_for_only_when_the_client_wants_one(self) -> None:
        """A wish for a summary alone is a wish to think."""
        assert body(reasoning={"summary": "auto"})["thinking"]["display"] == "summarized"
        assert "effort" not in body(reasoning={"summary": "auto"}).get("output_config", {})


class TestTools:
    def test_a_choice_is_said_in_their_words(self) -> None:
        """Only tools that may be called are shown."""
        both: Any = {"tools": (WEATHER, CLOCK), "model": OLD}
        one = {"type": "function", "name": "clock"}
        allowed = {"type": "allowed_tools", "mode": "auto", "tools": [one]}
        assert "tool_choice" not in body(**both)
        assert body(**both, tool_choice="required")["tool_choice"] == {"type": "any"}
        assert body(**both, tool_choice=one)["tool_choice"] == {"type": "tool", "name": "clock"}
        assert body(**both, tool_choice="none")["tool_choice"] == {"type": "none"}
        assert [tool["name"] for tool in body(**both, tool_choice=allowed)["tools"]] == ["clock"]
        assert body(**both, parallel_tool_calls=False)["tool_choice"] == {
            "type": "auto",
            "disable_parallel_tool_use": True,
        }

    @pytest.mark.parametrize("model", ALL)
    @pytest.mark.parametrize("effort", ["none", "low", "max"])
    def test_a_call_that_must_be_made_is_forced_or_demanded(self, model: str, effort: str) -> None:
        """Thinking gives way to it; who cannot be forced is told by the operator."""
        sent = body(model=model, tools=(WEATHER, CLOCK), tool_choice="required", reasoning={"effort": effort})
        told = "You must call 'weather' or 'clock' now." in json.dumps(sent["messages"])
        assert (sent.get("tool_choice") == {"type": "any"}) is not told

    def test_old_calls_are_sent_with_tools_even_when_there_are_none(self) -> None:
        """The API takes them not otherwise."""
        sent = body(user("A"), call("c", "gone"), output("c"))
        assert [tool["name"] for tool in sent["tools"]] == ["gone"] and sent["tool_choice"] == {"type": "none"}

    def test_strict_tools_are_held_to_their_schema_where_that_can_be_said(self) -> None:
        """Twenty of them; a free form, or a model without, leaves it to the check afterwards."""
        strict = {"type": "function", "name": "city", "parameters": CITY, "strict": True}
        (tool,) = body(tools=(strict,))["tools"]
        assert tool["strict"] is True and "minLength" not in tool["input_schema"]["properties"]["name"]
        assert "minLength" in tool["input_schema"]["properties"]["name"]["description"]
        free = {**strict, "parameters": {"type": "object", "additionalProperties": {"type": "string"}}}
        assert "strict" not in body(tools=(free,))["tools"][0]
        assert "strict" not in body(tools=(strict,), model=OLDEST)["tools"][0]
        many = body(tools=tuple({**strict, "name": f"t{n}"} for n in range(25)))["tools"]
        assert sum("strict" in tool for tool in many) == 20

    def test_unions_at_the_root_of_parameters_become_a_hint(self) -> None:
        """The API takes none there."""
        parameters = {"type": "object", "properties": {"a": {}}, "anyOf": [{"required": ["a"]}]}
        (tool,) = body(tools=({**WEATHER, "parameters": parameters},))["tools"]
        assert "anyOf" not in tool["input_schema"] and "anyOf" in tool["input_schema"]["description"]


class TestFormat:
    def test_a_schema_is_held_by_the_provider(self) -> None:
        """In the subset that it knows."""
        sent = body(text_format=FORMAT)
        schema = sent["output_config"]["format"]["schema"]
        assert sent["output_config"]["format"]["type"] == "json_schema"
        assert schema["properties"]["name"]["description"] == 'It must keep to: {"minLength":1}'

    def test_or_by_a_tool_that_must_be_called(self) -> None:
        """Beside the client's own tools, which may be called instead."""
        sent = body(model=OLDEST, text_format=FORMAT)
        assert sent["tool_choice"] == {"type": "tool", "name": "give_answer", "disable_parallel_tool_use": True}
        assert sent["tools"][0]["input_schema"] == CITY
        beside = body(model=OLDEST, text_format=FORMAT, tools=(WEATHER,))
        assert [tool["name"] for tool in beside["tools"]] == ["weather", "give_answer"]
        assert beside["tool_choice"] == {"type": "any"}

    def test_or_by_asking_where_neither_will_do(self) -> None:
        """Thinking goes before a forced call, and a schema that is no object cannot be a tool's."""
        thinking = body(model="claude-3-7-sonnet-latest", text_format=FORMAT, reasoning={"effort": "low"})
        assert thinking["thinking"]["type"] == "enabled" and "JSON Schema" in thinking["system"][-1]["text"]
        listing = {"type": "json_schema", "name": "all", "schema": {"type": "array", "items": CITY}}
        assert "JSON Schema" in body(model=OLDEST, text_format=listing)["system"][-1]["text"]
        assert "one JSON object" in body(model=NEW, text_format={"type": "json_object"})["system"][-1]["text"]

    def test_a_call_that_must_be_made_is_no_answer(self) -> None:
        """There is nothing to hold then."""
        sent = body(model=OLDEST, text_format=FORMAT, tools=(WEATHER,), tool_choice="required")
        assert [tool["name"] for tool in sent["tools"]] == ["weather"]

    @pytest.mark.parametrize(
        "schema",
        [
            {},
            {"type": "object"},
            {"type": "object", "additionalProperties": {"type": "string"}},
            {"$ref": "#"},
            {"$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}}, "$ref": "#/$defs/n"},
            {"type": "object", "properties": {"a": {}}},
            {"type": "object", "properties": {"a": {"$ref": "https://x.test"}}},
            {"type": "array", "prefixItems": [{"type": "string"}]},
        ],
    )
    def test_a_schema_whose_meaning_would_change_has_no_form(self, schema: JsonObject) -> None:
        """Free keys, recursion, anything at all."""
        assert closed(schema) is None

    def test_a_schema_is_closed_all_through(self) -> None:
        """Definitions, unions and lists as well; words that no grammar has become hints."""
        schema = {
            "$defs": {"a": {"type": "object", "properties": {"x": {"type": ["integer", "null"], "minimum": 1}}}},
            "type": "object",
            "properties": {"l": {"type": "array", "items": {"$ref": "#/$defs/a"}, "minItems": 2}},
            "oneOf": [{"type": "object", "properties": {"z": {"type": "string", "format": "date"}}}],
        }
        made = closed(schema)
        assert made is not None
        api._check_schema(made, api.Traits(OPUS))
        assert made["properties"]["l"]["description"] == 'It must keep to: {"minItems":2}'
        assert made["anyOf"][0]["properties"]["z"]["format"] == "date"

    def test_one_request_has_room_for_so_much(self) -> None:
        """What would be refused as a whole is left out one by one."""
        optional = {"type": "object", "properties": {str(n): {"type": "string"} for n in range(20)}}
        room = Room()
        assert [room.takes(optional), room.takes(optional), room.takes(CITY)] == [True, False, True]


class TestSettings:
    def test_sampling_is_what_the_model_takes(self) -> None:
        """Temperature ends at 1, one sampler is enough, thinking takes none, and the newest none at all."""
        sampling = Sampling(temperature=1.7, top_p=0.5, stop=("END", " "), seed=1)
        assert {key: body(model=OLD, sampling=sampling).get(key) for key in ("temperature", "top_p")} == {
            "temperature": 1.0,
            "top_p": None,
        }
        assert body(model=OLD, sampling=sampling)["stop_sequences"] == ["END"]
        assert body(model=OLD, sampling=Sampling(top_p=0.5))["top_p"] == 0.5
        assert "temperature" not in body(model=OLD, sampling=sampling, reasoning={"effort": "low"})
        assert "temperature" not in body(sampling=sampling)

    def test_a_bound_is_always_sent(self) -> None:
        """The client's, no higher than the model's; else the model's, or the default."""
        assert body(model=OLDEST, max_output_tokens=10)["max_tokens"] == 10
        assert body(model=OLDEST, max_output_tokens=99_999)["max_tokens"] == 4096
        assert body(model=OPUS)["max_tokens"] == 128_000
        assert DIALECT.ask(ModelRequest(model="m", items=()), Profile(), "x").body["max_tokens"] == 8192

    def test_who_asks_and_the_tier_are_passed_on(self) -> None:
        """As far as they mean something."""
        assert body(safety_identifier="u1")["metadata"] == {"user_id": "u1"}
        assert body(passed_on={"user": "u2", "service_tier": "default"})["service_tier"] == "standard_only"
        assert "service_tier" not in body(passed_on={"service_tier": "flex"})

    def test_four_places_end_a_cached_prefix(self) -> None:
        """The tools, the system prompt, and the user's last two turns."""
        items = (user("A"), said("B"), user("C"), call("c"), output("c"))
        sent = body(*items, instructions="Be.", tools=(WEATHER, CLOCK), passed_on={"prompt_cache_retention": "24h"})
        mark = {"type": "ephemeral", "ttl": "1h"}
        assert sent["tools"][-1]["cache_control"] == sent["system"][-1]["cache_control"] == mark
        marked = ["cache_control" in message["content"][-1] for message in sent["messages"]]
        assert marked == [False, False, True, False, True]


class TestAnswer:
    def test_a_plain_answer(self) -> None:
        """Input counts with what the cache gave and took."""
        usage = Usage(input_tokens=17, output_tokens=9, cached_tokens=5)
        assert decoded(api.text("Hel", "lo")) == [Text("Hel"), Text("lo"), Finish("stop", usage)]

    def test_thinking_is_shown_as_was_wanted_and_kept_to_the_letter(self) -> None:
        """A summary, raw text, or nothing; always the block that goes back."""
        block = {"type": "thinking", "thinking": "Hm. So.", "signature": api.signature("Hm. So.")}
        state = ReasoningState(packed("claude", block))
        thinking = api.thinking("Hm. ", "So.")
        assert decoded(thinking, reasoning="summary")[:-1] == [ReasoningSummary("Hm. "), ReasoningSummary("So."), state]
        assert decoded(thinking, reasoning="raw")[:-1] == [Reasoning("Hm. "), Reasoning("So."), state]
        assert decoded(thinking)[:-1] == [state]
        hidden = {"type": "redacted_thinking", "data": f"x.{api.signature('x')}"}
        assert decoded(api.redacted("x"))[:-1] == [ReasoningState(packed("claude", hidden))]

    def test_calls_come_under_the_clients_names(self) -> None:
        """Kind and namespace too; an empty input is an empty object."""
        namespace = {"type": "namespace", "name": "time", "tools": [CLOCK]}
        known = tools(CLOCK, namespace, PATCH, {"type": "shell"})
        answer = decoded(
            api.tool_use("t1", "time__clock", '{"a"', ":1}"),
            api.tool_use("t2", "clock"),
            api.tool_use("t3", "patch", '{"input": "a\\', 'nb"}'),
            api.tool_use("t4", "shell", '{"commands":["ls"]}'),
            api.tool_use("t5", "invented", "{}"),
            tools=known,
        )
        assert answer[:-1] == [
            ToolCall("t1", "clock", namespace="time"),
            ToolArguments('{"a"'),
            ToolArguments(":1}"),
            ToolCall("t2", "clock"),
            ToolArguments("{}"),
            ToolCall("t3", "patch", "custom_tool_call"),
            ToolArguments("a"),
            ToolArguments("\nb"),
            ToolCall("t4", "shell", "shell_call"),
            ToolArguments('{"commands":["ls"]}'),
            ToolCall("t5", "invented"),
            ToolArguments("{}"),
        ]
        assert isinstance(answer[-1], Finish) and answer[-1].reason == "tool_calls"

    @given(st.text(), st.data())
    def test_free_text_comes_out_as_it_was_meant_however_it_is_cut(self, text: str, data: st.DataObject) -> None:
        """Escapes and surrogate pairs may be cut anywhere."""
        text = text.encode("utf-8", "ignore").decode()
        written = json.dumps({"input": text}, ensure_ascii=data.draw(st.booleans()))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(written)))))
        pieces = [written[a:b] for a, b in zip([0, *cuts], [*cuts, len(written)], strict=True)]
        answer = decoded(api.tool_use("t", "patch", *pieces), tools=tools(PATCH))
        assert "".join(delta.text for delta in answer if isinstance(delta, ToolArguments)) == text

    @pytest.mark.parametrize(
        ("written", "text"), [('{"patch": "x"}', '{"patch": "x"}'), ("+x", "+x"), ("", ""), ('{ "input" : "x"', "x")]
    )
    def test_free_text_of_another_form_is_kept(self, written: str, text: str) -> None:
        """The client sees what the model wrote."""
        answer = decoded(api.tool_use("t", "patch", written), tools=tools(PATCH))
        assert "".join(delta.text for delta in answer if isinstance(delta, ToolArguments)) == text

    def test_the_answer_of_a_tool_is_text(self) -> None:
        """It streams, and is no call."""
        answer = decoded(api.tool_use("t", "give_answer", '{"na', 'me":"Rome"}'), answer_tool="give_answer")
        assert answer[:-1] == [Text('{"na'), Text('me":"Rome"}')]
        assert isinstance(answer[-1], Finish) and answer[-1].reason == "stop"

    def test_blocks_of_text_are_parts_and_citations_cover_them(self) -> None:
        """So that they go back as they came."""
        web = {"type": "web_search_result_location", "url": "https://x.test", "title": "X", "cited_text": "c"}
        page = {"type": "page_location", "document_index": 1, "document_title": "D", "cited_text": "c"}
        page |= {"start_page_number": 2, "end_page_number": 3}
        answer = decoded(
            api.text("It is "),
            api.text("so", citations=[{**web, "encrypted_index": "e"}]),
            api.text("!", citations=[page]),
        )
        cited = {"type": "url_citation", "url": "https://x.test", "title": "X", "start_index": 0, "end_index": 2}
        assert answer[:-2] == [Text("It is "), Begin("part"), Text("so"), Annotation(cited), Begin("part"), Text("!")]
        assert isinstance(answer[-2], Annotation)
        assert answer[-2].annotation == {
            "type": "file_citation",
            "file_id": "",
            "filename": "D",
            "index": 1,
            "start_index": 0,
            "end_index": 1,
            "cited_text": "c",
            "location": {"type": "page_location", "start_page_number": 2, "end_page_number": 3},
        }

    def test_searches_of_the_provider_are_items(self) -> None:
        """What has no item is passed over, and hurts nothing behind it."""
        found = [{"type": "web_search_result", "url": "https://x.test", "title": "X", "encrypted_content": "e"}]
        answer = decoded(
            api.text("A"),
            api.server_tool_use("s1", "web_search", '{"query":"q"}'),
            api.block({"type": "web_search_tool_result", "tool_use_id": "s1", "content": found}),
            api.server_tool_use("s2", "code_execution", "{}"),
            api.block({"type": "code_execution_tool_result", "tool_use_id": "s2", "content": {}}),
            api.block({"type": "hologram", "text": "?"}),
            api.text("B"),
            sources=True,
        )
        action = {"type": "search", "query": "q", "sources": [{"type": "url", "url": "https://x.test"}]}
        item = {"type": "web_search_call", "status": "completed", "action": action}
        assert answer[:-1] == [Text("A"), WholeItem(item), Text("B")]

    def test_a_search_that_failed_says_so(self) -> None:
        """Its result is an object then."""
        content = {"type": "web_search_tool_result_error", "error_code": "unavailable"}
        (item, _) = decoded(api.block({"type": "web_search_tool_result", "tool_use_id": "s", "content": content}))
        assert isinstance(item, WholeItem) and item.item["status"] == "failed"

    @pytest.mark.parametrize(
        ("stop", "reason"),
        [
            ("end_turn", "stop"),
            ("stop_sequence", "stop"),
            ("pause_turn", "stop"),
            ("something_new", "stop"),
            ("max_tokens", "max_output_tokens"),
            ("model_context_window_exceeded", "max_output_tokens"),
            ("refusal", "content_filter"),
        ],
    )
    def test_why_it_stopped(self, stop: str, reason: str) -> None:
        """What is not known is an end like others."""
        finish = played(api.message(api.text("A"), stop=stop))[-1]
        assert isinstance(finish, Finish) and finish.reason == reason

    def test_a_refusal_that_is_explained_is_said(self) -> None:
        """Before the end, which is that of a filter."""
        details = {"type": "refusal", "category": "bio", "explanation": "No."}
        answer = played(api.message(stop="refusal", stop_details=details))
        assert answer[0] == Refusal("No.") and isinstance(answer[1], Finish)

    def test_later_counts_replace_earlier_ones(self) -> None:
        """They are cumulative; thinking is told among them, and the tier."""
        answer = api.message(usage={"input_tokens": 20, "output_tokens_details": {"thinking_tokens": 4}})
        answer[0]["message"]["usage"] = {**api.USAGE, "service_tier": "standard"}
        usage = Usage(input_tokens=27, output_tokens=9, cached_tokens=5, reasoning_tokens=4)
        assert played(answer) == [Finish("stop", usage, "default")]

    def test_what_is_not_known_is_passed_over(self) -> None:
        """Events, deltas, and deltas of blocks that never began."""
        strange = [
            {"type": "weather_report", "index": 0, "wind": 3},
            {"type": "content_block_delta", "index": 7, "delta": {"type": "text_delta", "text": "?"}},
            {"type": "content_block_stop", "index": 7},
            api._start({"type": "text", "text": ""}) | {"index": 0},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "mood_delta", "mood": "good"}},
        ]
        assert played(strange) == []

    def test_blocks_whose_end_is_not_told_are_over_with_the_message(self) -> None:
        """Some servers tell no end of blocks."""
        whole = api.message(api.text("A"), api.tool_use("t", "f"), api.tool_use("u", "g"), stop="tool_use")
        cut = [event for event in whole if event["type"] != "content_block_stop"]
        assert played(cut) == played(whole)

    def test_blocks_between_each_other_are_told_one_after_the_other(self) -> None:
        """Nothing of them is lost: half the arguments of a call must not pass for all of them."""
        whole = api.message(api.tool_use("t", "f", '{"a":', "1}"), api.tool_use("u", "g", "{}"), stop="tool_use")
        one, other = ([event for event in whole if event.get("index") == at] for at in (0, 1))
        woven = [one[0], other[0], one[1], other[1], one[2], *other[2:], *one[3:]]
        assert played([*whole[:2], *woven, *whole[-2:]]) == played(whole)

    def test_an_answer_without_an_end_has_none(self) -> None:
        """It was broken off."""
        decoder = MessagesDecoder(Reading(origin="x"))
        for event in api.message(api.text("A"))[:-1]:
            decoder.feed(json.dumps(event).encode())
        assert list(decoder.end()) == []

    @pytest.mark.parametrize(
        ("kind", "message", "status", "code"),
        [
            ("overloaded_error", "Overloaded", 503, ""),
            ("rate_limit_error", "Slow down", 429, ""),
            ("api_error", "Oops", 500, ""),
            ("invalid_request_error", "No", 400, ""),
            ("invalid_request_error", "prompt is too long: 9 > 8 maximum", 400, "context_length_exceeded"),
            ("invalid_request_error", "Your credit balance is too low", 429, "insufficient_quota"),
            ("billing_error", "Pay", 429, "insufficient_quota"),
            ("some_new_error", "?", 500, ""),
        ],
    )
    def test_errors_in_the_stream_have_a_status(self, kind: str, message: str, status: int, code: str) -> None:
        """The nearest of HTTP's."""
        with pytest.raises(UpstreamError) as failed:
            played([{"type": "error", "error": {"type": kind, "message": message}}])
        assert (failed.value.status, failed.value.code, failed.value.message) == (status, code, message)


class TestModels:
    def test_a_listing_tells_facts(self) -> None:
        """Bounds and capabilities lie over the family's profile; retired models are gone."""
        yes, no = {"supported": True}, {"supported": False}
        capabilities = {
            "image_input": yes,
            "pdf_input": no,
            "structured_outputs": no,
            "effort": {"supported": True, "low": yes, "medium": yes, "high": yes, "xhigh": None, "max": no},
            "thinking": {"supported": True, "types": {"adaptive": yes, "enabled": no, "disabled": no}},
        }
        new = {"id": "claude-new", "created_at": "2026-09-28T00:00:00Z", "lifecycle": "active"}
        new |= {"max_input_tokens": 500_000, "max_tokens": 64_000, "capabilities": capabilities}
        old = {"id": "claude-old", "created_at": "soon", "capabilities": None}
        gone = {"id": "claude-gone", "lifecycle": "retired"}
        first, second = DIALECT.models(json.dumps({"data": [new, old, gone]}).encode())
        assert (first.id, first.created, first.owned_by) == ("claude-new", 1_790_553_600, "anthropic")
        assert first.facts == {
            "context_window": 500_000,
            "max_output_tokens": 64_000,
            "images": True,
            "files": False,
            "reasoning": True,
            "json_schema": "tool",
            "effort": "adaptive",
            "efforts": ("low", "medium", "high"),
            "thinks": "always",
        }
        assert (second.created, second.facts) == (0, {})

    def test_what_is_no_listing_is_unintelligible(self) -> None:
        """And so is a count that is none."""
        with pytest.raises(Unintelligible):
            DIALECT.models(b"[]")
        with pytest.raises(Unintelligible):
            DIALECT.counted(b"{}")


@pytest.mark.parametrize(
    ("model", "window", "answer", "effort", "thinks", "held"),
    [
        ("claude-next-9", 1_000_000, 128_000, "adaptive", "always", "native"),
        ("claude-opus-5-5", 1_000_000, 128_000, "adaptive", "always", "native"),
        ("claude-haiku-5-5", 1_000_000, 128_000, "adaptive", "unasked", "native"),
        ("claude-sonnet-5", 1_000_000, 128_000, "adaptive", "unasked", "native"),
        ("claude-opus-4-7", 1_000_000, 128_000, "adaptive", "asked", "native"),
        ("claude-haiku-4-5-20251001", 200_000, 64_000, "budget", "asked", "native"),
        ("claude-opus-4-1-20250805", 200_000, 32_000, "budget", "asked", "native"),
        ("anthropic/claude-sonnet-4-20250514", 200_000, 64_000, "budget", "asked", "tool"),
        ("claude-3-7-sonnet-20250219", 200_000, 64_000, "budget", "asked", "tool"),
        ("claude-3-5-haiku-latest", 200_000, 8192, "none", "asked", "tool"),
        ("kimi-k3", None, None, "none", "asked", "tool"),
    ],
)
def test_families_are_known(model: str, window: Any, answer: Any, effort: str, thinks: str, held: str) -> None:
    """Their bounds, how they think, how they are held to a schema; what is not known is taken for new."""
    profile = profile_of("anthropic", model)
    assert (profile.context_window, profile.max_output_tokens) == (window, answer)
    assert (profile.effort, profile.thinks, profile.json_schema) == (effort, thinks, held)
    assert set(profile.efforts) <= {"low", "medium", "high", "xhigh", "max"}


@asynccontextmanager
async def provider(server: MessagesServer, *models: str) -> AsyncIterator[Provider]:
    upstream = Upstream("claude", UpstreamOptions(base_url=server.url, headers=DIALECT.key_headers(KEY)))
    here = Provider(DIALECT, upstream, ProviderOptions(kind="anthropic", models=models))
    await here.start()
    try:
        yield here
    finally:
        await here.stop()


async def asked(here: Provider, request: ModelRequest) -> list[Delta]:
    async with here.stream(request) as deltas:
        return [delta async for delta in deltas]


HI = ModelRequest(model=OPUS, items=(user("Hi"),))
RICH = api.message(
    api.thinking("Hm. ", "So."),
    api.text("Let me ", "see: 🌦"),
    api.tool_use("t1", "weather", '{"city":', '"Köln"}'),
    api.tool_use("t2", "patch", '{"input":"\\ud83d', '\\ude00"}'),
    stop="tool_use",
)


@pytest.mark.anyio
class TestOverHTTP:
    async def test_an_answer_comes_through(self) -> None:
        """With the key, the version, and the connection given back."""
        async with messages_server(api.message(api.text("Hello"))) as server, provider(server) as here:
            assert (await asked(here, HI))[0] == Text("Hello")
            assert server.headers[0]["x-api-key"] == KEY and server.refused == []

    async def test_cuts_between_chunks_change_nothing(self) -> None:
        """Bytes come as they please."""
        request = ModelRequest(model=OPUS, items=(user("Hi"),), tools=(WEATHER, PATCH))
        known = tools(WEATHER, PATCH)
        expected = played(RICH, tools=known)
        whole = b"".join(events(*RICH, named=True))
        async with messages_server() as server, provider(server) as here:
            for size in (1, 2, 7, 61, 997, len(whole)):
                chunks = [whole[at : at + size] for at in range(0, len(whole), size)]
                server.answers.append(Play(chunks))
                assert await asked(here, request) == expected

    @pytest.mark.parametrize(
        ("play", "fault"),
        [
            (api.error(529, "overloaded_error", "Overloaded"), Unavailable),
            (api.error(429, "rate_limit_error", "Slow"), TooManyRequests),
            (api.error(400, "invalid_request_error", "Your credit balance is too low"), TooManyRequests),
            (api.error(400, "invalid_request_error", "prompt is too long: 2 tokens > 1 maximum"), InvalidRequest),
            (api.error(401, "authentication_error", f"bad {KEY}"), ModelFailed),
            (Play([*events(*RICH[:5]), "fin"]), ModelFailed),
            (Play(events(*RICH[:5])), ModelFailed),
            (Play([*events(*RICH[:5]), b"data: {nonsense\n\n"]), ModelFailed),
            (Play(events(*RICH[:5], {"type": "error", "error": {"type": "overloaded_error"}})), Unavailable),
        ],
    )
    async def test_faults_are_ours_or_theirs(self, play: Play, fault: type[HTTPFault]) -> None:
        """What was said before is given first, and no key is in a message."""
        async with messages_server(play) as server, provider(server) as here:
            with pytest.raises(fault) as raised:
                await asked(here, HI)
            assert KEY not in raised.value.message

    async def test_a_provider_that_is_stopped_at_once_leaves_no_connection_open(self) -> None:
        """Also where the end of an answer was to be read beside the run, and nobody had begun to."""
        async with messages_server(Play([*events(*RICH), "hang"])) as server, provider(server) as here:
            await asked(here, HI)
        gc.collect()  # a connection that is left open says so here

    async def test_tokens_are_counted_by_the_provider(self) -> None:
        """Also for models whose thinking is bound, without the thinking."""
        async with messages_server() as server, provider(server) as here:
            items = (user("A"), thought("x"), said("B"), user("C"))
            for model in ALL:
                request = ModelRequest(model=model, items=items, reasoning={"effort": "high"}, text_format=FORMAT)
                assert await here.count_tokens(request) == 42
            assert server.refused == []

    async def test_models_are_discovered(self) -> None:
        """What they tell is shown in their capabilities."""
        async with messages_server() as server, provider(server) as here:
            server.listing = {"data": [{"id": "claude-new", "max_input_tokens": 5}]}
            (model,) = await here.models()
            assert (model.id, model.capabilities.context_window) == ("claude-new", 5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=40))
def test_any_cuts_between_chunks_change_nothing(sizes: list[int]) -> None:
    """Whatever the sizes of the chunks, the deltas are the same."""
    whole, chunks = b"".join(events(*RICH, named=True)), []
    while whole:
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(whole[:size])
        whole = whole[size:]

    async def play() -> None:
        async with messages_server(Play(chunks)) as server, provider(server) as here:
            assert await asked(here, HI) == played(RICH)

    anyio.run(play)
