"""`ore ps` of a real server with two models and room for one."""

import json
from pathlib import Path
from typing import Any

import pytest

from clients.wire import create
from servers import OreProcess

CONFIG = """
data_dir = "data"
default_model = "one"
[local]
memory_mib = 100
[models.one]
path = "ore-tiny"
[models.two]
path = "ore-tiny"
keep_alive = 0
[server]
port = 0
"""


def test_models_come_and_go_as_they_are_used(ore: Any, folder: Path) -> None:
    """The default model is there from the start; the other one at its use, and then makes room at once."""
    (folder / "ore.toml").write_text(CONFIG)
    (folder / "data").mkdir()
    with OreProcess(folder / "data", "--config", str(folder / "ore.toml")) as server:
        assert states(ore, server.url) == {"one": "loaded", "two": "unloaded"}
        assert create(server.url, model="two", input="Hi").json()["status"] == "completed"
        assert states(ore, server.url)["one"] == "unloaded"
        assert create(server.url, model="one", input="Hi").json()["status"] == "completed"
        shown = ore("ps", "--url", server.url)
        header, *lines = shown.stdout.splitlines()
        assert header.split() == ["MODEL", "ENGINE", "STATE", "MEMORY", "RUNNING", "WAITING", "IDLE", "UNTIL"]
        assert [line.split()[:3] for line in lines] == [
            ["one", "llama_cpp", "loaded"],
            ["two", "llama_cpp", "unloaded"],
        ]
        rows = json.loads(ore("ps", "--json").stdout)
        assert rows[0]["memory_bytes"] > 20 * 2**20


def states(ore: Any, url: str) -> dict[str, str]:
    return {row["name"]: row["state"] for row in json.loads(ore("ps", "--json", "--url", url).stdout)}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("ps", "--url", "http://127.0.0.1:9"), "No ORE answers"), (("ps",), "No server has")],
)
def test_without_a_server_it_is_one_sentence(ore: Any, arguments: tuple[str, ...], words: str) -> None:
    result = ore(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
