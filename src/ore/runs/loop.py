"""The loop of a run: from an accepted request to exactly one terminal status.

`execute` is an ordinary coroutine that emits; streaming and waiting callers get the same run. Whatever happens inside
(a fault, a cancellation, a deadline), it closes open items, saves the response, emits the terminal event and closes the
log: what a client has been told has been saved. A background run that is only interrupted is let go of instead, for
another process to go on with. It knows no HTTP and no engine.
"""

import logging

import anyio
from msgspec import Struct

from ore.core.callable_tools import effective_tools
from ore.core.tool_choice import in_turn
from ore.errors import (
    DeadlineExceeded,
    HTTPFault,
    InternalFault,
    ModelFailed,
    RequestError,
    StorageFailed,
    Unavailable,
)
from ore.protocol.responses import Response, ResponseError, Status
from ore.runs.calls import run_calls
from ore.runs.compaction import compact
from ore.runs.context import context
from ore.runs.durable import RETRY_SECONDS, DurableLog
from ore.runs.log import BrokenOff
from ore.runs.run import Run
from ore.runs.shapes import to_stored, with_passage
from ore.runs.turns import CUT, Shared, accept, asked, take_turn
from ore.runs.verdict import check_schema, output_problem
from ore.stores.base import Fenced, StoredEvent, StoredResponse
from ore.tools.base import hosted

logger = logging.getLogger("ore.runs")

SAVE_SECONDS = 30.0
"""How long a run that was told to stop may still take to save what it has."""


class Outcome(Struct, frozen=True, kw_only=True):
    """How a run ends."""

    status: Status
    incomplete: str | None = None
    fault: HTTPFault | None = None


async def execute(run: Run, shared: Shared) -> None:
    """Drive a run to its end, even when everything around it is cancelled; that is all that it ever raises."""
    outcome: Outcome | None = None
    try:
        try:
            with run.scope:
                outcome = await _converse(run, shared)
        except Exception as error:
            outcome = Outcome(status="failed", fault=_fault_of(error, run))
        finally:
            if run.durable is not None and _is_interrupted(run, outcome):
                await _let_go(run, run.durable, shared)
            else:
                await _conclude(run, outcome or _stopped(run), shared)
            await _unlock(run, shared)
    except BaseException:
        run.log.break_off()
        raise
    finally:
        run.end()


async def _converse(run: Run, shared: Shared) -> Outcome:
    """Build the context; then turn after turn, until the model is done or the client has to answer; then check."""
    create, progress = run.create, run.progress
    route = await shared.router.route(create.model, create.input)
    run.model = route.name
    check_schema(create)
    if shared.guard is not None:
        await shared.guard.check_input(create, route.name)
    run.context = await context(run, shared.store, shared.sealer)
    tools = hosted(create.tools, shared.tools)
    if create.compacts or create.compact_threshold is not None:
        await compact(run, shared, route, tools)
    if not create.generate:
        await accept(run, shared, route.first, asked(run, route.first, tools, shared.sealer))
        return Outcome(status="completed")
    while progress.ended is None or progress.calls:
        if not progress.calls:
            await take_turn(run, shared, route, tools)
        await run_calls(run, tools)
    return await _judged(run, shared)


async def _judged(run: Run, shared: Shared) -> Outcome:
    """How a run ends whose model has had its say."""
    ended, create = run.progress.ended, run.create
    if ended == "max_tool_calls" or ended in CUT:
        return Outcome(status="incomplete", incomplete=ended)
    if create.compacts:
        return Outcome(status="completed")
    if not run.response.output:
        run.writer.write_empty_message()
    offered = effective_tools(create.tools, run.context.items)
    choice = in_turn(create.tool_choice, run.progress.turns - 1)
    if problem := await output_problem(create, choice, offered, run.response.output, shared.judge):
        return Outcome(status="failed", fault=ModelFailed(f"{problem}.", code="invalid_model_output"))
    return Outcome(status="completed")


async def _conclude(run: Run, outcome: Outcome, shared: Shared) -> None:
    """Close what is open, save, and say how it ended."""
    run.fault = outcome.fault
    if not run.has_response:
        return
    if run.durable is not None:
        await _conclude_durable(run, run.durable, outcome, shared)
        return
    run.writer.close("incomplete")
    final = _final(run, outcome, shared)
    if run.create.store and (fault := await _save(run, final, shared)):
        run.fault = fault
        final = _final(run, Outcome(status="failed", fault=fault), shared)
    run.writer.end(final, run.fault)


async def _save(run: Run, final: Response, shared: Shared) -> HTTPFault | None:
    """Save, whoever wants the run to stop. Gives the fault when that failed or took too long: it can still be said."""
    with anyio.move_on_after(SAVE_SECONDS, shield=True):
        try:
            await shared.store.save(run.owner, to_stored(final, run.context.taken, run.link))
            run.locked = False
        except StorageFailed as fault:
            logger.exception("response %s could not be saved", run.id)
            return fault
        except Exception as error:
            return _fault_of(error, run)
        return None
    logger.error("response %s could not be saved within %g s", run.id, SAVE_SECONDS)
    return StorageFailed("The response could not be saved in time. Send the request again in a moment.")


async def _unlock(run: Run, shared: Shared) -> None:
    """Give the conversation back, where no save of the response has; a run that goes on elsewhere keeps it."""
    kept_on = run.durable is not None and run.durable.broken
    if not run.locked or run.create.conversation is None or kept_on:
        return
    with anyio.move_on_after(SAVE_SECONDS, shield=True):
        try:
            await shared.store.unlock_conversation(run.owner, run.create.conversation, run.id)
        except StorageFailed:  # it unlocks itself in time
            logger.exception("the conversation of response %s could not be unlocked", run.id)


async def _conclude_durable(run: Run, log: DurableLog, outcome: Outcome, shared: Shared) -> None:
    """Keep the end together with the last events, before anybody sees them."""
    try:
        with anyio.fail_after(SAVE_SECONDS, shield=True):
            await log.flushed()
            run.writer.close("incomplete")
            final = _final(run, outcome, shared)
            run.writer.end(final, outcome.fault)
            last = log.take()
            await _keep_end(run, to_stored(final, run.context.taken, run.link), [event for _, event in last], shared)
            run.locked = False
            log.publish(last)
            if final.status == "cancelled":  # there is no event that says so
                log.shown.settle(final)
    except (BrokenOff, Fenced):
        log.break_off()
    except Exception:  # the lease runs out, and somebody goes on from what is kept
        logger.exception("the end of background response %s could not be kept", run.id)
        log.break_off()


async def _keep_end(run: Run, stored: StoredResponse, events: list[StoredEvent], shared: Shared) -> None:
    """Save the end of a background run; a store that fails is asked again for as long as there is time."""
    while True:
        try:
            await shared.store.save(run.owner, stored, fence=run.fence, events=events)
        except StorageFailed as failure:
            logger.warning("the end of %s could not be kept, trying again: %s", run.id, failure)
            await anyio.sleep(RETRY_SECONDS)
        else:
            return


def _is_interrupted(run: Run, outcome: Outcome | None) -> bool:
    """Whether a background run was stopped that could go on elsewhere. Without a reason, all around it is torn down."""
    if not run.scope.cancel_called:
        return outcome is None
    return run.stop_reason in ("shutdown", "fenced") and (outcome is None or outcome.status == "failed")


async def _let_go(run: Run, log: DurableLog, shared: Shared) -> None:
    """Leave a background run to whoever claims it next."""
    run.fault = _stopped(run).fault
    if run.has_response and run.scope.cancel_called and run.stop_reason == "shutdown":
        with anyio.move_on_after(SAVE_SECONDS, shield=True):
            try:
                await log.flushed()
                await shared.store.release(run.owner, run.id, run.fence)
            except (StorageFailed, BrokenOff):  # its lease runs out
                logger.exception("background response %s could not be let go of", run.id)
    log.break_off()


def _final(run: Run, outcome: Outcome, shared: Shared) -> Response:
    error = None
    if outcome.fault is not None:
        error = ResponseError(outcome.fault.code or "server_error", outcome.fault.message)
    usage, now = run.progress.usage, shared.now()
    final = run.writer.final(outcome.status, now=now, usage=usage, incomplete=outcome.incomplete, error=error)
    return with_passage(run, final)


def _stopped(run: Run) -> Outcome:
    """The scope was cancelled: a client that left, a server that stops or is torn down, or time that ran out."""
    if run.stop_reason in ("disconnected", "cancelled"):
        return Outcome(status="cancelled")
    if run.stop_reason == "given up":
        fault: HTTPFault = InternalFault("The server was restarted too often while it worked on this request.")
    elif run.stop_reason == "shutdown" or not run.scope.cancel_called:
        fault = Unavailable("The server is shutting down. Send the request again in a moment.")
    else:
        fault = DeadlineExceeded("The request took longer than this server allows. Ask for less, or raise the limit.")
    return Outcome(status="failed", fault=fault)


def _fault_of(error: BaseException, run: Run) -> HTTPFault:
    """The fault that a client may see. Anything that is not one of ours is a bug, and is logged as such."""
    if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        return _fault_of(error.exceptions[0], run)
    if isinstance(error, RequestError) and run.claimed is not None:  # it was taken once
        return InternalFault(f"The server was restarted, and cannot go on with this response: {error.message}")
    if isinstance(error, HTTPFault):
        return error
    logger.error("a run broke", exc_info=error)
    return InternalFault("The server failed to answer this request. The operator's log has the reason.")
