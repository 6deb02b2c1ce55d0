"""A Messages API on loopback that takes only what Anthropic's takes, and plays what it is told. Not a test.

Bodies are checked against the types of the `anthropic` SDK, and then by the rules of the documentation that no type
tells. Thinking is signed, and has to come back as it was signed. A broken rule is a 400 in the API's words.
"""

import hashlib
import hmac
import json
import re
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from anthropic.types import message_count_tokens_params, message_create_params
from anthropic.types.beta import message_create_params as beta_create_params
from pydantic import TypeAdapter, ValidationError

from providers.stub_server import Asked, Play, StubServer, as_json, events, stub_server

KEY = "sk-ant-test"
BINDING = "thinking-binding-controls-2026-08-01"
VERSIONS = ("2023-06-01", "2026-10-21")
"""The newer one, the SDK's, takes no sampling parameters for any model, and is else the same here."""
USAGE = {"input_tokens": 10, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 2, "output_tokens": 1}

_BODIES = {
    "": TypeAdapter(message_create_params.MessageCreateParamsStreaming),
    BINDING: TypeAdapter(beta_create_params.MessageCreateParamsStreaming),
    "count": TypeAdapter(message_count_tokens_params.MessageCountTokensParams),
}
_ID = re.compile(r"[a-zA-Z0-9_-]+")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_SAMPLING = {"temperature", "top_p", "top_k"}
_THINKING = ("thinking", "redacted_thinking")
_NOT_IN_SCHEMAS = {"minimum", "maximum", "minLength", "maxLength", "pattern", "maxItems", "oneOf", "not"}

Block = dict[str, Any]


class Wrong(Exception):
    """What is wrong with a request."""


class Traits:
    """What of the API depends on the model."""

    def __init__(self, model: str) -> None:
        old = re.search(r"-(3|4)(-|$)", model) is not None
        self.always_thinks = bool(re.search(r"(opus|sonnet)-5-5|fable|mythos", model))
        self.takes_budgets = old and not re.search(r"4-[78]", model)
        self.adaptive = not old or bool(re.search(r"4-[678]", model))
        self.samples = self.takes_budgets
        self.forced = not re.search(r"(opus|sonnet)-5-5|(fable|mythos)-5-[12]", model)
        self.system_messages = bool(re.search(r"opus-4-8|opus-5|sonnet-5-5|haiku-5-5|fable|mythos", model))
        self.binds = bool(re.search(r"5-5|(fable|mythos)-5-[12]", model))
        self.one_sampler = bool(re.search(r"4-[156]", model))
        self.structured = not re.search(r"claude-3|4-0|4-2025", model)


def signature(text: str) -> str:
    return hmac.new(b"secret", text.encode(), hashlib.sha256).hexdigest()


def check(asked: Asked) -> None:
    """Raise `Wrong` for a request that the API would refuse."""
    key = asked.headers.get("x-api-key") or asked.headers.get("authorization", "").removeprefix("Bearer ")
    if key != KEY:
        raise Wrong("x-api-key: header is required")
    if asked.headers.get("content-type") != "application/json":
        raise Wrong("content-type: header is required")
    if asked.headers.get("anthropic-version") not in VERSIONS:
        raise Wrong("anthropic-version: header is required")
    body = asked.body
    counts = asked.path.endswith("/count_tokens")
    _check_types(body, "count" if counts else asked.headers.get("anthropic-beta", ""))
    traits = Traits(body["model"])
    _check_turns(body, traits)
    _check_calls(body["messages"])
    _check_blocks(body)
    _check_thinking(body, traits, counts=counts)
    _check_tools(body, traits)
    _check_sampling(body, traits, asked.headers["anthropic-version"])
    if json.dumps(body).count('"cache_control"') > 4:
        raise Wrong("A maximum of 4 blocks with cache_control may be provided.")


def _check_types(body: Any, kind: str) -> None:
    """Sampling is left out: the SDK's version of the API has none any more. Schemas are judged elsewhere."""
    body = {key: value for key, value in body.items() if key not in _SAMPLING}
    if "tools" in body:
        body["tools"] = [{**tool, "input_schema": {"type": "object"}} for tool in body["tools"]]
    try:
        read = _exhausted(_BODIES[kind].validate_python(body))
    except ValidationError as error:
        raise Wrong(str(error)) from None
    if read != body:
        raise Wrong(f"Extra inputs are not permitted: {_difference(read, body)}")


def _exhausted(value: Any) -> Any:
    """Iterables are validated as they are read."""
    if isinstance(value, Mapping):
        return {key: _exhausted(each) for key, each in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [_exhausted(each) for each in value]
    return value


def _difference(read: Any, body: Any) -> Any:
    if isinstance(read, dict) and isinstance(body, dict):
        return next((_difference(read[k], v) if k in read else k for k, v in body.items() if read.get(k) != v), None)
    if isinstance(read, list) and isinstance(body, list):
        return next((_difference(a, b) for a, b in zip(read, body, strict=False) if a != b), None)
    return body


def _check_turns(body: Any, traits: Traits) -> None:
    roles = [message["role"] for message in body["messages"]]
    if not roles or roles[0] != "user":
        raise Wrong('messages: first message must use the "user" role')
    for at, (before, role) in enumerate(zip(roles, [*roles[1:], None], strict=True)):
        if before == role:
            raise Wrong(f"messages.{at}: roles must alternate")
        if before == "system":
            if not traits.system_messages:
                raise Wrong("role 'system' is not supported on this model")
            if roles[at - 1] != "user" or role not in ("assistant", None):
                raise Wrong(f"messages.{at}: role 'system' must precede an 'assistant' message or end the array")
    if roles[-1] == "assistant":
        raise Wrong("This model does not support assistant message prefill.")


def _check_calls(messages: list[Any]) -> None:
    seen: set[str] = set()
    open_: list[str] = []
    for at, message in enumerate(messages):
        blocks = message["content"]
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if [block["type"] for block in blocks[: len(results)]] != ["tool_result"] * len(results):
            raise Wrong(f"messages.{at}: tool_result blocks must come first")
        if sorted(results) != sorted(open_):
            raise Wrong(f"messages.{at}: `tool_use` ids were found without `tool_result` blocks: {open_} {results}")
        open_ = [block["id"] for block in blocks if block["type"] == "tool_use"]
        for each in open_:
            if not _ID.fullmatch(each) or each in seen:
                raise Wrong(f"messages.{at}: tool_use id {each} is not unique or does not match the pattern")
            seen.add(each)
    if open_:
        raise Wrong("tool_use ids were found without tool_result blocks")


def _check_blocks(body: Any) -> None:
    for block in _blocks(body):
        if block["type"] == "text" and not block["text"].strip():
            raise Wrong("messages: text content blocks must contain non-whitespace text")
        if block["type"] == "tool_result":
            _check_blocks({"messages": [{"content": block.get("content", [])}]})
        if block["type"] in _THINKING and "cache_control" in block:
            raise Wrong("cache_control cannot be set for thinking blocks")


def _blocks(body: Any) -> list[Block]:
    return [*body.get("system", []), *(block for message in body["messages"] for block in message["content"])]


def _check_thinking(body: Any, traits: Traits, *, counts: bool) -> None:
    thinking = body.get("thinking", {})
    kind = thinking.get("type", "adaptive" if traits.always_thinks or traits.binds else "disabled")
    if kind == "disabled" and traits.always_thinks:
        raise Wrong('"thinking.type.disabled" is not supported for this model.')
    if kind == "enabled":
        if not traits.takes_budgets:
            raise Wrong('"thinking.type.enabled" is not supported for this model.')
        if thinking["budget_tokens"] < 1024 or (not counts and thinking["budget_tokens"] >= body["max_tokens"]):
            raise Wrong("`max_tokens` must be greater than `thinking.budget_tokens`.")
        _check_begins_with_thinking(body["messages"])
    if kind == "adaptive" and thinking and not traits.adaptive:
        raise Wrong("adaptive thinking is not supported on this model")
    forced = body.get("tool_choice", {}).get("type") in ("any", "tool")
    if forced and not traits.forced:
        raise Wrong('tool_choice: type "tool" and "any" are not supported for this model.')
    if forced and kind in ("enabled", "adaptive") and not traits.always_thinks:
        raise Wrong("Thinking may not be enabled when tool_choice forces tool use.")
    for message in body["messages"]:
        _check_signatures(message)
    if traits.binds and any(block["type"] in _THINKING for block in _blocks(body)) and "block_binding" not in thinking:
        raise Wrong("The block is bound to a different conversation.")


def _check_begins_with_thinking(messages: list[Any]) -> None:
    turn = None
    for message in messages:
        if message["role"] == "assistant":
            turn = turn or message
        elif any(block["type"] != "tool_result" for block in message["content"]):
            turn = None
    if turn is not None and turn["content"][0]["type"] not in _THINKING:
        raise Wrong("Expected `thinking` or `redacted_thinking`, but found `tool_use`.")


def _check_signatures(message: Any) -> None:
    for at, block in enumerate(message["content"]):
        signed = block.get("thinking") if block["type"] == "thinking" else block.get("data", "").partition(".")[0]
        given = block.get("signature") if block["type"] == "thinking" else block.get("data", "").partition(".")[2]
        if block["type"] in _THINKING and (message["role"] != "assistant" or given != signature(signed)):
            raise Wrong(f"content.{at}: Invalid `signature` in `thinking` block")
    if message["role"] == "assistant" and message["content"][-1]["type"] in _THINKING:
        raise Wrong("The final block in an assistant message cannot be `thinking`.")


def _check_tools(body: Any, traits: Traits) -> None:
    tools = body.get("tools", [])
    names = [tool["name"] for tool in tools]
    uses = any(block["type"] in ("tool_use", "tool_result") for block in _blocks(body))
    if uses and not tools:
        raise Wrong("Requests which include `tool_use` or `tool_result` blocks must define tools.")
    if len(set(names)) < len(names) or not all(map(_NAME.fullmatch, names)):
        raise Wrong("tools: names must be unique and match the pattern")
    for tool in tools:
        schema = tool["input_schema"]
        if schema.get("type") != "object" or {"oneOf", "allOf", "anyOf"} & schema.keys():
            raise Wrong("input_schema does not support oneOf, allOf, or anyOf at the top level")
        if tool.get("strict"):
            _check_schema(schema, traits)
    choice = body.get("tool_choice", {})
    if choice and not tools:
        raise Wrong("tool_choice may only be specified while providing tools")
    if choice.get("type") == "tool" and choice["name"] not in names:
        raise Wrong("tool_choice names a tool that is not there")
    if wanted := body.get("output_config", {}).get("format"):
        _check_schema(wanted["schema"], traits)


def _check_schema(schema: Any, traits: Traits) -> None:
    if not traits.structured:
        raise Wrong("structured outputs are not supported on this model")
    if isinstance(schema, list):
        for each in schema:
            _check_schema(each, traits)
    elif isinstance(schema, dict):
        if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
            raise Wrong("For 'object' type, 'additionalProperties' must be explicitly set to false")
        if found := _NOT_IN_SCHEMAS & schema.keys():
            raise Wrong(f"properties {found} are not supported")
        for key, each in schema.items():
            _check_schema(list(each.values()) if key in ("properties", "$defs", "definitions") else each, traits)


def _check_sampling(body: Any, traits: Traits, version: str) -> None:
    given = body.keys() & _SAMPLING
    if given and (not traits.samples or version != VERSIONS[0]):
        raise Wrong("`temperature` is deprecated for this model.")
    if given and body.get("thinking", {}).get("type") in ("enabled", "adaptive"):
        raise Wrong("`temperature` may only be set to 1 when thinking is enabled.")
    if not 0 <= body.get("temperature", 0) <= 1:
        raise Wrong("temperature: Input should be less than or equal to 1")
    if len(given) > 1 and traits.one_sampler:
        raise Wrong("`temperature` and `top_p` cannot both be specified for this model.")
    if any(not text.strip() for text in body.get("stop_sequences", [])):
        raise Wrong("stop_sequences: each stop sequence must contain non-whitespace")


def error(status: int, kind: str, message: str) -> Play:
    return as_json({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}, status)


def text(*pieces: str, citations: Iterable[Block] = ()) -> list[Block]:
    """The events of a text block, without their index."""
    return [
        _start({"type": "text", "text": "", "citations": None}),
        *(_delta({"type": "text_delta", "text": piece}) for piece in pieces),
        *(_delta({"type": "citations_delta", "citation": each}) for each in citations),
        {"type": "content_block_stop"},
    ]


def thinking(*pieces: str) -> list[Block]:
    return [
        _start({"type": "thinking", "thinking": "", "signature": ""}),
        *(_delta({"type": "thinking_delta", "thinking": piece}) for piece in pieces),
        _delta({"type": "signature_delta", "signature": signature("".join(pieces))}),
        {"type": "content_block_stop"},
    ]


def redacted(data: str) -> list[Block]:
    return block({"type": "redacted_thinking", "data": f"{data}.{signature(data)}"})


def tool_use(call_id: str, name: str, *pieces: str) -> list[Block]:
    return [
        _start({"type": "tool_use", "id": call_id, "name": name, "input": {}}),
        *(_delta({"type": "input_json_delta", "partial_json": piece}) for piece in pieces),
        {"type": "content_block_stop"},
    ]


def server_tool_use(call_id: str, name: str, *pieces: str) -> list[Block]:
    events = tool_use(call_id, name, *pieces)
    events[0]["content_block"]["type"] = "server_tool_use"
    return events


def block(content: Block) -> list[Block]:
    """A block that comes whole."""
    return [_start(content), {"type": "content_block_stop"}]


def _start(content: Block) -> Block:
    return {"type": "content_block_start", "content_block": content}


def _delta(delta: Block) -> Block:
    return {"type": "content_block_delta", "delta": delta}


def message(*blocks: list[Block], stop: str = "end_turn", usage: Block | None = None, **delta: Any) -> list[Block]:
    """The events of an answer."""
    numbered = [{**event, "index": at} for at, events in enumerate(blocks) for event in events]
    begun = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": []}
    return [
        {"type": "message_start", "message": {**begun, "stop_reason": None, "stop_sequence": None, "usage": USAGE}},
        {"type": "ping"},
        *numbered,
        {
            "type": "message_delta",
            "delta": {"stop_reason": stop, "stop_sequence": None, **delta},
            "usage": {"output_tokens": 9, **(usage or {})},
        },
        {"type": "message_stop"},
    ]


class MessagesServer:
    """Plays `answers`, one for each request that is in order; `bodies` are those requests' bodies."""

    def __init__(self) -> None:
        self.answers: deque[list[Block] | Play] = deque()
        self.bodies: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.refused: list[str] = []
        self.listing: Any = {"data": [], "has_more": False}
        self.url = ""

    def answer(self, asked: Asked) -> Play:
        if asked.path == "/v1/models?limit=1000":
            return as_json(self.listing)
        try:
            check(asked)
        except Wrong as wrong:
            self.refused.append(str(wrong))
            return error(400, "invalid_request_error", str(wrong))
        self.bodies.append(asked.body)
        self.headers.append(asked.headers)
        if asked.path == "/v1/messages/count_tokens":
            return as_json({"input_tokens": 42})
        answer = self.answers.popleft()
        return answer if isinstance(answer, Play) else Play(events(*answer, named=True))


@asynccontextmanager
async def messages_server(*answers: list[Block] | Play) -> AsyncIterator[MessagesServer]:
    server = MessagesServer()
    server.answers.extend(answers)
    async with stub_server(server.answer) as stub:
        assert isinstance(stub, StubServer)
        server.url = f"{stub.url}/v1"
        yield server
