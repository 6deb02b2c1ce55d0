"""Tool definitions and `tool_choice` (wire contract, section 17): checked, completed for the echo, otherwise kept.

A tool type that ORE does not know is kept and echoed; whether a backend can use it is decided later, and never a reason
to refuse the whole request.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from ore.errors import InvalidRequest
from ore.protocol.content import MAX_TEXT, check_string
from ore.protocol.decoding import JsonObject, one_of, quoted, quoted_all, type_name

MAX_TOOLS = 1024
MAX_NAME = 128
_NAME = re.compile(r"[a-zA-Z0-9_-]+")

NAMED_TOOLS = ("function", "custom")
"""The tool types whose tools have names of the client's own."""


def check_tools(value: Any, at: str = "tools") -> list[JsonObject]:
    """The tools of a request or of an item at `at`, function tools with all five keys that an echo needs."""
    tools = _check_each(value, at)
    places = list(_named(tools, at))
    if len(places) + sum(tool["type"] not in NAMED_TOOLS for tool in tools) > MAX_TOOLS:
        raise InvalidRequest(f"Invalid '{at}': at most {MAX_TOOLS} tools.", code="array_above_max_length", param=at)
    seen: set[tuple[str | None, str]] = set()
    for place, namespace, name in places:
        if (namespace, name) in seen:
            raise InvalidRequest(f"Two tools are called '{name}'; give each its own name.", param=f"{place}.name")
        seen.add((namespace, name))
    return tools


def _check_each(value: Any, at: str) -> list[JsonObject]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidRequest(
            f"Invalid type for '{at}': expected an array, but got {type_name(value)}.", code="invalid_type", param=at
        )
    if len(value) > MAX_TOOLS:
        raise InvalidRequest(f"Invalid '{at}': at most {MAX_TOOLS} tools.", code="array_above_max_length", param=at)
    return [_check_tool(tool, f"{at}[{index}]") for index, tool in enumerate(value)]


def _named(tools: list[JsonObject], at: str, namespace: str | None = None) -> Iterator[tuple[str, str | None, str]]:
    """Where each function and custom tool stands, its namespace and its name."""
    for index, tool in enumerate(tools):
        if tool["type"] == "namespace":
            yield from _named(tool["tools"], f"{at}[{index}].tools", tool["name"])
        elif tool["type"] in NAMED_TOOLS:
            yield f"{at}[{index}]", namespace, tool["name"]


def _check_tool(tool: Any, at: str) -> JsonObject:
    if not isinstance(tool, dict):
        raise InvalidRequest(
            f"Invalid type for '{at}': expected an object, but got {type_name(tool)}.", code="invalid_type", param=at
        )
    if not isinstance(tool.get("type"), str):
        raise InvalidRequest(
            f"Missing required parameter: '{at}.type', such as \"function\".",
            code="missing_required_parameter",
            param=f"{at}.type",
        )
    if tool["type"] == "function":
        return _check_function(tool, at)
    if tool["type"] == "custom":
        return _check_custom(tool, at)
    if tool["type"] == "namespace":
        return _check_namespace(tool, at)
    if tool["type"] == "mcp":  # its secrets are neither kept nor echoed (17.3)
        return {key: value for key, value in tool.items() if key not in ("headers", "authorization")}
    return tool


def _check_function(tool: JsonObject, at: str) -> JsonObject:
    if isinstance(tool.get("function"), dict) and "name" not in tool:
        raise InvalidRequest(
            f"'{at}' is nested as in Chat Completions; the Responses API is flat: "
            '{"type": "function", "name": ..., "parameters": ...}.',
            code="missing_required_parameter",
            param=f"{at}.name",
        )
    name = _check_name(tool, at)
    for key, kind, expected in (
        ("description", str, "a string"),
        ("parameters", dict, "an object"),
        ("strict", bool, "a boolean"),
    ):
        if tool.get(key) is not None and not isinstance(tool[key], kind):
            message = f"Invalid type for '{at}.{key}': expected {expected}, but got {type_name(tool[key])}."
            raise InvalidRequest(message, code="invalid_type", param=f"{at}.{key}")
    rest = {
        key: value for key, value in tool.items() if key not in ("type", "name", "description", "parameters", "strict")
    }
    return {
        "type": "function",
        "name": name,
        "description": tool.get("description"),
        "parameters": tool.get("parameters"),
        "strict": tool.get("strict"),
        **rest,
    }


def _check_custom(tool: JsonObject, at: str) -> JsonObject:
    name, form = _check_name(tool, at), tool.get("format")
    if form is None:
        return {**tool, "name": name}
    at = f"{at}.format"
    if not isinstance(form, dict):
        message = (
            f'Invalid type for \'{at}\': expected an object such as {{"type": "text"}}, but got {type_name(form)}.'
        )
        raise InvalidRequest(message, code="invalid_type", param=at)
    if one_of(form.get("type"), ("text", "grammar"), f"{at}.type") == "grammar":
        one_of(form.get("syntax"), ("lark", "regex"), f"{at}.syntax")
        check_string(form.get("definition"), f"{at}.definition", MAX_TEXT)
    return {**tool, "name": name}


def _check_namespace(tool: JsonObject, at: str) -> JsonObject:
    name = _check_name(tool, at)
    if tool.get("tools") is None:
        raise InvalidRequest(
            f"Missing required parameter: '{at}.tools'.", code="missing_required_parameter", param=f"{at}.tools"
        )
    inner = _check_each(tool["tools"], f"{at}.tools")
    for index, each in enumerate(inner):
        if each["type"] == "namespace":
            raise InvalidRequest("A namespace cannot hold another one.", param=f"{at}.tools[{index}].type")
    return {**tool, "name": name, "tools": inner}


def _check_name(tool: JsonObject, at: str) -> str:
    name = tool.get("name")
    if name is None:
        raise InvalidRequest(
            f"Missing required parameter: '{at}.name'.", code="missing_required_parameter", param=f"{at}.name"
        )
    if not isinstance(name, str) or len(name) > MAX_NAME or not _NAME.fullmatch(name):
        message = f"Invalid '{at}.name': expected 1 to {MAX_NAME} letters, digits, underscores or dashes."
        raise InvalidRequest(message, param=f"{at}.name")
    return name


def check_tool_choice(value: Any, tools: list[JsonObject] | None) -> str | JsonObject:
    """`tool_choice` in its echoed form (`allowed_tools` has its `mode`).

    `tools` are those that may be chosen; None: they are not known yet, because items of the context bring more.
    """
    if value is None or value == "auto" or value == "none":
        return value or "auto"
    if value == "required":
        if tools == []:
            raise InvalidRequest(
                "'tool_choice' is \"required\", but 'tools' is empty. Send the tools too.", param="tool_choice"
            )
        return "required"
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise InvalidRequest(
            "Invalid value for 'tool_choice'. Supported values are: 'auto', 'none', 'required' or an object such as "
            '{"type": "function", "name": "get_weather"}.',
            param="tool_choice",
        )
    if value["type"] == "allowed_tools":
        return _check_allowed(value, tools)
    _check_chosen(value, tools, "tool_choice")
    return value


def _check_allowed(choice: JsonObject, tools: list[JsonObject] | None) -> JsonObject:
    allowed, mode = choice.get("tools"), choice.get("mode") or "auto"
    if not isinstance(allowed, list) or not 1 <= len(allowed) <= 128:
        raise InvalidRequest("'tool_choice.tools' needs 1 to 128 entries.", param="tool_choice.tools")
    if mode not in ("auto", "required", "none"):
        raise InvalidRequest("'tool_choice.mode' is 'auto', 'required' or 'none'.", param="tool_choice.mode")
    for index, entry in enumerate(allowed):
        if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
            message = "Each entry of 'tool_choice.tools' is an object with a 'type'."
            raise InvalidRequest(message, param=f"tool_choice.tools[{index}]")
        _check_chosen(entry, tools, f"tool_choice.tools[{index}]")
    return {**choice, "mode": mode}


def _check_chosen(choice: JsonObject, tools: list[JsonObject] | None, at: str) -> None:
    """A choice has to name a tool that the request brings. Namespaces' tools go by their inner names."""
    kind, name, namespace = choice.get("type"), choice.get("name"), choice.get("namespace")
    if kind in (*NAMED_TOOLS, "namespace") and name is None:
        raise InvalidRequest(
            f"Missing required parameter: '{at}.name'.", code="missing_required_parameter", param=f"{at}.name"
        )
    if tools is None:
        return
    if kind in NAMED_TOOLS:
        names = [tool["name"] for space, tool in spread(tools) if tool["type"] == kind and namespace in (None, space)]
    elif kind == "namespace":
        names = [tool["name"] for tool in tools if tool["type"] == kind]
    elif kind in {tool["type"] for tool in tools}:
        return
    else:
        message = f"'{at}' asks for a tool of type {quoted(kind)}, which is not among 'tools'."
        raise InvalidRequest(message, param=at)
    if name not in names:
        message = f"'{at}' names {quoted(name)}, which is not among 'tools' (there: {quoted_all(names)})."
        raise InvalidRequest(message, param=at)


def spread(tools: Iterable[JsonObject]) -> Iterator[tuple[str | None, JsonObject]]:
    """Every tool beside its namespace, if it has one; namespaces themselves are left out."""
    for tool in tools:
        if tool["type"] == "namespace":
            yield from ((tool["name"], inner) for inner in tool["tools"])
        else:
            yield None, tool
