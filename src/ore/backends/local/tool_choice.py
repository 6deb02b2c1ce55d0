"""What `tools`, `tool_choice` and `parallel_tool_calls` mean for one sampling: which tools are shown, which may be
called, and whether one must be.

Pure. It refuses to judge schemas (`json_schemas` does) and to know how a call is written (`grammar` does).
"""

from typing import Any, Literal

from msgspec import Struct

from ore.backends.base import JsonObject, ModelRequest
from ore.errors import InvalidRequest

NO_ARGUMENTS: JsonObject = {"type": "object", "properties": {}, "additionalProperties": False}


class Callable(Struct, frozen=True, kw_only=True):
    """A tool that this model can call as a function. `index` is its place in the request's `tools`."""

    index: int
    name: str
    kind: Literal["function_call", "custom_tool_call"]
    description: str
    parameters: JsonObject
    strict: bool


class ToolPlan(Struct, frozen=True, kw_only=True):
    """`shown` stand in the prompt; `allowed` are those of them that may be called."""

    shown: tuple[Callable, ...] = ()
    allowed: tuple[Callable, ...] = ()
    required: bool = False
    parallel: bool = True

    @property
    def custom(self) -> frozenset[str]:
        """Names of the tools whose input is free text."""
        return frozenset(tool.name for tool in self.allowed if tool.kind == "custom_tool_call")


def plan_tools(request: ModelRequest) -> ToolPlan:
    """Resolve the choice. With `none` no tool is shown, so that the model is not tempted."""
    choice = request.tool_choice
    tools = tuple(tool for i, raw in enumerate(request.tools) if (tool := _callable(i, raw)) is not None)
    mode, names = _mode(choice)
    if mode == "none" or not tools:
        if mode == "required":
            raise InvalidRequest(
                "tool_choice asks for a tool call, but there is no tool this model can call.", param="tool_choice"
            )
        return ToolPlan()
    allowed = tools if names is None else tuple(tool for tool in tools if (tool.kind, tool.name) in names)
    if not allowed:
        raise InvalidRequest("tool_choice names a tool that is not in tools.", param="tool_choice")
    return ToolPlan(shown=tools, allowed=allowed, required=mode == "required", parallel=request.parallel_tool_calls)


_KINDS: dict[Any, Literal["function_call", "custom_tool_call"]] = {
    "function": "function_call",
    "custom": "custom_tool_call",
}


def _mode(choice: str | JsonObject) -> tuple[str, set[tuple[str, str]] | None]:
    """The mode, and the (kind, name) pairs that may be called; None allows all."""
    if isinstance(choice, str):
        return choice, None
    if choice.get("type") == "allowed_tools":
        entries = choice.get("tools") or []
        return choice.get("mode") or "auto", {pair for entry in entries if (pair := _pair(entry)) is not None}
    pair = _pair(choice)
    return "required", {pair} if pair is not None else set()


def _pair(entry: JsonObject) -> tuple[str, str] | None:
    kind = _KINDS.get(entry.get("type"))
    return (kind, str(entry.get("name"))) if kind is not None else None


def _callable(index: int, raw: JsonObject) -> Callable | None:
    kind = _KINDS.get(raw.get("type"))
    if kind is None:
        return None
    return Callable(
        index=index,
        name=str(raw.get("name", "")),
        kind=kind,
        description=str(raw.get("description") or ""),
        parameters=(raw.get("parameters") or NO_ARGUMENTS) if kind == "function_call" else _input_schema(index, raw),
        strict=bool(raw.get("strict")) or kind == "custom_tool_call",
    )


def _input_schema(index: int, raw: JsonObject) -> JsonObject:
    """A custom tool's free text, as the one string argument of a function."""
    text: JsonObject = {"type": "string"}
    form = raw.get("format") or {"type": "text"}
    if form.get("type") == "grammar":
        if form.get("syntax") != "regex":
            raise InvalidRequest(
                "This model can hold custom tools to a regex, but not to a lark grammar. "
                'Use {"type": "text"} or a regex.',
                code="unsupported_value",
                param=f"tools[{index}].format",
            )
        text["pattern"] = f"^({form.get('definition', '')})$"
    return {"type": "object", "properties": {"input": text}, "required": ["input"], "additionalProperties": False}
