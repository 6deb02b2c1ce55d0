"""What the path of a model may mean, and which models a server serves.

A path is the name of a bundled model, a reference to a file or a repository on a model hub, a function in a Python file
that makes a model, or a file or folder. Nothing here looks at the disk
or downloads anything.
"""

import difflib
import re
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from ore.errors import StartupError
from ore.settings.providers import provider_model
from ore.settings.tree import ModelSettings, Settings

BUNDLED_MODELS: Final = {"ore-tiny": Path(__file__).parents[1] / "models" / "ore-tiny.gguf"}
"""Models that come with ORE, by name. The first one is served when there is no other."""

_REPOSITORY: Final = re.compile(r"hub:(?P<repo>[\w.-]+/[\w.-]+)", re.ASCII)
_CODE: Final = re.compile(r"(?P<file>.+\.py):(?P<function>[A-Za-z_]\w*)", re.ASCII)
_HUB: Final = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+):(?P<file>[\w./-]+\.gguf)", re.ASCII)


class HubReference(NamedTuple):
    """`org/repo:folder/file.gguf` or `hub:org/repo`, taken apart. `file` may stand in folders of the repository; empty:
    all that belongs to its model."""

    repo: str
    file: str


def hub_reference(path: str) -> HubReference | None:
    """The hub file or repository that a model's path means; None when it means something else."""
    match = _HUB.fullmatch(path) or _REPOSITORY.fullmatch(path)
    if match is None:
        return None
    reference = HubReference(match["repo"], match.groupdict().get("file", ""))
    parts = [*reference.repo.split("/"), *(reference.file.split("/") if reference.file else ())]
    return None if {"", ".", ".."} & set(parts) else reference


class CodeReference(NamedTuple):
    """`FILE.py:FUNCTION`, taken apart: a function that makes a model."""

    file: str
    function: str


def code_reference(path: str) -> CodeReference | None:
    """The function that a model's path means; None when it means something else."""
    match = _CODE.fullmatch(path)
    return None if match is None else CodeReference(match["file"], match["function"])


def model_kind(path: str) -> Literal["bundled", "hub", "code", "file"]:
    """What a model's path means. A `file` may be a folder."""
    if path in BUNDLED_MODELS:
        return "bundled"
    if hub_reference(path):
        return "hub"
    return "code" if code_reference(path) else "file"


def model_file(settings: Settings, path: str) -> Path:
    """The file that a model's path means on this machine. Hub files lie in `models/ORG/REPO/` of the data folder.

    The file may not exist: nobody looked, and hub files come with the first start.
    """
    if path in BUNDLED_MODELS:
        return BUNDLED_MODELS[path]
    if reference := hub_reference(path):
        return settings.data_path() / "models" / reference.repo / reference.file
    code = code_reference(path)
    return Path(code.file if code else path)


def resolve_models(settings: Settings, model: str | None = None) -> Settings:
    """The settings with the models that a server will serve, and the default among them.

    `model` is what the user wrote after `ore serve`: a configured name, `PROVIDER/MODEL`, a bundled model, a file or a
    hub reference. A file is served under its name without `.gguf`; where that name is configured, only its path is
    replaced. Without any `[models.NAME]` the bundled model is served, beside providers too, and a bundled model that an
    alias names as a target is served with it. A single configured name is the default. Raises `StartupError` for a name
    that nobody knows.
    """
    models = {**settings.models, **_bundled_targets(settings)}
    wanted = model or settings.default_model
    configured = configured_names(settings)
    if not configured and (not wanted or provider_model(settings, wanted)):
        first = next(iter(BUNDLED_MODELS))
        models[first] = ModelSettings(path=first)
        wanted = wanted or first
    if wanted and not (wanted in models or wanted in settings.aliases or provider_model(settings, wanted)):
        wanted = _add(settings, models, wanted, "default_model" if not model else "")
    if not wanted and len(configured) == 1:
        wanted = configured[0]
    return msgspec.structs.replace(settings, models=models, default_model=wanted)


def configured_names(settings: Settings) -> list[str]:
    """Every NAME of `[models.NAME]`, those with a path first."""
    return [*settings.models, *settings.aliases]


def _bundled_targets(settings: Settings) -> dict[str, ModelSettings]:
    named = [target for alias in settings.aliases.values() for target in alias.targets]
    return {name: ModelSettings(path=name) for name in BUNDLED_MODELS if name in named and name not in settings.models}


def _add(settings: Settings, models: dict[str, ModelSettings], wanted: str, setting: str) -> str:
    """Add what is not configured, and return the name it is served under."""
    reference = hub_reference(wanted)
    if wanted in BUNDLED_MODELS:
        name, path = wanted, wanted
    elif not setting and (reference or wanted.lower().endswith(".gguf")):
        name = Path(reference.file if reference else wanted).stem
        path = wanted if reference else str(Path(wanted).absolute())
    else:
        raise StartupError(_unknown(settings, wanted, setting))
    if name in settings.aliases:
        raise StartupError(f"The file {wanted} would be served as {name}, which is an alias; rename one of them.")
    models[name] = msgspec.structs.replace(models[name], path=path) if name in models else ModelSettings(path=path)
    return name


def _unknown(settings: Settings, wanted: str, setting: str) -> str:
    hint = _hint(settings, wanted)
    other = ", and no provider has" if settings.providers else ""
    if setting:
        return f"{setting} is {wanted}, which no [models.NAME] section defines{other}; {hint}"
    what = "no path of a .gguf file, no ORG/REPO:FILE.gguf and no PROVIDER/MODEL"
    return f"The model {wanted} is not configured, and is {what}; {hint}"


def _hint(settings: Settings, wanted: str) -> str:
    """What may have been meant, else what there is."""
    provider, _, model = wanted.partition("/")
    near = difflib.get_close_matches(provider, settings.providers, 1)
    if near and provider_model(settings, f"{near[0]}/{model}"):
        return f"did you mean {near[0]}/{model}?"
    elsewhere = [f"{name}/{each}" for name, known in settings.providers.items() for each in known.models or ("MODEL",)]
    known = list(dict.fromkeys([*configured_names(settings), *BUNDLED_MODELS, *elsewhere]))
    close = difflib.get_close_matches(wanted, known, 1)
    return f"did you mean {close[0]}?" if close else f"there is {', '.join(known)}."
