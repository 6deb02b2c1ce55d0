"""Turns the text that a local model writes into deltas: reasoning, text, tool calls. Pure and incremental.

Markup that is split over chunks never leaks, arguments are passed on as they are written, and what only looks like
a call becomes text, so that nothing is lost. It refuses to validate arguments or to mend JSON.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from ore.backends.local.call_forms import is_raw
from ore.backends.local.grammar import Markup
from ore.backends.markers import certain
from ore.core.callable_tools import CallableTool
from ore.core.deltas import Delta, Reasoning, Text, ToolArguments, ToolCall

Entry = dict[str, Any]

_STRING: Final = r'"(?:[^"\\]|\\.)*"'
_HEAD: Final = re.compile(rf'\s*\{{\s*"name"\s*:\s*({_STRING})\s*,\s*"(?:arguments|parameters)"\s*:', re.DOTALL)
_RAW_HEAD: Final = re.compile(rf'\s*\{{\s*"name"\s*:\s*({_STRING})\s*\}}\n', re.DOTALL)
_INPUT_HEAD: Final = re.compile(r'\s*(?:\{\s*"input"\s*:\s*)?"')
_BRACKET: Final = re.compile(r'[\[\]{}"]')
_QUOTE: Final = re.compile(r'["\\]')
_SCALAR_END: Final = re.compile(r"[,}\]\s]")


class OutputParser:
    """One per sampling. `calls`: whether call markup is looked for; `tools`: those that the model may call."""

    def __init__(
        self,
        markup: Markup,
        new_call_id: Callable[[], str],
        *,
        calls: bool = True,
        tools: Iterable[CallableTool] = (),
    ) -> None:
        self._markup = markup
        self._open, self._close = markup.call.open, markup.call.close
        self._new_call_id = new_call_id
        self._calls = calls
        self._tools = {tool.shown: tool for tool in tools}
        self._raw_close = markup.call.after_raw + self._close
        self._buffer = ""
        self._entries: deque[tuple[int, Entry]] = deque()
        self._out: list[Delta] = []
        self._value = _Value(plain=True)
        self._fresh = True
        self._after_call = False
        self._state = self._begin if markup.thinks and not markup.thinking else self._text
        if markup.thinking:
            self._state = self._think
        self.called = False
        """Whether a call has begun."""

    @property
    def thinking(self) -> bool:
        """Whether what comes next is reasoning."""
        return self._state == self._think

    @property
    def calling(self) -> bool:
        """Whether a call has been opened and not closed."""
        return self._state in (self._head, self._arguments, self._raw, self._tail)

    def feed(self, text: str, entries: tuple[Entry, ...] = ()) -> list[Delta]:
        """Take a piece of output, and its logprob entries if there are any; give the deltas that are certain."""
        if entries:
            self._note(len(text), entries)
        self._buffer += text
        return self._run()

    def finish(self, *, cut: bool = False) -> list[Delta]:
        """The model has stopped: give what was held back. `cut`: it was stopped, and half a call's head is dropped."""
        out = self._run()
        if self._state == self._head:
            if cut:
                return out
            self._write(self._open)
        if self._state == self._think:
            self._emit_reasoning(len(self._buffer.rstrip("\n")))
        elif self._state == self._arguments:
            self._emit_arguments(self._value.rest())
        elif self._state == self._raw:
            if not cut and not self._buffer.startswith(self._raw_close):
                self._emit_raw(len(self._buffer))
        elif self._state != self._tail and not (self._after_call and not self._buffer.strip()):
            self._emit_text(len(self._buffer))
        out += self._out
        self._buffer, self._out = "", []
        return out

    def _run(self) -> list[Delta]:
        while self._buffer and self._state():
            pass
        out, self._out = self._out, []
        return out

    # Each state takes what it can from the buffer, and says whether there may be more to do at once.

    def _begin(self) -> bool:
        """Nothing seen yet: is there a think block?"""
        start, marker = self._buffer.lstrip(), self._markup.think_open
        if start.startswith(marker):
            self._drop(len(self._buffer) - len(start) + len(marker))
            self._state = self._think
            return True
        if marker.startswith(start):
            return False
        self._state = self._text
        return True

    def _think(self) -> bool:
        if self._fresh:
            self._drop(len(self._buffer) - len(self._buffer.lstrip("\n")))
            self._fresh = not self._buffer
        marker = self._markup.think_close
        at = self._buffer.find(marker)
        end = at if at >= 0 else certain(self._buffer, marker)
        self._emit_reasoning(len(self._buffer[:end].rstrip("\n")))
        if at < 0:
            return False
        self._drop(self._buffer.index(marker) + len(marker))
        self._fresh, self._after_call = True, False
        self._state = self._after_think
        return True

    def _after_think(self) -> bool:
        self._drop(len(self._buffer) - len(self._buffer.lstrip("\n")))
        if self._buffer:
            self._state = self._text
        return bool(self._buffer)

    def _text(self) -> bool:
        if not self._calls:
            self._emit_text(len(self._buffer))
            return False
        at = self._buffer.find(self._open)
        end = at if at >= 0 else certain(self._buffer, self._open)
        visible = self._buffer[:end]
        shown = visible.rstrip("\n") if visible.strip() or not self._fresh else ""
        self._emit_text(len(shown))
        if shown:
            self._fresh = self._after_call = False
        if at < 0:
            return False
        self._drop(self._buffer.index(self._open) + len(self._open))
        self._state = self._head
        return True

    def _head(self) -> bool:
        """Between the open marker and the arguments."""
        for pattern, state in ((_HEAD, self._arguments), (_RAW_HEAD, self._raw)):
            match = pattern.match(self._buffer)
            name = _decoded(match[1]) if match else None
            if match and name is not None and (state != self._raw or self._takes_raw(name)):
                self._drop(match.end())
                self._start_call(name)
                self._state = state
                return True
        at = self._buffer.find(self._close)
        if at < 0:
            return False
        self._whole_call(self._buffer[:at], at + len(self._close))
        return True

    def _arguments(self) -> bool:
        piece, used = self._value.feed(self._buffer)
        self._drop(used)
        self._emit_arguments(piece)
        if not self._value.done:
            return False
        self._state = self._tail
        return True

    def _raw(self) -> bool:
        """Text as it is, up to a close marker that ends the output or comes before another call."""
        close, again = self._raw_close, self._markup.call.between + self._open
        at = self._buffer.find(close)
        if at < 0:
            self._emit_raw(certain(self._buffer, close))
            return False
        self._emit_raw(at)
        after = self._buffer[len(close) :]
        if after.startswith(again):
            self._drop(len(close))
            self._close_call()
            return True
        if again.startswith(after):
            return False
        self._emit_raw(1)  # no marker after all: what it is part of goes on
        return True

    def _tail(self) -> bool:
        """After the arguments: up to the close marker there is nothing to tell."""
        at = self._buffer.find(self._close)
        if at < 0:
            self._drop(certain(self._buffer, self._close))
            return False
        self._drop(at + len(self._close))
        self._close_call()
        return True

    def _whole_call(self, raw: str, end: int) -> None:
        """A call that was not written in the usual order; or no call at all, which becomes text."""
        call = _decoded(raw)
        if isinstance(call, dict) and isinstance(call.get("name"), str):
            self._drop(end)
            self._start_call(call["name"])
            arguments = call.get("arguments", call.get("parameters", {}))
            if self._takes_text(call["name"]):
                arguments = _input_of(arguments)
            self._emit_arguments(arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode())
            self._close_call()
        else:
            self._write(self._open)
            self._emit_text(end)
            self._fresh = self._after_call = False
            self._state = self._text

    def _start_call(self, name: str) -> None:
        tool, call_id = self._tools.get(name), self._new_call_id()
        self._out.append(ToolCall(call_id, tool.name, tool.kind, tool.namespace) if tool else ToolCall(call_id, name))
        self._value = _Value(plain=not self._takes_text(name))
        self.called = True

    def _takes_text(self, name: str) -> bool:
        return name in self._tools and self._tools[name].kind == "custom_tool_call"

    def _takes_raw(self, name: str) -> bool:
        return name in self._tools and is_raw(self._tools[name])

    def _close_call(self) -> None:
        self._fresh = self._after_call = True
        self._state = self._text

    # What leaves.

    def _write(self, text: str) -> None:
        self._out.append(Text(text))

    def _emit_text(self, size: int) -> None:
        if size:
            piece = self._buffer[:size]
            self._out.append(Text(piece, self._drop(size)))

    def _emit_reasoning(self, size: int) -> None:
        if size:
            self._out.append(Reasoning(self._buffer[:size]))
            self._drop(size)

    def _emit_arguments(self, piece: str) -> None:
        if piece:
            self._out.append(ToolArguments(piece))

    def _emit_raw(self, size: int) -> None:
        self._emit_arguments(self._buffer[:size])
        self._drop(size)

    # Logprob entries travel beside the characters they belong to.

    def _note(self, size: int, entries: tuple[Entry, ...]) -> None:
        for entry in entries[:-1]:
            length = min(size, len(entry.get("token", "")))
            self._entries.append((length, entry))
            size -= length
        self._entries.append((size, entries[-1]))

    def _drop(self, size: int) -> tuple[Entry, ...]:
        """Forget characters; the entries of tokens that end among them."""
        self._buffer = self._buffer[size:]
        taken = []
        while self._entries and (size > 0 or self._entries[0][0] == 0):
            length, entry = self._entries.popleft()
            if length > size:
                self._entries.appendleft((length - size, entry))
                break
            size -= length
            taken.append(entry)
        return tuple(taken)


class _Value:
    """Finds the end of one JSON value. `plain` passes an object on as it is written; free text is given decoded."""

    def __init__(self, *, plain: bool) -> None:
        self._plain = plain
        self._held = ""
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._started = False
        self.done = False

    def feed(self, text: str) -> tuple[str, int]:
        """The piece to pass on, and how many characters were used."""
        start = 0
        if not self._started:
            start = len(text) - len(text.lstrip())
            if start == len(text):
                return "", start
            self._started = True
            self._plain = self._plain and text[start] != '"'
        end = self._end(text, start)
        piece = text[start:end]
        if self._plain:
            return piece, end
        self._held += piece
        return (self.rest() if self.done else ""), end

    def rest(self) -> str:
        """What was held back: a string decoded, or a custom tool's input."""
        held, self._held = self._held, ""
        value = _input_of(_decoded(held))
        if isinstance(value, str):
            return value
        return held if self.done else _begun(held)

    def _end(self, text: str, at: int) -> int:
        """Index after the last character of the value, or the length of the text when it goes on."""
        if not self._depth and not self._in_string and text[at] not in '[{"':
            return self._scalar_end(text, at)
        if self._escaped:
            self._escaped = False
            at += 1
        while match := (_QUOTE if self._in_string else _BRACKET).search(text, at):
            at = match.end()
            character = match[0]
            if character == "\\":
                if at == len(text):
                    self._escaped = True
                    return at
                at += 1
            elif character == '"':
                self._in_string = not self._in_string
            else:
                self._depth += 1 if character in "[{" else -1
            if not self._in_string and self._depth <= 0:
                self.done = True
                return at
        return len(text)

    def _scalar_end(self, text: str, at: int) -> int:
        match = _SCALAR_END.search(text, at)
        if match is None:
            return len(text)
        self.done = True
        return match.start()


def _begun(held: str) -> str:
    """The text in a custom tool's arguments that were cut off, without half an escape at its end."""
    head = _INPUT_HEAD.match(held)
    text = held[head.end() :] if head else ""
    for size in range(len(text), max(-1, len(text) - 12), -1):
        if isinstance(value := _decoded(f'"{text[:size]}"'), str):
            return value
    return ""


def _input_of(arguments: Any) -> Any:
    """The free text inside a custom tool's arguments, where it is there."""
    return arguments.get("input", arguments) if isinstance(arguments, dict) else arguments


def _decoded(raw: str) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None
