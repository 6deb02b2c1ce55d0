"""Where the pieces of an answer are shown: a terminal, or two streams that may be piped.

On a terminal, control characters are dropped: a model must not steer it.
"""

import re
import sys
from typing import Final, Protocol

import click

from ore.commands.conversation import Piece


class Screen(Protocol):
    """Where pieces are shown. `end` closes an answer."""

    def show(self, piece: Piece) -> None: ...

    def end(self) -> None: ...


def screen() -> Screen:
    return Terminal() if sys.stdout.isatty() else Plain()


class Plain:
    """The answer to standard output as it comes, the rest to standard error; reasoning is left out."""

    def __init__(self) -> None:
        self._line_open = False

    def show(self, piece: Piece) -> None:
        if piece.kind == "text":
            click.echo(piece.text, nl=False)
            self._line_open = not piece.text.endswith("\n")
        elif piece.kind != "reasoning":
            self.end()
            click.echo(f"{piece.kind}: {piece.text}", err=True)

    def end(self) -> None:
        if self._line_open:
            click.echo()
        self._line_open = False


CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_STYLES: Final = {"text": "", "reasoning": "dim italic", "tool": "cyan", "note": "yellow", "error": "red"}


class Terminal:
    """Everything in its own style. Text flows; a change of kind starts a new line."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._line_open = False
        self._kind = ""

    def show(self, piece: Piece) -> None:
        if piece.kind != self._kind:
            self.end()
        self._kind = piece.kind
        text = CONTROL.sub("", piece.text)
        if piece.kind in ("tool", "note", "error"):
            text = f"{piece.kind}: {text}\n"
        if text:
            self._console.print(text, style=_STYLES[piece.kind], end="")
            self._line_open = not text.endswith("\n")

    def end(self) -> None:
        if self._line_open:
            self._console.print()
        self._line_open = False
        self._kind = ""
