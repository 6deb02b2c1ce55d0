"""Compaction of a run's context: on its own (`POST /responses/compact`), or before a response goes on.

What is kept and what is sealed is decided in `ore.core.compaction`. A compaction of its own is an ordinary run (it
queues, is cancelled and counts like any other) whose response is not shown.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final, Literal

from msgspec import Struct

from ore.backends.base import ModelRequest
from ore.core import compaction
from ore.core.deltas import Finish, Text
from ore.core.deltas import Usage as Tokens
from ore.core.sealing import Sealer
from ore.errors import HTTPFault, InternalFault
from ore.protocol import events as e
from ore.protocol.content import OutputText
from ore.protocol.decoding import JsonObject
from ore.protocol.items import Message
from ore.protocol.responses import Response, Usage
from ore.routing.route import Route
from ore.routing.rules import Target
from ore.routing.sampling import Build
from ore.runs.run import Run
from ore.runs.turns import Shared, asked, enter
from ore.tools.base import Hosted

WINDOW_SHARE: Final = 0.75
"""How full a model's window is when its context is compacted, for requests that leave it to us."""


class Compaction(Struct, kw_only=True):
    """The object of the wire (section 13). `output` is the next request's `input`, as it is."""

    id: str
    object: Literal["response.compaction"] = "response.compaction"
    created_at: int
    output: list[JsonObject]
    usage: Usage


def compacted(run: Run, sealer: Sealer) -> Compaction:
    """What an ended run of `compaction.summarising` comes to. Raises the run's fault when there is no summary."""
    response = run.response
    if run.fault is not None or response.usage is None:
        raise run.fault or InternalFault("The model was stopped before it had summarised. Send the request again.")
    context = run.context.items[:-1]  # without our own question
    item = _sealed(run, sealer, context, _text_of(response), run.new_id("compaction"))
    output = [*compaction.kept(context), item]
    return Compaction(id=run.id, created_at=run.created_at, output=output, usage=response.usage)


def _sealed(run: Run, sealer: Sealer, context: Sequence[JsonObject], summary: str, item_id: str) -> JsonObject:
    """The compaction item that stands for a context, of which the model has made a summary."""
    stands = compaction.window(context, summary, run.new_id)
    return compaction.item(sealer.seal(stands, purpose=compaction.PURPOSE, owner=run.owner), item_id)


def _text_of(response: Response) -> str:
    messages = [item for item in response.output if isinstance(item, Message)]
    return "".join(part.text for item in messages for part in item.content if isinstance(part, OutputText))


async def compact(run: Run, shared: Shared, route: Route, tools: Hosted) -> None:
    """Compact the context of `run` if it is due, as the first item of its output."""

    def build(target: Target) -> ModelRequest:
        return asked(run, target, tools, shared.sealer)

    if run.progress.first > 0 or not await _is_due(run, route, build):
        return
    item_id = run.writer.open_item or run.new_id("compaction")  # open already: begun by a process that died
    text, tokens = await _summary(run, shared, route, tools, item_id)
    run.writer.close_whole(_sealed(run, shared.sealer, run.context.items, text, item_id))
    run.progress.add(tokens)
    run.progress.first = 1
    if run.create.compacts:
        run.progress.ended = "stop"
    run.note()


async def _is_due(run: Run, route: Route, build: Build) -> bool:
    """Whether the context is too long for the first target that can tell. Raises the first one's fault if none can."""
    if run.create.compacts or run.writer.open_item is not None:
        return True
    if run.create.compact_threshold is None:
        return False
    fault: HTTPFault | None = None
    for target in route.targets:
        try:
            return await _is_too_long(run.create.compact_threshold, target, build(target))
        except HTTPFault as raised:
            fault = fault or raised
    assert fault is not None  # noqa: S101 - a route has targets
    raise fault


async def _is_too_long(threshold: int, target: Target, request: ModelRequest) -> bool:
    window = target.model.capabilities.context_window
    if (threshold == 0 and window is None) or not compaction.has_something_to_fold(request.items):
        return False
    threshold = threshold or int((window or 0) * WINDOW_SHARE)
    return await target.backend.count_tokens(request) > threshold


async def _summary(run: Run, shared: Shared, route: Route, tools: Hosted, item_id: str) -> tuple[str, Tokens]:
    """The model's summary of the context, and what it cost; the item that will hold it is open from the first word."""
    question = compaction.question(run.new_id)

    def build(target: Target) -> ModelRequest:
        request = asked(run, target, tools, shared.sealer)
        return ModelRequest(
            model=request.model,
            items=(*request.items, question),
            instructions=request.instructions,
            reasoning=compaction.QUICK,
            sampling=request.sampling,
            max_output_tokens=compaction.SUMMARY_TOKENS,
            prompt_cache_key=request.prompt_cache_key,
            owner=request.owner,
        )

    said, restarts = list[str](), 0
    async with AsyncExitStack() as stack:
        deltas = await enter(stack, run, shared, route, build, shorten=True, hidden=True)
        if run.writer.open_item is None:
            run.writer.open_whole(compaction.item("", item_id))
            run.writer.emit_in_whole(e.Compacting)
        async for delta in deltas:
            if deltas.restarts > restarts:  # somebody else tells it
                said, restarts = [], deltas.restarts
            if isinstance(delta, Finish):
                return "".join(said), delta.usage
            if isinstance(delta, Text):
                said.append(delta.text)
    raise AssertionError("a sampling has an end")
