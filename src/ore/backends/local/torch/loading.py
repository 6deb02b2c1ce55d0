"""A folder as model hubs have them, read into a model of transformers: weights, tokenizer, template, limits.

Weights come from safetensors only, and code from transformers only: it refuses pickled weights and code in the folder.
"""

import json
from pathlib import Path
from typing import Any, Final

import torch
from msgspec import Struct

from ore.backends.local.batching.vocabulary import Vocabulary, from_tokenizer_json
from ore.backends.local.far_end import NearEnd
from ore.errors import StartupError

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Texts(Struct, frozen=True):
    """What a folder says about text."""

    vocabulary: Vocabulary
    chat_template: str
    bos_token: str
    eos_token: str


def device_of(name: str) -> Any:
    """`auto` is the first accelerator, or the CPU. Raises `StartupError`."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(each for each, is_there in there.items() if is_there)
    if not there[name]:
        raise StartupError(f"there is no device {name} on this machine; set device to auto")
    return torch.device(name)


def dtype_of(name: str, config: Any, device: Any) -> Any:
    """`auto` is the file's own on an accelerator; on a CPU bfloat16 where it computes with it."""
    if name != "auto":
        return DTYPES[name]
    if device.type == "cpu":
        return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32
    own = getattr(config, "dtype", None)
    return own if own in (torch.float16, torch.bfloat16) else torch.bfloat16


def load_model(folder: Path, device: str, dtype: str, near_end: NearEnd) -> Any:
    """The model on its device. Raises `StartupError`."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    if not any(folder.glob("*.safetensors")):
        raise StartupError("the folder has no .safetensors; pickled weights are never loaded: convert them first")
    where = device_of(device)
    logging.set_tqdm_hook(_progress_to(near_end))
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype_of(dtype, config, where),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
    except (ValueError, KeyError) as error:
        raise StartupError(f"transformers cannot load it: {_first_line(error)}") from error
    return model.eval().requires_grad_(requires_grad=False).to(where)


def load_texts(folder: Path) -> Texts:
    """Tokenizer and template. Raises `StartupError`."""
    if not (folder / "tokenizer.json").is_file():
        raise StartupError("the folder has no tokenizer.json; save the model's fast tokenizer there")
    source = (folder / "tokenizer.json").read_text()
    config = _json(folder / "tokenizer_config.json")
    known = {entry["content"]: entry["id"] for entry in json.loads(source).get("added_tokens", ())}
    eos = _content(config.get("eos_token"))
    ends = _ids(_json(folder / "generation_config.json")) or _ids(_json(folder / "config.json"))
    ends += [known[eos]] if eos in known and known[eos] not in ends else []
    if not ends:
        raise StartupError("nothing in the folder says which token ends an answer; set eos_token_id in config.json")
    file = folder / "chat_template.jinja"
    template = file.read_text() if file.is_file() else _template(config.get("chat_template"))
    vocabulary = from_tokenizer_json(source, ends)
    return Texts(vocabulary, template, _content(config.get("bos_token")), eos)


def context_of(config: Any) -> int:
    """What the model was trained with; 0 when it does not say."""
    return int(getattr(config.get_text_config(), "max_position_embeddings", 0) or 0)


def _ids(config: dict[str, Any]) -> list[int]:
    ids = config.get("eos_token_id")
    return [] if ids is None else list(ids) if isinstance(ids, list) else [ids]


def _content(token: Any) -> str:
    """Tokens are texts, or objects with one."""
    return str(token.get("content", "")) if isinstance(token, dict) else token or ""


def _template(said: Any) -> str:
    """One template, or a list of them by name."""
    if isinstance(said, list):
        named = {each["name"]: each["template"] for each in said}
        return str(named.get("default", ""))
    return said or ""


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _progress_to(near_end: NearEnd) -> Any:
    """A hook for transformers' progress bars: they are told, and not drawn."""

    def hook(_factory: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        return _Told(near_end, args[0] if args else options.get("iterable"), options.get("total"))

    return hook


class _Told:
    """As much of a progress bar as transformers uses."""

    def __init__(self, near_end: NearEnd, over: Any, total: int | None) -> None:
        self._near_end = near_end
        self._over = over
        self._total = total or (len(over) if hasattr(over, "__len__") else 0)
        self._done = 0

    def __iter__(self) -> Any:
        for each in self._over:
            yield each
            self.update()

    def __enter__(self) -> "_Told":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is drawn."""

    def update(self, count: int = 1) -> None:
        self._done += count
        if self._total:
            self._near_end.progress(self._done, self._total)

    def __getattr__(self, _name: str) -> Any:
        return lambda *_args, **_options: None
