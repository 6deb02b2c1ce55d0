"""`POST /responses/compact`: the object that comes out of a run that summarised.

A compaction is an ordinary run (it queues, is cancelled and counts like any other) whose response is not shown. What
is kept and what is sealed is decided in `ore.core.compaction`.
"""

from typing import Literal

from msgspec import Struct

from ore.core import compaction
from ore.core.sealing import Sealer
from ore.errors import InternalFault
from ore.ids import NewId
from ore.protocol.content import OutputText
from ore.protocol.decoding import JsonObject
from ore.protocol.items import Message
from ore.protocol.responses import Response, Usage
from ore.runs.run import Run


class Compaction(Struct, kw_only=True):
    """The object of the wire (section 13). `output` is the next request's `input`, as it is."""

    id: str
    object: Literal["response.compaction"] = "response.compaction"
    created_at: int
    output: list[JsonObject]
    usage: Usage


def compacted(run: Run, sealer: Sealer, new_id: NewId) -> Compaction:
    """What an ended run of `compaction.summarising` comes to. Raises the run's fault when there is no summary."""
    response = run.response
    if run.fault is not None or response.usage is None:
        raise run.fault or InternalFault("The model was stopped before it had summarised. Send the request again.")
    context = run.context.items[:-1]  # without our own question
    stands = compaction.window(context, _text_of(response), new_id)
    sealed = sealer.seal(stands, purpose=compaction.PURPOSE, owner=run.owner)
    output = [*compaction.kept(context), compaction.item(sealed, new_id)]
    return Compaction(id=run.id, created_at=run.created_at, output=output, usage=response.usage)


def _text_of(response: Response) -> str:
    messages = [item for item in response.output if isinstance(item, Message)]
    return "".join(part.text for item in messages for part in item.content if isinstance(part, OutputText))
