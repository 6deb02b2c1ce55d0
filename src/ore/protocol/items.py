"""Items (wire contract, section 5): those ORE makes, and the check of those it is given.

`check_item` turns each accepted input form into the form that is kept, shown to the model and read back: `type` is
present, message content is an array, an id is there. Item types that ORE does not know pass untouched. Whether calls
and outputs pair up is a question about the whole context: `ore.core.history`.
"""

from collections.abc import Callable
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from ore.errors import InvalidRequest
from ore.ids import NewId
from ore.protocol.content import (
    MAX_ENCRYPTED,
    MAX_TEXT,
    Part,
    ReasoningText,
    SummaryText,
    check_content,
    check_part,
    check_string,
)
from ore.protocol.decoding import JsonObject, one_of, type_name
from ore.protocol.tools import check_tools

ItemStatus = Literal["in_progress", "completed", "incomplete"]
Phase = Literal["commentary", "final_answer"]


class Message(Struct, tag_field="type", tag="message", kw_only=True):
    id: str
    status: ItemStatus
    role: Literal["assistant"] = "assistant"
    phase: Phase | UnsetType = UNSET
    content: list[Part]


class FunctionCall(Struct, tag_field="type", tag="function_call", kw_only=True):
    id: str
    call_id: str
    name: str
    namespace: str | UnsetType = UNSET
    arguments: str
    status: ItemStatus


class CustomToolCall(Struct, tag_field="type", tag="custom_tool_call", kw_only=True):
    id: str
    call_id: str
    name: str
    namespace: str | UnsetType = UNSET
    input: str
    status: ItemStatus


class Reasoning(Struct, tag_field="type", tag="reasoning", kw_only=True):
    id: str
    status: ItemStatus
    summary: list[SummaryText]
    content: list[ReasoningText] | UnsetType = UNSET
    encrypted_content: str | UnsetType = UNSET


MadeItem = Message | FunctionCall | CustomToolCall | Reasoning
Item = MadeItem | JsonObject
"""An item of a response: one the writer made, or one an upstream made, kept as it came."""

_MADE: dict[str, type[MadeItem]] = {
    "message": Message,
    "function_call": FunctionCall,
    "custom_tool_call": CustomToolCall,
    "reasoning": Reasoning,
}


def read_item(raw: JsonObject) -> Item:
    """An item that went over the wire: a struct where nothing of it would be lost, or else as it came."""
    kind = _MADE.get(raw["type"])
    if kind is None:
        return raw
    try:
        made: MadeItem = msgspec.convert(raw, kind)
    except msgspec.ValidationError:
        return raw
    return made if msgspec.json.encode(made) == msgspec.json.encode(raw) else raw


def as_object(item: Item) -> JsonObject:
    """An item in the wire's shape, whoever made it."""
    plain: JsonObject = item if isinstance(item, dict) else msgspec.to_builtins(item)
    return plain


def id_of(item: Item) -> str:
    """An item's id, whoever made it."""
    return str(item["id"]) if isinstance(item, dict) else item.id


ROLES = ("user", "assistant", "system", "developer")

CALL_OUTPUTS = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
    "computer_call": "computer_call_output",
    "local_shell_call": "local_shell_call_output",
    "shell_call": "shell_call_output",
    "apply_patch_call": "apply_patch_call_output",
    "tool_search_call": "tool_search_output",
}
"""Calls that the client answers, and the item that answers each."""


TOOL_ITEMS = ("tool_search_output", "additional_tools")
"""Items that bring tools, which can be called from there on."""

DEMANDS = {
    "compaction_trigger": "send it as the last item of a request's 'input'",
    "configuration_update": "send 'reasoning' and 'text' with each request",
}
"""Items that ask the server to do something; to keep them like history would be to ignore them."""


def awaits_client(item: JsonObject) -> bool:
    """Whether the client has to answer an item before the model goes on; a search that the server made is answered."""
    return item.get("type") in CALL_OUTPUTS and item.get("execution") != "server"


def check_input(value: Any, new_id: NewId) -> list[JsonObject]:
    """The `input` of a request as a list of items; a string is one user message."""
    if value is None:
        return []
    if isinstance(value, str):
        value = [{"type": "message", "role": "user", "content": check_string(value, "input", MAX_TEXT)}]
    if not isinstance(value, list):
        message = f"Invalid type for 'input': expected a string or an array of items, but got {type_name(value)}."
        raise InvalidRequest(message, code="invalid_type", param="input")
    return [check_item(item, f"input[{index}]", new_id) for index, item in enumerate(value)]


def without_trigger(value: Any) -> tuple[Any, bool]:
    """The `input` of a request without the compaction trigger at its end, and whether there was one."""
    last = value[-1] if isinstance(value, list) and value else None
    if not isinstance(last, dict) or last.get("type") != "compaction_trigger":
        return value, False
    return value[:-1], True


def check_item(item: Any, at: str, new_id: NewId) -> JsonObject:
    """One input item, completed. Raises `InvalidRequest` with a path such as `input[2].call_id`."""
    if not isinstance(item, dict):
        message = f'Invalid type for \'{at}\': expected an object with a "type" or a "role", but got {type_name(item)}.'
        raise InvalidRequest(message, code="invalid_type", param=at)
    kind = item_type(item, at)
    if kind in DEMANDS:
        message = f"'{at}' is of type '{kind}', which is not acted on here: {DEMANDS[kind]}."
        raise InvalidRequest(message, param=f"{at}.type")
    if kind != "message" and item.get("id") is not None:
        check_string(item["id"], f"{at}.id", 512)
    check = _CHECKS.get(kind)
    checked = check(item, at) if check else dict(item)
    return {"type": kind, "id": checked.pop("id", None) or new_id(kind), **_without(checked, "type")}


def item_type(item: JsonObject, at: str) -> str:
    """The type of an input item; those without one are told by their keys (wire contract, 5.1)."""
    kind = item.get("type")
    if isinstance(kind, str) and kind:
        return kind
    if kind is None and "role" in item:
        return "message"
    if kind is None and set(item) - {"type"} == {"id"}:
        return "item_reference"
    raise InvalidRequest(
        f"Missing required parameter: '{at}.type'. Give the item a 'type', or a 'role' if it is a message.",
        code="missing_required_parameter",
        param=f"{at}.type",
    )


def _check_message(item: JsonObject, at: str) -> JsonObject:
    role = one_of(item.get("role"), ROLES, f"{at}.role")
    if "content" not in item:
        raise _missing(f"{at}.content")
    if item.get("id") is not None:
        check_string(item["id"], f"{at}.id", 512)
    plain = "output_text" if role == "assistant" else "input_text"
    rest = _without(item, "type", "role", "content", "status", "phase")
    if item.get("phase") is not None:
        rest["phase"] = one_of(item["phase"], ("commentary", "final_answer"), f"{at}.phase")
    return {
        **{key: value for key, value in rest.items() if value is not None},
        "status": "incomplete" if (status := _status(item, at)) == "failed" else status,
        "role": role,
        "content": check_content(item.get("content"), f"{at}.content", plain=plain),
    }


def _check_call(*required: str) -> Callable[[JsonObject, str], JsonObject]:
    """A check for calls: strings that must be there, `call_id` bounded, status completed when absent."""

    def check(item: JsonObject, at: str) -> JsonObject:
        for key in required:
            _required_string(item, key, at, 64 if key == "call_id" else 128 if key == "name" else MAX_TEXT)
        if item.get("namespace") is not None:
            _required_string(item, "namespace", at, 128)
        return {**item, "status": _status(item, at)}

    return check


def _check_output(item: JsonObject, at: str) -> JsonObject:
    _required_string(item, "call_id", at, 64)
    output = item.get("output")
    if output is None:
        raise _missing(f"{at}.output")
    if isinstance(output, list):
        output = [check_part(part, f"{at}.output[{i}]", plain="input_text") for i, part in enumerate(output)]
    else:
        check_string(output, f"{at}.output", MAX_TEXT)
    return {**item, "output": output, "status": _status(item, at)}


def _check_tools_item(item: JsonObject, at: str) -> JsonObject:
    """What a search found, or a developer added: tools like those of a request."""
    _check_pairing(item, at)
    return {**item, "tools": check_tools(item.get("tools"), f"{at}.tools")}


def _check_call_answer(item: JsonObject, at: str) -> JsonObject:
    """Outputs of shell, patch and computer calls: only the pairing is ours to know."""
    _required_string(item, "call_id", at, 64)
    return dict(item)


def _check_pairing(item: JsonObject, at: str) -> JsonObject:
    """Items that ORE only stores, but whose `call_id`, where they have one, takes part in the pairing."""
    if item.get("call_id") is not None:
        _required_string(item, "call_id", at, 64)
    return dict(item)


def _check_reasoning(item: JsonObject, at: str) -> JsonObject:
    summary = item.get("summary")
    if summary is not None and not isinstance(summary, list):
        raise InvalidRequest(
            f"Invalid type for '{at}.summary': expected an array.", code="invalid_type", param=f"{at}.summary"
        )
    parts = check_content(summary or [], f"{at}.summary", plain="summary_text")
    checked = {**{key: value for key, value in item.items() if value is not None}, "summary": parts}
    if checked.get("content") is not None:
        checked["content"] = check_content(checked["content"], f"{at}.content", plain="reasoning_text")
    if checked.get("encrypted_content") is not None:
        check_string(checked["encrypted_content"], f"{at}.encrypted_content", MAX_ENCRYPTED)
    return checked


def _check_compaction(item: JsonObject, at: str) -> JsonObject:
    _required_string(item, "encrypted_content", at, MAX_ENCRYPTED)
    return dict(item)


def _check_reference(item: JsonObject, at: str) -> JsonObject:
    _required_string(item, "id", at, 512)
    return dict(item)


_CHECKS: dict[str, Callable[[JsonObject, str], JsonObject]] = {
    "message": _check_message,
    "function_call": _check_call("call_id", "name", "arguments"),
    "custom_tool_call": _check_call("call_id", "name", "input"),
    "function_call_output": _check_output,
    "custom_tool_call_output": _check_output,
    "computer_call": _check_pairing,
    "local_shell_call": _check_pairing,
    "local_shell_call_output": _check_pairing,
    "shell_call": _check_pairing,
    "apply_patch_call": _check_pairing,
    "computer_call_output": _check_call_answer,
    "shell_call_output": _check_call_answer,
    "apply_patch_call_output": _check_call_answer,
    "tool_search_call": _check_pairing,
    "tool_search_output": _check_tools_item,
    "additional_tools": _check_tools_item,
    "reasoning": _check_reasoning,
    "compaction": _check_compaction,
    "item_reference": _check_reference,
}


def _status(item: JsonObject, at: str) -> str:
    if item.get("status") is None:
        return "completed"
    return one_of(item["status"], ("in_progress", "completed", "incomplete", "failed"), f"{at}.status")


def _required_string(item: JsonObject, key: str, at: str, limit: int) -> None:
    if item.get(key) is None:
        raise _missing(f"{at}.{key}")
    value = check_string(item[key], f"{at}.{key}", limit)
    if not value and key in ("call_id", "name", "id"):
        raise InvalidRequest(
            f"Invalid '{at}.{key}': it must not be empty.", code="string_below_min_length", param=f"{at}.{key}"
        )


def _missing(path: str) -> InvalidRequest:
    return InvalidRequest(f"Missing required parameter: '{path}'.", code="missing_required_parameter", param=path)


def _without(item: JsonObject, *keys: str) -> JsonObject:
    return {key: value for key, value in item.items() if key not in keys}
