"""What is done at the start so that it need not be done later ends nothing when it fails."""

import logging
from pathlib import Path
from typing import Any

import anyio.lowlevel
import pytest

from ore import app
from ore.settings import Settings

pytestmark = pytest.mark.anyio


async def test_a_server_starts_whatever_happens_while_it_warms_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in a dialect may meet a listing that nobody foresaw: the operator hears of it, and clients are served."""

    async def breaks(_: Any) -> None:
        raise KeyError("models")

    async def no_engines(*_: Any) -> dict[str, Any]:
        return {}

    monkeypatch.setattr(app, "make_backends", no_engines)
    monkeypatch.setattr(app.Router, "models", breaks)
    with caplog.at_level(logging.ERROR, logger="ore"):
        async with app.opened(Settings(data_dir=str(tmp_path))) as (_, parts):
            while not caplog.records:
                await anyio.lowlevel.checkpoint()
            assert await parts.router.health() == {}
    assert caplog.messages == ["the providers could not be asked for their models"]
