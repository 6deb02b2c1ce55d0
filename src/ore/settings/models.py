"""What the path of a model may mean, and which models a server serves.

A path is the name of a bundled model, a reference to a file on a model hub, or a file. Nothing here looks at the disk
or downloads anything.
"""

import difflib
import re
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from ore.errors import StartupError
from ore.settings.tree import ModelSettings, Settings

BUNDLED_MODELS: Final = {"ore-tiny": Path(__file__).parents[1] / "models" / "ore-tiny.gguf"}
"""Models that come with ORE, by name. The first one is served when there is no other."""

_HUB: Final = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+):(?P<file>[\w./-]+\.gguf)", re.ASCII)


class HubReference(NamedTuple):
    """`org/repo:folder/file.gguf`, taken apart. `file` may stand in folders of the repository."""

    repo: str
    file: str


def hub_reference(path: str) -> HubReference | None:
    """The hub file that a model's path means; None when it means something else."""
    match = _HUB.fullmatch(path)
    if match is None or {"", ".", ".."} & {*re.split("[/]", match["file"]), *match["repo"].split("/")}:
        return None
    return HubReference(match["repo"], match["file"])


def model_kind(path: str) -> Literal["bundled", "hub", "file"]:
    """What a model's path means."""
    if path in BUNDLED_MODELS:
        return "bundled"
    return "hub" if hub_reference(path) else "file"


def model_file(settings: Settings, path: str) -> Path:
    """The file that a model's path means on this machine. Hub files lie in `models/ORG/REPO/` of the data folder.

    The file may not exist: nobody looked, and hub files come with the first start.
    """
    if path in BUNDLED_MODELS:
        return BUNDLED_MODELS[path]
    if reference := hub_reference(path):
        return settings.data_path() / "models" / reference.repo / reference.file
    return Path(path)


def resolve_models(settings: Settings, model: str | None = None) -> Settings:
    """The settings with the models that a server will serve, and the default among them.

    `model` is what the user wrote after `ore serve`: a configured name, a bundled one, a file or a hub reference. A
    file is served under its name without `.gguf`; where that name is configured, only its path is replaced. Without
    models at all, the bundled one is served. A single model is the default. Raises `StartupError` for a name that
    nobody knows.
    """
    models = dict(settings.models)
    wanted = model or settings.default_model
    if not models and not wanted:
        wanted = next(iter(BUNDLED_MODELS))
    if wanted and wanted not in models:
        wanted = _add(models, wanted, "default_model" if not model else "")
    if not wanted and len(models) == 1:
        wanted = next(iter(models))
    return msgspec.structs.replace(settings, models=models, default_model=wanted)


def _add(models: dict[str, ModelSettings], wanted: str, setting: str) -> str:
    """Add what is not configured, and return the name it is served under."""
    reference = hub_reference(wanted)
    if wanted in BUNDLED_MODELS:
        name, path = wanted, wanted
    elif not setting and (reference or wanted.lower().endswith(".gguf")):
        name = Path(reference.file if reference else wanted).stem
        path = wanted if reference else str(Path(wanted).absolute())
    else:
        raise StartupError(_unknown(models, wanted, setting))
    models[name] = msgspec.structs.replace(models[name], path=path) if name in models else ModelSettings(path=path)
    return name


def _unknown(models: dict[str, ModelSettings], wanted: str, setting: str) -> str:
    known = [*models, *(name for name in BUNDLED_MODELS if name not in models)]
    close = difflib.get_close_matches(wanted, known, 1)
    hint = f"did you mean {close[0]}?" if close else f"there is {', '.join(known)}."
    if setting:
        return f"{setting} is {wanted}, which no [models.NAME] section defines; {hint}"
    return f"The model {wanted} is not configured, and no path of a .gguf file or ORG/REPO:FILE.gguf; {hint}"
