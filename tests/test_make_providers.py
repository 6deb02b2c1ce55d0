"""The composition root makes a backend of each provider that is configured, and only there keys are looked at."""

from importlib.util import find_spec
from typing import Any

import pytest

from ore import app
from ore.app import DIALECTS, make_dialect, make_providers, upstream_options
from ore.errors import StartupError
from ore.settings import KINDS, ProviderSettings, Settings

CANARY = "sk-canary-93f1"


class Spoken:
    """As much of a dialect as is needed to make a provider."""

    name = "Spoken"
    path = "speak"
    models_path = "models"

    def key_headers(self, key: str) -> dict[str, str]:
        return {"X-Version": "1", **({"X-Api-Key": key} if key else {})}


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind speaks the same."""
    for kind in DIALECTS:
        monkeypatch.setitem(app.DIALECTS, kind, (__name__, "Spoken"))


def configured(**fields: Any) -> Settings:
    provider = ProviderSettings(**{"kind": "openai", "base_url": "http://127.0.0.1:1/v1", **fields})
    return Settings(providers={"one": provider})


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_has_a_dialect(kind: str) -> None:
    """It can be made, knows its paths, and says a key only where there is one."""
    module, name = DIALECTS[kind]
    if find_spec(module) is None:
        pytest.skip(f"{module} is not there yet")
    dialect = make_dialect(kind)
    assert type(dialect).__name__ == name
    assert dialect.path and dialect.models_path
    assert CANARY in str(dialect.key_headers(CANARY))
    assert set(map(str.lower, dialect.key_headers(""))) <= {"anthropic-version"}  # no `Bearer` of nothing


@pytest.mark.usefixtures("spoken")
def test_a_provider_is_made_of_its_settings() -> None:
    """Every setting arrives, whatever it is called there."""
    settings = configured(
        kind="ollama",
        api_key="env:KEY",
        headers=("X-Team: research",),
        models=("a",),
        discover=False,
        connect_timeout=1.0,
        first_byte_timeout=2.0,
        idle_timeout=3.0,
        max_concurrent=4,
        queue=5,
    )
    made: Any = make_providers(settings, {"KEY": CANARY})["one"]
    upstream, options = made._upstream.options, made._options
    assert (made.name, options.kind, options.models, options.discover) == (
        "one",
        "ollama",
        ("a",),
        False,
    )
    assert (options.max_concurrent, options.queue) == (4, 5)
    assert upstream.headers == {"X-Version": "1", "X-Api-Key": CANARY, "X-Team": "research"}
    assert (upstream.connect_timeout, upstream.first_byte_timeout, upstream.idle_timeout) == (1.0, 2.0, 3.0)
    assert CANARY not in f"{settings!r}{options!r}{upstream!r}"
    assert make_providers(Settings(), {}) == {}


def test_headers_of_the_settings_go_over_those_of_the_dialect() -> None:
    """However they are spelled: a gateway may want the key elsewhere."""
    provider = configured(api_key="env:KEY", headers=("x-api-key: env:OTHER",)).providers["one"]
    options = upstream_options("one", provider, Spoken(), {"KEY": CANARY, "OTHER": "o"})  # type: ignore[arg-type]
    assert options.headers == {"X-Version": "1", "x-api-key": "o"}


@pytest.mark.usefixtures("spoken")
def test_a_provider_without_a_key_sends_none() -> None:
    """Servers on one's own machine ask for none."""
    made: Any = make_providers(configured(), {})["one"]
    assert made._upstream.options.headers == {"X-Version": "1"}


@pytest.mark.usefixtures("spoken")
def test_a_key_that_is_not_there_keeps_the_server_from_starting() -> None:
    """One sentence, by the provider's name."""
    with pytest.raises(StartupError, match=r"\[providers.one\] api_key is env:KEY, but that variable is not set"):
        make_providers(configured(api_key="env:KEY"), {})
