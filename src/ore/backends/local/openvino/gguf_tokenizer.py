"""Builds the tokenizer of a GGUF file's vocabulary: a `tokenizers.Tokenizer` that cuts text as llama.cpp does.

Byte-level vocabularies (`gpt2`) are built from their tokens and merges, with the pattern that the file names;
SentencePiece ones (`llama`) from their tokens and scores. It refuses patterns and kinds that it does not know, by name.
"""

from collections.abc import Iterable
from typing import Any, Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from ore.backends.local.openvino.gguf_file import GgufFile
from ore.errors import StartupError

UNKNOWN, CONTROL, USER_DEFINED, BYTE = 2, 3, 4, 6
"""GGUF's numbers of the types of tokens that are not just text."""

_PLAIN: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_MODERN: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ONE_BY_ONE: Final = r"\p{N}"

_PLAIN_ALONE: Final = (_PLAIN,)
_PLAIN_AFTER_DIGITS: Final = (_ONE_BY_ONE, _PLAIN)
_DIGIT_BY_DIGIT: Final = (_MODERN.replace("DIGITS", r"\p{N}"),)
_THREE_DIGITS: Final = (_MODERN.replace("DIGITS", r"\p{N}{1,3}"),)

_PATTERNS: Final = {
    "gpt-2": _PLAIN_ALONE,
    "gpt2": _PLAIN_ALONE,
    "olmo": _PLAIN_ALONE,
    "smollm": _PLAIN_AFTER_DIGITS,
    "starcoder": _PLAIN_AFTER_DIGITS,
    "refact": _PLAIN_AFTER_DIGITS,
    "command-r": _PLAIN_AFTER_DIGITS,
    "qwen2": _DIGIT_BY_DIGIT,
    "deepseek-r1-qwen": _DIGIT_BY_DIGIT,
    "stablelm2": _DIGIT_BY_DIGIT,
    "llama-bpe": _THREE_DIGITS,
    "llama3": _THREE_DIGITS,
    "llama-v3": _THREE_DIGITS,
    "dbrx": _THREE_DIGITS,
    "smaug-bpe": _THREE_DIGITS,
}
"""By the file's name of its pattern: where text is cut before merges, one cut after the other."""

_WHOLE_WORDS_FIRST: Final = {"llama-bpe", "llama3", "llama-v3"}
"""Patterns whose pieces are looked up whole before they are merged."""


def tokenizer_of(file: GgufFile) -> Tokenizer:
    """The tokenizer of the file. Raises `StartupError`."""
    kind = file.facts.get("tokenizer.ggml.model", "none")
    if kind not in _BUILDERS:
        raise StartupError(f'its vocabulary is of the kind {kind}, which is not known here; use engine = "llama_cpp"')
    tokens: list[str] = file.facts["tokenizer.ggml.tokens"]
    tokenizer = _BUILDERS[kind](file, tokens)
    types = file.facts.get("tokenizer.ggml.token_type") or []
    special = [token for token, kept in zip(tokens, types, strict=False) if kept == CONTROL]
    defined = [token for token, kept in zip(tokens, types, strict=False) if kept == USER_DEFINED]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in defined])
    bos = file.facts.get("tokenizer.ggml.bos_token_id")
    if bos is not None and file.facts.get("tokenizer.ggml.add_bos_token", kind == "llama"):
        opens = f"{tokens[bos]}:0 $A:0"
        tokenizer.post_processor = processors.TemplateProcessing(single=opens, special_tokens=[(tokens[bos], bos)])
    return tokenizer


def _byte_level(file: GgufFile, tokens: list[str]) -> Tokenizer:
    name = file.facts.get("tokenizer.ggml.pre", "default")
    if name not in _PATTERNS:
        raise StartupError(
            f'its vocabulary cuts text in the way {name}, which is not known here; use engine = "llama_cpp"'
        )
    merges = [tuple(merge.split(" ", 1)) for merge in file.facts.get("tokenizer.ggml.merges", [])]
    tokenizer = Tokenizer(models.BPE(_numbered(tokens), merges, ignore_merges=name in _WHOLE_WORDS_FIRST))
    cuts: list[Any] = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in _PATTERNS[name]]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentence_piece(file: GgufFile, tokens: list[str]) -> Tokenizer:
    """Two pieces merge when their union is a token; the one with the highest score first."""
    types = file.facts.get("tokenizer.ggml.token_type") or []
    unknown = next((token for token, kept in zip(tokens, types, strict=False) if kept == UNKNOWN), None)
    merges = _merges_by_score(tokens, file.facts["tokenizer.ggml.scores"])
    tokenizer = Tokenizer(
        models.BPE(_numbered(tokens), list(merges), unk_token=unknown, byte_fallback=True, fuse_unk=True)
    )
    spaces = [normalizers.Replace(" ", "▁")]
    prefix = file.facts.get("tokenizer.ggml.add_space_prefix", True)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), *spaces] if prefix else spaces)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        + ([decoders.Strip(" ", 1, 0)] if prefix else [])
    )
    return tokenizer


_BUILDERS: Final = {"gpt2": _byte_level, "llama": _sentence_piece}


def _merges_by_score(tokens: list[str], scores: list[float]) -> Iterable[tuple[str, str]]:
    numbers = _numbered(tokens)
    for token in sorted(numbers, key=lambda token: (-scores[numbers[token]], numbers[token])):
        pairs = ((token[:at], token[at:]) for at in range(1, len(token)))
        known = [pair for pair in pairs if pair[0] in numbers and pair[1] in numbers]
        yield from sorted(known, key=lambda pair: (numbers[pair[0]], numbers[pair[1]]))


def _numbered(tokens: list[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(tokens)}
