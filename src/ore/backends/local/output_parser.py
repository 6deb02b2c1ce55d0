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
from ore.backends.local.json_value import JsonValue, decoded, input_of
from ore.backends.local.markup import (
    HERMES,
    SPACES,
    CallForm,
    Markup,
    could_begin,
    head_pattern,
    name_in,
    raw_head_pattern,
)
from ore.backends.local.written_arguments import ArgumentReader
from ore.backends.markers import certain, certain_of, first_of
from ore.core.callable_tools import CallableTool
from ore.core.deltas import Begin, Delta, Reasoning, Text, ToolArguments, ToolCall

Entry = dict[str, Any]

MAX_HEADER: Final = 300
"""Characters of a block's header, at most."""


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
        self._markup, self._row = markup, markup.call
        self._new_call_id = new_call_id
        self._calls = calls
        self._tools = {tool.shown: tool for tool in tools}
        self._heads = _heads(self._row)
        self._stops = self._text_stops()
        self._ends = self._call_ends()
        self._raw_close = self._row.after_raw + self._row.close
        self._raw_again = _raw_again(self._row)
        self._buffer = ""
        self._entries: deque[tuple[int, Entry]] = deque()
        self._out: list[Delta] = []
        self._value: JsonValue | ArgumentReader = JsonValue(plain=True)
        self._pending: Begin | None = None
        self._commented = False
        self._fresh = True
        self._after_call = False
        self._section = ""
        self._state = self._think if markup.thinking else self._begin if markup.thinks else self._first
        self.called = False
        """Whether a call has begun."""

    def _text_stops(self) -> dict[str, Callable[[str], None]]:
        """What ends a text, and what happens then: the marker stands at the start of the buffer."""
        channels = self._markup.channels
        stops: dict[str, Callable[[str], None]] = dict.fromkeys(self._markup.wrappers, self._skip)
        if channels:
            stops |= dict.fromkeys(channels.ends, self._close_call) | dict.fromkeys(channels.starts, self._open_header)
        elif self._calls and not self._row.whole:
            stops[self._row.open] = self._open_call
        return stops

    def _call_ends(self) -> dict[str, Callable[[str], None]]:
        """The same for what follows the arguments of a call."""
        row, channels = self._row, self._markup.channels
        if channels:
            return dict.fromkeys(channels.ends, self._close_call) | dict.fromkeys(channels.starts, self._next_header)
        ends: dict[str, Callable[[str], None]] = {row.close: self._close_call} if row.close else {}
        if row.join is not None:
            ends[row.item] = self._next_call
        return ends

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
        self._finish(cut=cut)
        out += self._out
        self._buffer, self._out = "", []
        return out

    def _finish(self, *, cut: bool) -> None:
        if self._state == self._first:
            self._drop_open()
        if self._state == self._head:
            if cut or self._read_calls(self._buffer):
                return
            self._write(self._section)
            self._emit_text(len(self._buffer))
        elif self._state == self._think:
            self._emit_reasoning(len(self._buffer.rstrip("\n")))
        elif self._state == self._arguments:
            self._emit_arguments(self._value.rest())
        elif self._state == self._raw:
            if not cut and not self._buffer.startswith(self._raw_close or "\0"):
                self._emit_raw(len(self._buffer))
        elif self._state not in (self._tail, self._header) and not (self._after_call and not self._buffer.strip()):
            self._emit_text(len(self._buffer))

    def _run(self) -> list[Delta]:
        while self._buffer and self._state():
            pass
        out, self._out = self._out, []
        return out

    # Each state takes what it can from the buffer, and says whether there may be more to do at once.

    def _begin(self) -> bool:
        """Nothing seen yet: is there a think block?"""
        if self._markup.channels:
            return self._go(self._block)
        start, marker = self._buffer.lstrip(SPACES), self._markup.think_open
        if start.startswith(marker):
            self._drop(len(self._buffer) - len(start) + len(marker))
            return self._go(self._think)
        if marker.startswith(start):
            return False
        return self._go(self._first)

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
        return self._go(self._block if self._markup.channels else self._after_think)

    def _after_think(self) -> bool:
        self._drop(len(self._buffer) - len(self._buffer.lstrip("\n")))
        if self._buffer:
            self._state = self._first
        return bool(self._buffer)

    def _first(self) -> bool:
        """The first text: where a call is a whole message, is this one?"""
        if not (self._calls and self._row.whole):
            return self._go(self._text)
        start, marker = self._buffer.lstrip(SPACES), self._row.open
        if start != marker and marker.startswith(start):
            return False
        bare = start.removeprefix(marker)
        called = self._called(bare)
        if called is None and could_begin(bare):
            return False
        self._drop_open()
        return self._go(self._head if called else self._text)

    def _drop_open(self) -> None:
        """Forget the open marker of a message that may be a call, if it is there."""
        start = self._buffer.lstrip(SPACES)
        if start.startswith(self._row.open):
            self._drop(len(self._buffer) - len(start) + len(self._row.open))

    def _called(self, text: str) -> bool | None:
        """Whether a head, if it is one, is one of a call that may be made."""
        matches = [(match, raw) for pattern, _, raw in self._heads if (match := pattern.match(text))]
        names = [self._takes_raw(name_in(match)) if raw else name_in(match) in self._tools for match, raw in matches]
        return any(names) if names else None

    def _block(self) -> bool:
        """Between two blocks. What has no header is text."""
        start, markers = self._buffer.lstrip(), self._markup.channels.starts
        if any(start.startswith(marker) for marker in markers):
            self._drop(len(self._buffer) - len(start))
            return self._go(self._header)
        return not any(marker.startswith(start) for marker in markers) and self._go(self._text)

    def _header(self) -> bool:
        """From a block's first marker to its content."""
        channels = self._markup.channels
        end = self._buffer.find(channels.header_end, 0, MAX_HEADER)
        if end < 0:
            if len(self._buffer) < MAX_HEADER:
                return False
            self._emit_text(1)  # no header after all
            return self._go(self._text)
        header = self._buffer[:end]
        self._drop(end + len(channels.header_end))
        called = re.search(channels.recipient, header)
        if called and self._calls and called[1] in self._tools:
            self._start_call(called[1], self._row)
            return self._go(self._raw if self._takes_raw(called[1]) else self._arguments)
        if channels.thought in header:
            return self._go(self._think)
        self._announce(comments=channels.commentary in header)
        return self._go(self._text)

    def _text(self) -> bool:
        if not self._stops and not self._after_call:
            self._emit_text(len(self._buffer))
            return False
        at, marker = first_of(self._buffer, self._stops)
        visible = self._buffer[: at if marker else certain_of(self._buffer, self._stops)]
        shown = visible.rstrip("\n") if visible.strip() or not self._fresh else ""
        self._emit_text(len(shown))
        if shown:
            self._fresh = self._after_call = False
        if not marker:
            return False
        self._drop(self._buffer.index(marker))
        self._stops[marker](marker)
        return True

    def _head(self) -> bool:
        """Between the open marker and the arguments."""
        for pattern, form, raw in self._heads:
            match = pattern.match(self._buffer)
            if match and self._fits(name := name_in(match), form, raw=raw):
                self._drop(match.end())
                self._start_call(name, form)
                return self._go(self._raw if raw else self._arguments)
        at = self._buffer.find(self._row.close) if len(self._row.close) > 1 else -1
        if at < 0:  # a bracket alone closes nothing: it may stand anywhere
            return False
        end = at + len(self._row.close)
        if self._read_calls(self._buffer[:at]):
            self._drop(at)
            self._close_call(self._row.close)
        else:
            self._write(self._section)
            self._emit_text(end)
            self._fresh = self._after_call = False
            self._state = self._text
        return True

    def _fits(self, name: str, form: CallForm, *, raw: bool) -> bool:
        """Whether a head is one of a call. A name that stands in no quotes may be any word: it must be a tool's."""
        if raw:
            return self._takes_raw(name)
        return form.before_name.endswith('"') or (name in self._tools and not self._takes_raw(name))

    def _arguments(self) -> bool:
        piece, used = self._value.feed(self._buffer)
        self._drop(used)
        self._emit_arguments(piece)
        return self._value.done and self._go(self._tail)

    def _raw(self) -> bool:
        """Text as it is, up to a close marker that ends the output or comes before another call."""
        if self._row.raw_ends:
            self._emit_raw(len(self._buffer))
            return False
        again, skipped = self._raw_again
        at = self._buffer.find(again) if again else -1
        if at < 0:
            self._emit_raw(certain_of(self._buffer, (self._raw_close + "\0", again)))
            return False
        self._emit_raw(at)
        self._drop(skipped)
        if self._row.join is None:
            self._close_call("")
        else:
            self._next_call("")
        return True

    def _tail(self) -> bool:
        """After the arguments: up to the close marker there is nothing to tell."""
        if not self._ends:
            return self._after_arguments()
        at, marker = first_of(self._buffer, self._ends)
        if not marker:
            self._drop(certain_of(self._buffer, self._ends))
            return False
        self._drop(at)
        self._ends[marker](marker)
        return True

    def _after_arguments(self) -> bool:
        """Where nothing closes a call."""
        start, after = self._buffer.lstrip(), self._row.after.strip()
        if start != after and after.startswith(start):
            return False
        self._drop(len(self._buffer) - len(start.removeprefix(after)))
        self._close_call("")
        return True

    # What happens at a marker.

    def _skip(self, marker: str) -> None:
        self._drop(len(marker))

    def _open_call(self, marker: str) -> None:
        self._drop(len(marker))
        self._section, self._state = marker, self._head

    def _next_call(self, _marker: str) -> None:
        self._section, self._state = "", self._head

    def _close_call(self, marker: str) -> None:
        self._drop(len(marker))
        self._fresh = self._after_call = True
        self._state = self._block if self._markup.channels else self._text

    def _open_header(self, _marker: str) -> None:
        self._fresh, self._state = True, self._header

    def _next_header(self, _marker: str) -> None:
        self._close_call("")
        self._state = self._header

    def _go(self, state: Callable[[], bool]) -> bool:
        self._state = state
        return True

    def _read_calls(self, raw: str) -> bool:
        """Calls that were not written in the usual order, if they are calls at all."""
        value = decoded(raw)
        calls = value if isinstance(value, list) and value else [value]
        if not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
            return False
        for call in calls:
            self._start_call(call["name"], HERMES)
            arguments = call.get("arguments", call.get("parameters", {}))
            if self._takes_text(call["name"]):
                arguments = input_of(arguments)
            self._emit_arguments(arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode())
        return True

    def _start_call(self, name: str, form: CallForm) -> None:
        tool, call_id = self._tools.get(name), self._new_call_id()
        self._out.append(ToolCall(call_id, tool.name, tool.kind, tool.namespace) if tool else ToolCall(call_id, name))
        custom = self._takes_text(name)
        row, ends = form.parameters, (form.after.strip(), form.close)
        self._value = JsonValue(plain=not custom) if row is None else ArgumentReader(row, ends, tool, custom=custom)
        self.called = True

    def _takes_text(self, name: str) -> bool:
        return name in self._tools and self._tools[name].kind == "custom_tool_call"

    def _takes_raw(self, name: str) -> bool:
        return name in self._tools and is_raw(self._tools[name])

    # What leaves.

    def _write(self, text: str) -> None:
        self._out.append(Text(text))

    def _announce(self, *, comments: bool) -> None:
        """A message of another phase begins, once there is a text for it."""
        self._fresh = True
        if comments or self._commented:
            self._pending = Begin("message", phase="commentary" if comments else "final_answer")
        self._commented = self._commented or comments

    def _emit_text(self, size: int) -> None:
        if size:
            if self._pending is not None:
                self._out.append(self._pending)
                self._pending = None
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


def _heads(row: CallForm) -> list[tuple[re.Pattern[str], CallForm, bool]]:
    """The ways in which a call begins, and whether raw text follows. JSON is understood beside single arguments."""
    forms = (row, HERMES) if row.parameters is not None else (row,)
    return [
        (re.compile(pattern(form), re.DOTALL), form, raw)
        for form in forms
        for pattern, raw in ((raw_head_pattern, True), (head_pattern, False))
    ]


def _raw_again(row: CallForm) -> tuple[str, int]:
    """What stands between a raw text and the next call, as far as its head; how much of it is over then."""
    if row.join is not None:
        return row.after_raw + row.join + row.item, len(row.after_raw + row.join)
    if row.between is not None:
        return row.after_raw + row.close + row.between + row.open, len(row.after_raw + row.close)
    return "", 0
