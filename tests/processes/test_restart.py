"""What was acknowledged is there after the process ended, however it ended."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from process_kit import Server, serving

from clients import wire

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "durability.py"


def body_of(sent: wire.Sent) -> bytes:
    """The bytes of the response that a terminal event carries."""
    head, _, _ = sent.data.rpartition(',"sequence_number":')
    return head.partition('"response":')[2].encode()


def stored_bytes(server: Server, body: bytes) -> bytes:
    """What `GET` says about the response in `body`."""
    answer = wire.get(server.url, f"/v1/responses/{json.loads(body)['id']}")
    assert answer.status == 200, answer.body
    return answer.body


@pytest.mark.engine
def test_a_stopped_server_remembers(tmp_path: Path) -> None:
    """After SIGTERM and a new start on the same folder, `GET` returns what was sent, byte for byte."""
    with serving(tmp_path, engine=True) as server:
        waited = wire.create(server.url, model="ore-tiny", input="Hello!").body
        streamed = body_of(wire.stream(server.url, model="ore-tiny", input="Hello!")[-1])
        assert server.stop() == 0
    with serving(tmp_path, engine=True) as server:
        assert wire.get(server.url, "/readyz").status == 200
        assert stored_bytes(server, waited) == waited
        assert stored_bytes(server, streamed) == streamed
        assert server.stop() == 0


def test_a_compacted_conversation_can_be_opened_after_a_restart(tmp_path: Path) -> None:
    """The key is of the data folder: a new server over it takes the window back, one over another folder does not."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    asked = {"model": "quick", "input": [{"role": "user", "content": "Hi"}]}
    with serving(tmp_path / "one") as server:
        window = wire.call(server.url, "POST", "/v1/responses/compact", asked).json()["output"]
        server.kill()
    with serving(tmp_path / "one") as server:
        assert wire.create(server.url, model="quick", input=window).json()["status"] == "completed"
    with serving(tmp_path / "two") as server:
        assert wire.create(server.url, model="quick", input=window).error()["code"] == "invalid_encrypted_content"


@pytest.mark.engine
def test_a_killed_server_has_lost_nothing() -> None:
    """Five times: kill -9 in the moment a response was returned, start again, and it is there."""
    command = [sys.executable, str(BENCHMARK), "--repetitions", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost 0" in " ".join(done.stdout.split())


def test_a_kill_in_the_middle_leaves_nothing_half_done(tmp_path: Path) -> None:
    """The client sees its stream break off, not end; after a restart no response is left in progress."""
    body = {"model": "slow", "input": "Hi", "stream": True}
    with serving(tmp_path) as server, wire.Exchange(server.url, body) as exchange:
        exchange.head()
        events = wire.suite_events(exchange.chunks())
        response_id = next(events).json["response"]["id"]
        server.kill()
        with pytest.raises(ConnectionError):
            list(events)
    with serving(tmp_path) as server:
        assert server.stored() == []
        assert wire.get(server.url, f"/v1/responses/{response_id}").status == 404


@pytest.mark.engine
def test_no_engine_outlives_its_server(tmp_path: Path) -> None:
    """The process that holds the model ends with the server that started it, even when that one was killed."""
    with serving(tmp_path, engine=True) as server:
        engine = server.engine_pid()
        assert engine is not None
        server.send(signal.SIGKILL)
        server.wait()
        wire.wait_until(lambda: ended(engine))


def ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie that nobody has reaped yet."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True
