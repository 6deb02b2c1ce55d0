"""The near end of the PyTorch engine. It refuses to import torch: its far end is `worker`."""

from ore.backends.local.engine_process import Progress
from ore.backends.local.options import TorchOptions
from ore.backends.local.worker_engine import WorkerEngine

FAR_END = "ore.backends.local.torch.worker"


def torch_engine(name: str, options: TorchOptions, progress: Progress | None = None) -> WorkerEngine:
    """An `Engine`, not started."""
    parameters = {
        "path": str(options.path),
        "function": options.function,
        "adapter": options.adapter,
        "slots": options.slots,
        "context": options.context,
        "threads": options.threads,
        "device": options.device,
        "dtype": options.dtype,
        "quantize": options.quantize,
        "kv_cache_mib": options.kv_cache_mib,
        "prefill": options.prefill,
    }
    return WorkerEngine(name, FAR_END, parameters, progress)
