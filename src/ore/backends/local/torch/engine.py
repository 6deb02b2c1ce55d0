"""The near end of the PyTorch engine. It refuses to import torch: its far end is `process`."""

from typing import Final

from ore.backends.local.engine_process import Progress
from ore.backends.local.options import TorchOptions
from ore.backends.local.worker_engine import WorkerEngine

FAR_END: Final = "ore.backends.local.torch.process"


def torch_engine(name: str, options: TorchOptions, progress: Progress | None = None) -> WorkerEngine:
    """An `Engine`, not started."""
    return WorkerEngine(name, FAR_END, options.parameters(), progress)
