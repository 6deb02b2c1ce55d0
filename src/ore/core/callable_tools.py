"""Which tools a model can be shown as functions, and under which names: for dialects and engines that know no others.

Namespaces are flattened, native tools are translated by `native_tools`, free text becomes one string argument. Tools
that neither is true of are skipped, never refused. Which of them may be called is `tool_choice`.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

from msgspec import Struct, structs

from ore.core.deltas import CallKind
from ore.core.native_tools import NATIVE_TOOLS
from ore.protocol.decoding import JsonObject
from ore.protocol.items import TOOL_ITEMS
from ore.protocol.tools import MAX_NAME, NAMED_TOOLS

TOOL_TYPES: Final = (*NAMED_TOOLS, "namespace", *NATIVE_TOOLS)
"""The tool types that a model which knows functions can be given."""

NO_ARGUMENTS: Final[JsonObject] = {"type": "object", "properties": {}, "additionalProperties": False}

_HOSTED_SHELLS: Final = ("container_auto", "container_reference")
_NAMED_KINDS: Final[dict[str, CallKind]] = {"function": "function_call", "custom": "custom_tool_call"}


class CallableTool(Struct, frozen=True, kw_only=True):
    """A tool as a function. `at` is its place in the request; `shown` its name for the model, `name` for the client."""

    at: str
    type: str
    kind: CallKind
    shown: str
    name: str
    namespace: str | None = None
    description: str = ""
    parameters: JsonObject
    strict: bool = True
    format: JsonObject = {}
    """Of a custom tool: what its free text must be like."""


def callable_tools(tools: Sequence[JsonObject]) -> tuple[CallableTool, ...]:
    """Every tool that can be shown as a function, in order, each under a name of its own."""
    return tuple(_named(list(_flat(tools))))


def is_usable(tool: JsonObject, types: Collection[str] = TOOL_TYPES) -> bool:
    """Whether a tool has its effect with a model that takes tools of `types`, run by the client."""
    return tool["type"] in types and not _is_hosted(tool)


def skipped(tools: Iterable[JsonObject], types: Collection[str] = TOOL_TYPES) -> list[str]:
    """The types of the tools that have no effect, each once, in the order of the alphabet."""
    return sorted({each["type"] for tool in tools for each in _unusable(tool, types)})


def _unusable(tool: JsonObject, types: Collection[str]) -> list[JsonObject]:
    """The tool itself, or what of its namespace nobody can be shown."""
    if tool["type"] == "namespace" and "namespace" in types:
        return [inner for inner in tool["tools"] if inner["type"] not in NAMED_TOOLS]
    return [] if is_usable(tool, types) else [tool]


def tools_in(items: Iterable[JsonObject]) -> list[JsonObject]:
    """The tools that items of the context bring, oldest first."""
    return [tool for item in items if item["type"] in TOOL_ITEMS for tool in item.get("tools") or ()]


def effective_tools(tools: Sequence[JsonObject], items: Iterable[JsonObject]) -> list[JsonObject]:
    """The request's tools and those of its context. Where two have one name, the newest counts."""
    taken: set[tuple[str | None, str]] = set()
    newest_first = [kept for tool in reversed([*tools, *tools_in(items)]) if (kept := _unless_taken(tool, taken))]
    return newest_first[::-1]


def _unless_taken(tool: JsonObject, taken: set[tuple[str | None, str]]) -> JsonObject | None:
    """The tool, or what of a namespace is new. Hosted tools may stand there more than once."""
    if tool["type"] == "namespace":
        inner = [each for each in tool["tools"] if _take((tool["name"], _key(each)), taken)]
        return {**tool, "tools": inner}
    if tool["type"] in TOOL_TYPES and not _take((None, _key(tool)), taken):
        return None
    return tool


def _key(tool: JsonObject) -> str:
    return str(tool["name"]) if tool["type"] in NAMED_TOOLS else f"<{tool['type']}>"


def _take(key: tuple[str | None, str], taken: set[tuple[str | None, str]]) -> bool:
    new = key not in taken
    taken.add(key)
    return new


def _is_hosted(tool: JsonObject) -> bool:
    environment = tool.get("environment")
    return tool["type"] == "shell" and isinstance(environment, dict) and environment.get("type") in _HOSTED_SHELLS


def _flat(tools: Sequence[JsonObject]) -> Iterator[CallableTool]:
    for index, tool in enumerate(tools):
        at = f"tools[{index}]"
        if tool["type"] == "namespace":
            for number, inner in enumerate(tool["tools"]):
                if inner["type"] in NAMED_TOOLS:
                    yield _client_named(inner, f"{at}.tools[{number}]", tool["name"])
        elif tool["type"] in NAMED_TOOLS:
            yield _client_named(tool, at, None)
        elif tool["type"] in NATIVE_TOOLS and not _is_hosted(tool):
            yield from _native(tool, at)


def _client_named(tool: JsonObject, at: str, namespace: str | None) -> CallableTool:
    custom = tool["type"] == "custom"
    return CallableTool(
        at=at,
        type=tool["type"],
        kind=_NAMED_KINDS[tool["type"]],
        shown=tool["name"],
        name=tool["name"],
        namespace=namespace,
        description=str(tool.get("description") or ""),
        parameters=_input_schema(tool) if custom else tool.get("parameters") or NO_ARGUMENTS,
        strict=custom or bool(tool.get("strict")),
        format=(tool.get("format") or {}) if custom else {},
    )


def _input_schema(tool: JsonObject) -> JsonObject:
    """A custom tool's free text, as the one string argument of a function."""
    text: JsonObject = {"type": "string"}
    form = tool.get("format") or {}
    if form.get("syntax") == "regex":
        text["pattern"] = f"^({form['definition']})$"
    return {"type": "object", "properties": {"input": text}, "required": ["input"], "additionalProperties": False}


def _native(tool: JsonObject, at: str) -> Iterator[CallableTool]:
    """A search that the server would run is no call: the tools that it would find are shown from the beginning."""
    row = NATIVE_TOOLS[tool["type"]]
    made = CallableTool(
        at=at,
        type=tool["type"],
        kind=row.call,
        shown=row.name,
        name=row.name,
        description=row.description,
        parameters=row.parameters,
    )
    if tool["type"] != "tool_search":
        yield made
    elif tool.get("execution") == "client":
        asked = tool.get("parameters")
        yield structs.replace(
            made,
            description=str(tool.get("description") or row.description),
            parameters=asked if isinstance(asked, dict) else row.parameters,
            strict=not isinstance(asked, dict),
        )


def _named(tools: list[CallableTool]) -> Iterator[CallableTool]:
    """Names for the model: the client's own come first, so that nothing else takes them."""
    counted = Counter(tool.name for tool in tools if tool.type in NAMED_TOOLS)
    taken = {tool.name for tool in tools if tool.type in NAMED_TOOLS and _is_plain(tool, counted)}
    for tool in tools:
        if tool.type in NAMED_TOOLS and _is_plain(tool, counted):
            yield tool
            continue
        wanted = tool.name if tool.namespace is None else shown_name(tool.namespace, tool.name)
        shown = next(name for name in _variants(wanted) if name not in taken)
        taken.add(shown)
        yield structs.replace(tool, shown=shown)


def _is_plain(tool: CallableTool, counted: Counter[str]) -> bool:
    return tool.namespace is None or counted[tool.name] == 1


def shown_name(namespace: str | None, name: str) -> str:
    """How a tool of a namespace is called where its own name is not enough."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", f"{namespace}__{name}")[:MAX_NAME] if namespace else name


def _variants(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        end = f"_{number}"
        yield name[: MAX_NAME - len(end)] + end
        number += 1
