"""`/docs` in a real browser, without any network but the server: it shows what the document says."""

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ore.backends.scripted import says
from ore.server.openapi import openapi_document
from servers import ScriptedServer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--virtual-time-budget=5000"),
    *("--enable-logging=stderr", "--log-level=0"),
)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_the_page_shows_every_operation_and_model(scripted: ScriptedServer, tmp_path: Path) -> None:
    """Its own script runs under its own policy, and fills the page from `/openapi.json` and `/v1/models`."""
    scripted.scripts["a-model-for-the-page"] = says("hello")
    command = [str(CHROMIUM), *QUIET, f"--user-data-dir={tmp_path}", "--dump-dom", f"{scripted.url}/docs"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    text = html.unescape(re.sub(r"<[^>]+>", "", shown.stdout))
    for path, item in openapi_document()["paths"].items():
        assert path in text
        for method in ("get", "post", "delete"):
            assert method not in item or item[method]["summary"] in text
    assert "a-model-for-the-page" in shown.stdout
    assert "Content Security Policy" not in shown.stderr
    assert "Uncaught" not in shown.stderr
