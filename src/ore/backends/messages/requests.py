"""The body of a Messages request. What excludes what is decided here, once.

The conversation in it is `items`, what a schema may be is `schemas`. It asks for no more than the model's profile says
that it takes.
"""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from ore.backends.base import JsonObject, ModelRequest
from ore.backends.free_text import told_description
from ore.backends.messages.decoder import ANSWER_TOOL, Reading
from ore.backends.messages.items import Conversation, conversation
from ore.backends.messages.schemas import Room, closed, tool_schema
from ore.backends.profiles import Profile
from ore.core.callable_tools import CallableTool
from ore.core.tool_choice import plan

BUDGETS: Final = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384, "xhigh": 32_768, "max": 65_536}
"""Effort -> tokens to think with, for models that take a budget."""

MIN_BUDGET: Final = 1024
BUDGET_SHARE: Final = 0.75
"""Of the tokens of an answer, those that thinking may take at most: the rest is for what is said."""

DEFAULT_EFFORT: Final = "medium"

_TIERS: Final = {"auto": "auto", "priority": "auto", "default": "standard_only", "standard_only": "standard_only"}
_MUST_CALL: Final = "You must call {} now. Do not answer in words."
_MUST_FIT: Final = "Answer with one JSON value that matches this JSON Schema, and with nothing else around it:\n{}"
_MUST_BE_OBJECT: Final = "Answer with one JSON object, and with nothing else around it."


class Asking:
    """One request on its way into the API's words.

    A call that must be made goes before thinking, where the model takes not both; thinking goes before a schema that
    is held by a tool, which then is asked for in words.
    """

    def __init__(self, request: ModelRequest, profile: Profile, origin: str) -> None:
        self._request = request
        self._profile = profile
        self._origin = origin
        self._plan = plan(request.tools, request.tool_choice, parallel=request.parallel_tool_calls)
        bound = profile.max_output_tokens or profile.default_max_tokens
        self._max_tokens = min(request.max_output_tokens or bound, profile.max_output_tokens or 10**9)
        self._thinks = self._is_to_think()
        self._schema: JsonObject | None = None
        self._held = self._how_held()
        self._told = self._conversation()

    def body(self) -> JsonObject:
        body = {
            "model": self._request.model,
            "max_tokens": self._max_tokens,
            "stream": True,
            **self._prompt(self._told),
            **self._sampling(),
            **self._thinking(),
            **self._passed_on(),
        }
        if self.binds():
            body["thinking"]["block_binding"] = {"prefix_mismatch_behavior": "drop_block"}
        return body

    def counted_body(self) -> JsonObject:
        told = self._told
        if self._profile.bound_thinking:
            told = self._told_with(thinking=False)
        return {"model": self._request.model, **self._prompt(told), **self._thinking()}

    def binds(self) -> bool:
        return self._profile.bound_thinking and self._thinks

    def reading(self) -> Reading:
        summary = _wanted(self._request).get("summary") is not None
        return Reading(
            origin=self._origin,
            tools={tool.shown: tool for tool in self._plan.known},
            answer_tool=self._held if self._held == ANSWER_TOOL else "",
            reasoning="raw" if not self._profile.summarised else "summary" if summary else "hidden",
            sources="web_search_call.action.sources" in self._request.include,
        )

    def _is_to_think(self) -> bool:
        effort, thinks = self._profile.effort, self._profile.thinks
        if effort not in ("budget", "adaptive"):
            return False
        if thinks == "always":
            return True
        wanted = _wanted(self._request)
        asked = wanted.get("effort")
        if asked == "none" or (self._plan.required and self._profile.forced_calls):
            return False
        wants = thinks == "unasked" or asked is not None or wanted.get("summary") is not None
        return wants and (effort == "adaptive" or self._budget() >= MIN_BUDGET)

    def _how_held(self) -> Literal["", "native", "give_answer", "prompt"]:
        """How the answer is held to its format."""
        self._room = Room()
        kind, schema = self._request.text_format["type"], self._request.text_format.get("schema")
        if kind == "text":
            return ""
        if kind == "json_schema" and self._profile.json_schema == "native" and isinstance(schema, dict):
            self._schema = closed(schema)
            if self._schema is not None and self._room.takes(self._schema, tool=False):
                return "native"
        if self._plan.required:  # a call is no answer
            return ""
        fits = kind == "json_object" or (isinstance(schema, dict) and schema.get("type") == "object")
        able = self._profile.json_schema != "prompt" and self._profile.tools and self._profile.forced_calls
        return ANSWER_TOOL if fits and able and not self._thinks else "prompt"

    def _conversation(self) -> Conversation:
        """With its thinking, as long as there is nothing against it; who cannot be asked to think may have it back."""
        told = self._told_with(thinking=self._thinks or self._profile.effort == "none")
        if not self._thinks or self._profile.effort != "budget" or told.is_whole():
            return told
        self._thinks = False
        self._held = self._how_held()
        return self._told_with(thinking=False)

    def _told_with(self, *, thinking: bool) -> Conversation:
        request = self._request
        if self._plan.required and not self._profile.forced_calls:
            names = " or ".join(f"'{tool.shown}'" for tool in self._plan.allowed)
            request = _with_note(request, _MUST_CALL.format(names))
        told = conversation(request, self._profile, self._plan, self._origin, thinking=thinking)
        if self._held == "prompt":
            told.system.append({"type": "text", "text": _asked_for(request.text_format)})
        return told

    def _prompt(self, told: Conversation) -> JsonObject:
        """System, tools and messages, with the places up to which they can be cached."""
        tools, choice = self._tools(told)
        mark: JsonObject = {"type": "ephemeral"}
        if self._request.passed_on.get("prompt_cache_retention") == "24h":
            mark["ttl"] = "1h"
        messages = [{**message, "content": list(message["content"])} for message in told.messages]
        _mark_ends([told.system, tools, *_last_of_user(messages)], mark)
        prompt: JsonObject = {"messages": messages}
        prompt |= {"system": told.system} if told.system else {}
        prompt |= {"tools": tools} if tools else {}
        return prompt | ({"tool_choice": choice} if choice and tools else {})

    def _tools(self, told: Conversation) -> tuple[list[JsonObject], JsonObject]:
        """The tools and the choice among them. A conversation with calls must come with tools, if none may be used."""
        found = self._plan.allowed or self._plan.known
        tools = [self._tool(tool) for tool in found] if self._profile.tools else []
        if self._held == ANSWER_TOOL:
            if not self._plan.allowed:
                tools = []
            return [*tools, self._answer_tool()], self._must("any" if tools else ANSWER_TOOL)
        if not tools and told.has_calls():
            tools = [{"name": name, "input_schema": {"type": "object"}} for name in _names(told)]
        if not self._plan.allowed:
            return tools, {"type": "none"}
        if tools and self._plan.required and self._profile.forced_calls:
            return tools, self._must("any" if len(tools) > 1 else tools[0]["name"])
        return tools, {} if self._plan.parallel else {"type": "auto", "disable_parallel_tool_use": True}

    def _must(self, which: str) -> JsonObject:
        choice: JsonObject = {"type": "any"} if which == "any" else {"type": "tool", "name": which}
        alone = not self._plan.parallel or which == ANSWER_TOOL
        return {**choice, "disable_parallel_tool_use": True} if alone else choice

    def _tool(self, tool: CallableTool) -> JsonObject:
        said: JsonObject = {"name": tool.shown, "input_schema": tool_schema(tool.parameters)}
        if description := told_description(tool):
            said["description"] = description
        if tool.type == "function" and tool.strict and self._profile.json_schema == "native":
            strict = closed(tool.parameters)
            if strict is not None and strict.get("type") == "object" and self._room.takes(strict):
                said |= {"input_schema": strict, "strict": True}
        return said

    def _answer_tool(self) -> JsonObject:
        wanted = self._request.text_format
        schema = wanted.get("schema") if wanted["type"] == "json_schema" else {"type": "object"}
        description = "Gives the answer to the user. " + str(wanted.get("description") or "")
        return {"name": ANSWER_TOOL, "description": description.strip(), "input_schema": tool_schema(schema or {})}

    def _sampling(self) -> JsonObject:
        """`temperature` ends at 1 here; of it and `top_p`, newer models take one. Thinking takes neither."""
        sampling = self._request.sampling
        said: JsonObject = {}
        if self._profile.sampling and not self._thinks:
            if sampling.temperature is not None:
                said["temperature"] = min(sampling.temperature, 1.0)
            elif sampling.top_p is not None and sampling.top_p < 1:
                said["top_p"] = sampling.top_p
        stop = [text for text in sampling.stop if text.strip()]
        return said | ({"stop_sequences": stop} if stop and self._profile.stop else {})

    def _thinking(self) -> JsonObject:
        """`thinking` and `output_config`."""
        config: JsonObject = (
            {"format": {"type": "json_schema", "schema": self._schema}} if self._held == "native" else {}
        )
        said: JsonObject = {}
        asked = _wanted(self._request).get("effort")
        if self._thinks and self._profile.effort == "budget":
            said["thinking"] = {"type": "enabled", "budget_tokens": self._budget()}
        elif self._thinks:
            shown = _wanted(self._request).get("summary") is not None
            said["thinking"] = {"type": "adaptive", "display": "summarized" if shown else "omitted"}
            if asked is not None and self._profile.efforts:
                config["effort"] = self._profile.nearest_effort(asked)
        elif self._profile.thinks == "unasked":
            said["thinking"] = {"type": "disabled"}
        return said | ({"output_config": config} if config else {})

    def _budget(self) -> int:
        wanted = BUDGETS.get(_wanted(self._request).get("effort") or DEFAULT_EFFORT, BUDGETS[DEFAULT_EFFORT])
        return min(wanted, int(self._max_tokens * BUDGET_SHARE))

    def _passed_on(self) -> JsonObject:
        said: JsonObject = {}
        passed_on = self._request.passed_on
        user = self._request.safety_identifier or passed_on.get("user")
        if isinstance(user, str) and user:
            said["metadata"] = {"user_id": user}
        if (tier := passed_on.get("service_tier")) in _TIERS:
            said["service_tier"] = _TIERS[tier]
        return said


def _wanted(request: ModelRequest) -> JsonObject:
    return request.reasoning or {}


def _with_note(request: ModelRequest, note: str) -> ModelRequest:
    item = {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": note}]}
    return msgspec.structs.replace(request, items=(*request.items, item))


def _asked_for(wanted: JsonObject) -> str:
    if wanted["type"] == "json_object":
        return _MUST_BE_OBJECT
    return _MUST_FIT.format(msgspec.json.encode(wanted.get("schema") or {}).decode())


def _names(told: Conversation) -> list[str]:
    blocks = (block for message in told.messages for block in message["content"])
    return list(dict.fromkeys(block["name"] for block in blocks if block["type"] == "tool_use"))


def _last_of_user(messages: Sequence[JsonObject]) -> list[list[JsonObject]]:
    """The blocks of the user's last two turns: at the end of the last but one, the request before this one ended."""
    return [message["content"] for message in messages if message["role"] == "user"][-2:]


def _mark_ends(runs: Sequence[list[JsonObject]], mark: JsonObject) -> None:
    """Put a cache breakpoint on the last block of each; the API takes four."""
    for blocks in runs:
        if blocks:
            blocks[-1] = {**blocks[-1], "cache_control": mark}
