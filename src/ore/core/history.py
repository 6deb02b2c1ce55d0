"""What the model sees: earlier turns, then this request's input, as one list of items in order.

The context is earlier input, earlier output, new input, recursively (wire contract, section 11). Nothing is dropped or
reordered here but an item that the client echoed under an id that the chain already holds, and what the newest
compaction item stands for. `instructions`, tools and settings of earlier responses are not part of it.
"""

from collections.abc import Iterable, Sequence

from ore.core.compaction import Open, refuse_all, unfold
from ore.errors import InvalidRequest
from ore.protocol.decoding import JsonObject, quoted
from ore.protocol.items import CALL_OUTPUTS

OUTPUT_CALLS = {output: call for call, output in CALL_OUTPUTS.items()}


def context(
    earlier: Iterable[JsonObject], new: Sequence[JsonObject], opened: Open = refuse_all
) -> tuple[JsonObject, ...]:
    """The items of the whole context; `opened` opens a compaction item.

    Raises `InvalidRequest` when calls and outputs do not pair up, or when a compaction item is not ours.
    """
    items = list(earlier)
    places: dict[int, int] = {}
    known = {item["id"] for item in items if "id" in item}
    for index, item in enumerate(new):
        if item["type"] == "item_reference":
            raise _reference(item, index, known)
        if item.get("id") not in known:
            places[len(items)] = index
            items.append(item)

    def param(at: int) -> str:
        return f"input[{places[at]}].encrypted_content" if at in places else "previous_response_id"

    return tuple(_paired(unfold(items, opened, param)))


def check_continuable(status: str, response_id: str) -> None:
    """Refuse to continue from a response that is still running, or that failed."""
    if status in ("queued", "in_progress"):
        message = f"Response '{response_id}' is still running. Wait until it has ended, then continue from it."
        raise InvalidRequest(message, code="previous_response_not_ready", param="previous_response_id")
    if status == "failed":
        message = f"Response '{response_id}' failed and cannot be continued. Continue from the one before it."
        raise InvalidRequest(message, code="previous_response_failed", param="previous_response_id")


def previous_not_found(response_id: str) -> InvalidRequest:
    return InvalidRequest(
        f"Previous response with id {quoted(response_id)} not found.",
        code="previous_response_not_found",
        param="previous_response_id",
    )


def _paired(items: list[JsonObject]) -> list[JsonObject]:
    """Check that each call has its output and each output its call; calls that were cut off are left out."""
    answered = {item.get("call_id") for item in items if item["type"] in OUTPUT_CALLS}
    called: set[object] = set()
    kept = []
    for item in items:
        kind, call_id = item["type"], item.get("call_id")
        if kind in CALL_OUTPUTS and call_id is not None:
            if call_id not in answered and item.get("status") == "incomplete":
                continue
            if call_id not in answered and kind != "local_shell_call":
                raise InvalidRequest(f"No tool output found for function call {call_id}.", param="input")
            called.add(call_id)
        elif kind in OUTPUT_CALLS and call_id is not None and call_id not in called:
            raise InvalidRequest(f"No tool call found for function call output with call_id {call_id}.", param="input")
        kept.append(item)
    return kept


def _reference(item: JsonObject, index: int, known: set[object]) -> InvalidRequest:
    param = f"input[{index}].id"
    if item["id"] in known:
        message = f"Item '{item['id']}' is already part of the context through 'previous_response_id'; leave it out."
        return InvalidRequest(message, param=param)
    message = "Item references are not supported by this server: send the item itself, or 'previous_response_id'."
    return InvalidRequest(message, code="unsupported_value", param=param)
