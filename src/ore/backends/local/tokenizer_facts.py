"""What a model's files say of its control tokens and its chat template, for engines that do not tell.

Reads a GGUF file, or a folder as model hubs have them. It refuses to tokenize.
"""

import re
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from ore.backends.base import JsonObject
from ore.backends.local.gguf_header import NotGguf, read_values
from ore.errors import StartupError

_CONTROL: Final = 3
"""GGUF's type of tokens that are never text."""
_PLAIN: Final = frozenset({1, 6})
"""GGUF's types of tokens that are found by the tokenizer's own rules: normal ones, and bytes."""

ENDS: Final = frozenset(
    {
        "<|im_end|>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|end|>",
        "<|return|>",
        "<end_of_turn>",
        "<turn|>",
        "<eos>",
        "</s>",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
    }
)
"""Tokens that end a turn, whatever a file says: many name one of two."""
_MESSAGE_END: Final = "<|end|>"
"""Ends a turn, but for models that have `<|return|>` for that."""


class TokenizerFacts(Struct, frozen=True, kw_only=True):
    """`special` are the tokens that stand for themselves in a prompt, and that grammars have to name; `control` are
    those of them that are not text. llguidance takes every added token in angle brackets for a special one, whatever
    its file says."""

    special: frozenset[str] = frozenset()
    control: frozenset[str] = frozenset()
    bos_token: str = ""
    eos_token: str = ""
    chat_template: str = ""

    @property
    def ends(self) -> frozenset[str]:
        """The tokens that end a turn."""
        known = ENDS & self.special
        if "<|return|>" in known:
            known -= {_MESSAGE_END}
        return known | ({self.eos_token} if self.eos_token else set())


def read_tokenizer_facts(path: Path) -> TokenizerFacts:
    """Of a GGUF file, or of a folder. Raises `StartupError` or `OSError`."""
    try:
        return _of_folder(path) if path.is_dir() else _of_gguf(path)
    except NotGguf as error:
        raise StartupError(f"the file is not a GGUF model: {error}") from error
    except msgspec.DecodeError as error:
        raise StartupError(f"a JSON file in the model's folder is damaged: {error}") from error


def _of_gguf(path: Path) -> TokenizerFacts:
    head = "tokenizer.ggml."
    names = [f"{head}{name}" for name in ("tokens", "token_type", "bos_token_id", "eos_token_id")]
    said = read_values(path, {*names, "tokenizer.chat_template"})
    tokens, types, bos, eos = (said.get(name) for name in names)
    if not tokens:
        raise StartupError("the file has no vocabulary; use a conversion that has one")
    typed = list(zip(tokens, types or [1] * len(tokens), strict=False))
    return TokenizerFacts(
        special=frozenset(token for token, kind in typed if kind not in _PLAIN),
        control=frozenset(token for token, kind in typed if kind == _CONTROL),
        bos_token=_at(tokens, bos),
        eos_token=_at(tokens, eos),
        chat_template=said.get("tokenizer.chat_template") or "",
    )


def _at(tokens: list[str], place: int | None) -> str:
    return tokens[place] if place is not None and place < len(tokens) else ""


def _of_folder(folder: Path) -> TokenizerFacts:
    added = _json(folder / "tokenizer.json").get("added_tokens", [])
    control = frozenset(token["content"] for token in added if token.get("special"))
    bracketed = frozenset(token["content"] for token in added if re.fullmatch("<.+>", token["content"]))
    about = _json(folder / "tokenizer_config.json")
    return TokenizerFacts(
        special=control | bracketed,
        control=control,
        bos_token=_token(about.get("bos_token")),
        eos_token=_token(about.get("eos_token")),
        chat_template=_template(folder, about),
    )


def _template(folder: Path, about: JsonObject) -> str:
    """The folder's own file first; of several templates in the configuration, the one for everything."""
    if (own := folder / "chat_template.jinja").exists():
        return own.read_text("utf-8")
    said = about.get("chat_template") or ""
    if isinstance(said, str):
        return said
    named = {each.get("name"): each.get("template", "") for each in said}
    return str(named.get("default", ""))


def _token(said: Any) -> str:
    """A token is written as a string, or as an object with its content."""
    return str(said.get("content", "")) if isinstance(said, dict) else str(said or "")


def _json(path: Path) -> JsonObject:
    read: JsonObject = msgspec.json.decode(path.read_bytes(), type=dict) if path.exists() else {}
    return read
