"""Free text out of the JSON that a model wrapped it in, `{"input": "..."}`, as it is written.

For models that know only functions: a custom tool is shown to them as a function of one string. What is not of that
shape is given as it came, at its end. Sloppy strings are read, and a text that is cut off ends before half an escape.
"""

import re
from typing import Any, Final

import msgspec

_HEAD: Final = re.compile(r'\s*\{\s*"input"\s*:\s*"')
_WHOLE: Final = re.compile(
    r'(?:[^"\\]|\\[^u]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})*',
    re.DOTALL,
)
"""Characters of a JSON string of which no half is missing: escapes, and pairs of them, are taken together."""
_ESCAPE: Final = re.compile(r"\\u[0-9a-fA-F]{4}(?:\\u[0-9a-fA-F]{4})?|\\.", re.DOTALL)


class FreeText:
    """Pieces of JSON in, pieces of the text out. One for each call."""

    def __init__(self) -> None:
        self._held = ""
        self._begun = False
        self._done = False

    def feed(self, piece: str) -> str:
        """The text that is certain now."""
        if self._done:
            return ""
        self._held += piece
        if not self._begun and not self._begin():
            return ""
        end = _whole(self._held)
        text, self._held = self._held[:end], self._held[end:]
        self._done = self._held.startswith('"')
        return _ESCAPE.sub(_unescaped, text)

    def end(self) -> str:
        """What is left when no piece follows."""
        if self._done or self._begun:
            return ""
        return _unwrapped(self._held)

    def _begin(self) -> bool:
        head = _HEAD.match(self._held)
        if head is not None:
            self._held, self._begun = self._held[head.end() :], True
        return self._begun


def _whole(text: str) -> int:
    match = _WHOLE.match(text)
    return match.end() if match is not None else 0


def _unescaped(escape: re.Match[str]) -> str:
    try:
        return str(msgspec.json.decode(f'"{escape[0]}"'))
    except msgspec.DecodeError:
        return escape[0]


def _unwrapped(raw: str) -> str:
    try:
        value: Any = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return raw
    value = value.get("input") if isinstance(value, dict) else value
    return value if isinstance(value, str) else raw
