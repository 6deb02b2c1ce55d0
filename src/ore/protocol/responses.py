"""The create request and the response object (wire contract, sections 3 and 4).

`Response` has all 31 keys of Open Responses, always; keys that only OpenAI knows are absent unless they say something.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from ore.errors import InvalidRequest
from ore.ids import NewId
from ore.protocol import configuration
from ore.protocol.conversations import ConversationReference, check_conversation
from ore.protocol.decoding import JsonObject, convert, one_of, refuse_unknown, with_integers
from ore.protocol.items import TOOL_ITEMS, Item, check_input, read_item, without_trigger
from ore.protocol.tools import check_tool_choice, check_tools

Text64 = Annotated[str, Meta(max_length=64)]
Text128 = Annotated[str, Meta(max_length=128)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]


class CreateBody(Struct, kw_only=True):
    """The body of `POST /responses` as clients send it: every key optional, null meaning its default.

    Values with a shape of their own (`input`, `tools`, `text`, ...) are checked by `check_create`.
    """

    model: str | None = None
    input: str | list[Any] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: str | JsonObject | None = None
    include: list[Any] | None = None
    tools: list[Any] | None = None
    tool_choice: str | JsonObject | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: Annotated[int, Meta(ge=1)] | None = None
    text: JsonObject | None = None
    reasoning: JsonObject | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    """Open Responses says at least 16; Codex warms a local model up with 1, which is harmless."""
    truncation: str | None = None
    metadata: JsonObject | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: JsonObject | None = None
    background: bool | None = None
    service_tier: str | None = None
    safety_identifier: Text128 | None = None
    prompt_cache_key: Text64 | None = None
    user: str | None = None
    prompt: JsonObject | None = None
    moderation: JsonObject | None = None
    background_options: JsonObject | None = None
    context_management: list[Any] | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: JsonObject | None = None
    client_metadata: JsonObject | None = None
    image: JsonObject | None = None
    access_programs: Any = None
    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] | None = None
    """An extension of ours: the same seed and request give the same answer on a local model."""
    stop: str | list[Any] | None = None
    """An extension of ours: texts that end the answer."""


class Create(Struct, frozen=True, kw_only=True):
    """A request that passed every check which needs nothing but the request itself."""

    model: str | None
    input: list[JsonObject]
    instructions: str | None
    previous_response_id: str | None
    conversation: str | None
    include: tuple[str, ...]
    tools: list[JsonObject]
    tool_choice: str | JsonObject
    parallel_tool_calls: bool
    max_tool_calls: int | None
    text: JsonObject
    reasoning: JsonObject | None
    temperature: float | None
    top_p: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    top_logprobs: int
    max_output_tokens: int | None
    truncation: str
    metadata: dict[str, str]
    store: bool
    stream: bool
    service_tier: str
    safety_identifier: str | None
    prompt_cache_key: str | None
    user: str | None
    seed: int | None
    stop: tuple[str, ...]
    background: bool = False
    obfuscated: bool = False
    """Whether events are to be padded against traffic analysis."""
    compact_threshold: int | None = None
    """Tokens of context above which it is compacted first."""
    compacts: bool = False
    """Whether this request is for a compaction, and for nothing else."""
    generate: bool = True
    """False: only prepare the state that a later request continues from."""
    passed_on: JsonObject = {}
    """What only OpenAI's API makes something of, as it was sent: for targets that speak it."""


_REFUSED = {
    "prompt": "stored prompt templates do not exist here; send 'instructions' and 'input'",
}
"""What would change the answer silently if it were ignored, and what to do instead."""


def check_create(body: JsonObject, new_id: NewId, *, strict_fields: bool = False, generate: bool = True) -> Create:
    """Check a decoded create body. Raises `InvalidRequest` with `code`, `param` and the next step."""
    if strict_fields:
        refuse_unknown(body, CreateBody)
    sent = convert(with_integers(body, _INTEGERS), CreateBody)
    _check_combinations(sent)
    if generate:
        _check_input(sent, body)
    one_of(sent.service_tier or "auto", configuration.SERVICE_TIERS, "service_tier")
    tools = check_tools(sent.tools)
    given, compacts = without_trigger(sent.input)
    items, earlier = check_input(given, new_id), sent.previous_response_id or sent.conversation
    more_may_come = earlier or any(item["type"] in TOOL_ITEMS for item in items)
    return Create(
        model=sent.model or None,
        input=items,
        instructions=sent.instructions,
        previous_response_id=sent.previous_response_id or None,
        conversation=check_conversation(sent.conversation),
        include=configuration.check_include(sent.include or []),
        tools=tools,
        tool_choice=check_tool_choice(sent.tool_choice, None if more_may_come else tools),
        parallel_tool_calls=sent.parallel_tool_calls is not False,
        max_tool_calls=sent.max_tool_calls,
        text=configuration.check_text(sent.text),
        reasoning=configuration.check_reasoning(sent.reasoning),
        temperature=sent.temperature,
        top_p=sent.top_p,
        presence_penalty=sent.presence_penalty,
        frequency_penalty=sent.frequency_penalty,
        top_logprobs=sent.top_logprobs or 0,
        max_output_tokens=sent.max_output_tokens,
        truncation=one_of(sent.truncation or "disabled", configuration.TRUNCATIONS, "truncation"),
        metadata=configuration.check_metadata(sent.metadata or {}),
        store=sent.store is not False,
        stream=bool(sent.stream),
        service_tier="default",
        safety_identifier=sent.safety_identifier,
        prompt_cache_key=sent.prompt_cache_key,
        user=sent.user,
        seed=sent.seed,
        stop=configuration.check_stop(sent.stop),
        background=bool(sent.background),
        obfuscated=configuration.check_stream_options(sent.stream_options),
        compact_threshold=configuration.check_context_management(sent.context_management),
        compacts=compacts,
        generate=generate,
        passed_on=_passed_on(sent),
    )


COMPACTED = ("model", "input", "previous_response_id", "instructions", "prompt_cache_key")
"""The keys of `POST /responses/compact` that say something to us."""


def check_compact(body: JsonObject, new_id: NewId, *, strict_fields: bool = False) -> Create:
    """Check a decoded body of `POST /responses/compact`, which has to name a model (wire contract, section 13)."""
    if body.get("model") in (None, ""):
        message = "Missing required parameter: 'model'."
        raise InvalidRequest(message, code="missing_required_parameter", param="model")
    if strict_fields:
        refuse_unknown(body, CreateBody)
    return check_create({key: body[key] for key in COMPACTED if key in body}, new_id)


COUNTED = (
    *("model", "input", "previous_response_id", "conversation", "instructions", "tools", "tool_choice"),
    *("parallel_tool_calls", "reasoning", "text", "truncation"),
)
"""The keys of `POST /responses/input_tokens`; they mean the same as on create."""


def check_count(body: JsonObject, new_id: NewId, *, strict_fields: bool = False) -> Create:
    """Check a decoded body of `POST /responses/input_tokens` (wire contract, section 14)."""
    if strict_fields:
        refuse_unknown(body, CreateBody)
    return check_create({key: body[key] for key in COUNTED if key in body}, new_id)


_INTEGERS = ("max_tool_calls", "max_output_tokens", "top_logprobs", "seed")


_PASSED_ON = (
    *("service_tier", "user", "moderation", "prompt_cache_retention", "prompt_cache_options", "image"),
    "access_programs",
)


def _passed_on(sent: CreateBody) -> JsonObject:
    """Fields that mean something to OpenAI alone; of `reasoning` what is not echoed."""
    fields = {name: value for name in _PASSED_ON if (value := getattr(sent, name)) is not None}
    more = {key: value for key, value in (sent.reasoning or {}).items() if key in ("context", "mode") and value}
    return {**fields, "reasoning": more} if more else fields


def _check_combinations(sent: CreateBody) -> None:
    """The rules between fields (wire contract, 3.2)."""
    if sent.conversation and sent.previous_response_id:
        raise InvalidRequest("Send either 'conversation' or 'previous_response_id', not both.", param="conversation")
    for name, instead in _REFUSED.items():
        if getattr(sent, name):
            raise _unsupported(name, instead)
    if sent.background and sent.store is False:
        message = "'background' needs 'store': true, because the response is fetched later. Leave 'store' out."
        raise InvalidRequest(message, param="background")
    if (sent.moderation or {}).get("policy") is not None:
        raise _unsupported("moderation.policy", "moderate input and output yourself")
    if (sent.background_options or {}).get("completion_window") not in (None, "soonest"):
        raise _unsupported("background_options.completion_window", "leave it out")
    if sent.stream_options and not sent.stream:
        raise InvalidRequest("'stream_options' is only allowed together with 'stream': true.", param="stream_options")


def _check_input(sent: CreateBody, body: JsonObject) -> None:
    given = sent.previous_response_id or sent.conversation or sent.instructions
    if not sent.input and sent.input != "" and not given:
        hint = "What Chat Completions calls 'messages' is 'input' here." if "messages" in body else ""
        raise InvalidRequest(
            f"Missing required parameter: 'input'. {hint or 'Send a string, or an array of items.'}",
            code="missing_required_parameter",
            param="input",
        )


def _unsupported(name: str, instead: str) -> InvalidRequest:
    return InvalidRequest(
        f"'{name}' is not supported by this server: {instead}.", code="unsupported_parameter", param=name
    )


class IncompleteDetails(Struct, frozen=True):
    reason: str


class ResponseError(Struct, frozen=True):
    code: str
    message: str


class InputTokensDetails(Struct, frozen=True):
    cached_tokens: int
    cache_write_tokens: int = 0
    """A required key of OpenAI's; writing to a cache costs nothing here."""


class OutputTokensDetails(Struct, frozen=True):
    reasoning_tokens: int


class Usage(Struct, frozen=True, kw_only=True):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]


class Response(Struct, kw_only=True):
    """The response object. Only `ore.core.fold` changes one."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: Status
    background: bool = False
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    model: str
    output: list[Item] = field(default_factory=list)
    parallel_tool_calls: bool = True
    previous_response_id: str | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    reasoning: JsonObject | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str = "default"
    store: bool = True
    temperature: float = 1.0
    text: JsonObject = field(default_factory=lambda: {"format": {"type": "text"}})
    tool_choice: str | JsonObject = "auto"
    tools: list[JsonObject] = field(default_factory=list)
    top_logprobs: int = 0
    top_p: float = 1.0
    truncation: str = "disabled"
    usage: Usage | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    user: str | UnsetType = UNSET
    conversation: ConversationReference | UnsetType = UNSET


def read_response(raw: JsonObject) -> Response:
    """The response that was sent as `raw`. Encoding it again gives the same bytes."""
    shaped = {key: convert(raw[key], kind, key) for key, kind in _SHAPED.items() if raw.get(key) is not None}
    return Response(**{**raw, **shaped, "output": [read_item(item) for item in raw["output"]]})


_SHAPED: dict[str, Any] = {
    "error": ResponseError,
    "incomplete_details": IncompleteDetails,
    "usage": Usage,
    "conversation": ConversationReference,
}
