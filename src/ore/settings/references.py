"""References to secrets: `env:NAME` and `file:PATH` stand in the settings, and what they stand for never does.

Only the composition root and the command line resolve them, when a provider is made. No message here repeats a value:
whoever writes a key into the settings by mistake must not find it in a log.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from ore.errors import StartupError
from ore.settings.tree import ProviderSettings

_REFERENCE: Final = re.compile(r"env:(?P<variable>[A-Za-z_]\w*)|file:(?P<path>\S.*)", re.ASCII)
_HEADER: Final = re.compile(r"(?P<name>[\w!#$%&'*+.^`|~-]+):[ \t]*(?P<value>[\x21-\x7e][\x20-\x7e]*)", re.ASCII)
_IN_HEADER: Final = re.compile(r"(?P<scheme>\S+ +)?(?P<reference>(?:env|file):.+)")
_SECRET_NAME: Final = re.compile(r"auth|key|token|secret|password|cookie|credential", re.IGNORECASE)
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]+")
_MAX_BYTES: Final = 64 * 1024
"""Of a file with a secret. `file:/dev/zero` has no end."""


def key_problem(text: str) -> str | None:
    """Why this cannot stand as `api_key`, as the end of a sentence; None when it can."""
    if not text or _REFERENCE.fullmatch(text):
        return None
    return (
        'must not be a key itself; put the key into an environment variable and write "env:NAME" here, or into a file '
        'and write "file:PATH".'
    )


def headers_problem(lines: Sequence[str]) -> str | None:
    """Why these cannot stand as `headers`, as the end of a sentence; None when they can."""
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None:
            return 'must be a list of headers, each written "Name: value".'
        value = _IN_HEADER.fullmatch(header["value"])
        if value is None and _SECRET_NAME.search(header["name"]):
            return (
                f'must not have a secret in it; write "{header["name"]}: env:NAME", or "Bearer env:NAME" for its value.'
            )
        if value is not None and not _REFERENCE.fullmatch(value["reference"]):
            return f'must name a variable in the value of {header["name"]}, "env:NAME", or a file, "file:PATH".'
    return None


def anchored(text: str, absolute: Callable[[str], Path]) -> str:
    """The text with the path of a `file:` at its end made absolute."""
    before, mark, path = text.partition("file:")
    return f"{before}{mark}{absolute(path)}" if mark and path and before[-1:] in ("", " ") else text


def resolved_key(name: str, provider: ProviderSettings, environ: Mapping[str, str]) -> str:
    """The key of a provider; empty when it has none. Raises `StartupError`."""
    return _resolved(provider.api_key, environ, f"[providers.{name}] api_key") if provider.api_key else ""


def resolved_headers(name: str, provider: ProviderSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """The further headers of a provider. Raises `StartupError`."""
    headers: dict[str, str] = {}
    for line in provider.headers:
        header, _, value = line.partition(":")
        found = _IN_HEADER.fullmatch(value.strip())
        if found is None:
            headers[header] = value.strip()
        else:
            secret = _resolved(found["reference"], environ, f"[providers.{name}] headers, {header},")
            headers[header] = f"{found['scheme'] or ''}{secret}"
    return headers


def _resolved(reference: str, environ: Mapping[str, str], what: str) -> str:
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise StartupError(f'{what} is no reference; write "env:NAME" or "file:PATH".')
    named = f"{what} is {reference}"
    if variable := match["variable"]:
        secret = environ.get(variable, "").strip()
        if not secret:
            state = "empty" if variable in environ else "not set"
            raise StartupError(f"{named}, but that variable is {state}; set it, or correct the reference.")
    else:
        secret = _read(Path(match["path"]), named)
    if not _PRINTABLE.fullmatch(secret):
        raise StartupError(f"{named}, but what is there is not one line of plain text; put the key alone there.")
    return secret


def _read(path: Path, named: str) -> str:
    try:
        with path.open("rb") as file:
            secret = file.read(_MAX_BYTES).decode().strip()
    except OSError as error:
        raise StartupError(f"{named}, but that file cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise StartupError(f"{named}, but that file is not text; put the key alone there.") from None
    if not secret:
        raise StartupError(f"{named}, but that file is empty; put the key there.")
    return secret
