"""The tree of settings, and the same as a flat list.

Every field carries its description; what ORE says about its settings anywhere is made from these. A setting that the
user may leave out altogether has the default None.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct, field

from ore.errors import StartupError

EngineName = Literal["auto", "llama_cpp", "torch", "candle", "openvino", "sklearn"]
"""What can run a model on this machine."""


class ServerSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[server]`: the HTTP side."""

    host: Annotated[
        str, Meta(description="Address to listen on. Any but loopback is refused, unless insecure_no_auth is set.")
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="TCP port; 0 takes a free one.")] = 8000
    insecure_no_auth: Annotated[
        bool, Meta(description="Allow a public address although nobody is asked for a key.")
    ] = False
    cors_origins: Annotated[
        tuple[str, ...], Meta(description='Browser origins that may call; "*" allows all. Empty: CORS is off.')
    ] = ()
    max_body_bytes: Annotated[int, Meta(ge=1024, description="Largest request body, in bytes; more is a 413.")] = (
        64 * 1024 * 1024
    )
    max_header_bytes: Annotated[int, Meta(ge=1024, description="Largest request head, in bytes; more is a 431.")] = (
        32 * 1024
    )
    header_timeout: Annotated[
        float, Meta(gt=0, description="Seconds a client has to send a complete request head.")
    ] = 10.0
    body_timeout: Annotated[float, Meta(gt=0, description="Seconds a client may pause while sending a body.")] = 30.0
    write_timeout: Annotated[
        float, Meta(gt=0, description="Seconds a client may leave an answer unread; then it counts as gone.")
    ] = 60.0
    request_timeout: Annotated[
        float, Meta(gt=0, description="Seconds a run may take in all; then it ends as failed.")
    ] = 600.0
    keep_alive: Annotated[float, Meta(ge=1, le=75, description="Seconds an idle connection is kept open.")] = 30.0
    shutdown_grace: Annotated[
        float, Meta(ge=0, description="Seconds that running responses have to finish after SIGTERM.")
    ] = 30.0
    sse_keep_alive: Annotated[
        float, Meta(gt=0, description="Seconds of silence after which a stream sends a comment line.")
    ] = 15.0
    wire: Annotated[
        Literal["both", "openai", "openresponses"],
        Meta(description="Which side to take where Open Responses and OpenAI's API exclude each other."),
    ] = "both"
    sse_done_marker: (
        Annotated[
            bool,
            Meta(
                examples=[True], description="End each stream with `data: [DONE]`; left out: unless `wire` is openai."
            ),
        ]
        | None
    ) = None
    strict_fields: Annotated[
        bool, Meta(description="Refuse unknown request fields with a 400 instead of ignoring them.")
    ] = False
    websocket: Annotated[
        bool, Meta(description="Take WebSockets at /v1/responses; when off, clients get a 426 and use HTTP.")
    ] = True
    websocket_seconds: Annotated[
        float, Meta(gt=0, description="Seconds a WebSocket may last; a turn under way then still ends.")
    ] = 3600.0
    websocket_ping: Annotated[
        float, Meta(gt=0, description="Seconds between the pings that keep a WebSocket open through proxies.")
    ] = 25.0
    idempotency_hours: Annotated[
        float, Meta(gt=0, description="Hours that an answer is given again to requests with its `Idempotency-Key`.")
    ] = 24.0
    docs: Annotated[bool, Meta(description="Serve /docs and /openapi.json.")] = True


class StoreSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[store]`: what is kept, and for how long."""

    keep_days: Annotated[
        float, Meta(ge=0, description="Days that responses are kept; 0 keeps them until they are deleted.")
    ] = 0.0
    keep_event_hours: Annotated[
        float,
        Meta(ge=0, description="Hours that the events of an ended background response can be asked for; 0: always."),
    ] = 24.0


class BackgroundSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[background]`: responses with `background: true`, which outlive their connection and this process."""

    timeout: Annotated[
        float, Meta(gt=0, description="Seconds that a background response may take; then it ends as failed.")
    ] = 3600.0
    lease: Annotated[
        float, Meta(ge=1, description="Seconds after which another process may take over from one that went silent.")
    ] = 30.0
    attempts: Annotated[
        int, Meta(ge=1, description="Processes that may work on one response before it ends as failed.")
    ] = 3


class EngineSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every engine of language models can be told."""

    slots: Annotated[int, Meta(ge=1, le=256, description="Requests that one model decodes at the same time.")] = 4
    queue: Annotated[
        int, Meta(ge=0, description="Requests that may wait for a slot; more are a 429 with Retry-After.")
    ] = 256
    context: Annotated[
        int, Meta(ge=0, description="Tokens of context of each slot; 0: what the model was trained with, at most 8192.")
    ] = 0
    threads: Annotated[
        int, Meta(ge=0, description="Threads for decoding; 0: one per core, and one alone for files below 32 MiB.")
    ] = 0


class LocalSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[local]`: which models of this machine are in memory."""

    memory_mib: Annotated[
        int,
        Meta(
            ge=0,
            description="Memory for all models, in MiB: the least recently used makes room; 0: four fifths of all.",
        ),
    ] = 0
    keep_alive: Annotated[
        float,
        Meta(ge=-1, description="Seconds that a model stays in memory without use; 0: not at all, -1: for ever."),
    ] = -1.0


class LlamaCppSettings(EngineSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[llama_cpp]`: defaults for every model that llama.cpp runs; `[models.NAME]` overrides those it also has."""

    batch: Annotated[
        int, Meta(ge=32, description="Tokens per prefill step; smaller cancels sooner, larger reads prompts faster.")
    ] = 128
    gpu_layers: Annotated[int, Meta(ge=-1, description="Layers on the GPU; -1 takes all of them.")] = -1
    prompt_cache_mib: Annotated[
        int, Meta(ge=0, description="Host memory for cached prompts, in MiB; 0 turns it off.")
    ] = 64


class SklearnSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[sklearn]`: for every classical model, a `.skops` or an `.onnx` file."""

    queue: Annotated[
        int, Meta(ge=1, description="Requests that one model may have open; more are a 429 with Retry-After.")
    ] = 2048
    max_rows: Annotated[int, Meta(ge=1, description="Rows of one request, at most; more are a 400.")] = 100_000


class OpenVinoSettings(EngineSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[openvino]`: defaults for every model that OpenVINO runs; `[models.NAME]` overrides those it also has."""

    device: Annotated[Literal["CPU", "GPU"], Meta(description="What computes: the processor, or an Intel GPU.")] = "CPU"
    kv_cache_mib: Annotated[
        int, Meta(ge=1, description="Memory for keys and values of all requests and cached prompts, in MiB, at most.")
    ] = 1024
    kv_precision: Annotated[
        Literal["auto", "u8", "bf16", "f16", "f32"],
        Meta(description="How keys and values are kept; `auto` takes what the device prefers, 8 bits on processors."),
    ] = "auto"
    prefill: Annotated[
        int, Meta(ge=16, description="Tokens of prompts per step, at most; it takes fewer where a step gets slow.")
    ] = 512
    weights: Annotated[
        Literal["auto", "int8", "stored"],
        Meta(description="How safetensors are kept: in 8 bits, or as stored; `auto` does the former from 64 MiB on."),
    ] = "auto"


class TorchSettings(EngineSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[torch]`: defaults for every model that PyTorch runs; `[models.NAME]` overrides those it also has."""

    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"],
        Meta(description="Where it computes; `auto` takes the first accelerator that is there."),
    ] = "auto"
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Meta(description="Precision of weights; `auto`: the file's own, on a CPU bfloat16 if it computes with that."),
    ] = "auto"
    quantize: Annotated[
        Literal["none", "int8"], Meta(description="Round the weights of linear layers to 8 bits while loading.")
    ] = "none"
    kv_cache_mib: Annotated[
        int, Meta(ge=1, description="Memory for keys and values of all requests and cached prompts, in MiB, at most.")
    ] = 1024
    prefill: Annotated[
        int, Meta(ge=16, description="Tokens of prompts per step, at most; it takes fewer where a step gets slow.")
    ] = 512


Isq = Literal["", "Q2K", "Q3K", "Q4_0", "Q4_1", "Q4K", "Q5_0", "Q5_1", "Q5K", "Q6K", "Q8_0", "HQQ4", "HQQ8"]
"""Quantisations that Candle makes while it loads."""


class CandleSettings(EngineSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[candle]`: defaults for every model that Candle runs; `[models.NAME]` overrides those it also has."""

    slots: Annotated[
        int,
        Meta(
            ge=1, le=256, description="Requests that one model decodes at the same time; several at times crash 0.9.5."
        ),
    ] = 1
    isq: Annotated[
        Isq,
        Meta(examples=["Q4K"], description="Quantise the weights to this while they are loaded; empty: as they are."),
    ] = ""
    prefix_cache: Annotated[
        int,
        Meta(ge=0, description="Answers whose prefixes are kept for later prompts, of all clients; 0 keeps none."),
    ] = 16
    paged_attention: Annotated[
        bool,
        Meta(description="Keep the cache in pages on CUDA and Metal; a CPU has none."),
    ] = True


class CacheSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[cache]`: answers that are given again to the same question."""

    enabled: Annotated[
        bool,
        Meta(description="Give an answer again to the same request, if it is repeatable: `temperature` 0 or a `seed`."),
    ] = False
    ttl: Annotated[float, Meta(gt=0, description="Seconds that an answer may be given again.")] = 3600.0
    max_mib: Annotated[int, Meta(ge=1, description="Memory for answers, in MiB; the least recently used go first.")] = (
        64
    )


class ModelSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[models.NAME]` with `path`: a model on this machine, which clients ask for by NAME."""

    path: Annotated[
        str,
        Meta(
            examples=["models/small.gguf"],
            description="A GGUF file, or `org/repo:file.gguf` on a model hub; a folder with safetensors, or "
            "`hub:org/repo`; `FILE.py:FUNCTION` for a model of your own; a `.skops` or `.onnx` file is a classical "
            "model; `ore-tiny` is the bundled one.",
        ),
    ]
    adapter: (
        Annotated[
            str,
            Meta(
                examples=["adapters/support"],
                description="A LoRA adapter for a model of PyTorch, merged into it: a folder or `hub:org/repo`.",
            ),
        ]
        | None
    ) = None
    engine: Annotated[
        EngineName,
        Meta(examples=["auto"], description="What runs it; `auto` chooses by the file and by what is installed."),
    ] = "auto"
    load: (
        Annotated[
            Literal["start", "use"],
            Meta(
                examples=["start"],
                description="Load it at the start, or at its first use; left out: the default model at the start.",
            ),
        ]
        | None
    ) = None
    keep_alive: (
        Annotated[
            float,
            Meta(ge=-1, examples=[300.0], description="Seconds in memory without use; 0: not at all, -1: for ever."),
        ]
        | None
    ) = None
    projector: Annotated[
        str,
        Meta(
            examples=["models/mmproj-small.gguf"],
            description="The GGUF file with which it sees images, or such a file on a model hub; empty: it sees none.",
        ),
    ] = ""
    embeddings: (
        Annotated[
            bool,
            Meta(
                examples=[True],
                description="Load it to make embeddings, and for nothing else; left out: as its file says.",
            ),
        ]
        | None
    ) = None
    context: (
        Annotated[
            int,
            Meta(
                ge=0,
                examples=[8192],
                description="Tokens of context of each slot; 0: what it was trained with, at most 8192.",
            ),
        ]
        | None
    ) = None
    slots: Annotated[int, Meta(ge=1, le=256, examples=[4], description="Requests decoded at the same time.")] | None = (
        None
    )
    temperature: (
        Annotated[
            float,
            Meta(ge=0, le=2, examples=[0.7], description="Sampling temperature when the request does not say."),
        ]
        | None
    ) = None
    top_p: (
        Annotated[float, Meta(ge=0, le=1, examples=[0.95], description="Nucleus when the request does not say.")] | None
    ) = None


class AliasSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[models.NAME]` with `targets`: an alias, one name for several models, of which each request gets one.

    A target is the NAME of a model with a `path`, the bundled `ore-tiny`, or `PROVIDER/MODEL`; never another alias.
    `route` puts the targets in order for each request. A target that one of the `spill_` rules speaks against is passed
    over: it comes after the others. One that cannot do what the request needs (tools, images, a long context) is not
    asked, unless none can. A target that fails is replaced by the next, under the same response id; once the client has
    seen output, `after_output` decides.
    """

    targets: Annotated[
        tuple[str, ...],
        Meta(
            examples=[["small", "openai/gpt-5-mini"]],
            description="The models behind this name: NAMEs of models here, or PROVIDER/MODEL.",
        ),
    ]
    route: Annotated[
        Literal["ordered", "weighted", "least_busy"],
        Meta(
            examples=["weighted"],
            description="Which target is tried first: the first one, a random one by `weights`, or the least busy one.",
        ),
    ] = "ordered"
    weights: (
        Annotated[
            tuple[Annotated[float, Meta(gt=0)], ...],
            Meta(
                examples=[[3, 1]],
                description='For `route = "weighted"`: a share for each target; 3 gets three times as much as 1.',
            ),
        ]
        | None
    ) = None
    spill_waiting: (
        Annotated[
            int,
            Meta(
                ge=0,
                examples=[8],
                description="Pass a target over that is full, and for which so many requests wait, or more.",
            ),
        ]
        | None
    ) = None
    spill_seconds: (
        Annotated[
            float,
            Meta(gt=0, examples=[5.0], description="Pass a target over that would take longer to its first token."),
        ]
        | None
    ) = None
    spill_tokens: (
        Annotated[
            int,
            Meta(ge=1, examples=[4000], description="Pass local targets over when a request has more tokens."),
        ]
        | None
    ) = None
    after_output: Annotated[
        Literal["fail", "continue"],
        Meta(
            examples=["continue"],
            description="When a target fails whose output was seen: fail the response, or have the next one go on.",
        ),
    ] = "fail"
    retries: Annotated[
        int, Meta(ge=0, examples=[2], description="Further rounds over the targets when all of them failed.")
    ] = 2
    classifier: (
        Annotated[
            str,
            Meta(
                examples=["intents"],
                description="NAME of a classical model here whose label, of what the user said last, picks the target.",
            ),
        ]
        | None
    ) = None
    labels: (
        Annotated[
            dict[str, str],
            Meta(
                examples=[{"code": "openai/gpt-5-mini"}],
                description="For `classifier`: labels, and the target that each puts first; others change nothing.",
            ),
        ]
        | None
    ) = None


class GuardSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[guard]`: a classical text classifier that checks what users say, and what models answer.

    A refused input is a 400 with the code `content_filter`. A refused answer ends `incomplete`, for `content_filter`,
    and nothing of it is shown: answers are held back until they are checked as a whole, so streams begin later.
    """

    model: Annotated[str, Meta(description="NAME of the classical model that checks; empty: nothing is checked.")] = ""
    on: Annotated[
        Literal["input", "output", "both"],
        Meta(description="What is checked: what the user says, what the model answers, or both."),
    ] = "input"
    refuse_labels: Annotated[tuple[str, ...], Meta(description="Labels of the model that refuse a text.")] = ()
    threshold: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="Refuse when the probabilities of `refuse_labels` reach this together; 0: the label decides.",
        ),
    ] = 0.0


class ProviderSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[providers.NAME]`: an API elsewhere, whose models clients ask for as `NAME/MODEL`.

    Without any section, `OPENAI_API_KEY` in the environment makes a provider `openai`, `ANTHROPIC_API_KEY` one named
    `anthropic`, and `OLLAMA_HOST` one named `ollama`, unless one of that name is configured. `OPENAI_BASE_URL` is not
    read: it usually leads to ORE itself. A provider that is configured without `api_key`, at the own address of its
    kind, takes the key of those variables; `api_key = ""` keeps it from that.

    Keys never stand in the settings: `api_key` and the values of `headers` say where they are, `env:NAME` for an
    environment variable and `file:PATH` for a file.
    """

    kind: Annotated[
        Literal["openai", "anthropic", "ollama", "responses", "chat_completions"],
        Meta(
            examples=["openai"],
            description="Whose API it is; `responses` and `chat_completions` are any server that speaks one of them.",
        ),
    ]
    base_url: Annotated[
        str,
        Meta(
            extra={"private": True},
            examples=["https://api.openai.com/v1"],
            description="Where its API begins: `https://HOST/v1`. Empty: its kind's own address, if that has one.",
        ),
    ] = ""
    api_key: Annotated[
        str,
        Meta(
            extra={"private": True},
            examples=["env:OPENAI_API_KEY"],
            description="Where its key is: `env:NAME` or `file:PATH`, never the key itself; empty: it has none.",
        ),
    ] = ""
    headers: Annotated[
        tuple[str, ...],
        Meta(
            extra={"private": True},
            examples=[["X-Team: research"]],
            description='Further headers, "Name: value"; a value may be `env:NAME`, or end so: "Bearer env:NAME".',
        ),
    ] = ()
    models: Annotated[
        tuple[str, ...],
        Meta(
            examples=[["gpt-5", "gpt-5-mini"]],
            description="The only models that may be asked for, by their names there; empty: all that it has.",
        ),
    ] = ()
    discover: Annotated[
        bool,
        Meta(examples=[True], description="Ask it which models it has, to list them, unless `models` says so."),
    ] = True
    connect_timeout: Annotated[
        float, Meta(gt=0, examples=[5.0], description="Seconds it has to take a connection.")
    ] = 5.0
    first_byte_timeout: Annotated[
        float, Meta(gt=0, examples=[120.0], description="Seconds from a request to the first event of its answer.")
    ] = 120.0
    idle_timeout: Annotated[float, Meta(gt=0, examples=[60.0], description="Seconds between two events.")] = 60.0
    max_concurrent: Annotated[
        int, Meta(ge=1, examples=[256], description="Requests that it is sent at the same time.")
    ] = 256
    queue: Annotated[
        int, Meta(ge=0, examples=[1024], description="Requests that may wait for their turn; more are a 429.")
    ] = 1024


class LogSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[log]`: what the server tells its operator. Never the content of requests."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The least important level that is shown.")
    ] = "info"
    format: Annotated[Literal["text", "json"], Meta(description="Lines for people, or one JSON object a line.")] = (
        "text"
    )


class Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All settings. Top-level keys stand before the first `[section]` of the file."""

    data_dir: Annotated[
        str, Meta(description="Folder for database, key and downloaded models; empty takes the user's data folder.")
    ] = ""
    default_model: Annotated[
        str, Meta(description="The model of requests that name none; empty takes the only one, or refuses those.")
    ] = ""
    hub_url: Annotated[str, Meta(description="Where models of a hub are downloaded from.")] = "https://huggingface.co"
    server: ServerSettings = field(default_factory=ServerSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    background: BackgroundSettings = field(default_factory=BackgroundSettings)
    local: LocalSettings = field(default_factory=LocalSettings)
    llama_cpp: LlamaCppSettings = field(default_factory=LlamaCppSettings)
    openvino: OpenVinoSettings = field(default_factory=OpenVinoSettings)
    torch: TorchSettings = field(default_factory=TorchSettings)
    candle: CandleSettings = field(default_factory=CandleSettings)
    sklearn: SklearnSettings = field(default_factory=SklearnSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    guard: GuardSettings = field(default_factory=GuardSettings)
    models: dict[str, ModelSettings] = field(default_factory=dict)
    aliases: dict[str, AliasSettings] = field(default_factory=dict)
    """The `[models.NAME]` that have `targets`. No name is in `models` and here."""
    providers: dict[str, ProviderSettings] = field(default_factory=dict)
    log: LogSettings = field(default_factory=LogSettings)

    def data_path(self) -> Path:
        """The data folder as an absolute path. It may not exist yet."""
        if not self.data_dir:
            raise StartupError("data_dir is empty: only settings.load knows the user's data folder, so set data_dir.")
        return Path(self.data_dir)


SECTIONS: Final[dict[str, type[Struct]]] = {
    name: kind for name, kind in get_type_hints(Settings).items() if isinstance(kind, type) and issubclass(kind, Struct)
}
"""Every `[section]` of the file whose name is ours."""

FAMILIES: Final[dict[str, tuple[type[Struct], ...]]] = {
    "models": (ModelSettings, AliasSettings),
    "providers": (ProviderSettings,),
}
"""The sections `[FAMILY.NAME]`, whose names are the user's, and the trees that such a section may be."""


class Setting(Struct, frozen=True, kw_only=True):
    """One leaf of the tree. `section` is empty at the top level and `models.NAME` for a model's settings."""

    section: str
    tree: type[Struct]
    """The struct that it is a field of: the settings of models and of aliases share a section."""
    key: str
    kind: Any
    """Its type without annotations: `bool`, `int`, `float`, `str`, a `Literal`, a tuple of one of these, or
    `dict[str, str]`."""
    meta: Meta
    default: Any
    """`NODEFAULT` when it must be given, `None` when leaving it out is a choice of its own."""

    @property
    def name(self) -> str:
        return f"{self.section}.{self.key}" if self.section else self.key

    @property
    def variable(self) -> str:
        """The environment variable that overrides it."""
        return "ORE_" + self.name.replace(".", "__").upper()

    @property
    def example(self) -> Any:
        return (self.meta.examples or [""])[0]

    @property
    def private(self) -> bool:
        """Whether a wrong value may be a secret, and is not repeated."""
        return bool((self.meta.extra or {}).get("private"))

    @property
    def expected(self) -> str:
        """What a right value is, e.g. `an integer from 0 to 65535`."""
        if get_origin(self.kind) is Literal:
            return " or ".join(json.dumps(choice) for choice in get_args(self.kind))
        if get_origin(self.kind) is dict:
            return 'a table of strings such as {label = "MODEL"}'
        if get_origin(self.kind) is tuple:
            entry, meta = _without_meta(get_args(self.kind)[0])
            return f"a list of {_PLURALS[entry]}{_range(meta)}"
        return _WORDS[self.kind] + _range(self.meta)


_WORDS: Final = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}
_PLURALS: Final = {float: "numbers", str: "strings"}


def _range(meta: Meta) -> str:
    if meta.ge is not None and meta.le is not None:
        return f" from {meta.ge} to {meta.le}"
    if meta.ge is not None:
        return f" of at least {meta.ge}"
    return f" above {meta.gt}" if meta.gt is not None else ""


def _flat() -> Iterator[Setting]:
    within = {*SECTIONS, *FAMILIES, "aliases"}
    yield from (setting for setting in _settings_of("", Settings) if setting.key not in within)
    for name, tree in SECTIONS.items():
        yield from _settings_of(name, tree)
    for family, trees in FAMILIES.items():
        for tree in trees:
            yield from _settings_of(f"{family}.NAME", tree)


def _settings_of(section: str, tree: type[Struct]) -> Iterator[Setting]:
    hints = get_type_hints(tree, include_extras=True)
    for info in msgspec.structs.fields(tree):
        kind, meta = _without_meta(hints[info.name])
        yield Setting(section=section, tree=tree, key=info.name, kind=kind, meta=meta, default=info.default)


def _without_meta(hint: Any) -> tuple[Any, Meta]:
    """`Annotated[int, Meta(...)] | None` as `int` and its `Meta`."""
    if type(None) in get_args(hint):
        (hint,) = (choice for choice in get_args(hint) if choice is not type(None))
    return get_args(hint) if get_origin(hint) is Annotated else (hint, Meta())


EVERY_SETTING: Final = tuple(_flat())
"""All settings, in the order of the tree; those of sections that users name come last, as `models.NAME`."""
