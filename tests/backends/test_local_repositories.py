"""Downloading what belongs to a model from a repository, from a hub that is a small server on loopback."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from ore.backends.local.model_files import fetch_repository
from ore.errors import StartupError

pytestmark = pytest.mark.anyio

SHARD = (2).to_bytes(8, "little") + b"{}" + bytes(5000)
WHOLE = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"hi",
    "pytorch_model.bin": b"pickled",
}


class Hub:
    """Serves `files`, and counts who was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = dict(WHOLE)
        self.asked: list[str] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        name = request.match_info["file"]
        self.asked.append(name)
        if name not in self.files:
            raise web.HTTPNotFound
        return web.Response(body=self.files[name])


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    made = Hub()
    app = web.Application()
    app.router.add_get("/org/repo/resolve/main/{file}", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


async def test_a_model_in_one_file(hub: Hub, tmp_path: Path) -> None:
    """What belongs to it comes, pickled weights do not; the second time nobody is asked."""
    hub.files["model.safetensors"] = SHARD
    for _ in range(2):
        await fetch_repository("org/repo", tmp_path / "m", hub_url=hub.url)
    names = {path.name for path in (tmp_path / "m").iterdir()}
    assert names == {"config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"}
    assert len(hub.asked) == len(set(hub.asked))


async def test_shards_that_are_missing_are_fetched(hub: Hub, tmp_path: Path) -> None:
    """A download that broke off between two shards goes on there; names that lead out of the folder are not asked."""
    names = ["a.safetensors", "b.safetensors"]
    index = {"weight_map": {"x": names[0], "y": names[1], "z": "../../c.safetensors"}}
    hub.files |= {"model.safetensors.index.json": json.dumps(index).encode(), names[0]: SHARD}
    with pytest.raises(StartupError, match="There is no"):
        await fetch_repository("org/repo", tmp_path, hub_url=hub.url)
    hub.asked.clear()
    hub.files[names[1]] = SHARD
    await fetch_repository("org/repo", tmp_path, hub_url=hub.url)
    assert hub.asked == [names[1]]
    assert (tmp_path / names[1]).read_bytes() == SHARD


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [({}, "no weights in safetensors"), ({"model.safetensors": b"<html> page"}, "safetensors file")],
)
async def test_what_is_no_model_is_refused(hub: Hub, tmp_path: Path, weights: dict[str, bytes], sentence: str) -> None:
    """A repository without safetensors, and an answer that is none."""
    hub.files |= weights
    with pytest.raises(StartupError, match=sentence):
        await fetch_repository("org/repo", tmp_path / "m", hub_url=hub.url)
