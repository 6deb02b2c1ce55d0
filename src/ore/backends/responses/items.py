"""Items on their way back to a Responses upstream: as they are, but for what it would look up, refuse or not know.

With `store: false` an upstream knows no item of ours, so ids go only where they mean something to it. An upstream that
takes functions only is shown every call as one. Nothing is checked here: the context was, when it was taken in.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from ore.backends.base import JsonObject
from ore.backends.dialect import unpacked
from ore.backends.profiles import Profile
from ore.core.native_tools import NATIVE_CALLS, NATIVE_OUTPUTS
from ore.core.tool_choice import ToolPlan
from ore.ids import PREFIXES
from ore.protocol.content import TEXT_FIELDS
from ore.protocol.items import CALL_OUTPUTS

_WEB: Final = ("web_search", "web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11")
_COMPUTER: Final = ("computer", "computer_use_preview")

MADE_BY: Final[dict[str, tuple[str, ...]]] = {
    "function_call": ("function",),
    "function_call_output": ("function",),
    "custom_tool_call": ("custom",),
    "custom_tool_call_output": ("custom",),
    "shell_call": ("shell",),
    "shell_call_output": ("shell",),
    "local_shell_call": ("local_shell",),
    "local_shell_call_output": ("local_shell",),
    "apply_patch_call": ("apply_patch",),
    "apply_patch_call_output": ("apply_patch",),
    "tool_search_call": ("tool_search",),
    "tool_search_output": ("tool_search",),
    "computer_call": _COMPUTER,
    "computer_call_output": _COMPUTER,
    "web_search_call": _WEB,
    "file_search_call": ("file_search",),
    "code_interpreter_call": ("code_interpreter",),
    "image_generation_call": ("image_generation",),
    "mcp_list_tools": ("mcp",),
    "mcp_call": ("mcp",),
    "mcp_approval_request": ("mcp",),
    "mcp_approval_response": ("mcp",),
    "program": ("programmatic_tool_calling",),
    "program_output": ("programmatic_tool_calling",),
}
"""Type of an item -> the types of the tools that it comes of. Whoever takes none of those does not know the item."""

_WITH_ID: Final = frozenset(
    {
        *("computer_call", "local_shell_call", "web_search_call", "file_search_call", "code_interpreter_call"),
        *("image_generation_call", "mcp_list_tools", "mcp_call", "mcp_approval_request", "program", "program_output"),
    }
)
"""Items that an upstream takes with an id only: its own."""

_BARE: Final = ("function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output")
"""Items whose id and status say nothing that an upstream needs."""

_FROM_OTHERS: Final = frozenset({*CALL_OUTPUTS.values(), "mcp_approval_response", "additional_tools"})
"""Items that no model makes. Reasoning that is not followed by an item of the model's is refused."""

_MINTED: Final = f"{PREFIXES['item']}_"
"""What the ids begin with that we gave for want of one of the type's own."""


def sent_items(items: Iterable[JsonObject], profile: Profile, plan: ToolPlan, origin: str) -> list[JsonObject]:
    """The context as the upstream is sent it. Reasoning goes with the item that it led to, or not at all."""
    sent: list[JsonObject] = []
    reasoning: list[JsonObject] = []
    for item in items:
        if item["type"] == "reasoning":
            given = sent_reasoning(item, origin) if profile.reasoning else None
            reasoning += [given] if given else []
        elif (shown := _sent(item, profile, plan)) is not None:
            sent += [*reasoning, shown] if _is_the_models(item) else [shown]
            reasoning = []
    return sent


def sent_reasoning(item: JsonObject, origin: str) -> JsonObject | None:
    """The item as this provider gave it; None where it is another's, or says nothing to whoever has no store."""
    state = unpacked(item, origin)
    if not isinstance(state, dict) or not (state.get("encrypted_content") or state.get("content")):
        return None
    return {"type": "reasoning", **state}


def kept_reasoning(item: JsonObject) -> JsonObject:
    """What of a reasoning item is kept to be sent back: everything that its upstream reads."""
    return {key: value for key, value in item.items() if key not in ("type", "status")}


def _is_the_models(item: JsonObject) -> bool:
    return item["role"] == "assistant" if item["type"] == "message" else item["type"] not in _FROM_OTHERS


def _sent(item: JsonObject, profile: Profile, plan: ToolPlan) -> JsonObject | None:
    if item["type"] == "message":
        return _plain_message(item) if profile.tool_types is None else _message(item)
    return _as_it_is(item) if _is_known(item, profile.tool_types) else _as_function(item, plan)


def _is_known(item: JsonObject, types: tuple[str, ...] | None) -> bool:
    """Whether the upstream knows such items. Types that nobody here knows are its own, if it has any."""
    made_by, taken = MADE_BY.get(item["type"]), types or ("function",)
    if made_by is None:
        return types is not None
    return any(each in taken for each in made_by) and (not item.get("namespace") or "namespace" in taken)


def _message(item: JsonObject) -> JsonObject:
    message = _without(item, "id", "status")
    if item["role"] == "assistant":
        message["content"] = [_part(part) for part in item["content"]]
    return message


def _part(part: JsonObject) -> JsonObject:
    if part["type"] != "output_text":
        return part
    return {**_without(part, "logprobs"), "annotations": part.get("annotations") or []}


def _plain_message(item: JsonObject) -> JsonObject:
    """An assistant's text as a string: the one form that strict servers take without an id."""
    if item["role"] != "assistant":
        return _without(item, "id", "status", "phase")
    texts = (part.get(TEXT_FIELDS.get(part["type"], "")) for part in item["content"])
    return {"type": "message", "role": "assistant", "content": "".join(text for text in texts if text)}


def _as_it_is(item: JsonObject) -> JsonObject | None:
    """The item with the id that its upstream gave; None where it gave none, and wants one."""
    kind = item["type"]
    if kind in _BARE:
        return _without(item, "id", "status")
    if kind == "local_shell_call_output":  # its id is the call's
        return {**_without(item, "call_id"), "id": item.get("call_id") or item["id"]}
    if not str(item.get("id", "")).startswith(_MINTED):
        return item
    return None if kind in _WITH_ID else _without(item, "id")


def _as_function(item: JsonObject, plan: ToolPlan) -> JsonObject | None:
    """A call or its output, for an upstream that knows functions only; None for what is neither."""
    kind, call_id = item["type"], item.get("call_id")
    if not call_id:
        return None
    if kind in CALL_OUTPUTS.values():
        native = NATIVE_OUTPUTS.get(kind)
        output = item.get("output") if native is None else native.result(item)
        return {"type": "function_call_output", "call_id": call_id, "output": output}
    if kind in NATIVE_CALLS:
        arguments = _encoded(NATIVE_CALLS[kind].arguments(item))
    elif kind == "custom_tool_call":
        arguments = _encoded({"input": item["input"]})
    elif kind == "function_call":
        arguments = item["arguments"]
    else:
        return None
    return {"type": "function_call", "call_id": call_id, "name": plan.shown_name(item), "arguments": arguments}


def _encoded(value: JsonObject) -> str:
    return msgspec.json.encode(value).decode()


def _without(item: JsonObject, *keys: str) -> JsonObject:
    return {key: value for key, value in item.items() if key not in keys}
