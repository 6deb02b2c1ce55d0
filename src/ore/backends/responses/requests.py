"""The body of a request to a Responses upstream: what was asked for, as far as the model takes it.

The context in it is `items`. Nothing that the client left open is sent: it is left to the upstream.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ore.backends.base import JsonObject, ModelRequest
from ore.backends.free_text import told_description
from ore.backends.profiles import Profile
from ore.backends.responses.items import sent_items
from ore.core.callable_tools import CallableTool, callable_tools, tools_in
from ore.core.tool_choice import ToolPlan, plan
from ore.protocol.tools import NAMED_TOOLS

MIN_OUTPUT_TOKENS: Final = 16
"""The fewest that OpenAI takes. Who asks for less gets at most these, rather than a refusal."""

ENCRYPTED: Final = "reasoning.encrypted_content"
LOGPROBS: Final = "message.output_text.logprobs"


def request_body(request: ModelRequest, profile: Profile, planned: ToolPlan, origin: str) -> JsonObject:
    """The body of a request, always for a stream, and never to be stored."""
    fields = {
        **request.passed_on,
        "model": request.model,
        "input": sent_items(request.items, profile, planned, origin),
        "instructions": request.instructions,
        "stream": True,
        "store": False,
        "include": _include(request, profile) or None,
        **_tools(request, profile, planned),
        "text": _text(request),
        "reasoning": _reasoning(request, profile),
        "max_output_tokens": request.max_output_tokens and max(MIN_OUTPUT_TOKENS, request.max_output_tokens),
        "top_logprobs": request.top_logprobs if profile.logprobs else None,
        "prompt_cache_key": request.prompt_cache_key,
        "safety_identifier": request.safety_identifier,
        **profile.sampled(request.sampling),
    }
    return _some(fields)


def plan_of(request: ModelRequest, profile: Profile) -> ToolPlan:
    """Which functions stand for the tools. An upstream that takes the tools themselves judges the choice too."""
    if profile.tool_types is not None or not profile.tools:
        return ToolPlan(known=callable_tools(request.tools))
    return plan(request.tools, request.tool_choice, parallel=request.parallel_tool_calls)


def _tools(request: ModelRequest, profile: Profile, planned: ToolPlan) -> JsonObject:
    """`tools` and what goes with them; nothing where there are none."""
    if not profile.tools:
        return {}
    if profile.tool_types is None:
        tools, choice = _as_functions(request, planned)
    else:
        tools, choice = _as_they_are(request, profile.tool_types)
    if not tools and (profile.tool_types is None or not tools_in(request.items)):
        return {}
    serial = profile.parallel_tool_calls and not request.parallel_tool_calls
    return {
        "tools": tools or None,
        "tool_choice": None if choice == "auto" else choice,
        "parallel_tool_calls": False if serial else None,
        "max_tool_calls": None if profile.tool_types is None else request.max_tool_calls,
    }


def _as_they_are(request: ModelRequest, types: Sequence[str]) -> tuple[list[JsonObject], str | JsonObject]:
    """The tools that the upstream takes; those that items bring, it finds there."""
    brought = tools_in(request.items)
    tools = [tool for tool in request.tools if tool["type"] in types and tool not in brought]
    choice = request.tool_choice
    if isinstance(choice, dict) and choice["type"] == "allowed_tools":
        known = {tool["type"] for tool in (*tools, *brought)}
        inner = {each["type"] for tool in (*tools, *brought) for each in tool.get("tools") or ()}
        choice = {**choice, "tools": [entry for entry in choice["tools"] if entry["type"] in known | inner]}
    return tools, choice


def _as_functions(request: ModelRequest, planned: ToolPlan) -> tuple[list[JsonObject], str | JsonObject]:
    """The allowed tools only: not every upstream knows a choice among those that it is shown."""
    choice = request.tool_choice
    if isinstance(choice, dict) and choice["type"] in NAMED_TOOLS and len(planned.allowed) == 1:
        return [_function(tool) for tool in planned.shown], {"type": "function", "name": planned.allowed[0].shown}
    return [_function(tool) for tool in planned.allowed], "required" if planned.required else "auto"


def _function(tool: CallableTool) -> JsonObject:
    """A tool as a function. What no schema says of free text, its description does."""
    return {
        "type": "function",
        "name": tool.shown,
        "description": told_description(tool),
        "parameters": tool.parameters,
        "strict": tool.strict,
    }


def _include(request: ModelRequest, profile: Profile) -> list[str]:
    """What the client asked for, as far as the upstream can know it, and what ORE needs to go on without its store."""
    known = [each for each in request.include if each not in (ENCRYPTED, LOGPROBS) and profile.tool_types is not None]
    reasoning = [ENCRYPTED] if profile.reasoning else []
    return [*reasoning, *([LOGPROBS] if profile.logprobs and request.top_logprobs is not None else []), *known]


def _reasoning(request: ModelRequest, profile: Profile) -> JsonObject | None:
    if not profile.reasoning:
        return None
    asked = _some(request.reasoning or {})
    if "effort" in asked:
        asked["effort"] = profile.nearest_effort(asked["effort"])
    return asked or None


def _text(request: ModelRequest) -> JsonObject | None:
    form = None if request.text_format == {"type": "text"} else _some(request.text_format)
    return _some({"format": form, "verbosity": request.verbosity}) or None


def _some(fields: Mapping[str, Any]) -> JsonObject:
    """The fields that say something: what is not asked for is left to the upstream."""
    return {key: value for key, value in fields.items() if value is not None}
