"""OpenAI's Responses API on loopback, as far as it is documented: it refuses what it would refuse there. Not a test.

Bodies are held to the types of the `openai` package and to the rules between items; answers are built event by event
and held to the package's types too, so that a test cannot be passed by a server that OpenAI is not.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, get_args

from openai.types.responses import ResponseStreamEvent
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming
from pydantic import TypeAdapter, ValidationError

from providers.stub_server import Asked, Play, as_json, events

Json = dict[str, Any]

_BODY = TypeAdapter(ResponseCreateParamsStreaming)
_EVENTS = {
    get_args(kind.model_fields["type"].annotation)[0]: kind for kind in get_args(get_args(ResponseStreamEvent)[0])
}
_FIELDS = frozenset(_BODY.json_schema()["properties"])
_PREFIXES = {
    "message": "msg_",
    "function_call": "fc_",
    "custom_tool_call": "ctc_",
    "reasoning": "rs_",
    "web_search_call": "ws_",
    "file_search_call": "fs_",
    "code_interpreter_call": "ci_",
    "image_generation_call": "ig_",
    "mcp_call": "mcp_",
    "mcp_list_tools": "mcpl_",
    "mcp_approval_request": "mcpr_",
    "shell_call": "sh_",
    "computer_call": "cu_",
}
_OUTPUTS = {
    "function_call_output": "function_call",
    "custom_tool_call_output": "custom_tool_call",
    "shell_call_output": "shell_call",
    "apply_patch_call_output": "apply_patch_call",
    "computer_call_output": "computer_call",
}
_NOT_THE_MODELS = {*_OUTPUTS, "mcp_approval_response", "additional_tools"}


class Refusal(Exception):
    """A 400: its message, and the parameter."""


class ResponsesServer:
    """`answer` is for `stub_server`; `play` says what comes next: events of a script, or whatever a test wants.

    `bodies` are the requests that were taken.
    """

    def __init__(self, play: Play | Callable[[Json], Play], models: Iterable[Json] = ()) -> None:
        self.play = play
        self.models = list(models)
        self.bodies: list[Json] = []

    def answer(self, asked: Asked) -> Play:
        if asked.headers.get("authorization") != "Bearer sk-test":
            return refused(401, "Incorrect API key provided.", code="invalid_api_key")
        if asked.path.endswith("/models"):
            return as_json({"object": "list", "data": self.models})
        try:
            check_body(asked.body, counting=asked.path.endswith("/input_tokens"))
        except Refusal as refusal:
            return refused(400, str(refusal.args[0]), param=refusal.args[1])
        self.bodies.append(asked.body)
        if asked.path.endswith("/input_tokens"):
            return as_json({"object": "response.input_tokens", "input_tokens": 12})
        return self.play if isinstance(self.play, Play) else self.play(asked.body)


def refused(status: int, message: str, **more: Any) -> Play:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None, **more}
    return as_json({"error": error}, status)


def sealed(item_id: str) -> str:
    """What this server alone can read, and recognises."""
    return f"gAAAA{hashlib.sha256(item_id.encode()).hexdigest()}"


def check_body(body: Json, *, counting: bool = False) -> None:
    """Raises `Refusal` as OpenAI would answer 400."""
    for name in body:
        if name not in _FIELDS:
            raise Refusal(f"Unknown parameter: '{name}'.", name)
    completed = {**body, "input": [_completed(item) for item in body["input"]]}
    try:
        _walk(_BODY.validate_python(completed | ({"stream": True} if counting else {})))
    except ValidationError as error:
        raise Refusal(str(error), "input") from None
    if not counting and (body.get("store") is not False or body.get("stream") is not True):
        raise Refusal("this server keeps nothing and streams everything", "store")
    if body.get("max_output_tokens", 16) < 16:
        raise Refusal("Invalid 'max_output_tokens': integer below minimum value.", "max_output_tokens")
    if body["model"].startswith(("o", "gpt-5")) and body.keys() & {"temperature", "top_p", "top_logprobs"}:
        raise Refusal("Unsupported parameter: 'temperature' is not supported with this model.", "temperature")
    if body.get("tool_choice", "auto") not in ("auto", "none") and not body.get("tools"):
        raise Refusal("Tool choice must be specified with 'tools'.", "tool_choice")
    _check_items(body["input"])


def _completed(item: Json) -> Json:
    """An assistant's message without id and status is taken, whatever the types say: Codex sends such."""
    if item.get("type") == "message" and item["role"] == "assistant" and isinstance(item["content"], list):
        return {"id": "msg_0", "status": "completed", **item}
    return item


def _walk(value: Any) -> None:
    """Go through what pydantic checks only when it is read."""
    if isinstance(value, dict):
        for entry in value.values():
            _walk(entry)
    elif not isinstance(value, str | bytes | int | float | None):
        for entry in value:
            _walk(entry)


def _check_items(items: list[Json]) -> None:
    calls: dict[str, set[str]] = {}
    for at, item in enumerate(items):
        kind = item.get("type", "message")
        prefix, item_id = _PREFIXES.get(kind), item.get("id")
        if prefix and item_id is not None and not item_id.startswith(prefix):
            raise Refusal(
                f"Invalid 'input[{at}].id': '{item_id}'. Expected an ID that begins with '{prefix}'.", "input"
            )
        if unknown := item.keys() & {"state", "logprobs"}:
            raise Refusal(f"Unknown parameter: 'input[{at}].{unknown.pop()}'.", "input")
        if kind == "reasoning":
            _check_reasoning(items, at)
        if kind in _OUTPUTS:
            if item["call_id"] not in calls.get(_OUTPUTS[kind], ()):
                raise Refusal(f"No tool call found for function call output with call_id {item['call_id']}.", "input")
            calls[_OUTPUTS[kind]].discard(item["call_id"])
        elif kind in _OUTPUTS.values():
            calls.setdefault(kind, set()).add(item["call_id"])
    if left := [call for ids in calls.values() for call in ids]:
        raise Refusal(f"No tool output found for function call {left[0]}.", "input")


def _check_reasoning(items: list[Json], at: int) -> None:
    item = items[at]
    if item.get("encrypted_content") != sealed(item["id"]):
        raise Refusal(f"The encrypted content for item {item['id']} could not be verified.", "input")
    following = next((each for each in items[at + 1 :] if each.get("type") != "reasoning"), None)
    made = following is not None and following.get("type", "message") not in _NOT_THE_MODELS
    if not made or following.get("role", "assistant") != "assistant":
        raise Refusal(f"Item '{item['id']}' was provided without its required following item.", "input")


class Telling:
    """An answer being told: each method adds events. Numbers and indexes are right by themselves."""

    def __init__(self, response_id: str = "resp_up", *, honest: bool = True) -> None:
        self.events: list[Json] = []
        self.output: list[Json] = []
        self._honest = honest
        self._response = {
            "id": response_id,
            "object": "response",
            "created_at": 1_795_000_000.0,
            "status": "in_progress",
            "model": "gpt-5",
            "output": [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "service_tier": "priority",
        }
        self.emit("response.created", response=self._response)
        self.emit("response.in_progress", response=self._response)

    def emit(self, kind: str, **fields: Any) -> "Telling":
        event = {"type": kind, "sequence_number": len(self.events), **fields}
        if self._honest:
            _EVENTS[kind].model_validate(event, strict=True)
        self.events.append(event)
        return self

    def about(self, kind: str, **fields: Any) -> "Telling":
        """An event about the item that is open; events about commands do not name it."""
        of = {} if kind.startswith("response.shell_call_command") else {"item_id": self._open["id"]}
        return self.emit(kind, output_index=len(self.output), **of, **fields)

    def begin(self, item: Json) -> "Telling":
        self._open = item
        return self.emit("response.output_item.added", output_index=len(self.output), item=item)

    def end_item(self, item: Json) -> "Telling":
        self.emit("response.output_item.done", output_index=len(self.output), item=item)
        self.output.append(item)
        return self

    def message(self, item: Json) -> "Telling":
        """A message, text by text in two pieces, with its citations."""
        self.begin({**item, "status": "in_progress", "content": []})
        for at, part in enumerate(item["content"]):
            kind, field = ("refusal", "refusal") if part["type"] == "refusal" else ("output_text", "text")
            empty = {**part, field: "", **({"annotations": [], "logprobs": []} if field == "text" else {})}
            logprobs = {"logprobs": part["logprobs"]} if field == "text" else {}
            self.about("response.content_part.added", content_index=at, part=empty)
            for number, piece in enumerate(_halves(part[field])):
                shown = {"logprobs": part["logprobs"] if number == 0 else []} if field == "text" else {}
                self.about(f"response.{kind}.delta", content_index=at, delta=piece, **shown)
            for number, annotation in enumerate(part.get("annotations", [])):
                self.about(
                    "response.output_text.annotation.added",
                    content_index=at,
                    annotation_index=number,
                    annotation=annotation,
                )
            self.about(f"response.{kind}.done", content_index=at, **{field: part[field]}, **logprobs)
            self.about("response.content_part.done", content_index=at, part=part)
        return self.end_item(item)

    def reasoning(self, item: Json) -> "Telling":
        self.begin({**item, "summary": [], "content": [], "encrypted_content": None})
        for at, part in enumerate(item["summary"]):
            self.about("response.reasoning_summary_part.added", summary_index=at, part={**part, "text": ""})
            for piece in _halves(part["text"]):
                self.about("response.reasoning_summary_text.delta", summary_index=at, delta=piece)
            self.about("response.reasoning_summary_text.done", summary_index=at, text=part["text"])
            self.about("response.reasoning_summary_part.done", summary_index=at, part=part)
        for at, part in enumerate(item.get("content") or []):
            self.about("response.content_part.added", content_index=at, part={**part, "text": ""})
            for piece in _halves(part["text"]):
                self.about("response.reasoning_text.delta", content_index=at, delta=piece)
            self.about("response.reasoning_text.done", content_index=at, text=part["text"])
            self.about("response.content_part.done", content_index=at, part=part)
        return self.end_item(item)

    def call(self, item: Json) -> "Telling":
        """A function or custom call."""
        field, event = _CALLS[item["type"]]
        self.begin({**item, field: "", "status": "in_progress"})
        for piece in _halves(item[field]):
            self.about(f"response.{event}.delta", delta=piece)
        named = {"name": item["name"]} if field == "arguments" else {}
        self.about(f"response.{event}.done", **{field: item[field]}, **named)
        return self.end_item(item)

    def hosted(self, item: Json, *told: tuple[str, Json], begun: Json | None = None) -> "Telling":
        """An item that the server makes by itself, and the events about it, without the common fields."""
        self.begin(item | {"status": "in_progress"} | (begun or {}) if "status" in item else item | (begun or {}))
        for kind, fields in told:
            self.about(kind, **fields)
        return self.end_item(item)

    def completed(self, status: str = "completed", **more: Any) -> "Telling":
        usage = {
            "input_tokens": 20,
            "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 0},
            "output_tokens": 7,
            "output_tokens_details": {"reasoning_tokens": 3},
            "total_tokens": 27,
        }
        response = {**self._response, "status": status, "output": self.output, "usage": usage, **more}
        return self.emit(f"response.{status}", response=response)

    def play(self) -> Play:
        return Play(events(*self.events, named=True))


_CALLS = {
    "function_call": ("arguments", "function_call_arguments"),
    "custom_tool_call": ("input", "custom_tool_call_input"),
}


def _halves(text: str) -> Iterator[str]:
    middle = (len(text) + 1) // 2
    yield from filter(None, (text[:middle], text[middle:]))


def text_message(text: str, item_id: str = "msg_up", **more: Any) -> Json:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {
        "type": "message",
        "id": item_id,
        "role": "assistant",
        "status": "completed",
        "content": [part],
        **more,
    }


def reasoning_item(item_id: str, *summary: str) -> Json:
    parts = [{"type": "summary_text", "text": text} for text in summary]
    return {"type": "reasoning", "id": item_id, "summary": parts, "encrypted_content": sealed(item_id)}


def function_call(name: str, arguments: str, call_id: str, item_id: str = "fc_up", **more: Any) -> Json:
    return {
        "type": "function_call",
        "id": item_id,
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
        "status": "completed",
        **more,
    }
