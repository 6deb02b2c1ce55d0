"""The turn loop: from an accepted request to exactly one terminal status.

`execute` is an ordinary coroutine that emits; streaming and waiting callers get the same run. Whatever happens inside
(a fault, a cancellation, a deadline), it closes open items, saves the response, emits the terminal event and closes the
log, in this order: what a client has been told has been saved. It knows no HTTP and no engine.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import anyio
import msgspec
from msgspec import Struct

from ore.backends.base import Backend, ModelRequest, Sampling
from ore.core import compaction, history, structured
from ore.core.callable_tools import effective_tools
from ore.core.deltas import Finish, Usage
from ore.core.sealing import Sealer
from ore.core.tool_choice import OneCall, allows, check_possible
from ore.errors import (
    DeadlineExceeded,
    HTTPFault,
    InternalFault,
    InvalidRequest,
    ModelFailed,
    StorageFailed,
    Unavailable,
)
from ore.protocol.content import OutputText
from ore.protocol.decoding import JsonObject
from ore.protocol.events import encode
from ore.protocol.items import CALL_OUTPUTS, Item, Message
from ore.protocol.responses import Create, Response, ResponseError, Status
from ore.protocol.tools import check_tool_choice, spread
from ore.routing.router import Router, Target
from ore.runs.judge import Judge
from ore.runs.run import Run
from ore.stores.base import MissingAncestor, Store, StoredItem, StoredResponse

logger = logging.getLogger("ore.runs")

T = TypeVar("T")

SAVE_SECONDS = 30.0
"""How long a run that was told to stop may still take to save what it has."""


class Outcome(Struct, frozen=True, kw_only=True):
    """How a run ends."""

    status: Status
    usage: Usage | None = None
    incomplete: str | None = None
    fault: HTTPFault | None = None


class Shared(Struct, frozen=True):
    """What all runs work with. `now` gives seconds since 1970."""

    router: Router
    store: Store
    sealer: Sealer
    judge: Judge
    now: Callable[[], int]


async def execute(run: Run, shared: Shared) -> None:
    """Drive a run to its end, even when everything around it is cancelled; that is all that it ever raises."""
    outcome: Outcome | None = None
    try:
        try:
            with run.scope:
                outcome = await _converse(run, shared)
        except Exception as error:
            outcome = Outcome(status="failed", fault=_fault_of(error))
        finally:
            await _conclude(run, outcome or _stopped(run), shared)
    finally:
        run.end()


async def _converse(run: Run, shared: Shared) -> Outcome:
    """Build the context, sample, check. Tools that ORE itself runs would make another turn here."""
    create = run.create
    target = await shared.router.choose(create.model)
    earlier = await _earlier_items(shared.store, run.owner, create.previous_response_id)
    _check_schema(create)
    opened = partial(shared.sealer.open, purpose=compaction.PURPOSE, owner=run.owner)
    run.context = history.context(earlier, create.input, run.new_id, opened)
    request = model_request(create, target, run.context.items, run.owner)
    finish = await _sample(run, target.backend, request)
    if finish.reason in ("max_output_tokens", "content_filter"):
        run.writer.close("incomplete")
        return Outcome(status="incomplete", usage=finish.usage, incomplete=finish.reason)
    run.writer.close()
    if not run.writer.response.output:
        run.writer.write_empty_message()
    if problem := await _output_problem(create, request.tools, run.writer.response.output, shared.judge):
        fault = ModelFailed(f"{problem}.", code="invalid_model_output")
        return Outcome(status="failed", usage=finish.usage, fault=fault)
    return Outcome(status="completed", usage=finish.usage)


async def _sample(run: Run, backend: Backend, request: ModelRequest) -> Finish:
    """One sampling of the model, written as it comes."""
    async with backend.stream(request) as deltas:
        run.begin(initial_response(run, request))
        calls = OneCall(parallel=request.parallel_tool_calls)
        async for delta in deltas:
            if isinstance(delta, Finish):
                return delta
            if calls.lets(delta):
                run.writer.write(delta)
    raise ModelFailed("The model's stream ended before it said why. Send the request again.")


async def _conclude(run: Run, outcome: Outcome, shared: Shared) -> None:
    """Close what is open, save, and say how it ended."""
    run.fault = outcome.fault
    if not run.has_response:
        return
    run.writer.close("incomplete")
    final = _final(run, outcome, shared.now)
    if run.create.store and (fault := await _save(run, final, shared.store)):
        run.fault = fault
        final = _final(run, Outcome(status="failed", usage=outcome.usage, fault=fault), shared.now)
    run.writer.end(final, run.fault)


async def _save(run: Run, final: Response, store: Store) -> HTTPFault | None:
    """Save, whoever wants the run to stop. Gives the fault when that failed or took too long: it can still be said."""
    with anyio.move_on_after(SAVE_SECONDS, shield=True):
        try:
            await store.save(run.owner, to_stored(final, run.context.taken))
        except StorageFailed as fault:
            logger.exception("response %s could not be saved", run.id)
            return fault
        except Exception as error:
            return _fault_of(error)
        return None
    logger.error("response %s could not be saved within %g s", run.id, SAVE_SECONDS)
    return StorageFailed("The response could not be saved in time. Send the request again in a moment.")


def _final(run: Run, outcome: Outcome, now: Callable[[], int]) -> Response:
    error = None
    if outcome.fault is not None:
        error = ResponseError(outcome.fault.code or "server_error", outcome.fault.message)
    return run.writer.final(outcome.status, now=now(), usage=outcome.usage, incomplete=outcome.incomplete, error=error)


def _stopped(run: Run) -> Outcome:
    """The scope was cancelled: a client that left, a server that stops or is torn down, or time that ran out."""
    if run.stop_reason == "disconnected":
        return Outcome(status="cancelled")
    if run.stop_reason == "shutdown" or not run.scope.cancel_called:
        fault: HTTPFault = Unavailable("The server is shutting down. Send the request again in a moment.")
    else:
        fault = DeadlineExceeded("The request took longer than this server allows. Ask for less, or raise the limit.")
    return Outcome(status="failed", fault=fault)


def _fault_of(error: BaseException) -> HTTPFault:
    """The fault that a client may see. Anything that is not one of ours is a bug, and is logged as such."""
    if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        return _fault_of(error.exceptions[0])
    if isinstance(error, HTTPFault):
        return error
    logger.error("a run broke", exc_info=error)
    return InternalFault("The server failed to answer this request. The operator's log has the reason.")


def _check_schema(create: Create) -> None:
    """Refuse a strict schema that nothing can be held to: afterwards would be too late."""
    wanted = create.text["format"]
    if wanted.get("strict") and (problem := structured.schema_problem(wanted["schema"])):
        message = f"Invalid schema for response_format '{wanted['name']}': {problem}. Mend that part of the schema."
        raise InvalidRequest(message, code="invalid_json_schema", param="text.format.schema")


async def _output_problem(create: Create, tools: Sequence[JsonObject], output: list[Item], judge: Judge) -> str | None:
    """What the model was held to and did not keep, although it was told."""
    for item in map(_as_object, output):
        if item.get("type") in CALL_OUTPUTS and (problem := await _call_problem(create, tools, item, judge)):
            return problem
    return await _format_problem(create, output, judge)


async def _call_problem(create: Create, tools: Sequence[JsonObject], call: JsonObject, judge: Judge) -> str | None:
    """`tool_choice` and strict arguments are held to, whatever the backend did (wire contract, 17.9)."""
    name, namespace = str(call.get("name") or call["type"]), call.get("namespace")
    if not allows(create.tool_choice, call["type"], name, namespace):
        return f"The model called '{name}', which 'tool_choice' does not allow"
    tool = next((tool for space, tool in spread(tools) if (space, tool.get("name")) == (namespace, name)), {})
    if call["type"] != "function_call" or not tool.get("strict") or not isinstance(tool.get("parameters"), dict):
        return None
    problem = await judge.mismatch(tool["parameters"], call["arguments"])
    return f"The model's arguments for '{name}' do not match its parameters: {problem}" if problem else None


def _as_object(item: Item) -> JsonObject:
    return item if isinstance(item, dict) else msgspec.to_builtins(item)


async def _format_problem(create: Create, output: list[Item], judge: Judge) -> str | None:
    """What is wrong with structured output. Refusals and calls are not held against the schema, nor is text beside."""
    wanted = create.text["format"]
    if wanted["type"] == "text" or any(_as_object(item).get("type") in CALL_OUTPUTS for item in output):
        return None
    parts = [part for item in output if isinstance(item, Message) for part in item.content]
    schema = wanted["schema"] if wanted.get("strict") else {"type": "object"} if wanted["type"] == "json_object" else {}
    problem = None if parts else "it has no text"
    for part in parts:
        problem = problem or (await judge.mismatch(schema, part.text) if isinstance(part, OutputText) else None)
    return f"The model's answer does not match 'text.format': {problem}" if problem else None


async def _earlier_items(store: Store, owner: str, response_id: str | None) -> list[JsonObject]:
    """The items of the chain that ends with `response_id`, oldest first."""
    if response_id is None:
        return []
    try:
        turns = await store.chain(owner, response_id)
    except MissingAncestor as missing:
        raise history.previous_not_found(str(missing.args[0])) from None
    if not turns:
        raise history.previous_not_found(response_id)
    history.check_continuable(turns[-1].status, response_id)
    return [msgspec.json.decode(item.body) for turn in turns for item in (*turn.input, *turn.output)]


def model_request(create: Create, target: Target, items: tuple[JsonObject, ...], owner: str) -> ModelRequest:
    """What the model is asked. Tools that a backend cannot use are for it to pass over: their places name errors.

    Raises `InvalidRequest` when `tool_choice` names no tool, or forces one that is passed over.
    """
    defaults = target.model.defaults
    tools = effective_tools(create.tools, items)
    check_possible(check_tool_choice(create.tool_choice, tools), tools, target.model.capabilities.tool_types)
    wants_logprobs = "message.output_text.logprobs" in create.include
    return ModelRequest(
        model=target.model.id,
        items=items,
        instructions=create.instructions,
        tools=tuple(tools),
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
        owner=owner,
    )


def _or(asked: T | None, default: T | None) -> T | None:
    """What the request asks for, or else the model's own default."""
    return default if asked is None else asked


def initial_response(run: Run, request: ModelRequest) -> Response:
    """The response as `response.created` shows it: effective values after defaults."""
    create, sampling = run.create, request.sampling
    return Response(
        id=run.id,
        created_at=run.created_at,
        status="in_progress",
        instructions=create.instructions,
        max_output_tokens=create.max_output_tokens,
        max_tool_calls=create.max_tool_calls,
        model=create.model or request.model,
        parallel_tool_calls=create.parallel_tool_calls,
        previous_response_id=create.previous_response_id,
        presence_penalty=sampling.presence_penalty or 0.0,
        frequency_penalty=sampling.frequency_penalty or 0.0,
        reasoning=create.reasoning,
        safety_identifier=create.safety_identifier,
        prompt_cache_key=create.prompt_cache_key,
        service_tier=create.service_tier,
        store=create.store,
        temperature=1.0 if sampling.temperature is None else sampling.temperature,
        text=create.text,
        tool_choice=create.tool_choice,
        tools=create.tools,
        top_logprobs=create.top_logprobs,
        top_p=1.0 if sampling.top_p is None else sampling.top_p,
        truncation=create.truncation,
        metadata=create.metadata,
        user=msgspec.UNSET if create.user is None else create.user,
    )


def to_stored(response: Response, new_input: Sequence[JsonObject]) -> StoredResponse:
    """The response as the store keeps it: envelope and items apart, each encoded once."""
    return StoredResponse(
        id=response.id,
        created_at=response.created_at,
        status=response.status,
        previous_response_id=response.previous_response_id,
        envelope=encode(msgspec.structs.replace(response, output=[])),
        input=tuple(StoredItem(item["id"], encode(item)) for item in new_input),
        output=tuple(StoredItem(_id_of(item), encode(item)) for item in response.output),
    )


def from_stored(stored: StoredResponse) -> bytes:
    """The response's JSON, byte for byte as it was first sent.

    Before `output` the envelope has only scalars, so the first empty `output` is the one.
    """
    head, found, tail = stored.envelope.partition(b'"output":[]')
    items = b",".join(item.body for item in stored.output)
    return b"".join((head, b'"output":[', items, b"]", tail)) if found else stored.envelope


def _id_of(item: Item) -> str:
    return str(item["id"]) if isinstance(item, dict) else item.id
