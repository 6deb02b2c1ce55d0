"""The far end of the llama.cpp engine: one process, one model, llama.cpp's own HTTP server on a Unix socket.

Run as `python -m ore.backends.local.llama_cpp_server` by `engine_process`, with one JSON line of parameters on
stdin. It answers with one JSON line on stdout, `{"ready": true}` or `{"error": "..."}`, and then only llama.cpp's C++
threads work; no request passes through Python. It refuses to outlive its parent: when stdin ends, so does the process.
"""

import os
import shutil
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, Final

import msgspec

from ore.backends.local.gguf_header import NotGguf, read_header

DEFAULT_CONTEXT_CAP: Final = 8192
"""Most tokens per slot when nobody asked for a size: models are trained for contexts that no small machine can hold."""

SPARE_HTTP_THREADS: Final = 32
"""Threads beside one per slot: for tokenizing, probes, and cancelled requests whose thread has not noticed yet."""

WARNINGS: Final = 2
"""llama.cpp's log level: it would tell of every request otherwise."""

ONE_THREAD_BYTES: Final = 32 * 1024 * 1024
"""A smaller file is decoded by one thread, unless a number was asked for: its layers are so short that threads spend
their time waiting for each other, and on a busy machine a token takes 200 ms instead of 0.2 (measured)."""


class Parameters(msgspec.Struct, kw_only=True):
    """The line on stdin. Sizes are in tokens but for `prompt_cache_mib`; `threads` 0 is one per core."""

    path: str
    socket: str
    api_key: str
    slots: int
    context: int
    threads: int
    batch: int
    gpu_layers: int
    prompt_cache_mib: int


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _keep_stdout_for_us()
    parameters = msgspec.json.decode(sys.stdin.buffer.readline(), type=Parameters)
    threading.Thread(target=_die_with_parent, args=[Path(parameters.socket).parent], daemon=True).start()
    try:
        server = serve(parameters)
    except NotGguf as error:
        _say({"error": f"the file is not a GGUF model: {error}"})
        os._exit(1)
    except OSError as error:
        _say({"error": f"the file cannot be read ({error.strerror})"})
        os._exit(1)
    except Exception as error:
        traceback.print_exc()
        _say({"error": str(error) or type(error).__name__})
        os._exit(1)
    _say({"ready": True})
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


def _keep_stdout_for_us() -> None:
    """What libraries print goes to stderr: the near end reads one line of ours from stdout, and never again."""
    ours = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(ours, "w")


def _die_with_parent(folder: Path) -> None:
    """A parent that was killed leaves the socket's folder behind; one that was not removes it itself."""
    while sys.stdin.buffer.read(4096):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def _say(line: dict[str, Any]) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
