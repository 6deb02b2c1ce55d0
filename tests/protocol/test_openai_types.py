"""The `openai` package as a judge: what its types let users send is taken, and what ORE says parses as its types."""

from typing import Any, get_args

import msgspec
import pytest
from openai import BaseModel
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.response_create_params import ResponseCreateParamsBase, ToolChoice
from openai.types.responses.response_format_text_config_param import ResponseFormatTextConfigParam
from openai.types.responses.response_input_item_param import ResponseInputItemParam
from openai.types.responses.tool_param import ToolParam
from pydantic import TypeAdapter
from samples import holds_nothing, of_type
from typing_extensions import get_type_hints

from core.writing import RICH, begun, counted, recorded
from ore.core import deltas as d
from ore.errors import InvalidRequest
from ore.protocol import events as e
from ore.protocol.conversations import ConversationReference
from ore.protocol.items import DEMANDS
from ore.protocol.responses import check_create
from ore.protocol.wire import WIRES

STATUSES = ("completed", "incomplete", "failed")
ONLY_OURS = {"presence_penalty", "frequency_penalty", "store", "bytes", "error", "status", "name"}
"""Open Responses requires the first four (`bytes` in logprobs); `error` carries the nested shape beside the flat one
(8.4), and `status` a custom tool call, whose class in the SDK has none;
`name` is in the done event of arguments, where the SDK had it once."""


def kinds(union: Any) -> list[Any]:
    return list(get_args(union))


def name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))


def answers_nothing(item: Any) -> bool:
    """The SDK's type makes `call_id` optional; Open Responses requires it, and without it nothing pairs up."""
    return item.get("type") == "function_call_output" and item.get("call_id") is None


@pytest.mark.parametrize("kind", kinds(ResponseInputItemParam), ids=name)
def test_every_input_item_of_the_sdk_is_taken(kind: Any) -> None:
    """Each of the SDK's input items passes, in its shortest and in its fullest form, and comes back accepted.

    But for those that demand what is not done here: these are refused by name.
    """
    taken = [item for item in of_type(kind) if not holds_nothing(item) and not answers_nothing(item)]
    assert taken
    for item in taken:
        if item.get("type") in DEMANDS and item["type"] != "compaction_trigger":
            with pytest.raises(InvalidRequest) as caught:
                check_create({"input": [item]}, counted())
            assert caught.value.param == "input[0].type"
            continue
        kept = check_create({"input": [item]}, counted()).input
        if item.get("type") == "compaction_trigger":
            assert kept == []  # it is a wish, and nothing that the model sees
            continue
        assert check_create({"input": kept}, counted()).input == kept


def holds(whole: Any, part: Any) -> bool:
    """Whether all of `part` is in `whole`, at the same places."""
    if isinstance(part, dict):
        return all(key in whole and holds(whole[key], value) for key, value in part.items())
    if isinstance(part, list):
        return len(whole) == len(part) and all(map(holds, whole, part))
    return bool(whole == part)


@pytest.mark.parametrize("kind", kinds(ToolParam), ids=name)
def test_every_tool_of_the_sdk_is_taken(kind: Any) -> None:
    """Each of the SDK's tools passes and is echoed with all it brought, but for an MCP server's secrets."""
    for tool in of_type(kind):
        (echoed,) = check_create({"input": "", "tools": [tool]}, counted()).tools
        secrets = {"headers", "authorization"} if tool["type"] == "mcp" else set()
        assert holds(echoed, {key: value for key, value in tool.items() if key not in secrets})
        assert not secrets & set(echoed)


def named_by(choice: Any) -> list[dict[str, Any]]:
    """The tools that a choice needs beside it."""
    if isinstance(choice, str):
        return [{"type": "function", "name": "text"}]
    if choice["type"] == "allowed_tools":
        return choice["tools"]
    return [choice]


@pytest.mark.parametrize("kind", kinds(ToolChoice), ids=name)
def test_every_tool_choice_of_the_sdk_is_taken(kind: Any) -> None:
    """Each of the SDK's choices passes when its tool is there, and is echoed as it came."""
    for choice in of_type(kind):
        if isinstance(choice, dict) and choice["type"] == "allowed_tools":
            choice["tools"] = [{"type": "function", "name": "text"}, {"type": "image_generation"}]
        shown = check_create({"input": "", "tools": named_by(choice), "tool_choice": choice}, counted()).tool_choice
        assert shown == choice


@pytest.mark.parametrize("kind", kinds(ResponseFormatTextConfigParam), ids=name)
def test_every_text_format_of_the_sdk_is_taken(kind: Any) -> None:
    """Each of the SDK's formats passes and is echoed, a missing description as null and a missing strict as false."""
    for text_format in of_type(kind):
        echoed = check_create({"input": "", "text": {"format": text_format}}, counted()).text["format"]
        assert {key: value for key, value in text_format.items() if value is not None}.items() <= echoed.items()


REFUSED = {"prompt", "moderation", "background_options"}
HINTS = get_type_hints(ResponseCreateParamsBase, include_extras=True)


@pytest.mark.parametrize("field", sorted(set(HINTS) - {"input", "tools", "tool_choice", "text"}))
def test_every_field_of_the_sdk_is_taken_or_refused_by_name(field: str) -> None:
    """Each field the SDK lets users send is taken, but for those that would change the answer silently."""
    for value in of_type(HINTS[field], field):
        if field == "context_management" and value and value[0].get("type") != "compaction":
            continue  # any string by its type, and only this one by its description
        body = {"input": "Hi", "stream": field == "stream_options", field: value}
        try:
            check_create(body, counted(), strict_fields=True)
        except InvalidRequest as refusal:
            assert field in REFUSED, refusal.message
            assert refusal.code == "unsupported_parameter"
            assert str(refusal.param).startswith(field)


RESPONSE = TypeAdapter(Response)
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def extras(model: Any) -> set[str]:
    """The keys, at any depth, that the SDK's models do not know."""
    if isinstance(model, list):
        return {key for entry in model for key in extras(entry)}
    if not isinstance(model, BaseModel):
        return set()
    deeper = {key for field in type(model).model_fields for key in extras(getattr(model, field))}
    return deeper | set(model.model_extra or {})


def as_openai_names_it(event: dict[str, Any]) -> dict[str, Any]:
    """Raw reasoning events have another name in either world; all else is common (wire contract, 21)."""
    return event | {"type": event["type"].replace("response.reasoning.", "response.reasoning_text.")}


@pytest.mark.parametrize("status", STATUSES)
def test_every_event_parses_as_the_sdk_s_type(status: str) -> None:
    """Each event is valid for the SDK's models, and holds nothing that they do not know but what the contract adds."""
    events = recorded(RICH, status).wire
    assert {event["type"] for event in events} >= {"response.created", "response.output_item.done"}
    for event in events:
        parsed = EVENT.validate_python(as_openai_names_it(event))
        assert parsed.type == as_openai_names_it(event)["type"]
        assert extras(parsed) <= ONLY_OURS


@pytest.mark.parametrize("status", STATUSES)
def test_the_openai_wire_needs_no_other_names(status: str) -> None:
    """With `wire = "openai"` each event is one of the SDK's as it is; of its errors too the SDK knows every key."""
    events = recorded(RICH, status, WIRES["openai"]).wire
    for event in events:
        parsed = EVENT.validate_python(event)
        assert parsed.type == event["type"]
        assert extras(parsed) <= ONLY_OURS - {"error"}
    assert "response.reasoning_text.delta" in {event["type"] for event in events}


@pytest.mark.parametrize("status", STATUSES)
def test_the_final_response_parses_as_the_sdk_s_type(status: str) -> None:
    """The response object is the SDK's `Response`, its items are the SDK's items, and its text is found."""
    shown = recorded(RICH, status).final
    response = RESPONSE.validate_python(shown)
    assert response.status == status
    assert extras(response) <= ONLY_OURS
    assert [item.type for item in response.output] == [item["type"] for item in shown["output"]]
    assert response.output_text == "Hello. More.Found it."


def test_echoed_settings_parse_as_the_sdk_s_types() -> None:
    """Tools, choices, formats and reasoning in the response are those of the SDK's `Response`."""
    create = check_create(
        {
            "input": "Hi",
            "tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "g"}, {"type": "web_search"}],
            "tool_choice": {"type": "allowed_tools", "tools": [{"type": "function", "name": "f"}]},
            "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}, "verbosity": "low"},
            "reasoning": {"effort": "max", "summary": "auto"},
            "metadata": {"a": "b"},
            "user": "u",
        },
        counted(),
    )
    response = begun(
        tools=create.tools,
        tool_choice=create.tool_choice,
        text=create.text,
        reasoning=create.reasoning,
        metadata=create.metadata,
        user="u",
        conversation=ConversationReference("conv_1"),
    )
    parsed = RESPONSE.validate_python(msgspec.json.decode(e.encode(response)))
    assert extras(parsed) <= ONLY_OURS
    assert parsed.conversation is not None
    assert parsed.conversation.id == "conv_1"
    assert [tool.type for tool in parsed.tools] == ["function", "custom", "web_search"]
    assert parsed.tool_choice.type == "allowed_tools"  # type: ignore[union-attr]
    assert parsed.tool_choice.mode == "auto"  # type: ignore[union-attr]


def test_logprobs_parse_as_the_sdk_s_types() -> None:
    """Logprobs are entries of the SDK's shape in the delta, in the done event and in the part."""
    events = recorded([delta for delta in RICH if isinstance(delta, d.Text)]).wire
    parsed = [EVENT.validate_python(event) for event in events]
    delta = next(event for event in parsed if event.type == "response.output_text.delta")
    done = next(event for event in parsed if event.type == "response.output_text.done")
    assert delta.logprobs[0].token == done.logprobs[0].token == "a"
