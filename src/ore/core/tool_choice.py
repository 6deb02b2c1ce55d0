"""What `tools`, `tool_choice` and `parallel_tool_calls` mean for one sampling: which tools are shown, which may be
called, whether one must be.

Pure, and for every backend: what a grammar cannot enforce is checked afterwards by the same rules. It refuses to judge
schemas and to know how a call is written.
"""

from collections.abc import Collection, Sequence

from msgspec import Struct

from ore.core.callable_tools import CallableTool, callable_tools, is_usable, shown_name
from ore.core.deltas import Delta, ItemBegun, ItemEvent, ToolArguments, ToolCall, WholeItem
from ore.core.native_tools import NATIVE_CALLS, NATIVE_TOOLS
from ore.errors import InvalidRequest
from ore.protocol.decoding import JsonObject, quoted, quoted_all
from ore.protocol.items import awaits_client
from ore.protocol.tools import NAMED_TOOLS, spread

_CHOSEN_KINDS = {
    "function": "function_call",
    "custom": "custom_tool_call",
    "computer_use_preview": "computer_call",
    **{kind: row.call for kind, row in NATIVE_TOOLS.items()},
}
"""Type in a choice -> type of the call item that it allows."""


class ToolPlan(Struct, frozen=True, kw_only=True):
    """`known` are all callable tools; `shown` stand in the prompt; `allowed` are those of them that may be called."""

    known: tuple[CallableTool, ...] = ()
    shown: tuple[CallableTool, ...] = ()
    allowed: tuple[CallableTool, ...] = ()
    required: bool = False
    parallel: bool = True

    def shown_name(self, item: JsonObject) -> str:
        """The name under which the model knows the tool of a call item of its history."""
        kind, name, namespace = item.get("type"), item.get("name"), item.get("namespace")
        for tool in self.known:
            if tool.kind == kind and (kind in NATIVE_CALLS or (tool.name, tool.namespace) == (name, namespace)):
                return tool.shown
        if kind in NATIVE_CALLS:
            return NATIVE_CALLS[kind].name
        return shown_name(namespace, str(name or kind))


def plan(tools: Sequence[JsonObject], choice: str | JsonObject, *, parallel: bool = True) -> ToolPlan:
    """Resolve the choice. With `none` no tool is shown, so that the model is not tempted. Raises `InvalidRequest`."""
    known = callable_tools(tools)
    how = mode(choice)
    allowed = tuple(tool for tool in known if allows(choice, tool.kind, tool.name, tool.namespace))
    if how == "required" and not allowed:
        raise _nothing_to_call(choice, tools)
    if how == "none" or not allowed:
        return ToolPlan(known=known)
    return ToolPlan(known=known, shown=known, allowed=allowed, required=how == "required", parallel=parallel)


def mode(choice: str | JsonObject) -> str:
    """`auto`, `none` or `required`."""
    if isinstance(choice, str):
        return choice
    return str(choice.get("mode") or "auto") if choice["type"] == "allowed_tools" else "required"


def in_turn(choice: str | JsonObject, turn: int) -> str | JsonObject:
    """What holds in a response's turn, the first being 0.

    A tool that must be called must be called once, or the response would never end (wire contract, 17.9).
    """
    return "auto" if turn > 0 and mode(choice) == "required" else choice


def allows(choice: str | JsonObject, kind: str, name: str, namespace: str | None = None) -> bool:
    """Whether a call item of that type, name and namespace may be made (wire contract, 17.9)."""
    if isinstance(choice, str):
        return choice != "none"
    entries = choice["tools"] if choice["type"] == "allowed_tools" else [choice]
    return mode(choice) != "none" and any(_names(entry, kind, name, namespace) for entry in entries)


def _names(entry: JsonObject, kind: str, name: str, namespace: str | None) -> bool:
    if entry["type"] == "namespace":
        return namespace is not None and entry.get("name") == namespace
    if _CHOSEN_KINDS.get(entry["type"], f"{entry['type']}_call") != kind:
        return False
    if entry["type"] not in NAMED_TOOLS:
        return True
    return entry.get("name") == name and entry.get("namespace") in (None, namespace)


def check_possible(choice: str | JsonObject, tools: Sequence[JsonObject], types: Collection[str]) -> None:
    """Refuse a choice that forces a call when all that it allows is skipped. Raises `InvalidRequest`."""
    usable = [tool for _, tool in spread(tool for tool in tools if is_usable(tool, types))]
    listed = {entry["type"] for entry in choice.get("tools", [choice])} if isinstance(choice, dict) else None
    if listed is not None and "namespace" not in listed:
        usable = [tool for tool in usable if tool["type"] in listed]
    if mode(choice) == "required" and not usable:
        raise _nothing_to_call(choice, tools)


def _nothing_to_call(choice: str | JsonObject, tools: Sequence[JsonObject]) -> InvalidRequest:
    asked = "a tool" if isinstance(choice, str) else quoted(choice["type"])
    names = [tool.shown for tool in callable_tools(tools)]
    instead = f"choose one of {quoted_all(names)}" if names else "send a function tool"
    message = f"'tool_choice' forces a call of {asked}, and nothing here can run it: set it to 'auto', or {instead}."
    return InvalidRequest(message, param="tool_choice")


class OneCall:
    """Lets the first call of a sampling through and holds back those after it: `parallel_tool_calls` false."""

    def __init__(self, *, parallel: bool) -> None:
        self._parallel = parallel
        self._called = False
        self._held = False
        self._begun = False

    @property
    def lets_all(self) -> bool:
        """Whether nothing will be held back."""
        return self._parallel

    def lets(self, delta: Delta) -> bool:
        """Whether a delta may be written."""
        goes_on = isinstance(delta, ToolArguments | ItemEvent) or (isinstance(delta, WholeItem) and self._begun)
        self._begun = isinstance(delta, ItemBegun) or (isinstance(delta, ItemEvent) and self._begun)
        if not goes_on:
            item = delta.item if isinstance(delta, ItemBegun | WholeItem) else {}
            begins = isinstance(delta, ToolCall) or awaits_client(item)
            self._held = begins and self._called and not self._parallel
            self._called = self._called or begins
        return not self._held
