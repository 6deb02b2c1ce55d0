"""One frozen tree of settings, from a TOML file, the environment and flags.

Every field carries its description; `ore config init` and `docs/settings.md` are made from them, so that a setting
cannot exist without a word about it. Nothing here opens a socket, a database or a model, and no other module reads
the environment.
"""

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct, field


class ServerSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[server]`: the HTTP side."""

    host: Annotated[str, Meta(description="Address to listen on. Anything but loopback asks for keys.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="TCP port; 0 takes a free one. Codex looks at 1234.")] = 8000
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
    sse_done_marker: Annotated[
        bool, Meta(description="End each stream with `data: [DONE]`, as Open Responses demands.")
    ] = True
    strict_fields: Annotated[
        bool, Meta(description="Refuse unknown request fields with a 400 instead of ignoring them.")
    ] = False
    docs: Annotated[bool, Meta(description="Serve /docs and /openapi.json.")] = True


class StoreSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[store]`: where responses are kept."""

    kind: Annotated[
        Literal["sqlite", "none"],
        Meta(description='"sqlite" keeps responses in the data folder; "none" refuses `store: true`.'),
    ] = "sqlite"


class LlamaCppSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[llama_cpp]`: defaults for every GGUF model; `[models.NAME]` may override the ones it also has."""

    slots: Annotated[int, Meta(ge=1, le=256, description="Requests that one model decodes at the same time.")] = 4
    queue: Annotated[
        int, Meta(ge=0, description="Requests that may wait for a slot; more are a 429 with Retry-After.")
    ] = 256
    context: Annotated[
        int, Meta(ge=0, description="Tokens of context of each slot; 0 takes what the model was trained with.")
    ] = 0
    threads: Annotated[int, Meta(ge=0, description="Threads for decoding; 0 takes one per core.")] = 0
    batch: Annotated[
        int, Meta(ge=32, description="Tokens per prefill step; smaller cancels sooner, larger reads prompts faster.")
    ] = 256
    gpu_layers: Annotated[int, Meta(ge=-1, description="Layers on the GPU; -1 takes all that fit.")] = -1
    prompt_cache_mib: Annotated[
        int, Meta(ge=0, description="Host memory for cached prompts, in MiB; 0 turns it off.")
    ] = 64


class ModelSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[models.NAME]`: a model that clients can ask for by NAME."""

    path: Annotated[
        str, Meta(description="A GGUF file, or `org/repo:file.gguf` on a model hub; `ore-tiny` is the bundled one.")
    ]
    context: Annotated[int | None, Meta(description="Tokens of context of each slot.")] = None
    slots: Annotated[int | None, Meta(description="Requests decoded at the same time.")] = None
    temperature: Annotated[
        float | None, Meta(ge=0, le=2, description="Sampling temperature when the request does not say.")
    ] = None
    top_p: Annotated[float | None, Meta(ge=0, le=1, description="Nucleus when the request does not say.")] = None


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
        str, Meta(description="Folder for the database and downloaded models; empty takes the user's data folder.")
    ] = ""
    default_model: Annotated[str, Meta(description="The model of requests that name none; empty refuses those.")] = ""
    server: ServerSettings = field(default_factory=ServerSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    llama_cpp: LlamaCppSettings = field(default_factory=LlamaCppSettings)
    models: dict[str, ModelSettings] = field(default_factory=dict)
    log: LogSettings = field(default_factory=LogSettings)

    def data_path(self) -> Path:
        """The data folder as a path. It may not exist yet."""
        return Path(self.data_dir).expanduser()
