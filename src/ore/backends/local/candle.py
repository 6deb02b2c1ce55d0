"""Candle, through mistral.rs: one GGUF file or folder of safetensors in a process of its own.

The near end; what it can and cannot do stands at the far one, `candle_worker`.
"""

from typing import Final

from ore.backends.local.engine_process import Progress
from ore.backends.local.options import CandleOptions
from ore.backends.local.worker_engine import WorkerEngine

FAR_END: Final = "ore.backends.local.candle_worker"


def candle(name: str, options: CandleOptions, progress: Progress | None = None) -> WorkerEngine:
    """An `Engine` for the model that the options name."""
    return WorkerEngine(name, FAR_END, options.parameters(), progress)
