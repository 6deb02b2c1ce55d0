"""The far end of the llama.cpp engine: one process, one model, llama.cpp's own HTTP server on a Unix socket.

Run as `python -m ore.backends.local.llama_cpp_server` by `engine_process`. Once it is ready only llama.cpp's C++
threads work: it refuses to let a request pass through Python.
"""

import threading
from pathlib import Path
from typing import Any, Final

from ore.backends.local.far_end import NearEnd, Place, main
from ore.backends.local.gguf_header import NotGguf, read_header
from ore.backends.local.options import DEFAULT_CONTEXT_CAP, ONE_THREAD_BYTES
from ore.errors import StartupError

SPARE_HTTP_THREADS: Final = 32
"""Threads beside one per slot: for tokenizing, probes, and cancelled requests whose thread has not noticed yet."""

WARNINGS: Final = 2
"""llama.cpp's log level: it would tell of every request otherwise."""


class Parameters(Place, kw_only=True):
    """The line on stdin. Sizes are in tokens but for `prompt_cache_mib`; `threads` 0 is one per core."""

    path: str
    slots: int
    context: int
    threads: int
    batch: int
    gpu_layers: int
    prompt_cache_mib: int


def run(parameters: Parameters, near_end: NearEnd) -> None:
    """Serve until the process ends."""
    try:
        server = serve(parameters)
    except NotGguf as error:
        raise StartupError(f"the file is not a GGUF model: {error}") from error
    near_end.ready()
    threading.Event().wait()
    del server


def serve(parameters: Parameters) -> Any:
    """Load the model and listen; returns the running server, which must be kept."""
    import xllamacpp

    header = read_header(Path(parameters.path))
    per_slot = parameters.context or min(header.context_length or DEFAULT_CONTEXT_CAP, DEFAULT_CONTEXT_CAP)
    common = xllamacpp.CommonParams()
    common.model.path = parameters.path
    common.hostnames = [parameters.socket]
    common.api_keys = [parameters.api_key]
    common.n_parallel = parameters.slots
    common.n_ctx = per_slot * parameters.slots
    common.kv_unified = False
    common.n_batch = common.n_ubatch = parameters.batch
    common.cache_ram_mib = parameters.prompt_cache_mib
    common.n_threads_http = parameters.slots + SPARE_HTTP_THREADS
    common.n_gpu_layers = parameters.gpu_layers
    common.fit_params = False
    common.ui = False
    common.endpoint_slots = True
    common.endpoint_metrics = False
    common.offline = True
    common.verbosity = WARNINGS
    common.warmup = True
    if threads := parameters.threads or int(Path(parameters.path).stat().st_size < ONE_THREAD_BYTES):
        common.cpuparams.n_threads = common.cpuparams_batch.n_threads = threads
    return xllamacpp.Server(common)


if __name__ == "__main__":
    main(Parameters, run)
