"""The far end of the PyTorch engine: `python -m ore.backends.local.torch.worker` loads a model and serves it."""

import importlib.util
import sys
from pathlib import Path
from typing import Any, Final

import torch

from ore.backends.local.batching.runner import Runner
from ore.backends.local.batching.scheduler import BatchingWorker
from ore.backends.local.batching.vocabulary import Vocabulary, from_pieces, from_tokenizer_json
from ore.backends.local.engine import Facts
from ore.backends.local.far_end import NearEnd, Place, main
from ore.backends.local.options import DEFAULT_CONTEXT_CAP
from ore.backends.local.torch.loading import context_of, device_of, load_model, load_texts
from ore.backends.local.torch.lora import merge_adapter
from ore.backends.local.torch.own_model import OwnModel
from ore.backends.local.torch.paged_runner import PagedRunner
from ore.backends.local.torch.quantization import quantize
from ore.backends.local.torch.recompute_runner import RecomputeRunner
from ore.backends.local.worker_server import serve_worker
from ore.errors import StartupError

PLAIN_TEMPLATE: Final = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant: "
)
"""For models that bring none."""


class Parameters(Place, kw_only=True):
    """The line on stdin: `TorchOptions`, with paths as text."""

    path: str
    function: str = ""
    slots: int = 4
    context: int = 0
    threads: int = 0
    device: str = "auto"
    dtype: str = "auto"
    quantize: str = "none"
    kv_cache_mib: int = 1024
    prefill: int = 512
    adapter: str = ""


def serve(parameters: Parameters, near_end: NearEnd) -> None:
    """Load, then work until the process ends."""
    if parameters.threads:
        torch.set_num_threads(parameters.threads)
    load = _own if parameters.function else _of_transformers
    serve_worker(load(parameters, near_end), parameters.socket, parameters.api_key, near_end.ready)


def _of_transformers(parameters: Parameters, near_end: NearEnd) -> BatchingWorker:
    folder = Path(parameters.path)
    texts = load_texts(folder)
    model = load_model(folder, parameters.device, parameters.dtype, near_end)
    if parameters.adapter:
        merge_adapter(model, Path(parameters.adapter))
    if parameters.quantize == "int8":
        quantize(model)
    wanted = parameters.context or min(context_of(model.config) or DEFAULT_CONTEXT_CAP, DEFAULT_CONTEXT_CAP)
    runner = PagedRunner(model, parameters.kv_cache_mib * 2**20, wanted * parameters.slots)
    context = min(wanted, runner.block_count * runner.block_tokens)
    if parameters.context > context:
        raise StartupError(f"its keys and values for {wanted} tokens need more than kv_cache_mib; raise that setting")
    facts = Facts(
        context=context,
        chat_template=texts.chat_template or PLAIN_TEMPLATE,
        bos_token=texts.bos_token,
        eos_token=texts.eos_token,
        adds_bos=texts.vocabulary.adds_bos,
    )
    return _worker(parameters, runner, texts.vocabulary, facts, reuses=True)


def _own(parameters: Parameters, _near_end: NearEnd) -> BatchingWorker:
    own = _made(parameters.path, parameters.function)
    source = own.tokenizer_json()
    if source is not None:
        vocabulary = from_tokenizer_json(source, own.end_tokens)
    else:
        vocabulary = from_pieces(own.tokenizer.pieces, lambda text, *_: own.tokenizer.encode(text), own.end_tokens)
    device = device_of(parameters.device)
    if isinstance(own.module, torch.nn.Module):
        own.module.eval().to(device)
    context = parameters.context or own.context
    facts = Facts(context=context, chat_template=own.chat_template or PLAIN_TEMPLATE, adds_bos=vocabulary.adds_bos)
    runner = RecomputeRunner(own.module, context * parameters.slots, device)
    return _worker(parameters, runner, vocabulary, facts, reuses=False)


def _worker(
    parameters: Parameters, runner: Runner, vocabulary: Vocabulary, facts: Facts, *, reuses: bool
) -> BatchingWorker:
    return BatchingWorker(runner, vocabulary, facts, slots=parameters.slots, prefill=parameters.prefill, reuses=reuses)


def _made(module: str, function: str) -> OwnModel:
    """What the user's function returns. Raises `StartupError`."""
    made = getattr(_module(module), function, None)
    own = made() if callable(made) else None
    if not isinstance(own, OwnModel):
        raise StartupError(f"{function} is no function there that returns an ore.backends.local.torch.OwnModel")
    return own


def _module(name: str) -> Any:
    """The user's file as a module; what lies beside it can be imported."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, name)
    if spec is None or spec.loader is None or not Path(name).is_file():
        raise StartupError("there is no such Python file")
    sys.path.insert(0, str(Path(name).parent))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(Parameters, serve)
