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


class LlamaCppSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[llama_cpp]`: defaults for every GGUF model; `[models.NAME]` may override the ones it also has."""

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
    batch: Annotated[
        int, Meta(ge=32, description="Tokens per prefill step; smaller cancels sooner, larger reads prompts faster.")
    ] = 128
    gpu_layers: Annotated[int, Meta(ge=-1, description="Layers on the GPU; -1 takes all of them.")] = -1
    prompt_cache_mib: Annotated[
        int, Meta(ge=0, description="Host memory for cached prompts, in MiB; 0 turns it off.")
    ] = 64


class ModelSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[models.NAME]`: a model that clients can ask for by NAME."""

    path: Annotated[
        str,
        Meta(
            examples=["models/small.gguf"],
            description="A GGUF file, or `org/repo:file.gguf` on a model hub; `ore-tiny` is the bundled one.",
        ),
    ]
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
    hub_url: Annotated[str, Meta(description="Where `org/repo:file.gguf` models are downloaded from.")] = (
        "https://huggingface.co"
    )
    server: ServerSettings = field(default_factory=ServerSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    background: BackgroundSettings = field(default_factory=BackgroundSettings)
    llama_cpp: LlamaCppSettings = field(default_factory=LlamaCppSettings)
    models: dict[str, ModelSettings] = field(default_factory=dict)
    log: LogSettings = field(default_factory=LogSettings)

    def data_path(self) -> Path:
        """The data folder as an absolute path. It may not exist yet."""
        if not self.data_dir:
            raise StartupError("data_dir is empty: only settings.load knows the user's data folder, so set data_dir.")
        return Path(self.data_dir)


SECTIONS: Final[dict[str, type[Struct]]] = {
    name: kind for name, kind in get_type_hints(Settings).items() if isinstance(kind, type) and issubclass(kind, Struct)
}
"""Every `[section]` of the file but `[models.NAME]`, whose names are the user's."""


class Setting(Struct, frozen=True, kw_only=True):
    """One leaf of the tree. `section` is empty at the top level and `models.NAME` for a model's settings."""

    section: str
    key: str
    kind: Any
    """Its type without annotations: `bool`, `int`, `float`, `str`, a `Literal` or `tuple[str, ...]`."""
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
    def expected(self) -> str:
        """What a right value is, e.g. `an integer from 0 to 65535`."""
        if get_origin(self.kind) is Literal:
            return " or ".join(json.dumps(choice) for choice in get_args(self.kind))
        if get_origin(self.kind) is tuple:
            return "a list of strings"
        words = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}
        return words[self.kind] + _range(self.meta)


def _range(meta: Meta) -> str:
    if meta.ge is not None and meta.le is not None:
        return f" from {meta.ge} to {meta.le}"
    if meta.ge is not None:
        return f" of at least {meta.ge}"
    return f" above {meta.gt}" if meta.gt is not None else ""


def _flat() -> tuple[Setting, ...]:
    top = [setting for setting in _settings_of("", Settings) if setting.key not in {*SECTIONS, "models"}]
    sections = [setting for name, tree in SECTIONS.items() for setting in _settings_of(name, tree)]
    return (*top, *sections, *_settings_of("models.NAME", ModelSettings))


def _settings_of(section: str, tree: type[Struct]) -> Iterator[Setting]:
    hints = get_type_hints(tree, include_extras=True)
    for info in msgspec.structs.fields(tree):
        kind, meta = _without_meta(hints[info.name])
        yield Setting(section=section, key=info.name, kind=kind, meta=meta, default=info.default)


def _without_meta(hint: Any) -> tuple[Any, Meta]:
    """`Annotated[int, Meta(...)] | None` as `int` and its `Meta`."""
    if type(None) in get_args(hint):
        (hint,) = (choice for choice in get_args(hint) if choice is not type(None))
    return get_args(hint) if get_origin(hint) is Annotated else (hint, Meta())


EVERY_SETTING: Final = _flat()
"""All settings, in the order of the tree; those of a model come last, as section `models.NAME`."""
