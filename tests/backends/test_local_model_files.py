"""Downloading a model from a hub that is a small server on loopback."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from ore.backends.local.model_files import fetch_model
from ore.errors import StartupError

pytestmark = pytest.mark.anyio

MODEL = b"GGUF" + bytes(range(256)) * 12_000


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Hub:
    """Serves MODEL; `stop_after` breaks the connection there, once."""

    def __init__(self) -> None:
        self.stop_after = 0
        self.ranges: list[str] = []
        self.etag = '"v1"'
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        assert request.path.startswith("/org/repo/resolve/main/")
        name = request.match_info["file"]
        if name != "m.gguf":
            if name == "gated.gguf":
                raise web.HTTPUnauthorized
            if name == "page.gguf":
                return web.Response(text="<html>")
            raise web.HTTPNotFound
        asked = request.headers.get("Range", "")
        self.ranges.append(asked)
        fits = request.headers.get("If-Range") == self.etag
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and fits else 0
        if start >= len(MODEL):
            raise web.HTTPRequestRangeNotSatisfiable(headers={"Content-Range": f"bytes */{len(MODEL)}"})
        headers = {"ETag": self.etag, "Content-Length": str(len(MODEL) - start)}
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        await response.prepare(request)
        end, self.stop_after = self.stop_after or len(MODEL), 0
        await response.write(MODEL[start:end])
        if end < len(MODEL):
            assert request.transport is not None
            request.transport.close()
        return response


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    made = Hub()
    app = web.Application()
    app.router.add_get("/org/repo/resolve/main/{file}", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


async def test_downloads_and_tells_progress(hub: Hub, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    target = tmp_path / "models" / "m.gguf"
    got = await fetch_model("org/repo", "m.gguf", target, hub_url=hub.url, progress=lambda *at: seen.append(at))
    assert got.read_bytes() == MODEL
    assert seen[-1] == (len(MODEL), len(MODEL))
    assert [path.name for path in target.parent.iterdir()] == ["m.gguf"]
    await fetch_model("org/repo", "m.gguf", target, hub_url=hub.url)
    assert len(hub.ranges) == 1


@pytest.mark.parametrize("changed", [False, True])
async def test_goes_on_where_it_broke_off(hub: Hub, tmp_path: Path, changed: bool) -> None:
    hub.stop_after = 2_000_000
    target = tmp_path / "m.gguf"
    with pytest.raises(StartupError, match="goes on where it stopped"):
        await fetch_model("org/repo", "m.gguf", target, hub_url=hub.url)
    assert not target.exists()
    hub.etag = '"v2"' if changed else hub.etag
    await fetch_model("org/repo", "m.gguf", target, hub_url=hub.url)
    assert target.read_bytes() == MODEL
    assert hub.ranges[1].startswith("bytes=")
    assert hub.ranges[1] != "bytes=0-"


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_a_whole_file_that_was_not_renamed_is_not_lost(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "m.gguf.part").write_bytes(MODEL)
    (tmp_path / "m.gguf.part.etag").write_text(hub.etag)
    target = await fetch_model("org/repo", "m.gguf", tmp_path / "m.gguf", hub_url=hub.url)
    assert target.read_bytes() == MODEL
    assert files(tmp_path) == ["m.gguf"]


async def test_more_than_the_whole_file_is_thrown_away(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "m.gguf.part").write_bytes(MODEL + b"more")
    (tmp_path / "m.gguf.part.etag").write_text(hub.etag)
    with pytest.raises(StartupError, match="Start again"):
        await fetch_model("org/repo", "m.gguf", tmp_path / "m.gguf", hub_url=hub.url)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("file", "words"), [("x.gguf", "There is no"), ("gated.gguf", "permission"), ("page.gguf", "not a GGUF")]
)
async def test_says_what_is_wrong(hub: Hub, tmp_path: Path, file: str, words: str) -> None:
    with pytest.raises(StartupError, match=words):
        await fetch_model("org/repo", file, tmp_path / file, hub_url=hub.url)
    assert not (tmp_path / file).exists()


async def test_offline_says_so(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="Check the network"):
        await fetch_model("org/repo", "m.gguf", tmp_path / "m.gguf", hub_url="http://127.0.0.1:9")


async def test_a_disk_that_refuses_is_told(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StartupError, match="could not be saved"):
        await fetch_model("org/repo", "m.gguf", tmp_path / "file" / "m.gguf", hub_url=hub.url)
