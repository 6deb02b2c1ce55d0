"""The page keeps to itself: it may run only its own script and talk only to its own server."""

import base64
import hashlib
import re
from collections.abc import Iterator

import pytest
from live_server import Answer, ask, serving
from starlette.applications import Starlette

from ore.server.docs_page import docs_page, docs_routes


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving(Starlette(routes=docs_routes())) as port:
        yield port


@pytest.fixture(scope="module")
def page(port: int) -> Answer:
    return ask(port, "GET", "/docs")


def inside(tag: str, page: Answer) -> str:
    [content] = re.findall(f"<{tag}>(.*?)</{tag}>", page.body.decode(), re.DOTALL)
    return str(content)


def test_the_page_is_html_and_put_together(page: Answer) -> None:
    """It is one HTML page without a placeholder left in it."""
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "{{" not in page.body.decode()
    assert 'data-document="openapi.json"' in page.body.decode()


@pytest.mark.parametrize(("tag", "directive"), [("style", "style-src"), ("script", "script-src")])
def test_the_policy_allows_exactly_its_own_code(page: Answer, tag: str, directive: str) -> None:
    """The content security policy carries the hashes of the one style and the one script of the page."""
    digest = base64.b64encode(hashlib.sha256(inside(tag, page).encode()).digest()).decode()
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    assert policy[directive] == f"'sha256-{digest}'"
    assert (policy["default-src"], policy["connect-src"]) == ("'none'", "'self'")


def test_nothing_comes_from_another_host(page: Answer) -> None:
    """No address of another host is in the page, but for the name of the SVG namespace: it works offline."""
    text = page.body.decode().replace("http://www.w3.org/2000/svg", "")
    assert not re.findall(r"https?://\w|\bsrc=|@import|\burl\(", text)


def test_the_policy_has_nothing_to_forbid(page: Answer) -> None:
    """No inline handler or style, no markup made from strings: what the policy would block is not there."""
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|new Function", inside("script", page)
    )
    assert not re.search(r"<[^>]+ (on\w+|style)=", page.body.decode().replace(inside("script", page), ""))


def test_every_element_the_script_looks_for_is_there(page: Answer) -> None:
    """Each id that the script names belongs to an element of the page."""
    wanted = set(re.findall(r'\$\("([\w-]+)"\)', inside("script", page)))
    assert wanted
    assert wanted <= set(re.findall(r'\bid="([\w-]+)"', page.body.decode()))


def test_another_address_of_the_document_is_escaped() -> None:
    """The address goes into an attribute."""
    page, _ = docs_page('spec"><script>')
    assert b'data-document="spec&quot;&gt;&lt;script&gt;"' in page
