"""TOML and Markdown about settings: the template, the reference, `ore config show`.

All of it is made from the tree, so that nothing said here can differ from what is true. Nothing here writes a file.
"""

import json
import re
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from msgspec import NODEFAULT

from ore.settings.tree import EVERY_SETTING, SECTIONS, ModelSettings, Setting

if TYPE_CHECKING:
    from ore.settings.loading import LoadedSettings

Parts = tuple[str, ...]
"""A dotted key, taken apart: `("server", "port")`, `("models", "qwen2.5", "path")`."""


def dotted(parts: Parts) -> str:
    """The key as TOML writes it: `models."qwen2.5".path`."""
    return ".".join(part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else to_toml(part) for part in parts)


def to_toml(value: Any) -> str:
    """A setting's value as TOML writes it. For other types: something readable."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(to_toml(entry) for entry in value) + "]"
    return str(value)


_TEMPLATE_HEAD: Final = """\
# Settings of ORE, the Open Responses Engine. Each line that is commented out shows a default: remove its "#" and
# change the value. An environment variable overrides a line here (ORE_SERVER__PORT=9000), a flag overrides both
# (--port 9000). `ore config check` finds mistakes, `ore config show --origin` tells what is in force and why.
"""


def template() -> str:
    """A settings file that changes nothing: each setting with its description, commented out."""
    lines = [_TEMPLATE_HEAD]
    for section, settings in _by_section():
        if section == "models.NAME":
            lines += _model_example(settings)
            continue
        if section:
            lines += [f"# {_purpose(section)}", f"[{section}]", ""]
        for setting in settings:
            lines += [*_comment(f"{setting.meta.description} {_sentence(setting.expected)}")]
            lines += [_commented_out(setting), ""]
    return "\n".join(lines).rstrip() + "\n"


def _model_example(settings: list[Setting]) -> Iterator[str]:
    """Models have no defaults to comment out, so what stands in the template is an example, in prose."""
    yield from _comment(f"{_purpose('models.NAME')} As many sections as you like; `path` alone is needed. Example:")
    yield "#"
    yield "#   [models.small]"
    for setting in settings:
        line = f"{setting.key} = {to_toml((setting.meta.examples or [''])[0])}"
        yield f"#   {line:<28} # {setting.meta.description}"


def _commented_out(setting: Setting) -> str:
    """The default; or an example, where leaving the setting out is a choice of its own."""
    if setting.default is None:
        return f"# {setting.key} = {to_toml((setting.meta.examples or [''])[0])}"
    return f"#{setting.key} = {to_toml(setting.default)}"


def _comment(text: str) -> Iterator[str]:
    return (f"# {line}" for line in textwrap.wrap(text, 110, break_long_words=False, break_on_hyphens=False))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _purpose(section: str) -> str:
    """The first sentence of a section's docstring, without its heading."""
    tree = ModelSettings if section == "models.NAME" else SECTIONS[section]
    text = (tree.__doc__ or "").split(": ", 1)[-1]
    return text[0].upper() + text[1:]


def _by_section() -> list[tuple[str, list[Setting]]]:
    sections: dict[str, list[Setting]] = {}
    for setting in EVERY_SETTING:
        sections.setdefault(setting.section, []).append(setting)
    return list(sections.items())


_REFERENCE_HEAD: Final = """\
# Settings

<!-- Made from src/ore/settings/tree.py by ore.settings.reference(); a test holds it current. Do not edit. -->

A setting comes from, each over the one before:

1. the default in the tables below;
2. the settings file: the one that `--config` names, else the one that the variable `ORE_CONFIG` names, else
   `./ore.toml`, else `ore/config.toml` in the user's configuration folder (`$XDG_CONFIG_HOME` or `~/.config` on Linux,
   `~/Library/Application Support` on macOS, `%APPDATA%` on Windows);
3. an environment variable, `ORE_SECTION__KEY`; a list is written with commas or as JSON, a switch as `true`, `false`,
   `1` or `0`;
4. a flag of the command line, such as `--port`.

An unknown key, section or `ORE_` variable is an error that names the nearest one that exists. Relative paths start at
the folder of the file they stand in, else at the current folder. `ore config init` writes a file with all of this,
`ore config check` finds mistakes, `ore config show --origin` tells what is in force and where it came from.
"""


def reference() -> str:
    """`docs/settings.md`: a table of every section."""
    lines = [_REFERENCE_HEAD]
    for section, settings in _by_section():
        heading = f"`[{section}]`" if section else "Before the first section"
        lines += [f"## {heading}", ""]
        if section:
            lines += [_purpose(section), ""]
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
    for name, model in settings.models.items():
        yield ("models", name), _values(model)


def _values(tree: Any) -> dict[str, Any]:
    return {key: getattr(tree, key) for key in tree.__struct_fields__ if getattr(tree, key) is not None}
