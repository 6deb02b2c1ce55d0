"""Asks a provider which models it has, and says what that tells: is it there, and does it take the key.

One question with short time limits, and no model is asked for anything. A key is never shown.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from ore.commands.finding import Finding
from ore.errors import DeadlineExceeded, ServerFault, StartupError
from ore.settings import ProviderSettings

if TYPE_CHECKING:
    from ore.backends.dialect import Dialect
    from ore.backends.upstream import Upstream

_CONNECT_SECONDS: Final = 3.0
_ANSWER_SECONDS: Final = 5.0
_ADDRESS: Final = "correct its base_url (`ore config show --origin` tells where that is from)"


def provider_finding(name: str, provider: ProviderSettings, environ: Mapping[str, str]) -> Finding:
    """Whether requests to this provider can work."""
    import anyio

    from ore.app import make_dialect, upstream_options
    from ore.backends.upstream import Upstream

    dialect = make_dialect(provider.kind)
    try:
        options = upstream_options(name, provider, dialect, environ)
    except StartupError as error:
        detail, _, fix = error.message.rstrip(".").partition("; ")
        return Finding("fail", detail, fix or "correct that")
    hurried = msgspec.structs.replace(
        options,
        connect_timeout=min(options.connect_timeout, _CONNECT_SECONDS),
        first_byte_timeout=min(options.first_byte_timeout, _ANSWER_SECONDS),
    )
    return anyio.run(_asked, Upstream(name, hurried), dialect, provider)


async def _asked(upstream: "Upstream", dialect: "Dialect", provider: ProviderSettings) -> Finding:
    import anyio

    from ore.backends.upstream import Refused

    await upstream.start()
    try:
        with anyio.fail_after(_CONNECT_SECONDS + _ANSWER_SECONDS):  # an answer that begins need not end
            body = await upstream.call("GET", dialect.models_path)
    except Refused as refused:
        return _refused(refused.status, provider)
    except (DeadlineExceeded, TimeoutError):
        return Finding("fail", f"{provider.base_url} does not answer in time", f"try again, or {_ADDRESS}")
    except ServerFault as fault:
        return Finding("fail", fault.message.partition(". ")[0], f"start it, or {_ADDRESS}")
    finally:
        await upstream.stop()
    return _answered(body, dialect, provider)


def _refused(status: int, provider: ProviderSettings) -> Finding:
    place = provider.base_url
    if status in (401, 403) and provider.api_key:
        return Finding(
            "fail", f"{place} does not accept the key", f"correct the key that {provider.api_key} stands for"
        )
    if status in (401, 403):
        return Finding("fail", f"{place} asks for a key", 'give it one: api_key = "env:NAME"')
    if 300 <= status < 400:
        return Finding("fail", f"{place} only says that the API is elsewhere (HTTP {status})", _ADDRESS)
    if status in (404, 405):
        fix = f"if it has such a list, {_ADDRESS}; it often ends in /v1"
        return Finding("warn", f"{place} answers, but has no list of models", fix)
    return Finding("warn", f"{place} answers HTTP {status}", "look at its logs, or try again later")


def _answered(body: bytes, dialect: "Dialect", provider: ProviderSettings) -> Finding:
    from ore.backends.dialect import Unintelligible

    place = provider.base_url
    try:
        listed = {model.id for model in dialect.models(body)}
    except (Unintelligible, msgspec.MsgspecError, UnicodeError, RecursionError):
        return Finding(
            "fail", f"{place} answers, but not as one of kind {provider.kind}", f"correct the kind, or {_ADDRESS}"
        )
    unlisted = [model for model in provider.models if model not in listed]
    if unlisted:
        fix = "correct models, unless it has more than it lists"
        return Finding("warn", f"{place} does not list {', '.join(unlisted)}", fix)
    return Finding("ok", f"{place} answers, and lists {len(listed)} models")
