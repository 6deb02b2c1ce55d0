"""A stream that has nothing to say for a while says so, between whole events."""

from pathlib import Path

import pytest

from clients import wire
from ore.backends.scripted import says
from ore.settings import ServerSettings, Settings
from servers import ScriptedServer


@pytest.mark.parametrize("silence", [0.0, 0.5])
def test_silence_is_filled_with_comments(tmp_path: Path, silence: float) -> None:
    """A comment line for each span of silence, so that no proxy takes the stream for dead; none while events come."""
    with ScriptedServer(tmp_path, Settings(server=ServerSettings(sse_keep_alive=0.1))) as server:
        server.scripts["pauses"] = [silence, *says("hello")] if silence else says("hello", pieces=5)
        with wire.Exchange(server.url, {"model": "pauses", "input": "Hi", "stream": True}) as exchange:
            exchange.head()
            chunks = list(exchange.chunks())
    comments = [chunk for chunk in chunks if chunk == b": keep-alive\n\n"]
    assert 2 <= len(comments) <= 5 if silence else comments == []
    events = list(wire.suite_events(iter(chunks)))
    assert [event.event for event in events][-2:] == ["response.completed", "[DONE]"]
