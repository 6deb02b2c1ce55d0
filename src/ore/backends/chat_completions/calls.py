"""Tool calls out of the pieces that a stream brings, one after the other as the writer takes them.

Which piece belongs to which call is told by the index, the id, the name, or by nothing, as the server pleases. Where
several calls are written at the same time, the later ones wait until the one that is open is whole. It judges no
arguments and mends none; a call that never gets a name is left out.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from ore.backends.dialect import packed
from ore.backends.free_text import FreeText
from ore.core.callable_tools import CallableTool
from ore.core.deltas import Delta, ReasoningState, Text, ToolArguments, ToolCall
from ore.protocol.decoding import JsonObject

MAX_CALL_ID = 64


class CallFunction(Struct, gc=False):
    name: str | None = None
    arguments: Any = None


class CallPiece(Struct, gc=False):
    """One entry of `tool_calls`, as lenient as servers are."""

    index: int | None = None
    id: Any = None
    function: CallFunction | None = None
    extra_content: Any = None
    """What Gemini wants back with the call: a signature of what it thought."""


class _Call(Struct):
    index: int | None
    given_id: str
    id: str = ""
    name: str = ""
    pieces: list[str] = []
    said: int = 0
    begun: bool = False
    extra: Any = None
    text: FreeText | None = None

    def is_whole(self) -> bool:
        """Whether the arguments are a JSON object to its end."""
        if not self.pieces or not self.pieces[-1].rstrip().endswith("}"):
            return False
        try:
            msgspec.json.decode("".join(self.pieces), type=dict)
        except (msgspec.MsgspecError, RecursionError):
            return False
        return True


class Calls:
    """One for each answer. `answer` names a function whose arguments are the answer itself, as text."""

    def __init__(
        self,
        tools: Mapping[str, CallableTool],
        new_call_id: Callable[[], str],
        *,
        origin: str = "",
        taken: Collection[str] = (),
        answer: str | None = None,
    ) -> None:
        self._tools = tools
        self._new_call_id = new_call_id
        self._origin = origin
        self._taken = set(taken)
        self._answer = answer
        self._calls: list[_Call] = []
        self._at = 0
        self.called = False
        """Whether there has been a call that is not the answer."""

    def take(self, pieces: list[CallPiece]) -> list[Delta]:
        """The deltas that these pieces make certain."""
        for piece in pieces:
            self._take(piece)
        return self._flow()

    @property
    def busy(self) -> bool:
        """Whether a call is open; nothing else may be said then."""
        return self._at < len(self._calls)

    def settle(self) -> list[Delta]:
        """Take no more arguments for calls that are whole."""
        return self.end() if self.busy and all(call.is_whole() for call in self._calls[self._at :]) else []

    def end(self) -> list[Delta]:
        """What has waited until now."""
        out: list[Delta] = []
        for call in self._calls[self._at :]:
            out += [*self._say(call), *self._close(call)]
        self._at = len(self._calls)
        return out

    def _take(self, piece: CallPiece) -> None:
        function = piece.function or CallFunction()
        name, arguments = function.name or "", _as_text(function.arguments)
        given = str(piece.id) if piece.id else ""
        call = self._find(piece.index, given, name)
        if call is None:
            if not name and not arguments:
                return
            call = _Call(piece.index, given)
            self._calls.append(call)
        call.name = call.name or name
        call.given_id = call.given_id or given
        call.extra = call.extra or piece.extra_content
        if arguments:
            call.pieces.append(arguments)

    def _find(self, index: int | None, given: str, name: str) -> _Call | None:
        """The call that a piece goes on with; None when it begins another."""
        known = reversed(self._calls)
        if index is not None:
            call = next((call for call in known if call.index == index), None)
        elif given:
            call = next((call for call in known if call.given_id == given), None)
        else:
            call = next(known, None)
        if call is None or not name or not call.name:
            return call
        if given and call.given_id:
            return call if given == call.given_id else None  # Ollama counts every call 0
        return call if name == call.name and not call.is_whole() else None

    def _flow(self) -> list[Delta]:
        """What the first call that is not whole says, and what those before it have left to say."""
        out: list[Delta] = []
        while self._at < len(self._calls):
            call = self._calls[self._at]
            out += self._say(call)
            if self._at + 1 == len(self._calls) or not call.is_whole():
                break
            out += self._close(call)
            self._at += 1
        return out

    def _say(self, call: _Call) -> list[Delta]:
        out: list[Delta] = []
        if not call.name:
            return out
        if not call.begun:
            out += self._begin(call)
        if call.said < len(call.pieces):
            written = "".join(call.pieces[call.said :])
            call.said = len(call.pieces)
            out += self._arguments(call, call.text.feed(written) if call.text is not None else written)
        return out

    def _begin(self, call: _Call) -> list[Delta]:
        call.begun = True
        if call.name == self._answer:
            return []
        self.called = True
        call.id = self._own_id(call.given_id)
        tool = self._tools.get(call.name)
        if tool is not None and tool.kind == "custom_tool_call":
            call.text = FreeText()
        begun = ToolCall(call.id, tool.name, tool.kind, tool.namespace) if tool else ToolCall(call.id, call.name)
        if not call.extra:
            return [begun]
        state: JsonObject = {"call_id": call.id, "extra_content": call.extra}
        return [ReasoningState(packed(self._origin, state)), begun]

    def _arguments(self, call: _Call, text: str) -> list[Delta]:
        if not text:
            return []
        return [Text(text) if call.name == self._answer else ToolArguments(text)]

    def _close(self, call: _Call) -> list[Delta]:
        """A call without arguments has none, which JSON writes as an empty object."""
        if not call.begun:
            return []
        left = call.text.end() if call.text is not None else "" if call.pieces else "{}"
        return self._arguments(call, left)

    def _own_id(self, given: str) -> str:
        """The id that was given, where it can be told from all others."""
        usable = given and len(given) <= MAX_CALL_ID and given not in self._taken
        call_id = given if usable else self._new_call_id()
        self._taken.add(call_id)
        return call_id


def _as_text(arguments: Any) -> str:
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else msgspec.json.encode(arguments).decode()
