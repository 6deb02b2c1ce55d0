"""How each dialect's provider speaks, and what it hears: the two ends of the contract kit. Not a test.

A voice turns ORE's deltas into the events of a provider, by the provider's documentation and without any code of the
dialect; and reads a request body back into plain entries, so that what was asked can be held against what was meant.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from messages_server import signature
from msgspec import Struct
from responses_server import sealed

from ore.core import deltas as d
from ore.core.deltas import Delta, Finish

Entry = tuple[str, ...]
"""`("user", text)`, `("system", text)`, `("assistant", text)`, `("image", url)`, `("call", name, arguments)`,
`("output", text)`, `("thought", state)`."""


class Said(Struct):
    """Deltas put together: one entry for each item or part that a provider would send."""

    kind: str
    text: str = ""
    call: d.ToolCall | None = None
    logprobs: list[Any] = []
    citations: list[Any] = []
    state: str = ""
    pieces: list[str] = []


def together(says: Sequence[Delta]) -> Iterator[Said]:
    """The deltas, one entry for each thing that is said."""
    said: Said | None = None
    for delta in says:
        kind = {d.Text: "text", d.Refusal: "refusal", d.Reasoning: "thought", d.ToolCall: "call"}.get(type(delta))
        if isinstance(delta, d.ToolCall) or (kind is not None and (said is None or said.kind != kind)):
            if said is not None:
                yield said
            said = Said(str(kind), call=delta if isinstance(delta, d.ToolCall) else None, logprobs=[], citations=[])
            said.pieces = []
        assert said is not None or isinstance(delta, Finish)
        if said is not None:
            _add(said, delta)
    if said is not None:
        yield said


def _add(said: Said, delta: Delta) -> None:
    if isinstance(delta, d.ReasoningState):
        said.state = delta.state
    elif isinstance(delta, d.Annotation):
        said.citations.append(delta.annotation)
    elif isinstance(delta, d.Text | d.Refusal | d.Reasoning | d.ToolArguments):
        said.pieces.append(delta.text)
        said.text += delta.text
        said.logprobs += getattr(delta, "logprobs", ())


def arguments(said: Said) -> str:
    """What a model that knows only functions writes: free text stands in an object."""
    assert said.call is not None
    return json.dumps({"input": said.text}) if said.call.kind == "custom_tool_call" else said.text


def finish_of(says: Sequence[Delta]) -> Finish:
    last = says[-1]
    assert isinstance(last, Finish)
    return last


class Voice(Struct, frozen=True):
    """`speaks` gives a provider's events, `heard` what a body asked it; `lacks` are needs it has no words for."""

    speaks: Callable[[Sequence[Delta], Any], list[bytes]]
    heard: Callable[[Any], list[Entry]]
    lacks: frozenset[str] = frozenset()


def frame(data: Any, *, named: bool = False) -> bytes:
    name = f"event: {data['type']}\n" if named else ""
    return f"{name}data: {json.dumps(data)}\n\n".encode()


# Chat Completions


def chat_speaks(says: Sequence[Delta], _: Any) -> list[bytes]:
    """Chunks of one choice; usage in a chunk of its own, at the end."""
    finish = finish_of(says)
    deltas: list[Any] = [{"delta": {"role": "assistant", "content": ""}}]
    index = 0
    for said in together(says):
        if said.kind == "call":
            deltas += _chat_call(said, index)
            index += 1
            continue
        field = {"text": "content", "thought": "reasoning_content"}.get(said.kind, said.kind)
        deltas += [{"delta": {field: piece}} for piece in said.pieces]
        if said.logprobs:
            deltas[-1]["logprobs"] = {"content": said.logprobs}
        if said.citations:
            cited = [
                {"type": "url_citation", "url_citation": {key: value for key, value in each.items() if key != "type"}}
                for each in said.citations
            ]
            deltas.append({"delta": {"annotations": cited}})
    reason = {"max_output_tokens": "length"}.get(finish.reason, finish.reason)
    chunks = [{**_CHUNK, "choices": [{"index": 0, "finish_reason": None, **each}]} for each in deltas]
    usage = {
        "prompt_tokens": finish.usage.input_tokens,
        "completion_tokens": finish.usage.output_tokens,
        "total_tokens": finish.usage.input_tokens + finish.usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": finish.usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": finish.usage.reasoning_tokens},
    }
    last = {**_CHUNK, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    return [*map(frame, [*chunks, last, {**_CHUNK, "choices": [], "usage": usage}]), b"data: [DONE]\n\n"]


_CHUNK = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def _chat_call(said: Said, index: int) -> list[Any]:
    assert said.call is not None
    whole = arguments(said)
    begun = {"index": index, "id": said.call.call_id, "type": "function"}
    first = {**begun, "function": {"name": said.call.name, "arguments": ""}}
    rest = [{"index": index, "function": {"arguments": piece}} for piece in (whole[:5], whole[5:])]
    return [{"delta": {"tool_calls": [piece]}} for piece in (first, *rest)]


def chat_heard(body: Any) -> list[Entry]:
    """Every message, in order."""
    found: list[Entry] = []
    for message in body["messages"]:
        role = {"developer": "system", "tool": "output"}.get(message["role"], message["role"])
        found += [_part(role, part) for part in _parts(message.get("content"))]
        for call in message.get("tool_calls") or ():
            found.append(("call", call["function"]["name"], _canonical(call["function"]["arguments"])))
    return found


def _parts(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) and content else list(content or ())


def _part(role: str, part: Any) -> Entry:
    if part["type"] == "image_url":
        return ("image", part["image_url"]["url"])
    if part["type"] == "file":
        return ("file", part["file"]["filename"])
    return (role, part["text"])


def _canonical(arguments: Any) -> str:
    return json.dumps(json.loads(arguments) if isinstance(arguments, str) else arguments, sort_keys=True)


# Anthropic Messages


def messages_speaks(says: Sequence[Delta], _: Any) -> list[bytes]:
    """A message as blocks; each opened, filled and closed."""
    finish, usage = finish_of(says), finish_of(says).usage
    fresh = {
        "input_tokens": usage.input_tokens - usage.cached_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens": 1,
    }
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": fresh}
    found: list[Any] = [
        {"type": "message_start", "message": {**message, "stop_reason": None, "stop_sequence": None}},
        {"type": "ping"},
    ]
    for index, said in enumerate(together(says)):
        block, deltas = _block(said)
        found.append({"type": "content_block_start", "index": index, "content_block": block})
        found += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        found.append({"type": "content_block_stop", "index": index})
    reasons = {"stop": "end_turn", "tool_calls": "tool_use", "max_output_tokens": "max_tokens"}
    reason = {"stop_reason": reasons.get(finish.reason, "refusal"), "stop_sequence": None}
    told = {"output_tokens": usage.output_tokens, "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens}}
    found += [{"type": "message_delta", "delta": reason, "usage": told}, {"type": "message_stop"}]
    return [frame(each, named=True) for each in found]


def _block(said: Said) -> tuple[Any, list[Any]]:
    if said.kind == "call":
        assert said.call is not None
        whole = arguments(said)
        pieces = [] if whole == "{}" else [whole[:5], whole[5:]]
        block = {"type": "tool_use", "id": said.call.call_id, "name": said.call.name, "input": {}}
        return block, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    if said.kind == "thought":
        signed = {"type": "signature_delta", "signature": signature(said.text)}
        thoughts = [{"type": "thinking_delta", "thinking": piece} for piece in said.pieces]
        return {"type": "thinking", "thinking": "", "signature": ""}, [*thoughts, signed]
    return {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in said.pieces]


def messages_heard(body: Any) -> list[Entry]:
    """The system text, then every block."""
    found: list[Entry] = [("system", block["text"]) for block in _parts(body.get("system"))]
    for message in body["messages"]:
        for block in _parts(message["content"]):
            found += _heard_block(message["role"], block)
    return found


def _heard_block(role: str, block: Any) -> list[Entry]:
    if block["type"] == "tool_use":
        return [("call", block["name"], _canonical(block["input"]))]
    if block["type"] == "tool_result":
        return [entry for part in _parts(block["content"]) for entry in _heard_block("output", part)]
    if block["type"] == "thinking":
        return [("thought", block["signature"])]
    if block["type"] == "image":
        source = block["source"]
        data = f"data:{source.get('media_type')};base64,{source.get('data')}"
        return [("image", source["url"] if source["type"] == "url" else data)]
    if block["type"] == "document":
        return [("file", str(block.get("title")))]
    return [(role, block["text"])]


# Responses


def responses_speaks(says: Sequence[Delta], body: Any) -> list[bytes]:
    """The events of a response, item after item."""
    finish, found, output = finish_of(says), list[Any](), list[Any]()
    shell = {
        "id": "resp_up",
        "object": "response",
        "created_at": 1,
        "model": "m",
        "status": "in_progress",
        "output": [],
    }
    found += [{"type": "response.created", "response": shell}, {"type": "response.in_progress", "response": shell}]
    for said in together(says):
        if said.kind == "refusal" and output and output[-1]["type"] == "message":
            continue
        item, events = _item(said, len(output), {each["type"] for each in body.get("tools") or ()})
        found.append(
            {
                "type": "response.output_item.added",
                "output_index": len(output),
                "item": {**item, **_EMPTY[item["type"]]},
            }
        )
        found += [{**event, "item_id": item["id"], "output_index": len(output)} for event in events]
        found.append({"type": "response.output_item.done", "output_index": len(output), "item": item})
        output.append(item)
    cut = finish.reason in ("max_output_tokens", "content_filter")
    usage = {
        "input_tokens": finish.usage.input_tokens,
        "output_tokens": finish.usage.output_tokens,
        "total_tokens": finish.usage.input_tokens + finish.usage.output_tokens,
        "input_tokens_details": {"cached_tokens": finish.usage.cached_tokens},
        "output_tokens_details": {"reasoning_tokens": finish.usage.reasoning_tokens},
    }
    status = "incomplete" if cut else "completed"
    details = {"reason": finish.reason} if cut else None
    last = {**shell, "status": status, "incomplete_details": details, "output": output, "usage": usage}
    found.append({"type": f"response.{status}", "response": last})
    return [frame({**each, "sequence_number": at}, named=True) for at, each in enumerate(found)]


_EMPTY: dict[str, Any] = {
    "message": {"status": "in_progress", "content": []},
    "reasoning": {"summary": [], "content": [], "encrypted_content": None},
    "function_call": {"status": "in_progress", "arguments": ""},
    "custom_tool_call": {"status": "in_progress", "input": ""},
}


def _item(said: Said, at: int, types: set[str]) -> tuple[Any, list[Any]]:
    if said.kind == "call":
        return _call_item(said, at, types)
    if said.kind == "thought":
        part: dict[str, Any] = {"type": "reasoning_text", "text": said.text}
        item = {"type": "reasoning", "id": f"rs_{said.state}", "summary": [], "content": [part]}
        item["encrypted_content"] = sealed(item["id"])
        return item, _part_events(said, {**part, "text": ""}, part, "response.reasoning_text", "text")
    if said.kind == "refusal":
        part = {"type": "refusal", "refusal": said.text}
        events = _part_events(said, {**part, "refusal": ""}, part, "response.refusal", "refusal")
    else:
        part = {"type": "output_text", "text": said.text, "annotations": said.citations, "logprobs": said.logprobs}
        opened = {**part, "text": "", "annotations": [], "logprobs": []}
        events = _part_events(said, opened, part, "response.output_text", "text")
    message = {"type": "message", "id": f"msg_{at}", "role": "assistant", "status": "completed", "content": [part]}
    return message, events


def _part_events(said: Said, opened: Any, part: Any, name: str, whole: str) -> list[Any]:
    text = {"logprobs": said.logprobs} if name == "response.output_text" else {}
    place = {"content_index": 0}
    deltas = [{"type": f"{name}.delta", "delta": piece, **place, **text} for piece in said.pieces]
    cited = [
        {"type": f"{name}.annotation.added", "annotation_index": at, "annotation": each, **place}
        for at, each in enumerate(said.citations)
    ]
    return [
        {"type": "response.content_part.added", "part": opened, **place},
        *deltas,
        *cited,
        {"type": f"{name}.done", whole: said.text, **place, **text},
        {"type": "response.content_part.done", "part": part, **place},
    ]


def _call_item(said: Said, at: int, types: set[str]) -> tuple[Any, list[Any]]:
    assert said.call is not None
    custom = said.call.kind == "custom_tool_call" and "custom" in types
    kind, field, name = ("custom_tool_call", "input", "custom_tool_call_input") if custom else _FUNCTION
    text = said.text if custom else arguments(said)
    item = {"type": kind, "id": f"fc_{at}", "call_id": said.call.call_id, "name": said.call.name, "status": "completed"}
    if said.call.namespace is not None and "namespace" in types:
        item["namespace"] = said.call.namespace
    item[field] = text
    deltas = [{"type": f"response.{name}.delta", "delta": piece} for piece in (text[:5], text[5:])]
    named = {} if custom else {"name": said.call.name}
    return item, [*deltas, {"type": f"response.{name}.done", field: text, **named}]


_FUNCTION = ("function_call", "arguments", "function_call_arguments")


def responses_heard(body: Any) -> list[Entry]:
    """The instructions, then every item."""
    found: list[Entry] = [("system", body["instructions"])] if body.get("instructions") else []
    for item in body["input"]:
        found += _heard_item(item)
    return found


def _heard_item(item: Any) -> list[Entry]:
    kind = item.get("type", "message")
    if kind == "function_call":
        return [("call", item["name"], _canonical(item["arguments"]))]
    if kind == "custom_tool_call":
        return [("call", item["name"], _canonical({"input": item["input"]}))]
    if kind in ("function_call_output", "custom_tool_call_output"):
        return [_heard_part("output", part) for part in _parts(item["output"])]
    if kind == "reasoning":
        state = item.get("encrypted_content")
        return [("thought", state)] if state else []
    role = {"developer": "system"}.get(item["role"], item["role"])
    return [_heard_part(role, part) for part in _parts(item["content"])]


def _heard_part(role: str, part: Any) -> Entry:
    if part["type"] == "input_image":
        return ("image", part["image_url"])
    if part["type"] == "input_file":
        return ("file", str(part.get("filename")))
    return (role, part.get("text") or part.get("refusal") or "")


VOICES: dict[str, Voice] = {
    "chat_completions": Voice(chat_speaks, chat_heard),
    "messages": Voice(messages_speaks, messages_heard, frozenset({"logprobs", "refusal", "citations"})),
    "responses": Voice(responses_speaks, responses_heard),
}
