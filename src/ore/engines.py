"""From the settings of models to backends that run them on this machine: which engine, with which options.

Part of the composition root. `ENGINES` has a row for each engine; heavy packages are imported by the engine's own
process, and by nothing here. It refuses to guess: what no installed engine can run is a `StartupError` with the fix.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

from msgspec import structs

from ore.backends.base import Backend
from ore.backends.local.auto import Choice, suited
from ore.backends.local.memory import expected_bytes, machine_bytes
from ore.backends.residence import Loadable, OnDemand, Residence, Resident
from ore.errors import StartupError
from ore.settings import (
    EngineSettings,
    ModelSettings,
    Settings,
    code_reference,
    hub_reference,
    model_file,
    model_kind,
)

Progress = Callable[[str, int, int | None], None]
"""Called with a name, the part that is done, and all if that is known, while a model is downloaded or loaded."""


SHARE_FOR_MODELS: Final = 0.8
"""Of the machine's memory, when nobody says how much models may take."""


async def make_backends(settings: Settings, progress: Progress | None) -> dict[str, Backend]:
    """One backend for each configured model. Files on a hub are downloaded first. Raises `StartupError`."""
    residence = Residence(_budget(settings))
    return {name: await _made(settings, name, model, residence, progress) for name, model in settings.models.items()}


async def _made(
    settings: Settings, name: str, model: ModelSettings, residence: Residence, progress: Progress | None
) -> Backend:
    path = await fetched(settings, name, model.path, progress)
    adapter = None if model.adapter is None else await fetched(settings, name, model.adapter, progress)
    if not path.exists():
        raise StartupError(f"The model {name!r} cannot be loaded: there is no {path}. Correct its path.")
    projector = await fetched(settings, name, model.projector, progress) if model.projector else None
    engine = chosen(path, model).engine
    row = ENGINES[engine]
    backend = row.make(Order(name, path, model, settings, progress, projector, adapter))
    if row.stays:
        return backend
    keep_alive = settings.local.keep_alive if model.keep_alive is None else model.keep_alive
    resident = Resident(name, backend, engine=engine, needs=expected_bytes(path), keep_alive=keep_alive)
    load = model.load or ("start" if name == settings.default_model else "use")
    return OnDemand(resident, residence, at_start=load == "start")


def _budget(settings: Settings) -> int | None:
    """Bytes for all models."""
    if settings.local.memory_mib:
        return settings.local.memory_mib << 20
    machine = machine_bytes()
    return None if machine is None else int(machine * SHARE_FOR_MODELS)


class Order(NamedTuple):
    """A model that is wanted."""

    name: str
    path: Path
    model: ModelSettings
    settings: Settings
    progress: Progress | None
    projector: Path | None = None
    adapter: Path | None = None
    """A folder whose weights are added to the model's."""

    def report(self, done: int, total: int) -> None:
        """How far loading is."""
        if self.progress is not None:
            self.progress(self.name, done, total)


class EngineRow(NamedTuple):
    """An engine: what makes a backend of an order, and the package and extra that it needs."""

    make: Callable[[Order], Loadable]
    package: str
    extra: str = ""
    stays: bool = False
    """Whether its models are so small that they are always in memory."""

    @property
    def installed(self) -> bool:
        return find_spec(self.package) is not None


def _llama_cpp(order: Order) -> Loadable:
    from ore.backends.images import check_installed
    from ore.backends.local.embedding_model import EmbeddingModel
    from ore.backends.local.llama_cpp import LlamaCpp
    from ore.backends.local.local_model import LocalModel
    from ore.backends.local.options import LlamaCppOptions

    section = order.settings.llama_cpp
    options = LlamaCppOptions(
        **options_of(order, section),
        embeddings=_embeds(order),
        projector=order.projector,
    )
    if order.projector is not None:
        check_installed()
    engine = LlamaCpp(order.name, options, order.report)
    return (EmbeddingModel if options.embeddings else LocalModel)(order.name, options, engine)


def _embeds(order: Order) -> bool:
    """Whether a GGUF file is to be loaded to embed. What cannot be read is left for the engine to say.

    Raises `StartupError` for a file that can do neither.
    """
    from ore.backends.local.gguf_header import EMBEDDING_ARCHITECTURES, NotGguf, read_header

    wanted = order.model.embeddings
    try:
        header = read_header(order.path)
    except (NotGguf, OSError):
        return bool(wanted)
    if header.ranks:
        raise StartupError(
            f"The model {order.name!r} is a reranker: it judges pairs of texts, and neither answers nor embeds. "
            "Take it out of the settings."
        )
    if wanted is False and header.architecture in EMBEDDING_ARCHITECTURES:
        raise StartupError(
            f"The model {order.name!r} can only make embeddings. Take its embeddings = false out of the settings."
        )
    return header.embeds if wanted is None else wanted


def _sklearn(order: Order) -> Loadable:
    from ore.backends.classical import Classical, ClassicalOptions

    section = order.settings.sklearn
    return Classical(order.name, ClassicalOptions(path=order.path, queue=section.queue, max_rows=section.max_rows))


def _openvino(order: Order) -> Loadable:
    from ore.backends.local.local_model import LocalModel
    from ore.backends.local.openvino.engine import openvino_engine
    from ore.backends.local.options import OpenVinoOptions

    section = order.settings.openvino
    options = OpenVinoOptions(**options_of(order, section))
    return LocalModel(order.name, options, openvino_engine(order.name, options, order.report))


def _torch(order: Order) -> Loadable:
    from ore.backends.local.local_model import LocalModel
    from ore.backends.local.options import TorchOptions
    from ore.backends.local.torch.engine import torch_engine

    section, code = order.settings.torch, code_reference(order.model.path)
    options = TorchOptions(
        **options_of(order, section),
        function=code.function if code else "",
        adapter=str(order.adapter or ""),
    )
    return LocalModel(order.name, options, torch_engine(order.name, options, order.report))


def _candle(order: Order) -> Loadable:
    from ore.backends.local.candle import candle
    from ore.backends.local.local_model import LocalModel
    from ore.backends.local.options import CandleOptions

    section = order.settings.candle
    options = CandleOptions(**options_of(order, section))
    return LocalModel(order.name, options, candle(order.name, options, order.report))


ENGINES: Final = {
    "llama_cpp": EngineRow(_llama_cpp, "xllamacpp"),
    "sklearn": EngineRow(_sklearn, "sklearn", extra="sklearn", stays=True),
    "openvino": EngineRow(_openvino, "openvino", "openvino"),
    "torch": EngineRow(_torch, "torch", "torch"),
    "candle": EngineRow(_candle, "mistralrs", "candle"),
}
"""By the names that settings use."""


def chosen(path: Path, model: ModelSettings) -> Choice:
    """The engine for a model. Raises `StartupError` when it is not installed."""
    choice = _suited(path, model) if model.engine == "auto" else Choice(model.engine, "as set")
    if model.adapter is not None and choice.engine != "torch":
        raise StartupError(
            f'The engine {choice.engine} takes no adapter; leave one of them out, or set engine = "torch".'
        )
    if not is_installed(choice.engine):
        raise StartupError(
            f"The engine {choice.engine} is needed ({choice.why}) and not installed; install it with: "
            f"{install_command(choice.engine)}"
        )
    return choice


def _suited(path: Path, model: ModelSettings) -> Choice:
    return suited(path, is_installed) if model.adapter is None else Choice("torch", "for its adapter")


def install_command(engine: str) -> str:
    """What brings an engine here."""
    row = ENGINES.get(engine)
    return f"pip install {row.package}" if row and not row.extra else f"pip install 'open-responses-engine[{engine}]'"


def is_installed(engine: str) -> bool:
    """Whether an engine is one of the table, and its package is here."""
    return engine in ENGINES and ENGINES[engine].installed


def options_of(order: Order, section: EngineSettings) -> dict[str, Any]:
    """A model's own settings laid over those of its engine, which options have by the same names."""
    from ore.backends.local.options import DEFAULT_TEMPERATURE, DEFAULT_TOP_P

    model = order.model
    # the bundled model is so small that it stumbles when it does not take the likeliest token
    temperature = 0.0 if model_kind(model.path) == "bundled" else DEFAULT_TEMPERATURE
    return {
        **structs.asdict(section),
        "path": order.path,
        "slots": section.slots if model.slots is None else model.slots,
        "context": section.context if model.context is None else model.context,
        "temperature": temperature if model.temperature is None else model.temperature,
        "top_p": DEFAULT_TOP_P if model.top_p is None else model.top_p,
    }


async def fetched(settings: Settings, name: str, wanted: str, progress: Progress | None) -> Path:
    """The file or folder of a model or an adapter, brought here from its hub if need be."""
    path = model_file(settings, wanted)
    reference = hub_reference(wanted)
    if reference is None:
        return path
    from ore.backends.local.model_files import fetch_model, fetch_repository

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress(name, done, total or None)

    if not reference.file:
        return await fetch_repository(reference.repo, path, hub_url=settings.hub_url, progress=report)
    return await fetch_model(reference.repo, reference.file, path, hub_url=settings.hub_url, progress=report)
