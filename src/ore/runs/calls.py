"""The calls of a turn that are for tools which run here: made one after the other, each with a receipt.

That a call begins is kept before it is made, and its receipt before anybody sees it: a process that takes the run up
knows which calls are over. A tool's failure is data for the model; nothing of a tool's ends a run.
"""

import logging
from typing import Final

from ore.core.progress import PendingCall
from ore.errors import InternalFault
from ore.runs.run import Run
from ore.tools.base import Hosted, Tool, ToolFailed, receipt

logger = logging.getLogger("ore.runs")

INTERRUPTED: Final = "The server was restarted while this tool ran. Whether it did its work is not known."


async def run_calls(run: Run, tools: Hosted) -> None:
    """Run what the last turn called, one after the other; each receipt is kept before anybody sees it."""
    progress = run.progress
    while progress.calls:
        call = progress.calls[0]
        tool = tools.tools.get(call.name)
        if tool is None:
            raise InternalFault(f"The tool '{call.name}' is not there any more. Send the request again without it.")
        begun = run.writer.open_item  # by a process that died
        if begun is not None and (call.again or not tool.repeatable):
            item_id, status, output = begun, "failed", INTERRUPTED
        else:
            item_id = await _begin_call(run, tool, call, begun)
            status, output = await _outcome(run, tool, call)
        run.writer.close_whole(receipt(tool, call, item_id, status=status, output=output))
        progress.calls.pop(0)
        progress.made += 1
        progress.first = len(run.writer.response.output)
        run.note()


async def _begin_call(run: Run, tool: Tool, call: PendingCall, begun: str | None) -> str:
    """Say that the call is being made, and have that kept: afterwards nobody may think that it was not."""
    if begun is None:
        item_id = run.new_id(tool.type)
        run.writer.open_whole(receipt(tool, call, item_id, status="in_progress"))
    else:
        item_id, call.again = begun, True
        run.note()
    await run.recorded()
    return item_id


async def _outcome(run: Run, tool: Tool, call: PendingCall) -> tuple[str, str]:
    try:
        return "completed", await tool.run(call)
    except ToolFailed as failure:
        return "failed", str(failure)
    except Exception:
        logger.exception("tool %s broke in %s", tool.type, run.id)
        return "failed", "The tool broke down. The operator's log has the reason."
