"""The OpenVINO engine: one model in a process of its own, computed in batches on this machine's processor.

The near end: it refuses to import OpenVINO.
"""

from ore.backends.local.engine_process import Progress
from ore.backends.local.options import OpenVinoOptions
from ore.backends.local.worker_engine import WorkerEngine


def openvino_engine(name: str, options: OpenVinoOptions, progress: Progress | None = None) -> WorkerEngine:
    """An `Engine` for one model."""
    return WorkerEngine(name, "ore.backends.local.openvino.server", options.parameters(), progress)
