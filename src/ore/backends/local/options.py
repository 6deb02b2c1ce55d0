"""What one local model is started with: `EngineOptions` and what each engine adds, resolved by the composition root.

Plain values for the engines' processes and for admission. It refuses to look for files or to read settings by itself.
"""

from pathlib import Path
from typing import Final

from msgspec import Struct, structs

from ore.backends.base import JsonObject

DEFAULT_TEMPERATURE: Final = 0.7
DEFAULT_TOP_P: Final = 0.95

DEFAULT_CONTEXT_CAP: Final = 8192
"""Most tokens per slot when nobody asked for a size: models are trained for contexts that no small machine can hold."""

EMBEDDING_CONTEXT_CAP: Final = 2048
"""The same for a model that embeds: it takes a text in one batch, whose memory grows with the context."""


class EngineOptions(Struct, frozen=True, kw_only=True):
    """One model and how to run it, whatever the engine. The fields mean what the settings say about them."""

    path: Path
    """A file, or a folder as model hubs have them."""
    slots: int = 4
    queue: int = 256
    context: int = 0
    """Tokens of each slot; 0 takes what the model was trained with, up to `DEFAULT_CONTEXT_CAP`."""
    threads: int = 0
    temperature: float = DEFAULT_TEMPERATURE
    top_p: float = DEFAULT_TOP_P

    def parameters(self) -> JsonObject:
        """What a far end is told, in JSON's types; each takes the fields that it knows."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in structs.asdict(self).items()}

    @property
    def sees(self) -> bool:
        """Whether the model is loaded with what it sees images by."""
        return False


class TorchOptions(EngineOptions, frozen=True, kw_only=True):
    """`[torch]`. `function` is the one in `path` that makes a model of the user's own; empty: `path` is a folder."""

    function: str = ""
    adapter: str = ""
    device: str = "auto"
    dtype: str = "auto"
    quantize: str = "none"
    kv_cache_mib: int = 1024
    prefill: int = 512


class LlamaCppOptions(EngineOptions, frozen=True, kw_only=True):
    """`[llama_cpp]`."""

    batch: int = 128
    gpu_layers: int = -1
    prompt_cache_mib: int = 64
    embeddings: bool = False
    """Whether it is loaded to embed, and for nothing else."""
    projector: Path | None = None
    """The file with which it sees images."""

    @property
    def sees(self) -> bool:
        return self.projector is not None


class OpenVinoOptions(EngineOptions, frozen=True, kw_only=True):
    """`[openvino]`."""

    prefill: int = 512
    device: str = "CPU"
    kv_cache_mib: int = 1024
    kv_precision: str = "auto"
    weights: str = "auto"


class CandleOptions(EngineOptions, frozen=True, kw_only=True):
    """`[candle]`."""

    slots: int = 1
    isq: str = ""
    prefix_cache: int = 16
    paged_attention: bool = True
