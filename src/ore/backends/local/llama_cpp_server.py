"""The far end of the llama.cpp engine: one process, one model, llama.cpp's own HTTP server on a Unix socket.

Run as `python -m ore.backends.local.llama_cpp_server` by `engine_process`. Once it is ready only llama.cpp's C++
threads work: it refuses to let a request pass through Python.
"""

import os
import threading
from pathlib import Path
from typing import Any, Final

from ore.backends.local.far_end import NearEnd, Place, main, threads_for
from ore.backends.local.gguf_header import MEAN, GgufHeader, NotGguf, read_header
from ore.backends.local.options import DEFAULT_CONTEXT_CAP, EMBEDDING_CONTEXT_CAP
from ore.errors import StartupError

SPARE_HTTP_THREADS: Final = 32
"""Threads beside one per slot: for tokenizing, probes, and cancelled requests whose thread has not noticed yet."""

WARNINGS: Final = 2
"""llama.cpp's log level: it would tell of every request otherwise."""


IMAGE_BATCH: Final = 512
"""Tokens of a batch of a model that sees: some have to take an image in one."""


class Parameters(Place, kw_only=True):
    """The line on stdin. Sizes are in tokens but for `prompt_cache_mib`; `threads` 0 is one per core."""

    path: str
    slots: int
    context: int
    threads: int
    batch: int
    gpu_layers: int
    prompt_cache_mib: int
    embeddings: bool = False
    projector: str | None = None
    media_marker: str = ""


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
    cap = EMBEDDING_CONTEXT_CAP if parameters.embeddings else DEFAULT_CONTEXT_CAP
    per_slot = parameters.context or min(header.context_length or cap, cap)
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
    if parameters.embeddings:
        _embed(common, header, per_slot)
    if parameters.projector:
        read_header(Path(parameters.projector))
        common.mmproj.path = parameters.projector
        os.environ["LLAMA_MEDIA_MARKER"] = parameters.media_marker  # else each start makes one of its own
        common.n_batch = common.n_ubatch = max(parameters.batch, IMAGE_BATCH)
    if threads := threads_for(Path(parameters.path), parameters.threads):
        common.cpuparams.n_threads = common.cpuparams_batch.n_threads = threads
    return xllamacpp.Server(common)


def _embed(common: Any, header: GgufHeader, per_slot: int) -> None:
    """A text is taken in one batch, and becomes one vector: as the file says, else as its kind usually does."""
    import xllamacpp

    common.embedding = True
    common.n_batch = common.n_ubatch = per_slot
    common.pooling_type = xllamacpp.llama_pooling_type(header.pooling or MEAN)


if __name__ == "__main__":
    main(Parameters, run)
