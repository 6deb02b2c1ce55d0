"""The seam between ORE and what it runs itself for a model: `Tool`.

A tool has a definition that the model sees, a type of its own for its items, and `run`. Its failure is data for the
model, never an exception that ends a response. A tool does not write events, and does not know who asked.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
from msgspec import Struct

from ore.core.progress import PendingCall
from ore.protocol.decoding import JsonObject


class Tool(Protocol):
    """One kind of tool. Safe for concurrent use from one event loop."""

    type: str
    """The `type` of its definition in a request and of its items; our own ones have a prefix, such as `ore:clock`."""
    repeatable: bool
    """Whether a call whose outcome is unknown, because the process died, may be made once more."""

    def definition(self, asked: JsonObject) -> JsonObject:
        """The function tool that the model is shown for the entry `asked` of a request's `tools`."""

    async def run(self, call: PendingCall) -> str:
        """What the model is told. Raises `ToolFailed` with what it is told instead."""


class ToolFailed(Exception):
    """A call that did not work out. `args[0]` is for the model to read."""


class Hosted(Struct, frozen=True):
    """The tools of one request that run here, by the name that the model calls them by."""

    tools: Mapping[str, Tool]
    shown: tuple[JsonObject, ...]
    """The request's `tools`, with each of those as the function that the model is shown; places stay the same."""

    def chosen(self, choice: str | JsonObject) -> str | JsonObject:
        """A `tool_choice` with the types of these tools put as the functions that the model is shown."""
        if isinstance(choice, str):
            return choice
        if choice["type"] == "allowed_tools":
            return {**choice, "tools": [self.chosen(entry) for entry in choice["tools"]]}
        name = next((name for name, tool in self.tools.items() if tool.type == choice["type"]), None)
        return choice if name is None else {"type": "function", "name": name}


def hosted(asked: Sequence[JsonObject], registered: Mapping[str, Tool]) -> Hosted:
    """Which of a request's tools run here; `registered` are all of them, by type."""
    tools: dict[str, Tool] = {}
    shown = []
    for entry in asked:
        tool = registered.get(entry["type"])
        definition = entry if tool is None else tool.definition(entry)
        if tool is not None:
            tools[definition["name"]] = tool
        shown.append(definition)
    return Hosted(tools, tuple(shown))


def receipt(tool: Tool, call: PendingCall, item_id: str, *, status: str, output: str | None = None) -> JsonObject:
    """The item of a call: how it was made and, at its end, what came of it."""
    item = {
        "type": tool.type,
        "id": item_id,
        "status": status,
        "call_id": call.call_id,
        "name": call.name,
        "arguments": call.arguments,
    }
    return item if output is None else {**item, "output": output}


def as_call(item: JsonObject) -> list[JsonObject]:
    """A receipt as the function call and output that a model knows; any other item as it is."""
    if not item.keys() >= _RECEIPT or item["type"] in ("function_call", "custom_tool_call"):
        return [item]
    call = {key: item[key] for key in ("call_id", "name", "arguments")}
    output = item["output"] if isinstance(item["output"], str) else msgspec.json.encode(item["output"]).decode()
    return [
        {"type": "function_call", "id": item["id"], "status": "completed", **call},
        {"type": "function_call_output", "id": f"{item['id']}_out", "call_id": item["call_id"], "output": output},
    ]


_RECEIPT = {"type", "id", "call_id", "name", "arguments", "output"}
