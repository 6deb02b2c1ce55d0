"""One turn of a run: what the model is asked, and what it says, written as it comes.

A run is accepted as soon as the backend has taken its first request. What a turn comes to is noted as progress,
together with the events of it; calls of tools that run here are left for `ore.runs.calls`.
"""

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final

import anyio
import anyio.to_thread
import msgspec
from msgspec import Struct

from ore.backends.base import ModelRequest
from ore.core import compaction
from ore.core.callable_tools import effective_tools
from ore.core.deltas import Delta, Finish, ReasoningState, ToolArguments, ToolCall
from ore.core.progress import PendingCall
from ore.core.retrace import Diverged, Retrace
from ore.core.sealing import Sealer
from ore.core.tool_choice import OneCall, allows, check_possible, in_turn
from ore.core.truncation import droppable, without
from ore.errors import CONTEXT_TOO_LONG, InternalFault, InvalidRequest, TooManyRequests, Unavailable
from ore.protocol.decoding import JsonObject
from ore.protocol.events import encode
from ore.protocol.items import as_object, awaits_client
from ore.protocol.tools import check_tool_choice
from ore.routing.faults import is_passing
from ore.routing.route import Route
from ore.routing.router import Router
from ore.routing.rules import Target
from ore.routing.sampling import Build, Sampling
from ore.runs.context import opened_reasoning, opens_compaction
from ore.runs.guard import Guard
from ore.runs.judge import Judge
from ore.runs.run import Run
from ore.runs.shapes import initial_response, model_request, to_stored, wants_cache, warnings
from ore.stores.base import Lease, Store, StoredRun
from ore.tools.base import Hosted, Tool, as_call

logger = logging.getLogger("ore.runs")

CUT: Final = ("max_output_tokens", "content_filter")
"""Reasons to stop that leave a turn incomplete."""

MAX_TURNS: Final = 64
"""Turns of one response, at most: a model that has lost its way must not call for ever."""

BEGIN_SECONDS: Final = 30.0
"""How long the store may take to keep a background run that begins."""

BUSY_SECONDS: Final = 1.0
"""Pause before a background run asks again for a place in a queue that was full."""


class Shared(Struct, frozen=True):
    """What all runs work with. `now` gives seconds since 1970."""

    router: Router
    store: Store
    sealer: Sealer
    judge: Judge
    tools: Mapping[str, Tool]
    lease: Lease
    now: Callable[[], int]
    guard: Guard | None = None


def asked(run: Run, target: Target, tools: Hosted, sealer: Sealer) -> ModelRequest:
    """What the model is asked next: the context, then what this response has come to.

    Raises `InvalidRequest` when `tool_choice` names no tool, or forces one that nothing here can run.
    """
    create, progress = run.create, run.progress
    made = run.writer.response.output[: progress.first] if run.has_response else []
    items = [*run.context.items, *(as_object(item) for item in made)]
    items = compaction.unfold(items, opens_compaction(sealer, run.owner), "input")
    opened = [opened_reasoning(item, sealer, run.owner) if item["type"] == "reasoning" else item for item in items]
    shown = [call for item in opened for call in as_call(item)]
    request = model_request(create, target, shown, _offered(run, tools), run.owner)
    wanted = in_turn(create.tool_choice, progress.turns)
    choice = tools.chosen(check_tool_choice(wanted, effective_tools(create.tools, items)))
    check_possible(choice, request.tools, target.model.capabilities.tool_types)
    return msgspec.structs.replace(request, tool_choice=choice)


def _offered(run: Run, tools: Hosted) -> Sequence[JsonObject]:
    """The tools that the model may still call: those that run here only until `max_tool_calls` is used up."""
    limit = run.create.max_tool_calls
    if limit is None or run.progress.made < limit:
        return tools.shown
    return [tool for tool in tools.shown if tool.get("name") not in tools.tools]


async def accept(run: Run, shared: Shared, target: Target, request: ModelRequest) -> None:
    """Tell the client that the request is taken; a background run is kept first, so that it cannot be lost."""
    if run.has_response:
        return
    _warn(run, target, request)
    initial = initial_response(run, request)
    if run.durable is not None:
        record = StoredRun(request=encode(run.create), progress=b"", streamed=run.create.stream)
        stored = to_stored(initial, run.context.taken, run.link)
        with anyio.fail_after(BEGIN_SECONDS, shield=True):  # what is kept has somebody who drives it
            run.fence = await shared.store.begin(run.owner, stored, record, shared.lease)
    run.begin(initial)


def _warn(run: Run, target: Target, request: ModelRequest) -> None:
    """Say what of the request has no effect on this target."""
    run.warnings = warnings(run.create, request, target.model.capabilities)
    if run.warnings:
        logger.warning("%s: %s", target.model.id, "; ".join(run.warnings))


async def enter(
    stack: AsyncExitStack,
    run: Run,
    shared: Shared,
    route: Route,
    build: Build,
    *,
    shorten: bool,
    hidden: bool = False,
) -> Sampling:
    """Have a target take the request, and the run accepted and started.

    `shorten`: drop items that do not fit. `hidden`: no client sees what is said.

    Where a queue is full, a foreground run is refused, and a background run waits. What clients have seen of a turn can
    only be told again by who told it first.
    """
    begun = run.progress.target if run.seen else ""
    while True:
        sampling = shared.router.sample(
            route, build, run.passage, wants_cache=wants_cache(run.create), begun=begun, hidden=hidden
        )
        try:
            await stack.enter_async_context(sampling)
        except (TooManyRequests, Unavailable) as fault:
            if run.durable is None or not is_passing(fault):
                raise
            await accept(run, shared, sampling.target, build(sampling.target))
            await anyio.sleep(BUSY_SECONDS)
        except InvalidRequest as fault:
            if fault.code != CONTEXT_TOO_LONG or not shorten or sampling.request is None:
                raise
            target, request = sampling.target, await _shortened(sampling.target, sampling.request, fault)
            route, shorten = Route(name=route.name, targets=(target,), rule=route.rule), False
            build = _always(request)
        else:
            await accept(run, shared, sampling.target, sampling.asked)
            if run.status == "queued":
                run.writer.start()
            return sampling


def _always(request: ModelRequest) -> Build:
    return lambda _: request


async def _shortened(target: Target, request: ModelRequest, fault: InvalidRequest) -> ModelRequest:
    """The request without as many of its oldest items as it takes. Raises `fault` when that does not help."""
    groups, window = droppable(request.items), target.model.capabilities.context_window
    if window is None or not groups:
        raise fault
    room = window - min(request.max_output_tokens or window, window // 4)

    async def fits(count: int) -> bool:
        items = without(request.items, groups[:count])
        return await target.backend.count_tokens(msgspec.structs.replace(request, items=items)) <= room

    least, most = 1, len(groups)
    while least < most:
        middle = (least + most) // 2
        least, most = (least, middle) if await fits(middle) else (middle + 1, most)
    logger.info("dropped the oldest %d of %d exchanges of a context that was too long", least, len(groups))
    return msgspec.structs.replace(request, items=without(request.items, groups[:least]), places=())


async def take_turn(run: Run, shared: Shared, route: Route, tools: Hosted) -> None:
    """Sample the model once, writing what it says; what another process wrote of this turn is passed over."""
    progress = run.progress
    retrace = await _retrace(run)

    def build(target: Target) -> ModelRequest:
        return asked(run, target, tools, shared.sealer)

    guard = shared.guard if shared.guard and shared.guard.holds(route.name) else None
    async with AsyncExitStack() as stack:
        shorten = run.create.truncation == "auto"
        deltas = await enter(stack, run, shared, route, build, shorten=shorten, hidden=guard is not None)
        sift = _Sift(tools, deltas.asked.tool_choice)
        try:
            calls = OneCall(parallel=run.create.parallel_tool_calls)
            said = guard.checked(deltas) if guard else deltas
            finish = await _write(run, deltas, said, sift, calls, retrace)
        except Diverged:
            raise InternalFault(
                "The server was restarted while the model was answering, and the model did not take the answer up "
                "where it was. Send the request again."
            ) from None
    cut = finish.reason in CUT
    run.writer.close("incomplete" if cut else "completed")
    run.seen, progress.target = (), ""
    progress.add(finish.usage)
    progress.service_tier = finish.service_tier or progress.service_tier
    progress.turns += 1
    progress.calls = [] if cut else _within_limit(run, sift.calls)
    waits = any(awaits_client(as_object(item)) for item in run.writer.response.output[progress.first :])
    if cut or waits or not sift.calls or len(_offered(run, tools)) < len(tools.shown):
        progress.ended = finish.reason
    elif progress.turns >= MAX_TURNS:
        progress.ended = "max_tool_calls"
    progress.first = len(run.writer.response.output)
    run.note()


async def _retrace(run: Run) -> Retrace:
    """What clients saw of the turn, read in a thread where it is long."""
    if not run.seen:
        return Retrace((), 0)
    return await anyio.to_thread.run_sync(Retrace, run.seen, run.progress.first)


async def _write(
    run: Run, deltas: Sampling, said: AsyncIterator[Delta], sift: "_Sift", calls: OneCall, retrace: Retrace
) -> Finish:
    """Write what may be shown (`said`) of a sampling, up to its end."""
    taker, teller = deltas.target, None
    plain = retrace.over and calls.lets_all and sift.takes_none
    async for delta in said:
        if deltas.target is not teller:
            teller = deltas.target
            run.progress.target = teller.name
            run.note()  # with the event of its first word
            if teller is not taker:
                _warn(run, teller, deltas.asked)
        if isinstance(delta, Finish):
            return delta
        if plain:
            run.writer.write(delta)
        elif sift.takes(delta):
            retrace.close()
            if retrace.over:
                run.writer.close()
        elif calls.lets(delta):
            if (new := retrace.feed(delta)) is not None:
                run.writer.write(new)
            elif isinstance(delta, ReasoningState):
                run.writer.remember_state(delta.state)
    raise AssertionError("a sampling has an end")


class _Sift:
    """Takes the calls of tools that run here out of what a model says: the client sees their receipts instead.

    Those that `choice` does not allow are dropped, whatever the backend let the model say (wire contract, 17.9).
    """

    def __init__(self, tools: Hosted, choice: str | JsonObject) -> None:
        self._names = tools.tools
        self._choice = choice
        self._open = False
        self._call = PendingCall("", "")
        self.calls: list[PendingCall] = []

    @property
    def takes_none(self) -> bool:
        """Whether no tool runs here at all."""
        return not self._names

    def takes(self, delta: Delta) -> bool:
        if isinstance(delta, ToolCall):
            self._open = delta.kind == "function_call" and delta.namespace is None and delta.name in self._names
            self._call = PendingCall(delta.call_id, delta.name)
            if self._open and allows(self._choice, delta.kind, delta.name, None):
                self.calls.append(self._call)
        elif isinstance(delta, ToolArguments) and self._open:
            self._call.arguments += delta.text
        else:
            self._open = False
        return self._open


def _within_limit(run: Run, calls: list[PendingCall]) -> list[PendingCall]:
    """Calls beyond `max_tool_calls` are ignored (wire contract, 17.8)."""
    limit = run.create.max_tool_calls
    return calls if limit is None else calls[: max(0, limit - run.progress.made)]
