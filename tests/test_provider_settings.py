"""`[providers.NAME]`: what a section needs, what the environment brings, and that no key is ever repeated."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ore import settings
from ore.backends.provider import ProviderOptions
from ore.backends.upstream import UpstreamOptions
from ore.errors import StartupError
from ore.settings import ProviderSettings, Settings, load, resolved_headers, resolved_key
from ore.settings.providers import KINDS, ollama_url, url_problem

CANARY = "sk-canary-93f1"
OPENAI = "https://api.openai.com/v1"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ore.toml"


def loaded(file: Path, text: str, environ: dict[str, str] | None = None) -> settings.LoadedSettings:
    file.write_text(text, "utf-8")
    return load(file, {"HOME": "/h", **(environ or {})}, {})


def mistake(file: Path, text: str, environ: dict[str, str] | None = None) -> str:
    """What `load` says about this file and environment, without the folder's name."""
    with pytest.raises(StartupError) as caught:
        loaded(file, text, environ)
    return caught.value.message.replace(str(file.parent) + "/", "")


# Sections


@pytest.mark.parametrize("kind", ["openai", "anthropic", "ollama"])
def test_a_kind_with_an_address_needs_nothing_else(file: Path, kind: str) -> None:
    """The section gets the address of its kind."""
    provider = loaded(file, f'[providers.p]\nkind = "{kind}"').settings.providers["p"]
    assert provider == ProviderSettings(kind=kind, base_url=KINDS[kind].base_url)  # type: ignore[arg-type]


def test_defaults_are_those_of_the_backends() -> None:
    """What the reference says is what a provider does that is made without settings."""
    ours = ProviderSettings(kind="openai")
    for theirs in (UpstreamOptions(base_url=""), ProviderOptions(kind="openai")):
        for key in {*theirs.__struct_fields__} & {*ours.__struct_fields__} - {"headers"}:
            assert getattr(theirs, key) == getattr(ours, key), key


def test_every_setting_of_a_provider_can_be_a_variable(file: Path) -> None:
    """A whole provider may stand in the environment; its name is in lower case then."""
    environ = {
        "ORE_PROVIDERS__BOX__KIND": "chat_completions",
        "ORE_PROVIDERS__BOX__BASE_URL": "http://10.0.0.2:8000/v1",
        "ORE_PROVIDERS__BOX__API_KEY": "env:BOX_KEY",
        "ORE_PROVIDERS__BOX__HEADERS": '["X-A: 1, 2"]',
        "ORE_PROVIDERS__BOX__MODELS": "a, b",
        "ORE_PROVIDERS__BOX__DISCOVER": "0",
        "ORE_PROVIDERS__BOX__IDLE_TIMEOUT": "9.5",
        "ORE_PROVIDERS__BOX__QUEUE": "3",
    }
    found = loaded(file, "", environ)
    assert found.settings.providers == {
        "box": ProviderSettings(
            kind="chat_completions",
            base_url="http://10.0.0.2:8000/v1",
            api_key="env:BOX_KEY",
            headers=("X-A: 1, 2",),
            models=("a", "b"),
            discover=False,
            idle_timeout=9.5,
            queue=3,
        )
    }
    assert found.origins["providers.box.queue"].place == "ORE_PROVIDERS__BOX__QUEUE"
    assert found.origins["providers.box.connect_timeout"].kind == "default"


def test_variables_and_flags_override_the_file(file: Path) -> None:
    """As for every other setting; a variable means the provider of the file that it can spell."""
    file.write_text('[providers.My-Box]\nkind = "ollama"\nqueue = 1\nmax_concurrent = 1\n')
    found = load(
        file, {"HOME": "/h", "ORE_PROVIDERS__MY_BOX__QUEUE": "2"}, {"providers.My-Box.max_concurrent": 3}
    ).settings.providers
    assert list(found) == ["My-Box"]
    assert (found["My-Box"].queue, found["My-Box"].max_concurrent) == (2, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[providers.a]\nqueue = 1",
            '[providers.a] has no kind (ore.toml, line 1); add kind = "openai" or "anthropic" or "ollama" or '
            '"responses" or "chat_completions" to it.',
        ),
        (
            '[providers.a]\nkind = "opnai"',
            'providers.a.kind is "opnai" (ore.toml, line 2); it must be "openai" or "anthropic" or "ollama" or '
            '"responses" or "chat_completions".',
        ),
        (
            '[providers.a]\nkind = "responses"',
            "[providers.a] has no base_url (ore.toml, line 1), and its kind has none of its own; "
            'add base_url = "https://HOST/v1" to it.',
        ),
        (
            '[providers.a]\nkind = "openai"\napi_keys = 1',
            "There is no setting providers.a.api_keys (ore.toml, line 3); did you mean providers.a.api_key?",
        ),
        (
            '[providers.a]\nkind = "openai"\nqueue = -1',
            "providers.a.queue is -1 (ore.toml, line 3); it must be an integer of at least 0.",
        ),
        (
            '[providers."a/b"]\nkind = "openai"',
            '[providers."a/b"] (ore.toml, line 1) needs a name of letters, digits, ".", "_" and "-".',
        ),
        (
            '[provider.a]\nkind = "openai"',
            "There is no section [provider] (ore.toml, line 1); did you mean the section [providers.NAME]?",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line_and_its_fix(file: Path, text: str, message: str) -> None:
    """One sentence."""
    assert mistake(file, text) == message


@pytest.mark.parametrize(
    ("url", "end"),
    [
        ("api.openai.com/v1", "must be a URL like https://HOST/v1."),
        ("ftp://host/v1", "must be a URL like https://HOST/v1."),
        ("https://", "must be a URL like https://HOST/v1."),
        ("https://host:x/v1", "must be a URL like https://HOST/v1."),
        ("https://[::1/v1", "must be a URL like https://HOST/v1."),
        ("https://ho st/v1", "must be a URL like https://HOST/v1."),
        (
            f"https://me:{CANARY}@host/v1",
            "must not have a user or a password in it; name a key with api_key, or a header with headers.",
        ),
        (
            f"https://host/v1?key={CANARY}",
            'must end before any "?" or "#"; name a key with api_key, or a header with headers.',
        ),
    ],
)
def test_a_base_url_that_cannot_be_one_is_not_repeated(file: Path, url: str, end: str) -> None:
    """It may hold a password."""
    said = mistake(file, f'[providers.a]\nkind = "openai"\nbase_url = "{url}"')
    assert said == f"providers.a.base_url (ore.toml, line 3) {end}"


# Secrets


@pytest.mark.parametrize(
    "text",
    [
        f'[providers.a]\nkind = "openai"\napi_key = "{CANARY}"',
        f'[providers.a]\nkind = "openai"\napi_key = ["{CANARY}"]',
        f'[providers.a]\nkind = "openai"\napi_key = "env:{CANARY}"',
        f'[providers.a]\nkind = "openai"\napi_key = "{CANARY}\\n"',
        f'[providers.a]\nkind = "openai"\napikey = "{CANARY}"',
        f'[providers.a]\nkind = "openai"\nbase_url = "https://{CANARY}@host"',
        f'[providers.a]\nkind = "openai"\nheaders = ["Authorization: Bearer {CANARY}"]',
        f'[providers.a]\nkind = "openai"\nheaders = ["x-api-key: {CANARY}"]',
        f'[providers.a]\nkind = "openai"\nheaders = ["{CANARY}"]',
        f'[providers.a]\nkind = "openai"\nheaders = "Authorization: {CANARY}"',
        f'[providers.a]\nkind = "openai"\nheaders = {{Authorization = "{CANARY}"}}',
        f'[providers]\nopenai = "{CANARY}"',
        f'providers = "{CANARY}"',
        f'api_key = "{CANARY}"',
        f'[providers.a]\nkind = "openai"\napi_key = {CANARY}',
    ],
)
def test_a_secret_in_the_settings_is_refused_and_not_repeated(file: Path, text: str) -> None:
    """Wherever it was written by mistake."""
    assert CANARY not in mistake(file, text)


def test_a_literal_key_is_refused_with_what_to_write(file: Path) -> None:
    """In the file and in a variable."""
    said = mistake(file, f'[providers.a]\nkind = "openai"\napi_key = "{CANARY}"')
    assert said == (
        "providers.a.api_key (ore.toml, line 3) must not be a key itself; put the key into an environment variable and "
        'write "env:NAME" here, or into a file and write "file:PATH".'
    )
    said = mistake(file, "", {"ORE_PROVIDERS__A__KIND": "openai", "ORE_PROVIDERS__A__API_KEY": CANARY})
    assert said.startswith("providers.a.api_key (environment variable ORE_PROVIDERS__A__API_KEY) must not be a key")
    assert CANARY not in said


def provider(**fields: object) -> ProviderSettings:
    return ProviderSettings(kind="openai", base_url=OPENAI, **fields)  # type: ignore[arg-type]


def test_references_are_resolved(tmp_path: Path) -> None:
    """Variables and files, as a key and in headers; white space around a secret is not of it."""
    (tmp_path / "key").write_text(f"{CANARY}\n")
    environ = {"A_KEY": f" {CANARY} "}
    for reference in ("env:A_KEY", f"file:{tmp_path / 'key'}"):
        assert resolved_key("a", provider(api_key=reference), environ) == CANARY
    assert resolved_key("a", provider(), environ) == ""
    lines = ("X-Team: research: a, b", "Authorization: Bearer env:A_KEY", f"x-api-key:file:{tmp_path / 'key'}")
    assert resolved_headers("a", provider(headers=lines), environ) == {
        "X-Team": "research: a, b",
        "Authorization": f"Bearer {CANARY}",
        "x-api-key": CANARY,
    }


def test_files_of_keys_start_at_the_folder_of_the_settings(file: Path) -> None:
    """As all paths do; `~` is the home."""
    text = '[providers.a]\nkind = "openai"\napi_key = "file:a.key"\nheaders = ["x-key: file:~/b.key"]\n'
    found = loaded(file, text).settings.providers["a"]
    assert found.api_key == f"file:{file.parent / 'a.key'}"
    assert found.headers == ("x-key: file:/h/b.key",)


def test_a_reference_to_nothing_is_a_sentence(tmp_path: Path) -> None:
    """It names the setting, the reference and what is wrong."""
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "two").write_text(f"{CANARY}\n{CANARY}")
    ends = {
        "env:GONE": "but that variable is not set; set it, or correct the reference.",
        "env:EMPTY": "but that variable is empty; set it, or correct the reference.",
        "env:BROKEN": "but what is there is not one line of plain text; put the key alone there.",
        f"file:{tmp_path / 'gone'}": "but that file cannot be read: No such file or directory.",
        f"file:{tmp_path}": "but that file cannot be read: Is a directory.",
        f"file:{tmp_path / 'empty'}": "but that file is empty; put the key there.",
        f"file:{tmp_path / 'binary'}": "but that file is not text; put the key alone there.",
        f"file:{tmp_path / 'two'}": "but what is there is not one line of plain text; put the key alone there.",
    }
    environ = {"EMPTY": "", "BROKEN": f"{CANARY}\r\nX-Evil: 1"}
    for reference, end in ends.items():
        with pytest.raises(StartupError) as caught:
            resolved_key("a", provider(api_key=reference), environ)
        assert caught.value.message == f"[providers.a] api_key is {reference}, {end}"
    with pytest.raises(StartupError, match=r"\[providers.a\] headers, x-key, is env:GONE, but"):
        resolved_headers("a", provider(headers=("x-key: env:GONE",)), {})


# The environment


def test_keys_in_the_environment_make_providers(file: Path) -> None:
    """Each says which variable it comes from, and where its key is; the key itself is nowhere."""
    environ = {"OPENAI_API_KEY": CANARY, "ANTHROPIC_API_KEY": CANARY, "OLLAMA_HOST": "box"}
    found = loaded(file, "", environ)
    assert found.settings.providers == {
        "openai": ProviderSettings(kind="openai", base_url=OPENAI, api_key="env:OPENAI_API_KEY"),
        "anthropic": ProviderSettings(
            kind="anthropic", base_url="https://api.anthropic.com/v1", api_key="env:ANTHROPIC_API_KEY"
        ),
        "ollama": ProviderSettings(kind="ollama", base_url="http://box:11434/v1"),
    }
    shown = settings.effective(found, origin=True)
    assert CANARY not in repr(found) + shown
    assert "# environment variable OPENAI_API_KEY" in shown
    assert "# environment variable OLLAMA_HOST" in shown
    assert settings.resolve_models(found.settings).default_model == "ore-tiny"


def test_what_is_picked_up_can_be_written_and_read_back(file: Path) -> None:
    """`ore config show` is a file that gives the same settings."""
    environ = {"HOME": "/h", "OPENAI_API_KEY": CANARY, "OLLAMA_HOST": ":1"}
    first = loaded(file, '[models.a]\ntargets = ["openai/x", "ollama/y"]', environ)
    assert loaded(file, settings.effective(first, origin=True), environ).settings == first.settings


def test_empty_variables_and_base_urls_make_no_provider(file: Path) -> None:
    """`OPENAI_BASE_URL` usually leads to ORE itself."""
    environ = {"OPENAI_API_KEY": "", "ANTHROPIC_API_KEY": " ", "OLLAMA_HOST": "", "OPENAI_BASE_URL": "http://x/v1"}
    assert loaded(file, "", environ).settings.providers == {}


def test_a_configured_provider_stands_in_the_place_of_one_that_is_picked_up(file: Path) -> None:
    """Its settings are its own, whatever its kind."""
    text = '[providers.openai]\nkind = "responses"\nbase_url = "http://other/v1"\n'
    found = loaded(file, text, {"OPENAI_API_KEY": CANARY}).settings.providers
    assert found == {"openai": ProviderSettings(kind="responses", base_url="http://other/v1")}


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ("", "env:OPENAI_API_KEY"),
        (f'base_url = "{OPENAI}/"', "env:OPENAI_API_KEY"),
        ('api_key = "env:OTHER"', "env:OTHER"),
        ('api_key = ""', ""),
        ('base_url = "http://gateway/v1"', ""),
    ],
)
def test_the_usual_key_goes_to_the_usual_address_alone(file: Path, lines: str, key: str) -> None:
    """A provider without `api_key` takes the key of its kind; another server than its kind's is not shown it."""
    found = loaded(file, f'[providers.main]\nkind = "openai"\n{lines}', {"OPENAI_API_KEY": CANARY})
    assert found.settings.providers["main"].api_key == key
    if not lines:
        assert str(found.origins["providers.main.api_key"]) == "environment variable OPENAI_API_KEY"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:11434/v1"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080/v1"),
        (":8080", "http://127.0.0.1:8080/v1"),
        ("0.0.0.0", "http://127.0.0.1:11434/v1"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080/v1"),
        ("http://0.0.0.0:8080", "http://127.0.0.1:8080/v1"),
        ("box.lan", "http://box.lan:11434/v1"),
        ("http://box.lan", "http://box.lan:80/v1"),
        ("https://box.lan", "https://box.lan:443/v1"),
        ("https://box.lan:8443/", "https://box.lan:8443/v1"),
        ("https://box.lan/ollama", "https://box.lan:443/ollama/v1"),
        ("https://box.lan/ollama/v1/", "https://box.lan:443/ollama/v1"),
        ("::1", "http://[::1]:11434/v1"),
        ("[::1]", "http://[::1]:11434/v1"),
        ("[::1]:8080", "http://[::1]:8080/v1"),
        ("[::]:8080", "http://[::1]:8080/v1"),
        ("box.lan:99999", "http://box.lan:11434/v1"),
        ("box.lan:x", "http://box.lan:11434/v1"),
    ],
)
def test_every_spelling_of_ollama_host(file: Path, host: str, url: str) -> None:
    """Those that Ollama takes, with quotes and spaces around them too."""
    assert ollama_url(host) == url
    assert loaded(file, "", {"OLLAMA_HOST": f' "{host}" '}).settings.providers["ollama"].base_url == url


def test_an_ollama_host_that_cannot_be_one_is_named_and_not_repeated(file: Path) -> None:
    """A password may stand in it."""
    said = mistake(file, "", {"OLLAMA_HOST": f"http://me:{CANARY}@box"})
    assert said == "providers.ollama.base_url (environment variable OLLAMA_HOST) must be a URL like https://HOST/v1."


@given(host=st.text(max_size=30) | st.from_regex(r"(https?://)?[a-z0-9.\[\]:]{0,12}(:\d{0,6})?(/[a-z]*)?"))
def test_any_ollama_host_is_a_url_or_a_sentence(host: str) -> None:
    """Whatever the variable holds, `load` returns settings or raises `StartupError`, and nothing else."""
    try:
        found = load(Path("/dev/null"), {"OLLAMA_HOST": host, "HOME": "/h"}, {}).settings.providers
    except StartupError as error:
        assert error.message.endswith(".")
    else:
        assert all(url_problem(provider.base_url) is None for provider in found.values())


# Models of providers


def test_what_names_a_model_of_a_provider() -> None:
    """The first slash divides; a list of models is a list of all that may be asked for."""
    base = Settings(providers={"a": provider(), "b": provider(models=("x", "org/y"))})
    names = ("a/x", "a/org/x", "a/", "a", "c/x", "b/x", "b/org/y", "b/z")
    found = {name: settings.provider_model(base, name) for name in names}
    assert found["a/x"] == ("a", "x")
    assert found["a/org/x"] == ("a", "org/x")
    assert found["b/org/y"] == ("b", "org/y")
    assert [name for name, model in found.items() if model is None] == ["a/", "a", "c/x", "b/z"]
