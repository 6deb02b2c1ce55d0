"""The shapes of a run: what the model is asked, the response that is shown, and what the store keeps of it.

Plain functions from one value to another; nothing is sampled, saved or sent here.
"""

from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec
from msgspec import UnsetType

from ore.backends.base import Capabilities, ModelRequest, Sampling
from ore.core.callable_tools import effective_tools, skipped
from ore.core.fold import Fold
from ore.protocol.conversations import ConversationReference
from ore.protocol.decoding import JsonObject
from ore.protocol.events import decode, encode
from ore.protocol.items import id_of
from ore.protocol.responses import Create, Response
from ore.routing.rules import Target
from ore.runs.run import Run
from ore.stores.base import ClaimedRun, StoredEvent, StoredItem, StoredResponse

T = TypeVar("T")

ROUTE_KEY: Final = "ore.route"
"""A key of `metadata` by which a request asks for the way that it took; the response has it as the key's value."""

CACHE_KEY: Final = "ore.cache"
"""A key of `metadata`: `on` asks for the response cache, `off` asks for a fresh answer; the response tells."""

MAX_METADATA: Final = 512
"""Characters of a value (wire contract, 3.1)."""


def model_request(
    create: Create, target: Target, items: Sequence[JsonObject], tools: Sequence[JsonObject], owner: str
) -> ModelRequest:
    """What the model is asked, with the tools that `items` bring.

    Tools that a backend cannot use are for it to pass over: their places name errors.
    """
    defaults = target.model.defaults
    wants_logprobs = "message.output_text.logprobs" in create.include
    return ModelRequest(
        model=target.model.id,
        items=tuple(items),
        places=_places(create, items),
        instructions=create.instructions,
        tools=tuple(effective_tools(tools, items)),
        tool_choice=create.tool_choice,
        parallel_tool_calls=create.parallel_tool_calls,
        text_format=create.text["format"],
        verbosity=create.text.get("verbosity"),
        reasoning=create.reasoning,
        sampling=Sampling(
            temperature=_or(create.temperature, defaults.temperature),
            top_p=_or(create.top_p, defaults.top_p),
            presence_penalty=_or(create.presence_penalty, defaults.presence_penalty),
            frequency_penalty=_or(create.frequency_penalty, defaults.frequency_penalty),
            seed=_or(create.seed, defaults.seed),
            stop=create.stop or defaults.stop,
        ),
        max_output_tokens=create.max_output_tokens,
        top_logprobs=create.top_logprobs if wants_logprobs else None,
        prompt_cache_key=create.prompt_cache_key,
        safety_identifier=create.safety_identifier,
        include=create.include,
        max_tool_calls=create.max_tool_calls,
        passed_on=create.passed_on,
        owner=owner,
    )


def _places(create: Create, items: Sequence[JsonObject]) -> tuple[int | None, ...]:
    """An item may have got another id on its way, but its content is the same object still."""
    known = {id(said): index for index, item in enumerate(create.input) if (said := _said(item))}
    return tuple(known.get(id(_said(item))) for item in items)


def _said(item: JsonObject) -> object:
    return item.get("content") or item.get("output")


def warnings(create: Create, request: ModelRequest, capabilities: Capabilities) -> tuple[str, ...]:
    """What of a request this model can make nothing of: each a sentence of printable ASCII."""
    types = skipped(request.tools, capabilities.tool_types)
    named = ", ".join(kind if kind.isascii() and kind.isprintable() else "?" for kind in types)[:400]
    tools = [f"tools of these types were skipped: {named}"] if types else []
    parts = {part.get("type") for item in create.input for part in _parts(item)}
    unseen = not capabilities.images and "input_image" in parts
    return (*tools, "images were not seen, for this model cannot see them") if unseen else tuple(tools)


def _parts(item: JsonObject) -> Sequence[JsonObject]:
    content = item.get("content") or item.get("output")
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _or(asked: T | None, default: T | None) -> T | None:
    """What the request asks for, or else the model's own default."""
    return default if asked is None else asked


def initial_response(run: Run, request: ModelRequest) -> Response:
    """The response as `response.created` shows it: effective values after defaults."""
    create, sampling = run.create, request.sampling
    return Response(
        id=run.id,
        created_at=run.created_at,
        status="queued" if create.background else "in_progress",
        background=create.background,
        instructions=create.instructions,
        max_output_tokens=create.max_output_tokens,
        max_tool_calls=create.max_tool_calls,
        model=run.model,
        parallel_tool_calls=create.parallel_tool_calls,
        previous_response_id=create.previous_response_id,
        presence_penalty=sampling.presence_penalty or 0.0,
        frequency_penalty=sampling.frequency_penalty or 0.0,
        reasoning=run.wire.reasoning(create.reasoning),
        safety_identifier=create.safety_identifier,
        prompt_cache_key=create.prompt_cache_key,
        service_tier=create.service_tier,
        store=create.store,
        temperature=1.0 if sampling.temperature is None else sampling.temperature,
        text=run.wire.text(create.text),
        tool_choice=create.tool_choice,
        tools=create.tools,
        top_logprobs=create.top_logprobs,
        top_p=1.0 if sampling.top_p is None else sampling.top_p,
        truncation=create.truncation,
        metadata=create.metadata,
        user=msgspec.UNSET if create.user is None else create.user,
        conversation=msgspec.UNSET if create.conversation is None else ConversationReference(create.conversation),
    )


def with_passage(run: Run, response: Response) -> Response:
    """The response with the tier that an upstream used; and in its metadata what the request asked to be told there."""
    if run.progress.service_tier is not None:
        response = msgspec.structs.replace(response, service_tier=run.progress.service_tier)
    told = {ROUTE_KEY: run.passage.said[-MAX_METADATA:], CACHE_KEY: run.passage.cached}
    asked = {key: value for key, value in told.items() if key in response.metadata}
    return msgspec.structs.replace(response, metadata={**response.metadata, **asked}) if asked else response


def wants_cache(create: Create) -> bool | None:
    """Whether a request asks for the response cache, or asks not to have it; None leaves that to how it samples.

    Background runs have to ask: the seed that they are given, to be taken up again, is another one each time.
    """
    return {"on": True, "off": False}.get(create.metadata.get(CACHE_KEY, ""), False if create.background else None)


def to_stored(response: Response, new_input: Sequence[JsonObject], link: str | None) -> StoredResponse:
    """The response as the store keeps it: envelope and items apart, each encoded once.

    `link` is the stored response whose items come before `new_input`.
    """
    return StoredResponse(
        id=response.id,
        created_at=response.created_at,
        status=response.status,
        previous_response_id=link,
        conversation=None if isinstance(response.conversation, UnsetType) else response.conversation.id,
        envelope=encode(msgspec.structs.replace(response, output=[])),
        input=tuple(StoredItem(item["id"], encode(item)) for item in new_input),
        output=tuple(StoredItem(id_of(item), encode(item)) for item in response.output),
    )


def from_stored(stored: StoredResponse) -> bytes:
    """The response's JSON, byte for byte as it was first sent.

    Before `output` the envelope has only scalars, so the first empty `output` is the one.
    """
    head, found, tail = stored.envelope.partition(b'"output":[]')
    items = b",".join(item.body for item in stored.output)
    return b"".join((head, b'"output":[', items, b"]", tail)) if found else stored.envelope


def running(stored: StoredResponse, events: Sequence[StoredEvent]) -> bytes:
    """A background response as it stands, by its events; for one that no run of this process has."""
    if not events:
        return stored.envelope
    fold = Fold()
    for event in events:
        fold.apply(decode(event.body))
    return encode(fold.response)


def unreadable(claimed: ClaimedRun, kept: Sequence[StoredEvent]) -> tuple[StoredResponse, list[StoredEvent]]:
    """The end of a background run that cannot be taken up, because another version of ORE wrote it: it failed."""
    message = "The server was restarted, and cannot go on with this response. Send the request again."
    body = msgspec.json.decode(claimed.response.envelope)
    body |= {"status": "failed", "error": {"code": "server_error", "message": message}}
    number = kept[-1].number + 1 if kept else 0
    said = {"code": "server_error", "message": message, "param": None}
    both: list[tuple[str, JsonObject]] = [
        ("error", {"error": {"type": "server_error", **said}, **said}),
        ("response.failed", {"response": body}),
    ]
    events = [
        StoredEvent(at, kind, encode({"type": kind, "sequence_number": at, **fields}))
        for at, (kind, fields) in enumerate(both, number)
    ]
    return msgspec.structs.replace(claimed.response, status="failed", envelope=encode(body), output=()), events
