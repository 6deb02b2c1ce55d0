"""Providers that commands ask: a stub server beside a command that blocks, and a dialect that is always there."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from anyio.from_thread import start_blocking_portal

from ore import app
from ore.backends.dialect import Listed
from providers.stub_server import Answer, StubServer, stub_server

Stub = Callable[[Answer], AbstractContextManager[StubServer]]


@contextmanager
def stub_beside(answer: Answer) -> Iterator[StubServer]:
    """A provider's server in a thread of its own."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(stub_server(answer)) as server:
        yield server


class Plain:
    """A dialect that lists models, and is asked for nothing else."""

    name = "Plain"
    path = "ask"
    models_path = "models"

    def key_headers(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"} if key else {}

    def models(self, body: bytes) -> list[Listed]:
        return [Listed(id=model["id"]) for model in json.loads(body)["data"]]


def speak_plainly(monkeypatch: Any) -> None:
    """Have providers of every kind speak so, whether or not their own dialects are there."""
    for kind in app.DIALECTS:
        monkeypatch.setitem(app.DIALECTS, kind, (__name__, "Plain"))


def free_port() -> int:
    """A port of loopback on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
