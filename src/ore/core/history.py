"""What the model sees: earlier turns, then this request's input, as one list of items in order.

The context is earlier input, earlier output, new input, recursively (wire contract, section 11). Nothing is dropped or
reordered here but an item that the client echoed although the chain holds it, and what the newest compaction item
stands for. `instructions`, tools and settings of earlier responses are not part of it.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from msgspec import Struct

from ore.core.compaction import Open, newest, refuse_all, unfold
from ore.errors import InvalidRequest
from ore.ids import NewId
from ore.protocol.decoding import JsonObject, quoted
from ore.protocol.items import CALL_OUTPUTS

OUTPUT_CALLS = {output: call for call, output in CALL_OUTPUTS.items()}


class Context(Struct, frozen=True):
    """`items` are what the model is given; `taken` is what of the input is new, each item under an id of its own."""

    items: tuple[JsonObject, ...]
    taken: tuple[JsonObject, ...]


def context(
    earlier: Iterable[JsonObject],
    new: Sequence[JsonObject],
    new_id: NewId,
    opened: Open = refuse_all,
    *,
    source: str = "previous_response_id",
) -> Context:
    """Put the items of the chain and of the request together; `opened` opens a compaction item.

    `source` is the parameter that the chain came by.

    Ids are unique in a conversation: what comes under the id of something else gets a new one. Raises `InvalidRequest`
    when calls and outputs do not pair up, or when a compaction item is not ours.
    """
    chain = list(earlier)
    start = newest(new)
    if start is None:
        seen = unfold(chain, opened, source)
    else:
        seen = unfold([new[start]], opened, f"input[{start}].encrypted_content")
    present = {item["id"]: item for item in seen if "id" in item}
    used = {item["id"] for item in chain if "id" in item} | set(present)
    taken = []
    for index, item in enumerate(new):
        counts = start is None or index > start
        if counts and item["id"] in present and _same(present[item["id"]], item):
            continue
        if item["id"] in used:
            item = {**item, "id": new_id(item["type"])}
        used.add(item["id"])
        taken.append(item)
        if counts:
            seen.append(item)
    return Context(tuple(_paired(seen)), tuple(taken))


def _same(there: JsonObject, item: JsonObject) -> bool:
    """Whether an item that comes back under a known id still says the same; clients drop what they do not need."""
    if there["type"] != item["type"]:
        return False
    said = ("role", "call_id", "name", "namespace", "arguments", "input", "action", "operation", "output", "tools")
    return all(there.get(key) == item.get(key) for key in said) and (
        item["type"] != "message" or _parts(there) == _parts(item)
    )


def _parts(message: JsonObject) -> list[JsonObject]:
    ignored = ("annotations", "logprobs")
    return [{key: value for key, value in part.items() if key not in ignored} for part in message["content"]]


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
        f"Previous response with id {quoted(response_id)} not found. Send the conversation so far as 'input' instead.",
        code="previous_response_not_found",
        param="previous_response_id",
    )


def _paired(items: list[JsonObject]) -> list[JsonObject]:
    """Each call a client answers has one output behind it, of its own kind. A call that was cut off is left out."""
    waiting: dict[tuple[object, object], list[int]] = defaultdict(list)
    problems: dict[int, str] = {}
    for at, item in enumerate(items):
        kind, call_id = item["type"], item.get("call_id")
        if item.get("execution") == "server":
            continue  # a tool search that the client neither ran nor answers
        if kind in CALL_OUTPUTS and call_id is not None:
            waiting[CALL_OUTPUTS[kind], call_id].append(at)
        elif kind in OUTPUT_CALLS and call_id is not None:
            if places := waiting[kind, call_id]:
                answered = next((p for p in places if items[p].get("status") != "incomplete"), places[0])
                places.remove(answered)
                if missing := _unacknowledged(items[answered], item):
                    problems[at] = f"Safety check {missing} of computer call {call_id} has not been acknowledged."
            else:
                problems[at] = f"No tool call found for function call output with call_id {call_id}."
    unanswered = {at for places in waiting.values() for at in places}
    cut = {at for at in unanswered if items[at].get("status") == "incomplete"}
    for at in unanswered - cut:
        if items[at]["type"] != "local_shell_call":  # its output may name it by `id`
            problems[at] = f"No tool output found for function call {items[at]['call_id']}."
    if problems:
        raise InvalidRequest(problems[min(problems)], param="input")
    return [item for at, item in enumerate(items) if at not in cut]


def _unacknowledged(call: JsonObject, output: JsonObject) -> str | None:
    """The first safety check of a computer call that its output does not bring back (wire contract, 17.6)."""
    back = {check.get("id") for check in _objects(output.get("acknowledged_safety_checks"))}
    pending = [check.get("id") for check in _objects(call.get("pending_safety_checks"))]
    return next((quoted(check) for check in pending if check not in back), None)


def _objects(value: object) -> list[JsonObject]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
