"""The Chat Completions dialect, for OpenAI's API and the many servers that speak as it does: requests out of items.

What of a request a model cannot take is said in another way or left out, as its profile tells; nothing here knows a
provider by name. Answers are read by `decoder`, errors by `errors`, listings by `listing`.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct

from ore.backends.base import JsonObject, ModelRequest
from ore.backends.chat_completions.calls import Calls
from ore.backends.chat_completions.decoder import ChunkDecoder
from ore.backends.chat_completions.errors import read_error
from ore.backends.chat_completions.listing import read_listing
from ore.backends.chat_messages import (
    ChatMessage,
    arguments_of,
    call_id_of,
    chat_messages,
    data_of,
    format_hint,
    inlined,
    parts_of,
    split_lead,
    text_of,
    text_of_part,
)
from ore.backends.dialect import Asked, Listed, Unintelligible, UpstreamError, unpacked
from ore.backends.profiles import Profile
from ore.core.callable_tools import CallableTool
from ore.core.tool_choice import ToolPlan, plan
from ore.ids import NewId, new_id

MAX_SHOWN_GRAMMAR: Final = 4000
"""Characters of a custom tool's grammar that the model is shown; nobody holds it to the grammar here."""

UNREADABLE: Final = "unreadable_arguments"
"""The field in which arguments go back that were no JSON object: several servers refuse any other form."""

_SHORT_ID: Final = re.compile(r"[a-zA-Z0-9]{9}")
_DETAILS: Final = ("low", "high")


class ChatCompletions:
    """See `Dialect`. `new_id` mints ids for calls that come without."""

    name = "Chat Completions"
    path = "chat/completions"
    models_path = "models"

    def __init__(self, new_id: NewId = new_id) -> None:
        self._new_id = new_id

    def key_headers(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"} if key else {}

    def ask(self, request: ModelRequest, profile: Profile, origin: str) -> Asked:
        tools = request.tools if profile.tools else ()
        planned = plan(tools, request.tool_choice, parallel=request.parallel_tool_calls)
        answer = _answer_tool(request, profile, planned)
        body: JsonObject = {
            "model": request.model,
            "messages": _Writing(request, planned, profile, origin).messages(),
            "stream": True,
            "stream_options": {"include_usage": True},
            **_tools(planned, answer, profile),
            **_sampling(request, profile),
            **_format(request, profile, planned, answer),
            **_reasoning(request, profile),
            **_for_openai(request, profile),
        }
        return Asked(body, self._decoder(request, planned, profile, origin, answer))

    def error(self, status: int, body: bytes) -> UpstreamError:
        return read_error(status, body)

    def models(self, body: bytes) -> list[Listed]:
        return read_listing(body)

    def counting(
        self,
        request: ModelRequest,  # noqa: ARG002
        profile: Profile,  # noqa: ARG002
        origin: str,  # noqa: ARG002
    ) -> tuple[str, JsonObject] | None:
        """The dialect knows no way to count."""
        return None

    def counted(self, body: bytes) -> int:  # noqa: ARG002
        raise Unintelligible

    def _decoder(
        self, request: ModelRequest, planned: ToolPlan, profile: Profile, origin: str, answer: "AnswerTool | None"
    ) -> ChunkDecoder:
        calls = Calls(
            {tool.shown: tool for tool in planned.known},
            lambda: self._new_id("call"),
            origin=origin,
            taken={str(item["call_id"]) for item in request.items if item.get("call_id")},
            answer=answer.name if answer is not None else None,
        )
        return ChunkDecoder(
            calls,
            origin=origin,
            think_tags=profile.think_tags,
            summarised=profile.summarised,
            logprobs=request.top_logprobs is not None,
        )


class _Writing:
    """Writes a request's items as messages, in one model's manner."""

    def __init__(self, request: ModelRequest, planned: ToolPlan, profile: Profile, origin: str) -> None:
        self._request = request
        self._plan = planned
        self._profile = profile
        self._origin = origin

    def messages(self) -> list[JsonObject]:
        lead, messages = split_lead(chat_messages(self._request.items))
        hint = format_hint(self._request.text_format) if self._profile.json_schema == "prompt" else ""
        system = "\n\n".join(filter(None, (self._request.instructions, *lead, hint)))
        written = [self._system(system)] if system else []
        return [*written, *self._written(messages)]

    def _written(self, messages: Iterable[ChatMessage]) -> Iterator[JsonObject]:
        """Images that tools gave out follow their outputs as a user's message: hardly a server takes them there."""
        images: list[JsonObject] = []
        for message in messages:
            if images and message.role != "tool":
                yield {"role": "user", "content": images}
                images = []
            if message.role == "tool":
                yield self._output(message)
                images = [*images, *self._images_of(message)]
            elif message.role == "assistant":
                yield from self._assistant(message)
            elif message.role == "system":
                yield self._system(text_of(message.content))
            else:
                yield {"role": "user", "content": self._content(message.content)}
        if images:
            yield {"role": "user", "content": images}

    def _system(self, text: str) -> JsonObject:
        return {"role": self._profile.instructions_role, "content": text}

    def _assistant(self, message: ChatMessage) -> Iterator[JsonObject]:
        """A message that says nothing is left out: some refuse it, and to the others it says nothing."""
        text = text_of(message.content)
        if not text and not message.calls:
            return
        states = [state for thought in message.thoughts if isinstance(state := unpacked(thought, self._origin), dict)]
        written: JsonObject = {"role": "assistant", "content": text, **self._thoughts(message, states)}
        if message.calls:
            extras = {state.get("call_id"): state.get("extra_content") for state in states}
            written["tool_calls"] = [self._call(item, extras.get(call_id_of(item))) for item in message.calls]
        yield written

    def _thoughts(self, message: ChatMessage, states: Iterable[JsonObject]) -> JsonObject:
        """Reasoning as the model wants it back. With calls the field is there even when its text is not known."""
        details = [detail for state in states for detail in state.get("reasoning_details") or ()]
        if details:
            return {"reasoning_details": details}
        back, reasoning = self._profile.reasoning_back, message.reasoning
        wanted = back == "always" or (back == "calls" and bool(message.calls))
        if not wanted or not (reasoning or message.calls):
            return {}
        return {self._profile.reasoning_field: reasoning}

    def _call(self, item: JsonObject, extra: Any) -> JsonObject:
        function = {"name": self._plan.shown_name(item), "arguments": _arguments(item)}
        call = {"type": "function", "id": self._call_id(call_id_of(item)), "function": function}
        return call if extra is None else {**call, "extra_content": extra}

    def _call_id(self, call_id: str) -> str:
        if not self._profile.short_call_ids or _SHORT_ID.fullmatch(call_id):
            return call_id
        return hashlib.sha256(call_id.encode()).hexdigest()[:9]

    def _output(self, message: ChatMessage) -> JsonObject:
        parts = parts_of(message.content)
        text = text_of([part for part in parts if not self._shows(part)])
        if any(map(self._shows, parts)):
            text = "\n".join(filter(None, (text, "[its images are in the next message]")))
        return {"role": "tool", "tool_call_id": self._call_id(message.call_id), "content": text}

    def _images_of(self, message: ChatMessage) -> list[JsonObject]:
        return [_image(part) for part in parts_of(message.content) if self._shows(part)]

    def _shows(self, part: JsonObject) -> bool:
        return self._profile.images and part.get("type") == "input_image" and isinstance(part.get("image_url"), str)

    def _content(self, content: str | list[JsonObject]) -> str | list[JsonObject]:
        """Text as a string where there is nothing else: not every server takes parts."""
        parts = [self._part(part) for part in parts_of(content)]
        if all(part["type"] == "text" for part in parts):
            return "\n".join(filter(None, (part["text"] for part in parts)))
        return [part for part in parts if part.get("text") != ""]

    def _part(self, part: JsonObject) -> JsonObject:
        if self._shows(part):
            return _image(part)
        if part.get("type") == "input_file" and self._profile.files and inlined(part) is None:
            return _file(part)
        return {"type": "text", "text": text_of_part(part)}


def _arguments(item: JsonObject) -> str:
    """As they were written, for the sake of prefix caches, where they are a JSON object."""
    arguments, written = arguments_of(item), item.get("arguments")
    if not isinstance(arguments, dict):
        return msgspec.json.encode({UNREADABLE: arguments}).decode()
    return written if isinstance(written, str) and written else msgspec.json.encode(arguments).decode()


def _image(part: JsonObject) -> JsonObject:
    detail = {"detail": part["detail"]} if part.get("detail") in _DETAILS else {}
    return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}


def _file(part: JsonObject) -> JsonObject:
    media, encoded = data_of(part)
    if not encoded:
        return {"type": "text", "text": text_of_part(part)}  # by URL or by id: nobody fetches it here
    address = f"data:{media or 'application/pdf;base64'},{encoded}"
    return {"type": "file", "file": {"filename": str(part.get("filename") or "file.pdf"), "file_data": address}}


class AnswerTool(Struct, frozen=True):
    """A function by which a model is made to answer in a format: its arguments are the answer."""

    name: str
    definition: JsonObject


def _answer_tool(request: ModelRequest, profile: Profile, planned: ToolPlan) -> AnswerTool | None:
    """Where another call is demanded, there is no answer to format."""
    form = request.text_format
    if profile.json_schema != "tool" or form.get("type") != "json_schema" or planned.required:
        return None
    taken = {tool.shown for tool in planned.known}
    name = next(name for name in (str(form["name"]), "answer", "final_answer", "the_answer") if name not in taken)
    described = str(form.get("description") or "Gives the answer. Call it once, with the whole answer.")
    return AnswerTool(name, _function(name, described, form["schema"]))


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
    description = "\n".join(filter(None, (tool.description, _grammar_hint(tool.format))))
    strict = tool.strict and tool.type == "function"  # of the others the client said nothing
    return _function(tool.shown, description, tool.parameters, strict=strict)


def _grammar_hint(form: JsonObject) -> str:
    definition = str(form.get("definition") or "")
    if form.get("syntax") != "lark" or not definition or len(definition) > MAX_SHOWN_GRAMMAR:
        return ""
    return f"The input must match this Lark grammar:\n{definition}"


def _sampling(request: ModelRequest, profile: Profile) -> JsonObject:
    sampling = request.sampling
    fields: JsonObject = {
        "temperature": sampling.temperature if profile.sampling else None,
        "top_p": sampling.top_p if profile.sampling else None,
        "presence_penalty": sampling.presence_penalty if profile.penalties else None,
        "frequency_penalty": sampling.frequency_penalty if profile.penalties else None,
        "seed": sampling.seed if profile.seed else None,
        "stop": list(sampling.stop) or None if profile.stop else None,
        profile.max_tokens_field: request.max_output_tokens,
    }
    if request.top_logprobs is not None and profile.logprobs:
        fields |= {"logprobs": True, "top_logprobs": request.top_logprobs or None}
    return {name: value for name, value in fields.items() if value is not None}


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
