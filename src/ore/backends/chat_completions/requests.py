"""The body of a Chat Completions request: which fields it has, by what was asked for and what the model takes.

The conversation in it is `items`. A field is never sent in the hope that it is passed over: many servers refuse what
they do not know.
"""

from msgspec import Struct

from ore.backends.base import JsonObject, ModelRequest
from ore.backends.chat_completions.items import sent_messages
from ore.backends.free_text import told_description
from ore.backends.profiles import Profile
from ore.core.callable_tools import CallableTool
from ore.core.tool_choice import ToolPlan


class AnswerTool(Struct, frozen=True):
    """A function by which a model is made to answer in a format: its arguments are the answer."""

    name: str
    definition: JsonObject


def answer_tool(request: ModelRequest, profile: Profile, planned: ToolPlan) -> AnswerTool | None:
    """The tool that holds an answer to its schema. Where another call is demanded, there is no answer to format."""
    form = request.text_format
    if profile.json_schema != "tool" or form.get("type") != "json_schema" or planned.required:
        return None
    taken = {tool.shown for tool in planned.known}
    name = next(name for name in (str(form["name"]), "answer", "final_answer", "the_answer") if name not in taken)
    described = str(form.get("description") or "Gives the answer. Call it once, with the whole answer.")
    return AnswerTool(name, _function(name, described, form["schema"]))


def request_body(
    request: ModelRequest, profile: Profile, planned: ToolPlan, answer: AnswerTool | None, origin: str
) -> JsonObject:
    """The body of a request, always for a stream; what is None or not known to the model is left out."""
    return {
        "model": request.model,
        "messages": sent_messages(request, profile, planned, origin),
        "stream": True,
        "stream_options": {"include_usage": True},
        **_tools(planned, answer, profile),
        **_sampling(request, profile),
        **_format(request, profile, planned, answer),
        **_reasoning(request, profile),
        **_for_openai(request, profile),
    }


def _function(name: str, description: str, parameters: JsonObject, *, strict: bool = False) -> JsonObject:
    function: JsonObject = {"name": name, "parameters": parameters}
    if description:
        function["description"] = description
    if strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _tools(planned: ToolPlan, answer: AnswerTool | None, profile: Profile) -> JsonObject:
    """Only what may be called is shown; a call of anything else is refused afterwards, whatever the model was told."""
    shown = [_definition(tool) for tool in planned.allowed]
    if answer is not None:
        shown.append(answer.definition)
    if not shown:
        return {}
    fields: JsonObject = {"tools": shown}
    forced = planned.required or answer is not None
    if forced:
        fields["tool_choice"] = "required" if len(shown) > 1 else _named(shown[0])
    if not planned.parallel and profile.parallel_tool_calls:
        fields["parallel_tool_calls"] = False
    return fields


def _named(definition: JsonObject) -> JsonObject:
    return {"type": "function", "function": {"name": definition["function"]["name"]}}


def _definition(tool: CallableTool) -> JsonObject:
    strict = tool.strict and tool.type == "function"  # of the others the client said nothing
    return _function(tool.shown, told_description(tool), tool.parameters, strict=strict)


def _sampling(request: ModelRequest, profile: Profile) -> JsonObject:
    fields = profile.sampled(request.sampling)
    if request.max_output_tokens is not None:
        fields[profile.max_tokens_field] = request.max_output_tokens
    if request.top_logprobs is not None and profile.logprobs:
        fields["logprobs"] = True
        if request.top_logprobs:
            fields["top_logprobs"] = request.top_logprobs
    return fields


def _format(request: ModelRequest, profile: Profile, planned: ToolPlan, answer: AnswerTool | None) -> JsonObject:
    form = request.text_format
    if form.get("type") == "json_object":
        return {"response_format": {"type": "json_object"}}
    if form.get("type") != "json_schema" or answer is not None or profile.json_schema == "tool":
        return {}
    if profile.json_schema == "prompt":  # JSON mode would keep it from calling
        return {} if planned.allowed else {"response_format": {"type": "json_object"}}
    named = {key: form[key] for key in ("name", "description", "schema", "strict") if form.get(key) is not None}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _reasoning(request: ModelRequest, profile: Profile) -> JsonObject:
    effort = (request.reasoning or {}).get("effort")
    if not isinstance(effort, str):
        return {}
    if effort == "none" and profile.thinking_switch:
        return {"thinking": {"type": "disabled"}}
    if profile.effort == "reasoning_effort":
        return {"reasoning_effort": profile.nearest_effort(effort)}
    if profile.effort == "chat_template_kwargs":
        thinks = effort != "none"
        return {"chat_template_kwargs": {"enable_thinking": thinks, "thinking": thinks}}  # templates know one or other
    return {}


def _for_openai(request: ModelRequest, profile: Profile) -> JsonObject:
    if not profile.openai_fields:
        return {}
    fields = {
        "prompt_cache_key": request.prompt_cache_key,
        "safety_identifier": request.safety_identifier,
        "verbosity": request.verbosity if profile.reasoning else None,
        **{name: request.passed_on.get(name) for name in ("service_tier", "user")},
    }
    return {name: value for name, value in fields.items() if value is not None}
