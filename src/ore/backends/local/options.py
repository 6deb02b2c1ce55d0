"""What one local model is started with: `EngineOptions`, resolved by the composition root.

Plain values for the engine process and for admission. It refuses to look for files or to read settings by itself.
"""

from pathlib import Path
from typing import Final

from msgspec import Struct

DEFAULT_TEMPERATURE: Final = 0.7
DEFAULT_TOP_P: Final = 0.95


class EngineOptions(Struct, frozen=True, kw_only=True):
    """One model file and how to run it. The fields mean what `[llama_cpp]` says about them."""

    path: Path
    slots: int = 4
    queue: int = 256
    context: int = 0
    """Tokens of each slot; 0 takes what the model was trained with, up to `llama_cpp_server.DEFAULT_CONTEXT_CAP`."""
    threads: int = 0
    batch: int = 128
    gpu_layers: int = -1
    prompt_cache_mib: int = 64
    temperature: float = DEFAULT_TEMPERATURE
    top_p: float = DEFAULT_TOP_P
