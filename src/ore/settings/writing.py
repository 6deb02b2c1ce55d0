"""TOML and Markdown about settings: the template, the reference, `ore config show`.

All of it is made from the tree, so that nothing said here can differ from what is true. Nothing here writes a file.
"""

import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from msgspec import NODEFAULT, Struct

from ore.settings.tree import EVERY_SETTING, SECTIONS, AliasSettings, ModelSettings, ProviderSettings, Setting

if TYPE_CHECKING:
    from ore.settings.loading import LoadedSettings

Parts = tuple[str, ...]
"""A dotted key, taken apart: `("server", "port")`, `("models", "qwen2.5", "path")`."""

Where = Callable[[Parts], str]
"""Tells in words where a key or a section comes from: `ore.toml, line 3`."""


def dotted(parts: Parts) -> str:
    """The key as TOML writes it: `models."qwen2.5".path`."""
    return ".".join(_key(part) for part in parts)


def _key(part: str) -> str:
    return part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else to_toml(part)


def to_toml(value: Any) -> str:
    """A setting's value as TOML writes it. For other types: something readable."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(to_toml(entry) for entry in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {to_toml(entry)}" for key, entry in value.items()) + "}"
    return str(value)


_TEMPLATE_HEAD: Final = """\
# Settings of ORE, the Open Responses Engine. Each line that is commented out shows a default: remove its "#" and
# change the value. An environment variable overrides a line here (ORE_SERVER__PORT=9000), a flag overrides both
# (--port 9000). `ore config check` finds mistakes, `ore config show --origin` tells what is in force and why.
"""


def template() -> str:
    """A settings file that changes nothing: each setting with its description, commented out."""
    lines = [_TEMPLATE_HEAD]
    for section, tree, settings in _by_section():
        if section.endswith(".NAME"):
            lines += [*_example(section, tree, settings), ""]
            continue
        if section:
            lines += [f"# {_purpose(tree)}", f"[{section}]", ""]
        for setting in settings:
            lines += [*_comment(f"{setting.meta.description} {_sentence(setting.expected)}")]
            lines += [_commented_out(setting), ""]
    return "\n".join(lines).rstrip() + "\n"


_EXAMPLE_NAMES: Final = {ModelSettings: "small", AliasSettings: "fast", ProviderSettings: "openai"}


def _example(section: str, tree: type[Struct], settings: list[Setting]) -> Iterator[str]:
    """Sections that users name have no defaults to comment out, so what stands here is an example, in prose."""
    needed = " and ".join(f"`{setting.key}`" for setting in settings if setting.default is NODEFAULT)
    yield from _comment(f"{_purpose(tree)} As many as you like; {needed} alone is needed. Example:")
    yield "#"
    yield f"#   [{section.replace('NAME', _EXAMPLE_NAMES[tree])}]"
    for setting in settings:
        line = f"{setting.key} = {to_toml(setting.example)}"
        yield f"#   {line:<42} # {setting.meta.description}"


def _commented_out(setting: Setting) -> str:
    """The default; or an example, where leaving the setting out is a choice of its own."""
    if setting.default is None:
        return f"# {setting.key} = {to_toml(setting.example)}"
    return f"#{setting.key} = {to_toml(setting.default)}"


def _comment(text: str) -> Iterator[str]:
    return (f"# {line}" for line in textwrap.wrap(text, 110, break_long_words=False, break_on_hyphens=False))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _purpose(tree: type[Struct]) -> str:
    """The first paragraph of a section's docstring, without its heading."""
    text = _described(tree)[1].partition("\n\n")[0]
    return " ".join(text.split())


def _described(tree: type[Struct]) -> tuple[str, str]:
    """A section's docstring as heading and text: `[server]`, and what it is."""
    heading, _, text = inspect.cleandoc(tree.__doc__ or "").partition(": ")
    return heading, text[:1].upper() + text[1:]


def _by_section() -> list[tuple[str, type[Struct], list[Setting]]]:
    sections: dict[tuple[str, type[Struct]], list[Setting]] = {}
    for setting in EVERY_SETTING:
        sections.setdefault((setting.section, setting.tree), []).append(setting)
    return [(section, tree, settings) for (section, tree), settings in sections.items()]


_REFERENCE_HEAD: Final = """\
# Settings

<!-- Made from src/ore/settings/tree.py by ore.settings.reference(); a test holds it current. Do not edit. -->

A setting comes from, each over the one before:

1. the default in the tables below;
2. the settings file: the one that `--config` names, else the one that the variable `ORE_CONFIG` names, else
   `./ore.toml`, else `ore/config.toml` in the user's configuration folder (`$XDG_CONFIG_HOME` or `~/.config` on Linux,
   `~/Library/Application Support` on macOS, `%APPDATA%` on Windows);
3. an environment variable, `ORE_SECTION__KEY`; a list is written with commas or as JSON, a table as JSON, a switch as
   `true`, `false`, `1` or `0`;
4. a flag of the command line, such as `--port`.

Providers whose keys are in the environment are there without any setting: see `[providers.NAME]`.

An unknown key, section or `ORE_` variable is an error that names the nearest one that exists. Relative paths start at
the folder of the file they stand in, else at the current folder. `ore config init` writes a file with all of this,
`ore config check` finds mistakes, `ore config show --origin` tells what is in force and where it came from.
"""


def reference() -> str:
    """`docs/settings.md`: a table of every section."""
    lines = [_REFERENCE_HEAD]
    for section, tree, settings in _by_section():
        heading, text = _described(tree) if section else ("Before the first section", "")
        lines += [f"## {heading}", "", *([text, ""] if text else [])]
        lines += ["| setting | default | meaning | variable |", "| --- | --- | --- | --- |"]
        lines += [_row(setting) for setting in settings]
        lines += [""]
    return "\n".join(lines)


def _row(setting: Setting) -> str:
    if setting.default is NODEFAULT:
        default = "needed"
    else:
        default = "" if setting.default is None else f"`{to_toml(setting.default)}`"
    meaning = f"{setting.meta.description} {_sentence(setting.expected)}".replace("|", "\\|")
    return f"| `{setting.key}` | {default} | {meaning} | `{setting.variable}` |"


def effective(loaded: "LoadedSettings", *, origin: bool = False) -> str:
    """The settings in force as a settings file; with `origin`, each line says where its value came from."""
    lines: list[str] = []
    for section, values in _in_force(loaded):
        lines += ["", f"[{dotted(section)}]"] if section else []
        for key, value in values.items():
            line = f"{key} = {to_toml(value)}"
            lines.append(f"{line:<40} # {loaded.origins[dotted((*section, key))]}" if origin else line)
    return "\n".join(lines) + "\n"


def _in_force(loaded: "LoadedSettings") -> Iterator[tuple[Parts, dict[str, Any]]]:
    settings = loaded.settings
    yield (), {setting.key: getattr(settings, setting.key) for setting in EVERY_SETTING if not setting.section}
    for section in SECTIONS:
        yield (section,), _values(getattr(settings, section))
    for name, model in (*settings.models.items(), *settings.aliases.items()):
        yield ("models", name), _values(model)
    for name, provider in settings.providers.items():
        yield ("providers", name), _values(provider)


def _values(tree: Any) -> dict[str, Any]:
    return {key: getattr(tree, key) for key in tree.__struct_fields__ if getattr(tree, key) is not None}
