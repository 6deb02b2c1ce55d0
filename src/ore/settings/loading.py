"""Fills the tree of settings: defaults, the TOML file, `ORE_SECTION__KEY` variables, flags, each over the one before.

Every mistake is a `StartupError`: one sentence that names the setting, the value, its origin and what would be right.
Nothing is guessed and nothing is skipped; an unknown key is an error, with the nearest one that exists.
"""

import difflib
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Struct

from ore.errors import StartupError
from ore.settings.aliases import refuse_wrong_aliases, take_aliases
from ore.settings.folders import expanded, find_config, user_data_dir
from ore.settings.models import model_kind
from ore.settings.providers import PROVIDER_VARIABLES, complete_provider, picked_up, url_problem, usual_key
from ore.settings.references import anchored, headers_problem, key_problem
from ore.settings.tree import EVERY_SETTING, FAMILIES, SECTIONS, Setting, Settings
from ore.settings.writing import Parts, dotted, to_toml

_BY_PARTS: Final = {tuple(setting.name.split(".")): setting for setting in EVERY_SETTING}


class Origin(Struct, frozen=True):
    """Where a value came from. `place` is a file's path, a variable's name or a flag; `line` counts from 1."""

    kind: Literal["default", "file", "environment", "flag"]
    place: str = ""
    line: int | None = None

    def __str__(self) -> str:
        if self.kind == "environment":
            return f"environment variable {self.place}"
        if self.kind == "flag":
            return f"flag {self.place}"
        return f"{self.place}, line {self.line}" if self.line else self.place or self.kind


class LoadedSettings(Struct, frozen=True, kw_only=True):
    """Settings, where each came from (by dotted key, as TOML writes it), and the file that was read, if any."""

    settings: Settings
    origins: dict[str, Origin]
    path: Path | None

    def is_picked_up(self, provider: str) -> bool:
        """Whether nobody configured this provider: a variable of its own made it."""
        return self.origins[dotted(("providers", provider, "kind"))].place in PROVIDER_VARIABLES


class _Given(Struct, frozen=True):
    """A value somebody gave, not yet checked. `base` is the folder that relative paths in it start from."""

    value: Any
    origin: Origin
    base: Path


def load(
    config: Path | None = None, environ: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
) -> LoadedSettings:
    """Read the settings: defaults, then the file, then `ORE_SECTION__KEY` variables, then flags.

    `config` is the file to read; None searches `ORE_CONFIG`, `./ore.toml` and the user's configuration folder.
    `environ` is the whole environment, handed in; None means an empty one. `flags` maps dotted keys to values, and
    those that are None were not given. `data_dir` and the paths of models come back absolute: from a file they are
    relative to its folder, else to the current one. Raises `StartupError`.
    """
    environ = environ or {}
    path = expanded(str(config), environ) if config is not None else find_config(environ)
    given = _from_file(path) if path is not None else {}
    given |= _from_environment(environ, [parts[:2] for parts in given if _is_named(parts)])
    given |= _from_flags(flags or {})
    given |= _picked_up(environ, given)

    def where(parts: Parts) -> str:
        return next(str(entry.origin) for known, entry in given.items() if known[: len(parts)] == parts)

    tree = _tree(given, environ)
    tree["aliases"] = take_aliases(tree["models"], where)
    for name, provider in tree["providers"].items():
        complete_provider(name, provider, where)
        if variable := usual_key(provider, environ):
            provider["api_key"] = f"env:{variable}"
            given["providers", name, "api_key"] = _Given(None, Origin("environment", variable), Path.cwd())
    settings = msgspec.convert(tree, Settings)
    refuse_wrong_aliases(settings, where)
    return LoadedSettings(settings=settings, origins=_origins(given, settings), path=path)


def _tree(given: Mapping[Parts, _Given], environ: Mapping[str, str]) -> dict[str, Any]:
    """What was given, each value checked by itself, as nested dicts. Every section that users name is there."""
    tree: dict[str, Any] = {family: {} for family in FAMILIES}
    for parts, entry in given.items():
        branch = tree
        for part in parts if _is_named(parts) else parts[:-1]:
            branch = branch.setdefault(part, {})
        if not _is_named(parts):
            branch[parts[-1]] = _checked(parts, entry, environ)
    tree["data_dir"] = tree.get("data_dir") or str(user_data_dir(environ))
    return tree


def _origins(given: Mapping[Parts, _Given], settings: Settings) -> dict[str, Origin]:
    """By dotted key, for every setting that there is."""
    known = [tuple(setting.name.split(".")) for setting in EVERY_SETTING if ".NAME" not in setting.section]
    for family, sections in (
        ("models", settings.models),
        ("models", settings.aliases),
        ("providers", settings.providers),
    ):
        known += [(family, name, key) for name, section in sections.items() for key in section.__struct_fields__]
    default = _Given(None, Origin("default"), Path())
    return {dotted(parts): given.get(parts, default).origin for parts in known}


def _from_file(path: Path) -> dict[Parts, _Given]:
    text = _text_of(path)
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of 5000 digits
        raise StartupError(f"{path} is not valid TOML: {error}.") from error
    base = path.absolute().parent
    lines = dict(_lines(text))

    def origin(parts: Parts) -> Origin:
        inside = (line for known, line in lines.items() if known[: len(parts)] == parts)
        return Origin("file", str(path), lines.get(parts) or lines.get(parts[:-1]) or next(inside, None))

    given: dict[Parts, _Given] = {}
    for parts, value in _leaves(table, origin):
        if not _is_named(parts) and _setting(parts) is None:
            what = f"section [{dotted(parts)}]" if isinstance(value, dict) else f"setting {dotted(parts)}"
            raise StartupError(f"There is no {what} ({origin(parts)}); {_nearest(parts)}")
        given[parts] = _Given(value, origin(parts), base)
    return given


def _text_of(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise StartupError(
            f"The settings file {path} does not exist; write one with `ore config init {path}`."
        ) from None
    except UnicodeDecodeError:
        raise StartupError(f"The settings file {path} is not UTF-8 text; save it as UTF-8.") from None
    except OSError as error:
        raise StartupError(f"The settings file {path} cannot be read: {error.strerror}.") from None


def _leaves(table: dict[str, Any], origin: Callable[[Parts], Origin]) -> Iterator[tuple[Parts, Any]]:
    """Every key of the file with its value, and every section that users name as a whole: an empty one is seen too."""
    for key, value in table.items():
        if key in SECTIONS:
            for inner, leaf in _table((key,), value, origin).items():
                yield (key, inner), leaf
        elif key in FAMILIES:
            for name, section in _table((key,), value, origin).items():
                yield (key, name), section
                for inner, leaf in _table((key, name), section, origin).items():
                    yield (key, name, inner), leaf
        else:
            yield (key,), value


def _table(parts: Parts, value: Any, origin: Callable[[Parts], Origin]) -> dict[str, Any]:
    if not isinstance(value, dict):
        right = f"[{parts[0]}.NAME]" if parts in {(family,) for family in FAMILIES} else f"[{dotted(parts)}]"
        shown = None if parts[0] == "providers" else value  # what stands in a provider's place may be its key
        raise StartupError(_mistake(parts, shown, origin(parts), f"a section, {right}"))
    return value


_HEADER: Final = re.compile(r"\s*\[([^\[\]]+)\]")
_KEY: Final = re.compile(r"""\s*((?:[A-Za-z0-9_.\s-]|"[^"]*"|'[^']*')+?)\s*=""")


def _lines(text: str) -> Iterator[tuple[Parts, int]]:
    """The line of each header and key, for messages. Good enough: a multi-line string may fool it."""
    table: Parts = ()
    for number, line in enumerate(text.split("\n"), 1):
        if match := _HEADER.match(line):
            table = _split_key(match[1])
            yield table, number
        elif match := _KEY.match(line):
            yield table + _split_key(match[1]), number


def _split_key(text: str) -> Parts:
    try:
        branch: Any = tomllib.loads(f"{text} = 0")
    except tomllib.TOMLDecodeError:
        return (text,)
    parts: list[str] = []
    while isinstance(branch, dict):
        ((part, branch),) = branch.items()
        parts.append(part)
    return tuple(parts)


_KUBERNETES: Final = re.compile(r"ORE_(SERVICE_(HOST|PORT)(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")


def _from_environment(environ: Mapping[str, str], named: list[Parts]) -> dict[Parts, _Given]:
    """`ORE_` variables. `named` are the sections in the file, which a variable may mean by another spelling."""
    given: dict[Parts, _Given] = {}
    for variable, text in sorted(environ.items()):
        if not variable.startswith("ORE_") or variable == "ORE_CONFIG" or _set_by_kubernetes(variable, text):
            continue
        parts = _parts_of_variable(variable, named)
        setting = _setting(parts)
        if setting is None:
            raise StartupError(f"The environment variable {variable} is no setting of ORE; {_nearest_variable(parts)}")
        origin = Origin("environment", variable)
        given[parts] = _Given(_parsed(setting, text), origin, Path.cwd())
    return given


def _set_by_kubernetes(variable: str, text: str) -> bool:
    """Kubernetes tells every pod about a service named `ore` by variables that nobody wrote."""
    return bool(_KUBERNETES.fullmatch(variable)) or (variable == "ORE_PORT" and "://" in text)


def _parts_of_variable(variable: str, named: list[Parts]) -> Parts:
    parts = variable.removeprefix("ORE_").lower().split("__")
    family = parts[0]
    if family not in FAMILIES or len(parts) < 3:
        return tuple(parts)
    spelled = "__".join(parts[1:-1])
    names = [name for where, name in named if where == family]
    same = sorted(name for name in names if re.sub(r"\W", "_", name.lower()) == spelled)
    if len(same) > 1:
        what = f"{family.removesuffix('s')} {' or '.join(same)}"
        raise StartupError(f"The environment variable {variable} could mean the {what}; rename one.")
    return (family, same[0] if same else spelled, parts[-1])


def _parsed(setting: Setting, text: str) -> Any:
    """A variable's text as a value of the setting's type; text that is none stays text, and fails the check."""
    try:
        if setting.kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}.get(text.strip().lower(), text)
        if setting.kind in (int, float):
            return setting.kind(text)
        if get_origin(setting.kind) is tuple:
            if text.lstrip().startswith("["):
                return json.loads(text)
            words = [part.strip() for part in text.split(",") if part.strip()]
            return words if get_args(setting.kind)[0] is str else [float(word) for word in words]
    except ValueError:
        pass
    return text


def _from_flags(flags: Mapping[str, object]) -> dict[Parts, _Given]:
    return {
        tuple(name.split(".")): _Given(value, Origin("flag", flag_of(name)), Path.cwd())
        for name, value in flags.items()
        if value is not None
    }


def flag_of(name: str) -> str:
    """The flag of a setting: `server.port` has `--port`, `log.level` has `--log-level`."""
    return "--" + name.removeprefix("server.").replace(".", "-").replace("_", "-")


def _picked_up(environ: Mapping[str, str], given: Mapping[Parts, _Given]) -> dict[Parts, _Given]:
    """The providers of the environment whose names are not configured."""
    found: dict[Parts, _Given] = {}
    configured = {parts[1] for parts in given if parts[0] == "providers"}
    for provider in picked_up(environ):
        if provider.name not in configured:
            origin = Origin("environment", provider.variable)
            for key, value in provider.values.items():
                found["providers", provider.name, key] = _Given(value, origin, Path.cwd())
    return found


def _is_named(parts: Parts) -> bool:
    """Whether it is a section whose name is the user's."""
    return len(parts) == 2 and parts[0] in FAMILIES


def _setting(parts: Parts) -> Setting | None:
    if len(parts) == 3 and parts[0] in FAMILIES and parts[1]:
        return _BY_PARTS.get((parts[0], "NAME", parts[2]))
    return _BY_PARTS.get(parts)


def _nearest(parts: Parts) -> str:
    """The end of a message about a key that does not exist."""
    close = _closest(parts)
    if close is None:
        return "`ore config show` lists all settings."
    if close[-1] == "":
        return f"did you mean the section [{'.'.join(close[:-1])}]?"
    return f"did you mean {dotted(close)}?"


def _nearest_variable(parts: Parts) -> str:
    close = _closest(parts)
    if close is None or close[-1] == "":
        return "`ore config show` lists all settings."
    return f"did you mean ORE_{'__'.join(close).upper()}?"


def _closest(parts: Parts) -> Parts | None:
    """The existing key that is nearest; a section ends with an empty part. The same key elsewhere counts as near."""
    own = parts[1] if parts[0] in FAMILIES and len(parts) == 3 else "NAME"
    sections = {(name, ""): name for name in SECTIONS} | {(family, "NAME", ""): family for family in FAMILIES}
    full = sections | {known: ".".join(known) for known in _BY_PARTS}
    last = {known: known[-1] for known in _BY_PARTS}
    for spelled, names, cutoff in ((".".join(parts).replace(own, "NAME"), full, 0.75), (parts[-1], last, 0.7)):
        found = difflib.get_close_matches(spelled, names.values(), 1, cutoff)
        if found:
            known = next(known for known, name in names.items() if name == found[0])
            return tuple(own if part == "NAME" else part for part in known)
    return None


def _checked(parts: Parts, entry: _Given, environ: Mapping[str, str]) -> Any:
    setting = _setting(parts)
    if setting is None:
        raise StartupError(f"There is no setting {dotted(parts)}; {_nearest(parts)}")
    value = _converted(setting, entry.value)
    if value is NODEFAULT:
        shown = None if setting.private else entry.value
        raise StartupError(_mistake(parts, shown, entry.origin, setting.expected))
    if problem := _FORMS.get(setting.name, _anything)(value):
        raise StartupError(f"{dotted(parts)} ({entry.origin}) {problem}")
    return _with_absolute_paths(setting, value, lambda path: _absolute(path, entry.base, environ))


def _anything(_: Any) -> None:
    return None


_FORMS: Final[dict[str, Callable[[Any], str | None]]] = {
    "providers.NAME.base_url": url_problem,
    "providers.NAME.api_key": key_problem,
    "providers.NAME.headers": headers_problem,
}
"""What a value must be beside its type. Each tells the end of a sentence, without the value."""


def _converted(setting: Setting, value: Any) -> Any:
    """The value in its type, or `NODEFAULT` when it is none of it."""
    try:
        converted = msgspec.convert(value, Annotated[setting.kind, setting.meta])
    except (msgspec.ValidationError, TypeError):
        return NODEFAULT
    numbers = converted if isinstance(converted, tuple) else (converted,)
    return converted if all(math.isfinite(number) for number in numbers if isinstance(number, float)) else NODEFAULT


def _with_absolute_paths(setting: Setting, value: Any, absolute: Callable[[str], Path]) -> Any:
    match setting.name:
        case "data_dir" if value:
            return str(absolute(value))
        case "models.NAME.adapter" if value and model_kind(value) == "file":
            return str(absolute(value))
        case "models.NAME.path" if value and model_kind(value) in {"file", "code"}:
            return str(absolute(value))
        case "providers.NAME.api_key":
            return anchored(value, absolute)
        case "providers.NAME.headers":
            return tuple(anchored(line, absolute) for line in value)
    return value


def _absolute(text: str, base: Path, environ: Mapping[str, str]) -> Path:
    return base / expanded(text, environ)


def _mistake(parts: Parts, value: Any, origin: Origin, expected: str) -> str:
    """The sentence about a wrong value; None is one that is not shown."""
    if value is None:
        return f"{dotted(parts)} ({origin}) must be {expected}."
    return f"{dotted(parts)} is {_shown(value)} ({origin}); it must be {expected}."


def _shown(value: Any) -> str:
    """A value for a message: as TOML writes it, cut short."""
    text = "a section" if isinstance(value, dict) else to_toml(value)
    return text if len(text) <= 60 else text[:57] + "..."
