"""The far end of the OpenVINO engine: one process, one model, driven by the batching scheduler.

Run as `python -m ore.backends.local.openvino.server` by `engine_process`. It refuses to write anything to the disk.
"""

from pathlib import Path

from ore.backends.local.batching.scheduler import BatchingWorker
from ore.backends.local.engine import Facts
from ore.backends.local.far_end import NearEnd, Place, main, threads_for
from ore.backends.local.openvino.paged import PagedModel
from ore.backends.local.openvino.runner import OpenVinoRunner, blocks_for
from ore.backends.local.openvino.sources import found
from ore.backends.local.options import DEFAULT_CONTEXT_CAP
from ore.backends.local.worker_server import serve_worker


class Parameters(Place, kw_only=True):
    """The line on stdin: of `OpenVinoOptions`."""

    path: str
    slots: int
    context: int
    threads: int
    prefill: int
    device: str
    kv_cache_mib: int
    kv_precision: str
    weights: str


def run(parameters: Parameters, near_end: NearEnd) -> None:
    """Serve until the process ends."""
    worker = make_worker(parameters, near_end)
    serve_worker(worker, parameters.socket, parameters.api_key, near_end.ready)


def make_worker(parameters: Parameters, near_end: NearEnd) -> BatchingWorker:
    """Load the model."""
    path = Path(parameters.path)
    source = found(path, weights=parameters.weights, report=near_end.progress)
    threads = threads_for(path, parameters.threads)
    precision = "" if parameters.kv_precision == "auto" else parameters.kv_precision
    model = PagedModel(source.model, device=parameters.device, threads=threads, kv_precision=precision)
    context = parameters.context or min(source.context or DEFAULT_CONTEXT_CAP, DEFAULT_CONTEXT_CAP)
    facts = Facts(
        context=context,
        chat_template=source.chat_template,
        bos_token=source.bos_token,
        eos_token=source.eos_token,
        adds_bos=source.vocabulary.adds_bos,
    )
    blocks = blocks_for(model, slots=parameters.slots, context=context, mib=parameters.kv_cache_mib)
    runner = OpenVinoRunner(model, blocks)
    return BatchingWorker(runner, source.vocabulary, facts, slots=parameters.slots, prefill=parameters.prefill)


if __name__ == "__main__":
    main(Parameters, run)
