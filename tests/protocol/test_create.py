"""The create request: limits, defaults, and the rules between fields (wire contract, sections 3, 17 and 18)."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from json_values import ANY_JSON, objects, words

from core.writing import counted
from ore.errors import InvalidRequest
from ore.protocol.content import MAX_TEXT
from ore.protocol.responses import Create, CreateBody, check_create


def create(**fields: Any) -> Create:
    return check_create({"input": "Hi", **fields}, counted())


def function(name: str = "f", **more: Any) -> dict[str, Any]:
    return {"type": "function", "name": name, "description": None, "parameters": None, "strict": None, **more}


DEFAULTS: dict[str, Any] = {
    "model": None,
    "instructions": None,
    "previous_response_id": None,
    "conversation": None,
    "include": (),
    "tools": [],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "max_tool_calls": None,
    "text": {"format": {"type": "text"}},
    "reasoning": None,
    "temperature": None,
    "top_p": None,
    "presence_penalty": None,
    "frequency_penalty": None,
    "top_logprobs": 0,
    "max_output_tokens": None,
    "truncation": "disabled",
    "metadata": {},
    "store": True,
    "stream": False,
    "service_tier": "default",
    "safety_identifier": None,
    "prompt_cache_key": None,
    "user": None,
    "seed": None,
    "stop": (),
    "background": False,
    "obfuscated": False,
    "compact_threshold": None,
    "compacts": False,
    "generate": True,
    "passed_on": {},
}


def test_every_default_is_the_contract_s() -> None:
    """A request of nothing but its input means the zero values of section 3.1."""
    shown = msgspec.structs.asdict(create())
    shown.pop("input")
    assert shown == DEFAULTS


@pytest.mark.parametrize("name", [name for name in CreateBody.__struct_fields__ if name != "input"])
def test_null_means_the_default(name: str) -> None:
    """SDK users send explicit nulls, so null is accepted in every optional field and changes nothing."""
    assert create(**{name: None}) == create()


def test_all_nulls_at_once_are_the_defaults() -> None:
    """A client that fills every optional field with null gets the plain request."""
    assert create(**dict.fromkeys(set(CreateBody.__struct_fields__) - {"input"})) == create()


EMPTY: dict[str, Any] = {"text": {}, "include": [], "tools": [], "metadata": {}, "reasoning": {}, "stream_options": {}}


@pytest.mark.parametrize(("name", "value"), EMPTY.items(), ids=EMPTY)
def test_empty_values_are_the_defaults(name: str, value: Any) -> None:
    """`text: {}`, `include: []`, `tools: []` and the like ask for nothing."""
    assert create(**{name: value}) == create()


TAKEN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "model": ({"model": "m"}, {"model": "m"}),
    "empty model": ({"model": ""}, {"model": None}),
    "empty previous id": ({"previous_response_id": ""}, {"previous_response_id": None}),
    "conversation": ({"conversation": "conv_1"}, {"conversation": "conv_1"}),
    "conversation as an object": ({"conversation": {"id": "conv_1"}}, {"conversation": "conv_1"}),
    "empty conversation": ({"conversation": ""}, {"conversation": None}),
    "tools none": ({"tools": [], "tool_choice": "none"}, {"tool_choice": "none"}),
    "tools auto": ({"tools": [], "tool_choice": "auto"}, {"tool_choice": "auto"}),
    "short function": ({"tools": [{"type": "function", "name": "f"}]}, {"tools": [function()]}),
    "$schema in parameters": (
        {"tools": [function(parameters={"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"})]},
        {"tools": [function(parameters={"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"})]},
    ),
    "unknown tool": ({"tools": [{"type": "acme:x", "y": None}]}, {"tools": [{"type": "acme:x", "y": None}]}),
    "two unknown tools": ({"tools": [{"type": "mcp"}, {"type": "mcp"}]}, {"tools": [{"type": "mcp"}, {"type": "mcp"}]}),
    "fields of a function": ({"tools": [function(acme=1)]}, {"tools": [function(acme=1)]}),
    "longest function name": ({"tools": [function("n" * 128)]}, {"tools": [function("n" * 128)]}),
    "required": (
        {"tools": [function()], "tool_choice": "required"},
        {"tools": [function()], "tool_choice": "required"},
    ),
    "forced": (
        {"tools": [function()], "tool_choice": {"type": "function", "name": "f"}},
        {"tools": [function()], "tool_choice": {"type": "function", "name": "f"}},
    ),
    "forced hosted": (
        {"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}},
        {"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}},
    ),
    "allowed tools get their mode": (
        {
            "tools": [function()],
            "tool_choice": {"type": "allowed_tools", "tools": [{"type": "function", "name": "f"}]},
        },
        {
            "tools": [function()],
            "tool_choice": {
                "type": "allowed_tools",
                "tools": [{"type": "function", "name": "f"}],
                "mode": "auto",
            },
        },
    ),
    "JSON schema": (
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"$schema": "s"}}}},
        {
            "text": {
                "format": {
                    "type": "json_schema",
                    "name": "n",
                    "description": None,
                    "schema": {"$schema": "s"},
                    "strict": False,
                }
            }
        },
    ),
    "JSON object": ({"text": {"format": {"type": "json_object"}}}, {"text": {"format": {"type": "json_object"}}}),
    "verbosity": ({"text": {"verbosity": "low"}}, {"text": {"format": {"type": "text"}, "verbosity": "low"}}),
    "format null": ({"text": {"format": None, "verbosity": None}}, {}),
    "effort": ({"reasoning": {"effort": "high"}}, {"reasoning": {"effort": "high", "summary": None}}),
    "effort minimal": ({"reasoning": {"effort": "minimal"}}, {"reasoning": {"effort": "minimal", "summary": None}}),
    "effort max": ({"reasoning": {"effort": "max"}}, {"reasoning": {"effort": "max", "summary": None}}),
    "summary": ({"reasoning": {"summary": "auto"}}, {"reasoning": {"effort": None, "summary": "auto"}}),
    "old summary": ({"reasoning": {"generate_summary": "auto"}}, {"reasoning": {"effort": None, "summary": "auto"}}),
    "temperature at its ends": ({"temperature": 0, "top_p": 1}, {"temperature": 0.0, "top_p": 1.0}),
    "hottest": ({"temperature": 2}, {"temperature": 2.0}),
    "penalties": (
        {"presence_penalty": -2, "frequency_penalty": 2},
        {"presence_penalty": -2.0, "frequency_penalty": 2.0},
    ),
    "logprobs": ({"top_logprobs": 20}, {"top_logprobs": 20}),
    "one token": ({"max_output_tokens": 1}, {"max_output_tokens": 1}),
    "one call": ({"max_tool_calls": 1}, {"max_tool_calls": 1}),
    "metadata at its limits": (
        {"metadata": {f"{n:064}": "v" * 512 for n in range(16)}},
        {"metadata": {f"{n:064}": "v" * 512 for n in range(16)}},
    ),
    "include": ({"include": ["reasoning.encrypted_content"]}, {"include": ("reasoning.encrypted_content",)}),
    "truncation": ({"truncation": "auto"}, {"truncation": "auto"}),
    "tiers are hints": (
        {"service_tier": "priority"},
        {"service_tier": "default", "passed_on": {"service_tier": "priority"}},
    ),
    "identifiers": (
        {"safety_identifier": "s" * 128, "prompt_cache_key": "k" * 64, "user": "u"},
        {"safety_identifier": "s" * 128, "prompt_cache_key": "k" * 64, "user": "u", "passed_on": {"user": "u"}},
    ),
    "not stored": ({"store": False}, {"store": False}),
    "streamed": ({"stream": True, "stream_options": {"include_obfuscation": False}}, {"stream": True}),
    "serial calls": ({"parallel_tool_calls": False}, {"parallel_tool_calls": False}),
    "not in the background": ({"background": False}, {}),
    "in the background": ({"background": True}, {"background": True}),
    "padded": ({"stream": True, "stream_options": {"include_obfuscation": True}}, {"stream": True, "obfuscated": True}),
    "compacted": (
        {"context_management": [{"type": "compaction", "compact_threshold": 1000}]},
        {"compact_threshold": 1000},
    ),
    "compacted in time": ({"context_management": [{"type": "compaction"}]}, {"compact_threshold": 0}),
    "compacted now": ({"input": [{"type": "compaction_trigger"}]}, {"compacts": True, "input": []}),
    "window of no meaning": ({"background_options": {"completion_window": "soonest"}}, {}),
    "moderation that only scores": (
        {"moderation": {"model": "m"}},
        {"passed_on": {"moderation": {"model": "m"}}},
    ),
    "reasoning that only OpenAI knows": (
        {"reasoning": {"effort": "low", "context": "all_turns", "mode": "pro"}},
        {
            "reasoning": {"effort": "low", "summary": None},
            "passed_on": {"reasoning": {"context": "all_turns", "mode": "pro"}},
        },
    ),
    "stop": ({"stop": "x"}, {"stop": ("x",)}),
    "stops": ({"stop": ["x", "y"]}, {"stop": ("x", "y")}),
    "seed": ({"seed": 2**32 - 1}, {"seed": 2**32 - 1}),
    "unknown fields": ({"acme": {"a": [None]}, "max_tokens": 5}, {}),
}


@pytest.mark.parametrize(("sent", "changed"), TAKEN.values(), ids=TAKEN)
def test_each_setting_is_taken_in_its_echoed_form(sent: dict[str, Any], changed: dict[str, Any]) -> None:
    """A setting changes its own field to the form that the response shows, and no other."""
    assert create(**sent) == msgspec.structs.replace(create(), **changed)


JSON_SCHEMA = {"type": "json_schema", "name": "n", "schema": {}}
REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "model a number": ({"model": 5}, "invalid_type", "model"),
    "instructions an array": ({"instructions": []}, "invalid_type", "instructions"),
    "input too long": ({"input": "x" * (MAX_TEXT + 1)}, "string_above_max_length", "input"),
    "no input": ({"input": None}, "missing_required_parameter", "input"),
    "empty array of input": ({"input": []}, "missing_required_parameter", "input"),
    "include unknown": (
        {"include": ["reasoning.encrypted_content", "everything"]},
        "invalid_value",
        "include[1]",
    ),
    "include a string": ({"include": "reasoning.encrypted_content"}, "invalid_type", "include"),
    "tools an object": ({"tools": {}}, "invalid_type", "tools"),
    "too many tools": ({"tools": [{"type": "x"}] * 1025}, "array_above_max_length", "tools"),
    "tool a string": ({"tools": ["f"]}, "invalid_type", "tools[0]"),
    "tool without type": ({"tools": [{"name": "f"}]}, "missing_required_parameter", "tools[0].type"),
    "function without name": ({"tools": [{"type": "function"}]}, "missing_required_parameter", "tools[0].name"),
    "function with a bad name": ({"tools": [function("a b")]}, "invalid_value", "tools[0].name"),
    "function with a name and newline": ({"tools": [function("ab\n")]}, "invalid_value", "tools[0].name"),
    "function with an empty name": ({"tools": [function("")]}, "invalid_value", "tools[0].name"),
    "function with a long name": ({"tools": [function("n" * 129)]}, "invalid_value", "tools[0].name"),
    "nested function": (
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        "missing_required_parameter",
        "tools[0].name",
    ),
    "description": ({"tools": [function(description=5)]}, "invalid_type", "tools[0].description"),
    "parameters": ({"tools": [function(parameters=[])]}, "invalid_type", "tools[0].parameters"),
    "strict": ({"tools": [function(strict="yes")]}, "invalid_type", "tools[0].strict"),
    "twins": ({"tools": [function(), function("g"), function()]}, "invalid_value", "tools[2].name"),
    "twins of two kinds": ({"tools": [function(), {"type": "custom", "name": "f"}]}, "invalid_value", "tools[1].name"),
    "choice unknown": ({"tool_choice": "any"}, "invalid_value", "tool_choice"),
    "choice a number": ({"tool_choice": 1}, "invalid_type", "tool_choice"),
    "choice without type": ({"tool_choice": {"name": "f"}}, "invalid_value", "tool_choice"),
    "required without tools": ({"tool_choice": "required"}, "invalid_value", "tool_choice"),
    "forced without tools": ({"tool_choice": {"type": "function", "name": "f"}}, "invalid_value", "tool_choice"),
    "forced without a name": (
        {"tools": [function()], "tool_choice": {"type": "function"}},
        "missing_required_parameter",
        "tool_choice.name",
    ),
    "forced hosted without tools": ({"tool_choice": {"type": "web_search"}}, "invalid_value", "tool_choice"),
    "allowed without tools": ({"tool_choice": {"type": "allowed_tools"}}, "invalid_value", "tool_choice.tools"),
    "allowed nothing": ({"tool_choice": {"type": "allowed_tools", "tools": []}}, "invalid_value", "tool_choice.tools"),
    "allowed in an odd mode": (
        {"tools": [function()], "tool_choice": {"type": "allowed_tools", "tools": [function()], "mode": "x"}},
        "invalid_value",
        "tool_choice.mode",
    ),
    "allowed that is not there": (
        {"tools": [function()], "tool_choice": {"type": "allowed_tools", "tools": [function(), function("g")]}},
        "invalid_value",
        "tool_choice.tools[1]",
    ),
    "allowed of an odd type": (
        {"tools": [function()], "tool_choice": {"type": "allowed_tools", "tools": [{"type": []}]}},
        "invalid_value",
        "tool_choice.tools[0]",
    ),
    "no calls": ({"max_tool_calls": 0}, "integer_below_min_value", "max_tool_calls"),
    "half a call": ({"max_tool_calls": 1.5}, "invalid_type", "max_tool_calls"),
    "text a string": ({"text": "json"}, "invalid_type", "text"),
    "format a string": ({"text": {"format": "json"}}, "invalid_type", "text.format"),
    "format unknown": ({"text": {"format": {"type": "xml"}}}, "invalid_value", "text.format.type"),
    "format without type": ({"text": {"format": {}}}, "invalid_value", "text.format.type"),
    "schema without a name": (
        {"text": {"format": {"type": "json_schema", "schema": {}}}},
        "missing_required_parameter",
        "text.format.name",
    ),
    "schema with a long name": (
        {"text": {"format": JSON_SCHEMA | {"name": "n" * 65}}},
        "invalid_value",
        "text.format.name",
    ),
    "no schema": (
        {"text": {"format": {"type": "json_schema", "name": "n"}}},
        "missing_required_parameter",
        "text.format.schema",
    ),
    "schema a string": (
        {"text": {"format": JSON_SCHEMA | {"schema": "s"}}},
        "invalid_json_schema",
        "text.format.schema",
    ),
    "strict format": ({"text": {"format": JSON_SCHEMA | {"strict": 1}}}, "invalid_type", "text.format.strict"),
    "format description": (
        {"text": {"format": JSON_SCHEMA | {"description": 1}}},
        "invalid_type",
        "text.format.description",
    ),
    "verbosity": ({"text": {"verbosity": "loud"}}, "invalid_value", "text.verbosity"),
    "effort": ({"reasoning": {"effort": "enormous"}}, "invalid_value", "reasoning.effort"),
    "summary": ({"reasoning": {"summary": "long"}}, "invalid_value", "reasoning.summary"),
    "too hot": ({"temperature": 2.1}, "decimal_above_max_value", "temperature"),
    "too cold": ({"temperature": -0.1}, "decimal_below_min_value", "temperature"),
    "temperature a string": ({"temperature": "1"}, "invalid_type", "temperature"),
    "temperature a boolean": ({"temperature": True}, "invalid_type", "temperature"),
    "top_p": ({"top_p": 1.1}, "decimal_above_max_value", "top_p"),
    "presence": ({"presence_penalty": -2.1}, "decimal_below_min_value", "presence_penalty"),
    "frequency": ({"frequency_penalty": 2.1}, "decimal_above_max_value", "frequency_penalty"),
    "logprobs": ({"top_logprobs": 21}, "integer_above_max_value", "top_logprobs"),
    "negative logprobs": ({"top_logprobs": -1}, "integer_below_min_value", "top_logprobs"),
    "no tokens": ({"max_output_tokens": 0}, "integer_below_min_value", "max_output_tokens"),
    "more tokens than fit": ({"max_output_tokens": 2**31}, "integer_above_max_value", "max_output_tokens"),
    "truncation": ({"truncation": "middle"}, "invalid_value", "truncation"),
    "service tier": ({"service_tier": "best"}, "invalid_value", "service_tier"),
    "metadata an array": ({"metadata": []}, "invalid_type", "metadata"),
    "metadata values": ({"metadata": {"a": 1}}, "invalid_type", "metadata.a"),
    "metadata null": ({"metadata": {"a": None}}, "invalid_type", "metadata.a"),
    "metadata pairs": (
        {"metadata": {str(n): "" for n in range(17)}},
        "object_above_max_properties",
        "metadata",
    ),
    "metadata key": ({"metadata": {"k" * 65: ""}}, "string_above_max_length", "metadata"),
    "metadata value": ({"metadata": {"k": "v" * 513}}, "string_above_max_length", "metadata.k"),
    "store": ({"store": "no"}, "invalid_type", "store"),
    "stream": ({"stream": 1}, "invalid_type", "stream"),
    "stream options alone": ({"stream_options": {"include_obfuscation": False}}, "invalid_value", "stream_options"),
    "safety identifier": ({"safety_identifier": "s" * 129}, "string_above_max_length", "safety_identifier"),
    "cache key": ({"prompt_cache_key": "k" * 65}, "string_above_max_length", "prompt_cache_key"),
    "background that is not kept": ({"background": True, "store": False}, "invalid_value", "background"),
    "padding that is no boolean": (
        {"stream": True, "stream_options": {"include_obfuscation": "yes"}},
        "invalid_type",
        "stream_options.include_obfuscation",
    ),
    "compaction too soon": (
        {"context_management": [{"type": "compaction", "compact_threshold": 999}]},
        "integer_below_min_value",
        "context_management[0].compact_threshold",
    ),
    "conversation a number": ({"conversation": 7}, "invalid_type", "conversation"),
    "conversation without id": ({"conversation": {}}, "missing_required_parameter", "conversation.id"),
    "conversation with an empty id": ({"conversation": {"id": ""}}, "missing_required_parameter", "conversation.id"),
    "conversation with a number": ({"conversation": {"id": 7}}, "invalid_type", "conversation.id"),
    "conversation too long": ({"conversation": "c" * 513}, "string_above_max_length", "conversation"),
    "conversation and previous": (
        {"conversation": {"id": "conv_1"}, "previous_response_id": "resp_1"},
        "invalid_value",
        "conversation",
    ),
    "prompt": ({"prompt": {"id": "p"}}, "unsupported_parameter", "prompt"),
    "unknown context management": (
        {"context_management": [{"type": "pruning"}]},
        "invalid_value",
        "context_management[0].type",
    ),
    "a trigger in the middle": (
        {"input": [{"type": "compaction_trigger"}, {"role": "user", "content": "Hi"}]},
        "invalid_value",
        "input[0].type",
    ),
    "moderation that blocks": (
        {"moderation": {"policy": {"input": {"mode": "block"}}}},
        "unsupported_parameter",
        "moderation.policy",
    ),
    "long window": (
        {"background_options": {"completion_window": "8h"}},
        "unsupported_parameter",
        "background_options.completion_window",
    ),
    "stop": ({"stop": [""]}, "invalid_value", "stop"),
    "stops": ({"stop": ["x"] * 17}, "invalid_value", "stop"),
    "seed": ({"seed": -1}, "integer_below_min_value", "seed"),
}


@pytest.mark.parametrize(("sent", "code", "param"), REFUSED.values(), ids=REFUSED)
def test_each_limit_is_kept(sent: dict[str, Any], code: str, param: str) -> None:
    """What is out of bounds is refused with its code and its path, never clipped or ignored."""
    with pytest.raises(InvalidRequest) as caught:
        create(**sent)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_input_may_be_missing_when_the_context_comes_from_elsewhere() -> None:
    """A response, a conversation or `instructions` give the model something to see; nothing at all is refused."""
    assert check_create({"previous_response_id": "resp_1"}, counted()).input == []
    assert check_create({"conversation": "conv_1"}, counted()).input == []
    assert check_create({"instructions": "Say hi."}, counted()).input == []
    assert len(check_create({"input": ""}, counted()).input) == 1


def test_unknown_fields_are_ignored_unless_the_operator_is_strict() -> None:
    """The strict switch refuses the first key that the contract does not name, with OpenAI's code."""
    body = {"input": "Hi", "acme": 1}
    assert check_create(body, counted()) == create()
    with pytest.raises(InvalidRequest) as caught:
        check_create(body, counted(), strict_fields=True)
    assert (caught.value.code, caught.value.param) == ("unknown_parameter", "acme")
    assert check_create({"input": "Hi", "user": None}, counted(), strict_fields=True) == create()


TOOLS = st.lists(
    objects(("type", "name", "parameters", "strict", "description", "format"), words("function", "custom", "f", "mcp")),
    max_size=2,
)
CHOICES = objects(("type", "name", "mode", "tools"), words("allowed_tools", "function", "f", "auto") | TOOLS)
FORMATS = objects(("type", "name", "schema", "strict"), words("json_schema", "text", "n"))
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "input": st.lists(objects(("type", "role", "content", "id", "call_id"), words("user", "message")), max_size=2),
    "tools": TOOLS,
    "tool_choice": CHOICES | words("auto", "required"),
    "text": objects(("format", "verbosity"), FORMATS | words("low")),
    "reasoning": objects(("effort", "summary", "generate_summary"), words("low", "auto")),
    "include": st.lists(words("reasoning.encrypted_content"), max_size=2),
    "stop": st.lists(words("x"), max_size=2),
    "moderation": objects(("policy", "model"), ANY_JSON),
    "background_options": objects(("completion_window",), ANY_JSON),
}
BODIES = st.lists(st.sampled_from(["odd", *CreateBody.__struct_fields__]), max_size=4, unique=True).flatmap(
    lambda names: st.fixed_dictionaries(
        {"input": st.just("Hi")} | {name: FIELDS.get(name, st.nothing()) | ANY_JSON for name in names}
    )
)


def path_begins_in(body: dict[str, Any], param: str) -> bool:
    """Whether the first step of `param` is a key of the body, or one that a request may have."""
    first = param.partition(".")[0].partition("[")[0]
    return first in body or first in CreateBody.__struct_fields__


# A body of any JSON is either a checked request that can be encoded, or an InvalidRequest that names a place in it.
@settings(deadline=None, max_examples=150)
@given(BODIES)
def test_any_object_is_a_request_or_a_refusal(body: dict[str, Any]) -> None:
    """No combination of fields breaks the check, and whatever passes can be sent on."""
    try:
        checked = check_create(body, counted())
    except InvalidRequest as refusal:
        assert refusal.code
        assert refusal.param is not None
        assert path_begins_in(body, refusal.param), refusal.param
    else:
        assert isinstance(checked, Create)
        msgspec.json.encode(checked)
