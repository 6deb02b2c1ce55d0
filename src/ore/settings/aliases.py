"""What `[models.NAME]` with `targets` may say: the checks that look at more than one setting.

Whether a target can be reached or can do what is asked is not asked here.
"""

import difflib
from collections.abc import Iterable
from typing import Any, Final

from ore.errors import StartupError
from ore.settings.models import BUNDLED_MODELS
from ore.settings.providers import provider_model
from ore.settings.tree import AliasSettings, ModelSettings, Settings
from ore.settings.writing import Parts, Where, dotted, to_toml


def take_aliases(models: dict[str, dict[str, Any]], where: Where) -> dict[str, dict[str, Any]]:
    """Take those with `targets` out of the models of a file, and give them back.

    Raises `StartupError` for what is neither a model nor an alias, or half of each.
    """
    aliases: dict[str, dict[str, Any]] = {}
    for name, keys in list(models.items()):
        parts = ("models", name)
        if "targets" not in keys and not keys.get("path"):
            raise StartupError(
                f'[{dotted(parts)}] has neither path nor targets ({where(parts)}); add path = "FILE.gguf" to it, or '
                f'targets = ["{_EXAMPLE}"].'
            )
        if "targets" in keys:
            aliases[name] = models.pop(name)
        for key in keys:
            _refuse_foreign((*parts, key), "targets" in keys, where)
    return aliases


def _refuse_foreign(parts: Parts, is_alias: bool, where: Where) -> None:
    """Refuse a key of models in an alias, and one of aliases in a model."""
    if parts[-1] in (AliasSettings if is_alias else ModelSettings).__struct_fields__:
        return
    section, origin = dotted(parts[:-1]), where(parts)
    if parts[-1] == "path":
        raise StartupError(
            f"[{section}] has both path and targets ({origin}); keep path for a model here, or targets for an alias."
        )
    kind, needed = ("models with a path", "targets") if is_alias else ("aliases", "no targets")
    raise StartupError(f"{dotted(parts)} ({origin}) is for {kind}, and [{section}] has {needed}; leave it out.")


def refuse_wrong_aliases(settings: Settings, where: Where) -> None:
    """Raise `StartupError` for the first alias whose targets or weights make no sense."""
    for name, alias in settings.aliases.items():
        parts = ("models", name)
        section, origin = dotted(parts), where((*parts, "targets"))
        if not alias.targets:
            raise StartupError(f'[{section}] has no targets ({origin}); add targets = ["{_EXAMPLE}"] to it.')
        for target in alias.targets:
            if problem := _target_problem(settings, target):
                raise StartupError(f"{section}.targets names {to_toml(target)} ({origin}), {problem}")
        if problem := _labels_problem(alias):
            key = "classifier" if alias.classifier is not None else "labels"
            raise StartupError(f"[{section}] {problem} ({where((*parts, key))}).")
        if problem := _weights_problem(alias):
            origin = where((*parts, "weights" if alias.weights is not None else "route"))
            raise StartupError(f"[{section}] {problem} ({origin}).")


_EXAMPLE: Final = "PROVIDER/MODEL"


def _weights_problem(alias: AliasSettings) -> str:
    count = len(alias.targets)
    if alias.route != "weighted":
        return "" if alias.weights is None else f'has weights, which only route = "weighted" uses, not "{alias.route}"'
    if alias.weights is None:
        return f'has route = "weighted" and no weights; add weights = [{", ".join("1" * count)}] to it'
    if len(alias.weights) != count:
        return f"needs a weight for each of its {count} targets, and has {len(alias.weights)} of them"
    return ""


def _labels_problem(alias: AliasSettings) -> str:
    labels = alias.labels or {}
    if (alias.classifier is None) != (not labels):
        lacks, example = ("classifier", '"MODEL"') if alias.classifier is None else ("labels", '{LABEL = "TARGET"}')
        return f"has {'labels' if labels else 'a classifier'} and no {lacks}; add {lacks} = {example} to it"
    foreign = [target for target in labels.values() if target not in alias.targets]
    return f"has a label for {to_toml(foreign[0])}, which is none of its targets" if foreign else ""


def _target_problem(settings: Settings, target: str) -> str:
    """Why nothing can be sent there, as the end of a sentence; empty when something can."""
    if target in settings.aliases:
        return "which is an alias itself; name the targets of that one."
    if target in settings.models or target in BUNDLED_MODELS or provider_model(settings, target):
        return ""
    provider, slash, model = target.partition("/")
    if known := settings.providers.get(provider):
        if not slash or not model:
            return f"which is a provider; add the model, {provider}/MODEL."
        return f"but the models of [providers.{provider}] do not have it; {_nearest(model, known.models)}"
    if slash and settings.providers:
        return f"but there is no [providers.{provider}]; {_nearest(provider, settings.providers)}"
    if slash:
        return f'but there is no [providers.{provider}]; add that section, with kind = "openai" or another.'
    return f"which is no model and no {_EXAMPLE}; {_nearest(target, [*settings.models, *BUNDLED_MODELS])}"


def _nearest(name: str, known: Iterable[str]) -> str:
    names = list(dict.fromkeys(known))
    close = difflib.get_close_matches(name, names, 1)
    return f"did you mean {close[0]}?" if close else f"there is {', '.join(names)}."
