"""Free text out of the JSON that a model wrapped it in, `{"input": "..."}`, as it is written.

For models that know only functions: a custom tool is shown to them as a function of one string, and a grammar that no
schema can hold it to is told in words. What is not of that
shape is given as it came, at its end. Sloppy strings are read, and a text that is cut off ends before half an escape.
It gives no text that cannot be encoded: half a surrogate pair becomes U+FFFD.
"""

import re
from typing import Any, Final

import msgspec

from ore.core.callable_tools import CallableTool

MAX_SHOWN_GRAMMAR: Final = 4000
"""Characters of a custom tool's grammar that a model is shown; a longer one would be most of the prompt."""

_HEAD: Final = re.compile(r'\s*\{\s*"input"\s*:\s*"')
_HIGH: Final = r"\\u[dD][89abAB][0-9a-fA-F]{2}"
_LOW: Final = r"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_ESCAPE: Final = re.compile(rf"{_HIGH}{_LOW}|\\u[0-9a-fA-F]{{4}}|\\.", re.DOTALL)
_CERTAIN: Final = re.compile(
    r'(?:[^"\\]|\\[^u]'
    rf"|{_HIGH}{_LOW}|{_HIGH}(?!(?:\\(?:u[0-9a-fA-F]{{0,3}})?)?\Z)"
    rf"|(?!{_HIGH})\\u(?![0-9a-fA-F]{{0,3}}\Z))*",
    re.DOTALL,
)
"""Of a JSON string, what no later piece can change: neither half an escape, nor the first of two that may be a pair."""
_MEANT: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "/": "/"}


def told_description(tool: CallableTool) -> str:
    """A tool's description, with the Lark grammar of its free text: nobody holds the model to that here."""
    form = tool.format
    grammar = str(form.get("definition") or "") if form.get("syntax") == "lark" else ""
    hint = f"The input must match this Lark grammar:\n{grammar}" if 0 < len(grammar) <= MAX_SHOWN_GRAMMAR else ""
    return "\n".join(filter(None, (tool.description, hint)))


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
        end = _certain(self._held)
        text, self._held = self._held[:end], self._held[end:]
        self._done = self._held.startswith('"')
        return _ESCAPE.sub(_unescaped, text)

    def end(self) -> str:
        """What is left when no piece follows."""
        if self._done or self._begun:
            return ""
        self._done = True
        return _unwrapped(self._held)

    def _begin(self) -> bool:
        head = _HEAD.match(self._held)
        if head is not None:
            self._held, self._begun = self._held[head.end() :], True
        return self._begun


def _certain(text: str) -> int:
    match = _CERTAIN.match(text)
    return match.end() if match is not None else 0


def _unescaped(escape: re.Match[str]) -> str:
    """What an escape means; one that JSON does not know stays as it was written."""
    written = escape[0]
    if len(written) == 2:
        return _MEANT.get(written[1], written)
    return bytes.fromhex(written.replace("\\u", "")).decode("utf-16-be", "replace")


def _unwrapped(raw: str) -> str:
    """The text of JSON that is of another form, where it has one. An empty object holds an empty text."""
    try:
        value: Any = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return raw
    if value == {}:
        return ""
    value = value.get("input") if isinstance(value, dict) else value
    return value if isinstance(value, str) else raw
