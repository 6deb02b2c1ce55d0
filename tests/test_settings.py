"""Settings: who overrides whom, what each mistake says, and that everything written about them is true."""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ore import settings
from ore.errors import StartupError
from ore.settings import EVERY_SETTING, ModelSettings, Setting, Settings, folders, load, resolve_models
from ore.settings.writing import dotted, to_toml

ROOT = Path(__file__).parents[1]

unhurried = hypothesis_settings(deadline=None)
"""For properties that write files: on a busy machine one write may take any time."""


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment whose home is empty."""
    return {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ore.toml"


def mistake(file: Path, text: str, environ: dict[str, str] | None = None) -> str:
    """What `load` says about this file and environment, without the folder's name."""
    file.write_text(text, "utf-8")
    with pytest.raises(StartupError) as caught:
        load(file, environ or {}, {})
    return caught.value.message.replace(str(file.parent) + "/", "")


# Where values come from


@pytest.mark.parametrize("layers", [c for n in range(4) for c in itertools.combinations(("file", "env", "flag"), n)])
def test_the_highest_layer_that_has_a_value_wins(file: Path, home: dict[str, str], layers: tuple[str, ...]) -> None:
    """Flags are over variables, variables over the file, the file over defaults, in every combination."""
    file.write_text("[server]\nport = 1001\n" if "file" in layers else "")
    loaded = load(
        file,
        home | ({"ORE_SERVER__PORT": "1002"} if "env" in layers else {}),
        {"server.port": 1003 if "flag" in layers else None},
    )
    expected = {"file": 1001, "env": 1002, "flag": 1003}
    origins = {
        "file": f"{file}, line 2",
        "env": "environment variable ORE_SERVER__PORT",
        "flag": "flag --port",
    }
    assert loaded.settings.server.port == (expected[layers[-1]] if layers else 8000)
    assert str(loaded.origins["server.port"]) == (origins[layers[-1]] if layers else "default")


def test_without_anything_the_defaults_are_in_force(
    home: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file, no variable, no flag: the defaults of the tree, and the user's data folder."""
    monkeypatch.chdir(tmp_path)
    loaded = load(None, home, {})
    assert loaded.path is None
    assert loaded.settings == Settings(data_dir=str(settings.user_data_dir(home)))
    assert {origin.kind for origin in loaded.origins.values()} == {"default"}


def test_the_settings_file_is_searched_in_order(
    home: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A named file is before ORE_CONFIG, which is before ./ore.toml, which is before the user's own."""
    monkeypatch.chdir(tmp_path)
    user = settings.user_config_file(home)
    user.parent.mkdir(parents=True)
    files = [user, Path("ore.toml"), tmp_path / "variable.toml", tmp_path / "named.toml"]
    for port, path in enumerate(files, 1):
        path.write_text(f"server.port = {port}")
        environ = home | ({"ORE_CONFIG": str(files[2])} if port >= 3 else {})
        loaded = load(files[3] if port == 4 else None, environ, {})
        assert (loaded.settings.server.port, loaded.path) == (port, path)


def test_an_empty_ore_config_is_no_file(home: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ORE_CONFIG=` counts as not set."""
    monkeypatch.chdir(tmp_path)
    assert load(None, home | {"ORE_CONFIG": ""}, {}).path is None


def test_paths_in_a_file_start_at_its_folder(file: Path, home: dict[str, str]) -> None:
    """Relative paths in a file are relative to it, `~` is the home, hub references and bundled names stay."""
    file.write_text(
        'data_dir = "data"\n[models.a]\npath = "a.gguf"\n[models.b]\npath = "~/b.gguf"\n'
        '[models.c]\npath = "org/repo:c.gguf"\n[models.d]\npath = "ore-tiny"\n'
    )
    found = load(file, home, {}).settings
    assert found.data_path() == file.parent / "data"
    assert [model.path for model in found.models.values()] == [
        str(file.parent / "a.gguf"),
        str(Path(home["HOME"]) / "b.gguf"),
        "org/repo:c.gguf",
        "ore-tiny",
    ]


def test_paths_in_variables_and_flags_start_here(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside a file, relative paths are relative to the current folder."""
    monkeypatch.chdir(tmp_path)
    file.write_text("")
    found = load(file, {"ORE_MODELS__A__PATH": "a.gguf"}, {"data_dir": "data"}).settings
    assert (found.data_dir, found.models["a"].path) == (str(tmp_path / "data"), str(tmp_path / "a.gguf"))


def test_a_file_may_begin_with_a_byte_order_mark(file: Path) -> None:
    """Editors on Windows write one."""
    file.write_bytes(b"\xef\xbb\xbf[server]\r\nport = 9\r\n")
    assert load(file, {}, {}).settings.server.port == 9


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("ORE_SERVER__PORT", "9000", "server.port", 9000),
        ("ORE_SERVER__HEADER_TIMEOUT", "2.5", "server.header_timeout", 2.5),
        ("ORE_SERVER__DOCS", "0", "server.docs", False),
        ("ORE_SERVER__DOCS", "False", "server.docs", False),
        ("ORE_SERVER__STRICT_FIELDS", "1", "server.strict_fields", True),
        ("ORE_SERVER__CORS_ORIGINS", "http://a, http://b", "server.cors_origins", ("http://a", "http://b")),
        ("ORE_SERVER__CORS_ORIGINS", '["http://a"]', "server.cors_origins", ("http://a",)),
        ("ORE_SERVER__CORS_ORIGINS", "", "server.cors_origins", ()),
        ("ORE_LOG__LEVEL", "debug", "log.level", "debug"),
        ("ORE_DEFAULT_MODEL", "x", "default_model", "x"),
        ("ORE_LLAMA_CPP__GPU_LAYERS", "-1", "llama_cpp.gpu_layers", -1),
    ],
)
def test_variables_are_read_by_the_type_of_the_setting(
    file: Path, variable: str, text: str, name: str, value: object
) -> None:
    """Numbers, switches, lists and words in the environment become what the setting holds."""
    file.write_text("")
    found: Any = load(file, {variable: text}, {}).settings
    for part in name.split("."):
        found = getattr(found, part)
    assert found == value


def test_a_variable_means_the_model_of_the_file_that_it_can_spell(file: Path) -> None:
    """`ORE_MODELS__QWEN2_5_7B__SLOTS` is about the file's `[models."qwen2.5-7B"]`, not about a new model."""
    file.write_text('[models."qwen2.5-7B"]\npath = "/q.gguf"\n')
    loaded = load(file, {"ORE_MODELS__QWEN2_5_7B__SLOTS": "2"}, {})
    assert loaded.settings.models == {"qwen2.5-7B": ModelSettings(path="/q.gguf", slots=2)}
    assert loaded.origins['models."qwen2.5-7B".slots'].place == "ORE_MODELS__QWEN2_5_7B__SLOTS"


def test_variables_that_kubernetes_makes_for_a_service_named_ore_are_no_settings(file: Path) -> None:
    """Nobody wrote them, so they must not stop the server."""
    file.write_text("")
    environ = {
        "ORE_SERVICE_HOST": "10.0.0.1",
        "ORE_SERVICE_PORT": "8000",
        "ORE_SERVICE_PORT_HTTP": "8000",
        "ORE_PORT": "tcp://10.0.0.1:8000",
        "ORE_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "ORE_PORT_8000_TCP_PROTO": "tcp",
    }
    assert load(file, environ, {}).settings.server.port == 8000


# Folders


@pytest.mark.parametrize(
    ("platform", "environ", "data", "config"),
    [
        ("linux", {"HOME": "/h"}, "/h/.local/share/ore", "/h/.config/ore/config.toml"),
        ("linux", {"XDG_DATA_HOME": "/d", "XDG_CONFIG_HOME": "/c"}, "/d/ore", "/c/ore/config.toml"),
        ("linux", {"HOME": "/h", "XDG_DATA_HOME": "relative"}, "/h/.local/share/ore", "/h/.config/ore/config.toml"),
        (
            "darwin",
            {"HOME": "/h"},
            "/h/Library/Application Support/ore",
            "/h/Library/Application Support/ore/config.toml",
        ),
        ("win32", {"LOCALAPPDATA": "/l", "APPDATA": "/a"}, "/l/ore", "/a/ore/config.toml"),
        ("win32", {"USERPROFILE": "/u"}, "/u/AppData/Local/ore", "/u/AppData/Roaming/ore/config.toml"),
    ],
)
def test_each_platform_has_its_own_folders(
    monkeypatch: pytest.MonkeyPatch, platform: str, environ: dict[str, str], data: str, config: str
) -> None:
    """Linux follows the XDG specification; macOS and Windows have their usual places."""
    monkeypatch.setattr(folders.sys, "platform", platform)
    assert (folders.user_data_dir(environ), folders.user_config_file(environ)) == (Path(data), Path(config))


def test_settings_made_by_hand_must_say_where_data_goes() -> None:
    """Only `load` knows the user's folders; an empty data_dir never means the current folder."""
    with pytest.raises(StartupError, match="data_dir is empty"):
        Settings().data_path()
    assert Settings(data_dir="/x").data_path() == Path("/x")


# Mistakes

EITHER = 'add path = "FILE.gguf" to it, or targets = ["PROVIDER/MODEL"].'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\nprot = 1", "There is no setting server.prot (ore.toml, line 2); did you mean server.port?"),
        ("port = 1", "There is no setting port (ore.toml, line 1); did you mean server.port?"),
        ("[servers]\nport = 1", "There is no section [servers] (ore.toml, line 1); did you mean the section [server]?"),
        ('"server.port" = 1', 'There is no setting "server.port" (ore.toml, line 1); did you mean server.port?'),
        ("colour = 1", "There is no setting colour (ore.toml, line 1); `ore config show` lists all settings."),
        (
            '[models.a]\npath = "x"\nslot = 1',
            "There is no setting models.a.slot (ore.toml, line 3); did you mean models.a.slots?",
        ),
        (
            "[server]\n\nport = 70000",
            "server.port is 70000 (ore.toml, line 3); it must be an integer from 0 to 65535.",
        ),
        ('server.port = "80"', 'server.port is "80" (ore.toml, line 1); it must be an integer from 0 to 65535.'),
        ("server = {port = true}", "server.port is true (ore.toml, line 1); it must be an integer from 0 to 65535."),
        ("server = 3", "server is 3 (ore.toml, line 1); it must be a section, [server]."),
        ("models = []", "models is [] (ore.toml, line 1); it must be a section, [models.NAME]."),
        ('models.a = "x"', 'models.a is "x" (ore.toml, line 1); it must be a section, [models.a].'),
        (
            '[log]\nlevel = "warn"',
            'log.level is "warn" (ore.toml, line 2); it must be "debug" or "info" or "warning" or "error".',
        ),
        ("server.keep_alive = 80", "server.keep_alive is 80 (ore.toml, line 1); it must be a number from 1 to 75."),
        (
            "server.header_timeout = inf",
            "server.header_timeout is inf (ore.toml, line 1); it must be a number above 0.",
        ),
        (
            "server.header_timeout = nan",
            "server.header_timeout is nan (ore.toml, line 1); it must be a number above 0.",
        ),
        (
            'server.cors_origins = "*"',
            'server.cors_origins is "*" (ore.toml, line 1); it must be a list of strings.',
        ),
        ("[models.a]", f"[models.a] has neither path nor targets (ore.toml, line 1); {EITHER}"),
        ('[models.a]\npath = ""', f"[models.a] has neither path nor targets (ore.toml, line 1); {EITHER}"),
        ("x = ", "ore.toml is not valid TOML: Invalid value (at end of document)."),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_line_and_its_fix(file: Path, text: str, message: str) -> None:
    """One sentence: the setting, the value, the line, and what would be right."""
    assert mistake(file, text) == message


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        (
            "ORE_PORT",
            "9000",
            "The environment variable ORE_PORT is no setting of ORE; did you mean ORE_SERVER__PORT?",
        ),
        (
            "ORE_SERVER_PORT",
            "9000",
            "The environment variable ORE_SERVER_PORT is no setting of ORE; did you mean ORE_SERVER__PORT?",
        ),
        (
            "ORE_XYZZY",
            "",
            "The environment variable ORE_XYZZY is no setting of ORE; `ore config show` lists all settings.",
        ),
        (
            "ORE_MODELS__A__SLOT",
            "1",
            "The environment variable ORE_MODELS__A__SLOT is no setting of ORE; did you mean ORE_MODELS__A__SLOTS?",
        ),
        (
            "ORE_SERVER__PORT",
            "abc",
            'server.port is "abc" (environment variable ORE_SERVER__PORT); it must be an integer from 0 to 65535.',
        ),
        (
            "ORE_SERVER__DOCS",
            "maybe",
            'server.docs is "maybe" (environment variable ORE_SERVER__DOCS); it must be true or false.',
        ),
        (
            "ORE_SERVER__CORS_ORIGINS",
            "[1",
            'server.cors_origins is "[1" (environment variable ORE_SERVER__CORS_ORIGINS);'
            " it must be a list of strings.",
        ),
        (
            "ORE_MODELS__A__SLOTS",
            "1",
            f"[models.a] has neither path nor targets (environment variable ORE_MODELS__A__SLOTS); {EITHER}",
        ),
    ],
)
def test_a_mistake_in_the_environment_is_named_with_its_fix(file: Path, variable: str, text: str, message: str) -> None:
    """One sentence: the variable, the value, and what would be right."""
    assert mistake(file, "", {variable: text}) == message


def test_a_variable_that_could_mean_two_models_is_refused(file: Path) -> None:
    """`a-b` and `a.b` have one spelling in the environment."""
    text = '[models."a.b"]\npath = "x"\n[models.a-b]\npath = "y"\n'
    assert "could mean the model a-b or a.b" in mistake(file, text, {"ORE_MODELS__A_B__SLOTS": "1"})


def test_a_wrong_flag_is_named(file: Path) -> None:
    """The message names the flag and not the setting alone."""
    file.write_text("")
    with pytest.raises(StartupError, match=re.escape("server.port is 70000 (flag --port)")):
        load(file, {}, {"server.port": 70000})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, file: Path) -> None:
    """A missing file, a folder and bytes that are no text each have their sentence."""
    with pytest.raises(StartupError, match=r"does not exist; write one with `ore config init"):
        load(file, {}, {})
    with pytest.raises(StartupError, match="does not exist"):
        load(None, {"ORE_CONFIG": str(file)}, {})
    with pytest.raises(StartupError, match="cannot be read"):
        load(tmp_path, {}, {})
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(StartupError, match="not UTF-8"):
        load(file, {}, {})


def test_toml_that_breaks_the_parser_in_other_ways_is_refused(file: Path) -> None:
    """Numbers too long for Python and nesting too deep for it end in the same sentence."""
    assert "is not valid TOML" in mistake(file, f"a = {'1' * 5000}")
    assert "is not valid TOML" in mistake(file, f"a = {'[' * 5000}")


KEYS = st.sampled_from(
    [*settings.tree.SECTIONS, *settings.tree.FAMILIES, *(setting.key for setting in EVERY_SETTING), "x", ""]
)
SCALARS = st.integers() | st.floats() | st.booleans() | st.text(max_size=5) | st.sampled_from(["sqlite", "ore-tiny"])
TREES = st.dictionaries(
    KEYS,
    st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3)),
    max_size=4,
)


def as_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{to_toml(key)} = {as_toml(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(as_toml(entry) for entry in value) + "]"
    return to_toml(value)


@unhurried
@given(tree=TREES)
def test_any_file_gives_settings_or_a_sentence(tree: dict[str, Any]) -> None:
    """Whatever a TOML file holds, `load` returns settings or raises `StartupError`, and nothing else."""
    check_any_file("\n".join(f"{to_toml(key)} = {as_toml(value)}" for key, value in tree.items()))


@unhurried
@given(text=st.text(max_size=40))
def test_any_text_gives_settings_or_a_sentence(text: str) -> None:
    """Whatever text the file is, `load` returns settings or raises `StartupError`, and nothing else."""
    check_any_file(text)


def check_any_file(text: str) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder, "ore.toml")
        file.write_text(text, "utf-8", errors="replace")
        try:
            load(file, {"HOME": folder}, {})
        except StartupError as error:
            assert error.message.endswith((".", "?"))


@unhurried
@given(
    name=st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ_", max_size=20)
    | st.sampled_from([setting.variable.removeprefix("ORE_") for setting in EVERY_SETTING]),
    text=st.text(max_size=10),
)
def test_any_variable_gives_settings_or_a_sentence(name: str, text: str) -> None:
    """Whatever an `ORE_` variable is called and holds, `load` returns settings or raises `StartupError`."""
    try:
        load(Path("/dev/null"), {"ORE_" + name: text, "HOME": "/h"}, {})
    except StartupError as error:
        assert error.message.endswith((".", "?"))


# What is written about settings


def values(setting: Setting) -> st.SearchStrategy[Any]:
    """Right values of a setting."""
    if get_origin(setting.kind) is tuple:
        return st.lists(st.text("abc:/*. ,", min_size=1).map(str.strip).filter(bool), max_size=3)
    if get_args(setting.kind):
        return st.sampled_from(get_args(setting.kind))
    meta = setting.meta
    if setting.kind is int:
        return st.integers(meta.ge, meta.le)
    if setting.kind is float:
        low = meta.ge if meta.ge is not None else meta.gt
        return st.floats(low, meta.le, allow_nan=False, allow_infinity=False, exclude_min=meta.gt is not None)
    return st.booleans() if setting.kind is bool else st.text(min_size=1, max_size=8)


PLAIN = [setting for setting in EVERY_SETTING if ".NAME" not in setting.section and setting.key != "data_dir"]


@unhurried
@given(data=st.data())
def test_every_setting_can_be_given_as_a_variable(data: st.DataObject) -> None:
    """A value in the environment is the same as the value itself on the command line."""
    setting = data.draw(st.sampled_from(PLAIN))
    value = data.draw(values(setting))
    text = json.dumps(value) if isinstance(value, list) else str(value)
    by_variable = load(Path("/dev/null"), {setting.variable: text, "HOME": "/h"}, {})
    by_flag = load(Path("/dev/null"), {"HOME": "/h"}, {setting.name: value})
    assert by_variable.settings == by_flag.settings


@unhurried
@given(data=st.data())
def test_settings_in_force_can_be_written_and_read_back(data: st.DataObject) -> None:
    """Loading what `ore config show` prints, with or without origins, gives the same settings."""
    chosen = data.draw(st.lists(st.sampled_from(PLAIN), max_size=5))
    flags = {setting.name: data.draw(values(setting)) for setting in chosen}
    with TemporaryDirectory() as folder:
        file = Path(folder, "ore.toml")
        name = data.draw(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6))
        file.write_text(f'[models.{to_toml(name)}]\npath = "/x.gguf"\ntemperature = 0.5\n')
        first = load(file, {"HOME": "/h"}, flags)
        for origin in (False, True):
            file.write_text(settings.effective(first, origin=origin), "utf-8", newline="\n")
            assert load(file, {"HOME": "/h"}, {}).settings == first.settings


def test_the_template_changes_nothing(file: Path, home: dict[str, str]) -> None:
    """Loading the template as it is, or with every setting uncommented, gives the defaults."""
    default = Settings(data_dir=str(settings.user_data_dir(home)))
    file.write_text(settings.template())
    assert load(file, home, {}).settings == default
    uncommented, count = re.subn(r"^#(?=\w+ = )", "", settings.template(), flags=re.MULTILINE)
    assert count == len([setting for setting in PLAIN if setting.default is not None]) + 1
    file.write_text(uncommented)
    loaded = load(file, home, {})
    assert loaded.settings == default
    left_out = {name for name, origin in loaded.origins.items() if origin.kind != "file"}
    assert left_out == {setting.name for setting in PLAIN if setting.default is None}


def test_the_examples_in_the_template_work(file: Path, home: dict[str, str]) -> None:
    """Uncommenting them gives a model, an alias and a provider with every setting that each of them has."""
    lines = [line.removeprefix("#   ") for line in settings.template().splitlines() if line.startswith("#   ")]
    file.write_text("\n".join(lines))
    loaded = load(file, home, {})
    for section, name in (("models", "small"), ("aliases", "fast"), ("providers", "openai")):
        example = getattr(loaded.settings, section)[name]
        given = {key for key in example.__struct_fields__ if getattr(example, key) not in (None, "", ())}
        assert given == set(example.__struct_fields__)
        family = "models" if section == "aliases" else section
        assert {loaded.origins[f"{family}.{name}.{key}"].kind for key in given} == {"file"}


def test_every_setting_has_a_description_and_stands_in_template_and_reference() -> None:
    """A setting cannot exist without a word about it."""
    template, reference = settings.template(), settings.reference()
    for setting in EVERY_SETTING:
        assert setting.meta.description, setting.name
        assert f"| `{setting.key}` |" in reference
        assert f"`{setting.variable}` |" in reference
        assert f"{setting.key} " in template


def test_the_reference_is_current() -> None:
    """docs/settings.md is what the settings say of themselves."""
    remake = "python -c \"from ore import settings; print(settings.reference(), end='')\" > docs/settings.md"
    assert (ROOT / "docs/settings.md").read_text("utf-8") == settings.reference(), f"Run: {remake}"


# Which models are served


def configured(**models: str) -> Settings:
    return Settings(data_dir="/d", models={name: ModelSettings(path=path) for name, path in models.items()})


def outcome(found: Settings) -> tuple[str, dict[str, str]]:
    return found.default_model, {name: model.path for name, model in found.models.items()}


def resolutions() -> Iterator[tuple[Settings, str | None, str, dict[str, str]]]:
    two = {"a": "/a.gguf", "b": "/b.gguf"}
    tiny = {"ore-tiny": "ore-tiny"}
    yield configured(), None, "ore-tiny", tiny
    yield configured(), "ore-tiny", "ore-tiny", tiny
    yield configured(), "/m/Small.GGUF", "Small", {"Small": "/m/Small.GGUF"}
    yield configured(), "org/repo:sub/q4.gguf", "q4", {"q4": "org/repo:sub/q4.gguf"}
    yield configured(a="/a.gguf"), None, "a", {"a": "/a.gguf"}
    yield configured(**two), None, "", two
    yield configured(**two), "b", "b", two
    yield configured(**two), "ore-tiny", "ore-tiny", two | tiny
    yield configured(**two), "/other/b.gguf", "b", two | {"b": "/other/b.gguf"}


@pytest.mark.parametrize(("before", "argument", "default", "models"), list(resolutions()))
def test_the_models_that_a_server_serves(
    before: Settings, argument: str | None, default: str, models: dict[str, str]
) -> None:
    """What MODEL adds, what is the default, and that without any model the bundled one is served."""
    assert outcome(resolve_models(before, argument)) == (default, models)


def test_a_configured_default_model_is_looked_up() -> None:
    """`default_model` may name a configured or a bundled model; MODEL is over it."""
    base = {"data_dir": "/d", "models": {"a": ModelSettings(path="/a.gguf"), "b": ModelSettings(path="/b.gguf")}}
    assert resolve_models(Settings(default_model="b", **base)).default_model == "b"
    assert "ore-tiny" in resolve_models(Settings(default_model="ore-tiny", **base)).models
    assert resolve_models(Settings(default_model="b", **base), "a").default_model == "a"
    with pytest.raises(StartupError, match=r"default_model is bb, which no .* defines; did you mean b\?|there is"):
        resolve_models(Settings(default_model="bb", **base))


def test_a_relative_model_path_is_served_from_where_the_user_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ore serve ./x.gguf` means the file here."""
    monkeypatch.chdir(tmp_path)
    assert resolve_models(configured(), "./x.gguf").models["x"].path == str(tmp_path / "x.gguf")


def test_a_replaced_path_keeps_the_other_settings_of_the_model() -> None:
    """MODEL with a configured name replaces the file alone."""
    before = Settings(data_dir="/d", models={"q": ModelSettings(path="/old/q.gguf", temperature=0.2)})
    assert resolve_models(before, "/new/q.gguf").models["q"] == ModelSettings(path="/new/q.gguf", temperature=0.2)


@pytest.mark.parametrize(
    ("argument", "end"),
    [("smal", "did you mean small?"), ("xyz", "there is small, ore-tiny."), ("ore-tniy", "did you mean ore-tiny?")],
)
def test_an_unknown_model_is_refused_with_the_nearest(argument: str, end: str) -> None:
    """The sentence ends with the nearest name, or with all there are."""
    with pytest.raises(StartupError) as caught:
        resolve_models(configured(small="/s.gguf"), argument)
    assert caught.value.message.endswith(end)


@pytest.mark.parametrize(
    ("path", "reference"),
    [
        ("org/repo:f.gguf", ("org/repo", "f.gguf")),
        ("org/repo:a/b/f.gguf", ("org/repo", "a/b/f.gguf")),
        ("org/repo:../f.gguf", None),
        ("org/..:f.gguf", None),
        ("org/repo:/f.gguf", None),
        ("org/repo:f.bin", None),
        ("org/repo", None),
        ("C:\\models\\f.gguf", None),
        ("/a/b:f.gguf", None),
        ("org/repo:f.gguf\n", None),
    ],
)
def test_what_is_a_hub_reference(path: str, reference: tuple[str, str] | None) -> None:
    """`org/repo:file.gguf` alone, and never one that could leave its folder."""
    assert settings.hub_reference(path) == reference


def test_where_the_file_of_a_model_lies() -> None:
    """Bundled files lie in the package, hub files in the data folder, others where they are."""
    base = configured()
    assert settings.model_file(base, "ore-tiny") == settings.BUNDLED_MODELS["ore-tiny"]
    assert settings.model_file(base, "o/r:s/f.gguf") == Path("/d/models/o/r/s/f.gguf")
    assert settings.model_file(base, "/x/y.gguf") == Path("/x/y.gguf")


def test_dotted_keys_are_written_as_toml_writes_them() -> None:
    """Only parts that need quotes have them."""
    assert dotted(("models", "qwen2.5", "path")) == 'models."qwen2.5".path'
