"""Reads one JSON value out of a text that comes in pieces, and finds its end.

Pure. Objects are passed on as they are written; free text that is wrapped in a JSON string is given decoded. It refuses
to validate: what is no JSON comes out as it is.
"""

import re
from typing import Any, Final

import msgspec

_INPUT_HEAD: Final = re.compile(r'\s*(?:\{\s*"input"\s*:\s*)?"')
_BRACKET: Final = re.compile(r'[\[\]{}"]')
_QUOTE: Final = re.compile(r'["\\]')
_SCALAR_END: Final = re.compile(r"[,}\]\s]")


class JsonValue:
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
        value = input_of(decoded(held))
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
        if isinstance(value := decoded(f'"{text[:size]}"'), str):
            return value
    return ""


def input_of(arguments: Any) -> Any:
    """The free text inside a custom tool's arguments, where it is there."""
    return arguments.get("input", arguments) if isinstance(arguments, dict) else arguments


def decoded(raw: str) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None
