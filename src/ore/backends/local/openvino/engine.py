"""The OpenVINO engine: one model in a process of its own, computed in batches on this machine's processor.

The near end: it refuses to import OpenVINO.
"""

from ore.backends.local.engine_process import Progress
from ore.backends.local.options import OpenVinoOptions
from ore.backends.local.worker_engine import WorkerEngine


def openvino_engine(name: str, options: OpenVinoOptions, progress: Progress | None = None) -> WorkerEngine:
    """An `Engine` for one model."""
    parameters = {
        "path": str(options.path),
        "slots": options.slots,
        "context": options.context,
        "threads": options.threads,
        "prefill": options.prefill,
        "device": options.device,
        "kv_cache_mib": options.kv_cache_mib,
        "kv_precision": "" if options.kv_precision == "auto" else options.kv_precision,
        "weights": options.weights,
    }
    return WorkerEngine(name, "ore.backends.local.openvino.server", parameters, progress)
