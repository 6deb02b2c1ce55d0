"""What all tests share: a guard against the network, the outside judges, and servers to talk to."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from ore.settings import PROVIDER_VARIABLES
from servers import OreProcess, ScriptedServer

SHARED = Path(__file__).parents[2] / "shared"
SPECIFICATION = SHARED / "spec" / "openresponses.openapi.json"
LOOPBACK = ("127.", "::1", "localhost")


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Any connection that leaves this machine is an error."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(LOOPBACK):
            raise AssertionError(f"a test tried to reach {address[0]}")
        connect(self, address)

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", guarded)
    yield
    patch.undo()


@pytest.fixture(scope="session", autouse=True)
def no_providers() -> Iterator[None]:
    """The keys of whoever runs the tests make no providers, in child processes neither."""
    patch = pytest.MonkeyPatch()
    for variable in PROVIDER_VARIABLES:
        patch.delenv(variable, raising=False)
    yield
    patch.undo()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Specification:
    """The Open Responses document as a judge: `check("ResponseResource", value)`."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._validators: dict[str, Any] = {}

    def check(self, name: str, value: Any) -> None:
        """Raise AssertionError with the first problem when `value` is no valid `name`."""
        if name not in self._validators:
            schema = {"$ref": f"#/components/schemas/{name}", "components": self._document["components"]}
            self._validators[name] = jsonschema_rs.Draft202012Validator(schema, offline=True)
        error = next(iter(self._validators[name].iter_errors(value)), None)
        assert error is None, f"{name}: {error}"

    def names(self) -> list[str]:
        return list(self._document["components"]["schemas"])


@pytest.fixture(scope="session")
def specification() -> Specification:
    """The published schema; its absence is a visible skip."""
    if not SPECIFICATION.exists():
        pytest.skip("the Open Responses document is not here")
    return Specification(json.loads(SPECIFICATION.read_text()))


@pytest.fixture(scope="session")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedServer]:
    """A server in this process whose models say what a test puts into `scripts`."""
    with ScriptedServer(tmp_path_factory.mktemp("scripted")) as server:
        yield server


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OreProcess]:
    """A real `ore serve` of the bundled model, in a process of its own."""
    with OreProcess(tmp_path_factory.mktemp("tiny")) as server:
        yield server
