"""One frozen tree of settings, from a TOML file, the environment and flags.

    tree        the settings themselves, each with its description
    folders     where this platform keeps settings and data
    models      what the path of a model may mean, and which models a server serves
    aliases     what `[models.NAME]` with `targets` may say
    providers   what each kind of provider has by itself, and the providers that the environment has
    references  `env:NAME` and `file:PATH`, which stand for secrets
    loading     fills the tree and remembers where each value came from
    writing     TOML and Markdown about settings: the template, the reference, `ore config show`

Nothing here opens a socket, a database or a model, and no other module reads the environment: `load` is handed it,
and puts into the tree whatever it decides.
"""

from ore.settings.folders import find_config, user_config_file, user_data_dir
from ore.settings.loading import LoadedSettings, Origin, load
from ore.settings.models import (
    BUNDLED_MODELS,
    HubReference,
    code_reference,
    configured_names,
    hub_reference,
    is_classical,
    model_file,
    model_kind,
    resolve_models,
)
from ore.settings.providers import KINDS, PROVIDER_VARIABLES, ProviderModel, provider_model
from ore.settings.references import resolved_headers, resolved_key
from ore.settings.tree import (
    EVERY_SETTING,
    AliasSettings,
    CacheSettings,
    EngineName,
    EngineSettings,
    GuardSettings,
    LlamaCppSettings,
    LogSettings,
    ModelSettings,
    OpenVinoSettings,
    ProviderSettings,
    ServerSettings,
    Setting,
    Settings,
    SklearnSettings,
)
from ore.settings.writing import effective, reference, template

__all__ = [
    "BUNDLED_MODELS",
    "EVERY_SETTING",
    "KINDS",
    "PROVIDER_VARIABLES",
    "AliasSettings",
    "CacheSettings",
    "EngineName",
    "EngineSettings",
    "GuardSettings",
    "HubReference",
    "LlamaCppSettings",
    "LoadedSettings",
    "LogSettings",
    "ModelSettings",
    "OpenVinoSettings",
    "Origin",
    "ProviderModel",
    "ProviderSettings",
    "ServerSettings",
    "Setting",
    "Settings",
    "SklearnSettings",
    "code_reference",
    "configured_names",
    "effective",
    "find_config",
    "hub_reference",
    "is_classical",
    "load",
    "model_file",
    "model_kind",
    "provider_model",
    "reference",
    "resolve_models",
    "resolved_headers",
    "resolved_key",
    "template",
    "user_config_file",
    "user_data_dir",
]
