"""What a function of the user returns to have a module of its own served: `OwnModel`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class OwnModel(NamedTuple):
    """A module and what is needed to talk with it.

    `module(input_ids)` gets whole numbers of the shape (sequences, tokens), padded at the right with 0, and returns
    logits of the shape (sequences, tokens, vocabulary), or an object with such `logits`. It must be causal: what comes
    later must not change what came before. Nothing is cached; each step computes everything anew.
    """

    module: Callable[[Any], Any]
    tokenizer: Any
    """A `tokenizer.json` (its path), an object of `tokenizers` or transformers that has one, or an object of your own
    with `pieces`, the bytes of each token in order, and `encode(text)`, which returns tokens."""
    context: int
    """Tokens that prompt and answer may take together."""
    end_tokens: Sequence[int]
    """Tokens that end an answer; at least one."""
    chat_template: str = ""
    """In jinja, as transformers has them. Empty: roles and texts, a line each."""

    def tokenizer_json(self) -> str | None:
        """The tokenizer as text, if it is one that can be."""
        if isinstance(self.tokenizer, str | Path):
            return Path(self.tokenizer).read_text()
        inner = getattr(self.tokenizer, "backend_tokenizer", self.tokenizer)
        return inner.to_str() if hasattr(inner, "to_str") else None
