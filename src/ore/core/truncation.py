"""Which items may be dropped when a context is too long and the request says `truncation: "auto"`.

Oldest first, whole exchanges, so that no call loses its output: first the turns before the last user message, each from
one user message to the next; then what the model did since, each step with its calls and their outputs. System and
developer messages, the last user message and the last step always stay (wire contract, section 18). How long is too
long is not known here.
"""

from collections.abc import Sequence

from ore.core.history import OUTPUT_CALLS
from ore.protocol.decoding import JsonObject


def droppable(items: Sequence[JsonObject]) -> list[list[int]]:
    """Places of items that may go together, in the order in which they should go."""
    users = [at for at, item in enumerate(items) if item["type"] == "message" and item.get("role") == "user"]
    last = users[-1] if users else -1
    turns = _groups(items, 0, max(last, 0), begins=set(users))
    steps = _groups(items, last + 1, len(items), begins=_steps(items, last + 1))
    return [*turns, *steps[:-1]]


def _steps(items: Sequence[JsonObject], start: int) -> set[int]:
    """Where a step begins: at whatever follows an output and is none."""
    outputs = [item["type"] in OUTPUT_CALLS for item in items]
    return {at for at in range(start + 1, len(items)) if outputs[at - 1] and not outputs[at]}


def _groups(items: Sequence[JsonObject], start: int, end: int, begins: set[int]) -> list[list[int]]:
    groups: list[list[int]] = []
    for at in range(start, end):
        if items[at]["type"] == "message" and items[at].get("role") in ("system", "developer"):
            continue
        if not groups or at in begins:
            groups.append([])
        groups[-1].append(at)
    return groups


def without(items: Sequence[JsonObject], groups: Sequence[Sequence[int]]) -> tuple[JsonObject, ...]:
    """The items that stay."""
    gone = {at for group in groups for at in group}
    return tuple(item for at, item in enumerate(items) if at not in gone)
