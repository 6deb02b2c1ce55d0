"""What is known of the kinds of provider, and the providers that stand in the environment without any settings.

Nothing here opens a connection or looks at a key: that a variable has one is enough.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from msgspec import Struct

from ore.errors import StartupError
from ore.hosts import is_address
from ore.settings.tree import Settings
from ore.settings.writing import Where, dotted, to_toml


class ProviderKind(Struct, frozen=True):
    """What a kind has by itself; empty is what it has not."""

    base_url: str = ""
    key_variable: str = ""
    """The environment variable in which its key is usually found."""


KINDS: Final = {
    "openai": ProviderKind("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "anthropic": ProviderKind("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
    "ollama": ProviderKind("http://127.0.0.1:11434/v1"),
    "responses": ProviderKind(),
    "chat_completions": ProviderKind(),
}


PROVIDER_VARIABLES: Final = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OLLAMA_HOST")
"""The variables that make a provider by themselves."""


class PickedUp(NamedTuple):
    """A provider that nobody configured, and the variable that it comes from."""

    name: str
    variable: str
    values: dict[str, Any]


def picked_up(environ: Mapping[str, str]) -> Iterator[PickedUp]:
    """The providers of the environment. An empty variable counts as not set."""
    for name, kind in KINDS.items():
        if kind.key_variable and environ.get(kind.key_variable, "").strip():
            yield PickedUp(name, kind.key_variable, {"kind": name, "api_key": f"env:{kind.key_variable}"})
    if host := _without_quotes(environ.get("OLLAMA_HOST", "")):
        yield PickedUp("ollama", "OLLAMA_HOST", {"kind": "ollama", "base_url": ollama_url(host)})


_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)


def complete_provider(name: str, provider: dict[str, Any], where: Where) -> None:
    """Give a provider the address of its kind. Raises `StartupError` for what it needs and has not."""
    parts = ("providers", name)
    section, origin = dotted(parts), where(parts)
    if not _NAME.fullmatch(name):
        raise StartupError(f'[{section}] ({origin}) needs a name of letters, digits, ".", "_" and "-".')
    if "kind" not in provider:
        raise StartupError(f"[{section}] has no kind ({origin}); add kind = {' or '.join(map(to_toml, KINDS))} to it.")
    provider["base_url"] = provider.get("base_url") or KINDS[provider["kind"]].base_url
    if not provider["base_url"]:
        raise StartupError(
            f"[{section}] has no base_url ({origin}), and its kind has none of its own; "
            'add base_url = "https://HOST/v1" to it.'
        )


def usual_key(provider: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    """The variable with the key of a provider that says nothing of one; empty when there is none.

    Only for the kind's own address: no other server is shown a key that the user did not mean for it.
    """
    kind = KINDS[provider["kind"]]
    if "api_key" in provider or not kind.key_variable or provider["base_url"].rstrip("/") != kind.base_url:
        return ""
    return kind.key_variable if environ.get(kind.key_variable, "").strip() else ""


def url_problem(text: str) -> str | None:
    """Why this cannot stand as `base_url`, as the end of a sentence; None when it can."""
    if not text:
        return None
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and text.isprintable()
    except ValueError:  # a port that is no number, an address in half a bracket
        good = False
    if not good or " " in text:
        return "must be a URL like https://HOST/v1."
    if "@" in parts.netloc:
        return "must not have a user or a password in it; name a key with api_key, or a header with headers."
    if "?" in text or "#" in text:
        return 'must end before any "?" or "#"; name a key with api_key, or a header with headers.'
    return None


_OLLAMA_PORTS: Final = {"": "11434", "http": "80", "https": "443"}
_EVERYWHERE: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def ollama_url(host: str) -> str:
    """The base URL that a value of `OLLAMA_HOST` means, by Ollama's own rules.

    All of scheme, host, port and path may be left out. A server that listens on all interfaces is asked on loopback.
    """
    scheme, _, rest = host.rpartition("://")
    place, _, path = rest.partition("/")
    name, port = _host_and_port(place)
    if not re.fullmatch(r"\d{1,5}", port, re.ASCII) or int(port) > 65535:
        port = _OLLAMA_PORTS.get(scheme, "11434")
    name = _EVERYWHERE.get(name, name)
    folders = [folder for folder in path.split("/") if folder]
    if folders[-1:] != ["v1"]:
        folders.append("v1")
    return f"{scheme or 'http'}://{f'[{name}]' if ':' in name else name}:{port}/{'/'.join(folders)}"


def _host_and_port(place: str) -> tuple[str, str]:
    """`host:port`, `[::1]:port`, `::1`, `host` and `:port`, taken apart."""
    if is_address(place) or ":" not in place or "@" in place:
        return place.strip("[]"), ""
    name, _, port = place.rpartition(":")
    return name.strip("[]"), port


def _without_quotes(text: str) -> str:
    return text.strip().strip("\"'").strip()


class ProviderModel(NamedTuple):
    """`PROVIDER/MODEL`, taken apart. The model's name may have slashes of its own."""

    provider: str
    model: str


def provider_model(settings: Settings, name: str) -> ProviderModel | None:
    """The provider's model that a name means; None when it means something else, or one that may not be asked for."""
    provider, _, model = name.partition("/")
    known = settings.providers.get(provider)
    if known is None or not model or (known.models and model not in known.models):
        return None
    return ProviderModel(provider, model)
