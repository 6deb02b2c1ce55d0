"""`GET /docs`: the API reference and a form to try it, as one page that asks no other host for anything.

The page is put together once from three files under `static/`. Its content security policy names the hashes of its
own style and script, so that nothing else can run in it, and lets it talk to this server alone. What it shows comes
from `/openapi.json`, which is made elsewhere.
"""

import base64
import hashlib
import html
from functools import cache
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def docs_routes() -> list[Route]:
    """The route of the page, outside of `/v1`."""
    return [Route("/docs", show_page, methods=["GET"])]


async def show_page(_: Request) -> Response:
    page, policy = docs_page()
    headers = {
        "content-security-policy": policy,
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cache-control": "no-cache",
    }
    return Response(page, media_type="text/html", headers=headers)


@cache
def docs_page(document_url: str = "openapi.json") -> tuple[bytes, str]:
    """The page and its content security policy. `document_url` is relative, for servers below a prefix."""
    style, script = _static("docs.css"), _static("docs.js")
    page = _static("docs.html").replace("{{document}}", html.escape(document_url))
    page = page.replace("{{style}}", style).replace("{{script}}", script)
    policy = {
        "default-src": "'none'",
        "style-src": _hash(style),
        "script-src": _hash(script),
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return page.encode(), "; ".join(f"{name} {source}" for name, source in policy.items())


def _static(name: str) -> str:
    return (resources.files("ore.server") / "static" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
