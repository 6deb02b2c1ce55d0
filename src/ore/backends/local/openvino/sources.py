"""Where a model comes from: a GGUF file, a folder in OpenVINO's own format, or one with safetensors.

`found` gives the graph, the vocabulary and the facts, whichever it is. It refuses what it cannot read with the reason,
and folders without a `tokenizer.json`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import openvino
from msgspec import Struct

from ore.backends.local.batching.vocabulary import Vocabulary, from_tokenizer_json
from ore.backends.local.gguf_header import NotGguf
from ore.backends.local.openvino.architectures import GRAPH
from ore.backends.local.openvino.gguf_file import GgufFile, read_gguf
from ore.backends.local.openvino.gguf_model import model_of
from ore.backends.local.openvino.gguf_tokenizer import tokenizer_of
from ore.backends.local.openvino.safetensors_model import model_of_folder
from ore.errors import StartupError

Report = Callable[[int, int], None]
"""Called with the bytes of weights that are read, and all."""

_TURN_ENDS: Final = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>", "</s>")
"""Control tokens that end a turn, whether a file says so or not."""


class Source(Struct, frozen=True, kw_only=True):
    """A model that is read and not compiled. `context` is what it was trained with, 0 when that is not known."""

    model: openvino.Model
    vocabulary: Vocabulary
    context: int
    chat_template: str
    bos_token: str
    eos_token: str


def found(path: Path, *, weights: str, report: Report) -> Source:
    """Read the model at `path`. `weights`: see `OpenVinoOptions`. Raises `StartupError` or `OSError`."""
    if not path.is_dir():
        try:
            return _gguf(read_gguf(path), report)
        except NotGguf as error:
            raise StartupError(f"the file is not a GGUF model: {error}") from error
    if (path / GRAPH).is_file():
        return _folder(path, openvino.Core().read_model(path / GRAPH))
    if any(path.glob("*.safetensors")):
        return _folder(path, model_of_folder(path, _read_json(path / "config.json"), weights, report))
    raise StartupError(f"the folder has neither {GRAPH} nor safetensors")


def _gguf(file: GgufFile, report: Report) -> Source:
    tokens: list[str] = file.facts.get("tokenizer.ggml.tokens") or []
    if not tokens:
        raise StartupError("the file has no vocabulary")
    bos, eos = (_token(file, tokens, f"{name}_token_id") for name in ("bos", "eos"))
    special = {_token(file, tokens, f"{name}_token_id") for name in ("eos", "eot", "eom")} - {""}
    ends = [number for number, token in enumerate(tokens) if token in special or token in _TURN_ENDS]
    return Source(
        vocabulary=from_tokenizer_json(tokenizer_of(file).to_str(), ends),
        model=model_of(file, report),
        context=file.of_architecture("context_length", 0),
        chat_template=file.facts.get("tokenizer.chat_template", ""),
        bos_token=bos,
        eos_token=eos,
    )


def _token(file: GgufFile, tokens: list[str], name: str) -> str:
    number = file.facts.get(f"tokenizer.ggml.{name}")
    return tokens[number] if number is not None and number < len(tokens) else ""


def _folder(path: Path, model: openvino.Model) -> Source:
    if not (path / "tokenizer.json").is_file():
        raise StartupError(
            "the folder has no tokenizer.json; make one with: python -c 'from transformers import AutoTokenizer as T; "
            'T.from_pretrained("FOLDER").save_pretrained("FOLDER")\''
        )
    text = (path / "tokenizer.json").read_text()
    config, generation, named = (
        _read_json(path / name) for name in ("config.json", "generation_config.json", "tokenizer_config.json")
    )
    bos, eos = (_content(named.get(f"{name}_token")) for name in ("bos", "eos"))
    try:
        vocabulary = from_tokenizer_json(text, _ends(text, {*_numbers(config), *_numbers(generation)}, eos))
    except ValueError as error:
        raise StartupError(f"its tokenizer.json cannot be read ({error})") from error
    return Source(
        model=model,
        vocabulary=vocabulary,
        context=config.get("max_position_embeddings") or 0,
        chat_template=_template(path, named),
        bos_token=bos,
        eos_token=eos,
    )


def _ends(text: str, numbers: set[int], eos: str) -> list[int]:
    """The tokens that end a turn: by the folder's word, and by their names."""
    added = msgspec.json.decode(text).get("added_tokens", [])
    named = {entry["id"] for entry in added if entry["content"] == eos or entry["content"] in _TURN_ENDS}
    return sorted(numbers | named)


def _numbers(config: dict[str, Any]) -> list[int]:
    ends = config.get("eos_token_id")
    return ends if isinstance(ends, list) else [] if ends is None else [ends]


def _template(path: Path, named: dict[str, Any]) -> str:
    if (path / "chat_template.jinja").is_file():
        return (path / "chat_template.jinja").read_text()
    template = named.get("chat_template") or ""
    if isinstance(template, list):  # several by name
        return next((each["template"] for each in template if each.get("name") == "default"), "")
    return str(template)


def _content(token: Any) -> str:
    """Tokenizers name a token by its text, or by an object that has it."""
    return str(token.get("content", "") if isinstance(token, dict) else token or "")


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        decoded: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    except msgspec.DecodeError as error:
        raise StartupError(f"its {path.name} is no JSON ({error})") from error
    return decoded
