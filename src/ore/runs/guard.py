"""The guard: a classifier that looks at what users say and at what models answer, before anybody else sees it.

A refused input is a 400. A refused answer ends its turn for `content_filter`, and nothing of it is shown: so an answer
is held back until it has been looked at as a whole. Whoever cannot be asked refuses everything; nothing goes unchecked.
"""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

from msgspec import Struct, structs

from ore.core.deltas import Delta, Finish, ItemBegun, WholeItem
from ore.errors import InvalidRequest
from ore.protocol.responses import Create
from ore.routing.sampling import Sampling

Refuses = Callable[[Sequence[str]], Awaitable[bool]]
"""Whether one of these texts is refused. Raises `TooManyRequests` or `ServerFault` when that cannot be told."""


class Guard(Struct, frozen=True, kw_only=True):
    """`model` is the one that checks: it is asked itself without being checked."""

    model: str
    refuses: Refuses
    inputs: bool
    outputs: bool

    async def check_input(self, create: Create, model: str) -> None:
        """Raise the 400 for a message of the user in this request. What is older was looked at when it was said."""
        said = ["\n".join(_texts(item)) for item in create.input if item.get("role") == "user"]
        texts = [text for text in said if text]
        if self.inputs and model != self.model and texts and await self.refuses(texts):
            raise InvalidRequest(
                "The input was refused by the content filter of this server. Change it, and send it again.",
                code="content_filter",
                param="input",
            )

    def holds(self, model: str) -> bool:
        """Whether answers of that model are held back until they are checked."""
        return self.outputs and model != self.model

    def checked(self, deltas: Sampling) -> AsyncIterator[Delta]:
        """What may be shown of a turn: all of it, or its end alone."""
        return _Held(self, deltas)


class _Held:
    """The deltas of a turn, from its end on."""

    def __init__(self, guard: Guard, deltas: Sampling) -> None:
        self._guard = guard
        self._deltas = deltas
        self._ready: deque[Delta] = deque()

    def __aiter__(self) -> "_Held":
        return self

    async def __anext__(self) -> Delta:
        if not self._ready:
            held = await _to_its_end(self._deltas)
            refused = await self._guard.refuses([text]) if (text := _said(held)) else False
            self._ready.extend([_cut(held[-1])] if refused else held)
        return self._ready.popleft()


async def _to_its_end(deltas: Sampling) -> list[Delta]:
    """Everything up to the `Finish`, as the target that came to it tells it."""
    held, restarts = list[Delta](), 0
    async for delta in deltas:
        if deltas.restarts > restarts:
            held, restarts = [], deltas.restarts
        held.append(delta)
        if isinstance(delta, Finish):
            break
    return held


def _cut(finish: Delta) -> Delta:
    assert isinstance(finish, Finish)  # noqa: S101
    return structs.replace(finish, reason="content_filter")


def _said(held: Sequence[Delta]) -> str:
    """Every word that a client would see: text, reasoning, refusals, arguments. Each kind begins a line."""
    lines: list[str] = []
    before: type[Delta] | None = None
    for delta in held:
        if isinstance(delta, WholeItem | ItemBegun):
            lines += _texts(delta.item)
        elif text := getattr(delta, "text", ""):
            if type(delta) is before:
                lines[-1] += text  # CPython appends in place
            else:
                lines.append(text)
            before = type(delta)
            continue
        before = None
    return "\n".join(lines)


def _texts(value: object) -> Iterator[str]:
    """The texts of an item, wherever they stand in it."""
    if isinstance(value, dict):
        for key, each in value.items():
            if key in _SPOKEN and isinstance(each, str):
                yield each
            else:
                yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


_SPOKEN = frozenset({"text", "content", "refusal", "arguments", "input", "output"})
