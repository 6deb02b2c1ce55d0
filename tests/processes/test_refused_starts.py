"""A server that cannot start says why in one sentence and ends with status 2; the one that runs is not disturbed."""

import socket
from pathlib import Path

from process_kit import Server, serving

from clients import wire


def refused(folder: Path, *arguments: str) -> str:
    """The one line that a server says which does not come up."""
    with Server(folder, *arguments) as server:
        assert server.wait() == 2
        assert server.process.stdout is not None
        assert server.process.stdout.read() == b""
        lines = server.log.strip().splitlines()
        assert len(lines) == 1, server.log
        assert lines[0].startswith("Error: ")
        return lines[0]


def test_a_port_in_use(tmp_path: Path) -> None:
    """The sentence names the port, who has it, and the way out."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(tmp_path, "--port", str(port))
    assert str(port) in said
    assert "--port 0" in said


def test_the_port_of_another_ore(tmp_path: Path) -> None:
    """Two servers with a port and a folder each: the second one is refused for its port, the first one goes on."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with serving(tmp_path / "one") as server:
        said = refused(tmp_path / "two", "--port", server.url.rpartition(":")[2])
        assert f"process {server.process.pid}" in said
        assert wire.create(server.url, model="quick", input="Hi").status == 200


def test_a_folder_in_use(tmp_path: Path) -> None:
    """Two servers on one data folder: the second one names the first one's process and its way out (F32)."""
    with serving(tmp_path) as server:
        said = refused(tmp_path)
        assert f"pid {server.process.pid}" in said
        assert "--data-dir" in said
        assert wire.get(server.url, "/readyz").status == 200


def test_a_damaged_key(tmp_path: Path) -> None:
    """A key that was cut short is named, and not replaced by a new one."""
    key = tmp_path / "data" / "sealing.key"
    with serving(tmp_path) as server:
        assert key.stat().st_mode & 0o777 == 0o600
        server.stop()
    key.write_bytes(b"short")
    assert "sealing.key is damaged" in refused(tmp_path)
    assert key.read_bytes() == b"short"
