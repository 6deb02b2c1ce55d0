"""The `openai` SDK over a WebSocket: `client.responses.connect()`, unchanged."""

from collections.abc import Iterator

import pytest
from openai import OpenAI
from openai.resources.responses.responses import ResponsesConnection

from ore.backends.scripted import says
from ore.core.deltas import Finish, Text
from servers import ScriptedServer

# the SDK connects in the way that the newest websockets would rather not see
pytestmark = pytest.mark.filterwarnings("ignore:connect\\(\\) must be used as a context manager:DeprecationWarning")


@pytest.fixture
def connection(scripted: ScriptedServer) -> Iterator[ResponsesConnection]:
    scripted.scripts["m"] = says("Hello there.", pieces=3)
    scripted.scripts["mute"] = [Text("Well"), 60.0, Finish("stop")]
    client = OpenAI(base_url=f"{scripted.url}/v1", api_key="anything", max_retries=0)
    with client, client.responses.connect() as connection:
        yield connection


def test_a_turn(connection: ResponsesConnection) -> None:
    """The events of a turn arrive as the types of a stream."""
    connection.response.create(model="m", input="Hi", store=False)
    types, text = [], ""
    for event in connection:
        types.append(event.type)
        if event.type == "response.output_text.delta":
            text += event.delta
        if event.type == "response.completed":
            assert event.response.output_text == text == "Hello there."
            break
    assert types[:2] == ["response.created", "response.in_progress"]


def test_a_conversation_that_nobody_stores(connection: ResponsesConnection) -> None:
    """A warm-up, then turns that send only what is new."""
    connection.response.create(model="m", instructions="Be short.", generate=False, store=False)
    previous = completed(connection)
    for _ in range(2):
        connection.response.create(model="m", input="Hi", store=False, previous_response_id=previous)
        previous = completed(connection)


def test_an_error(connection: ResponsesConnection) -> None:
    """An error frame is an event with its code and status, and the connection goes on."""
    connection.response.create(model="m", input="Hi", previous_response_id="resp_that_never_was")
    event = connection.recv()
    assert event.type == "error"
    assert event.status == 400
    assert event.error.code == "previous_response_not_found"
    connection.response.create(model="m", input="Hi")
    completed(connection)


def test_steering(connection: ResponsesConnection) -> None:
    """The SDK knows the answer that it cannot be done."""
    connection.response.create(model="mute", input="Hi", store=False)
    created = connection.recv()
    assert created.type == "response.created"
    connection.response.steer(input="Faster!", previous_response_id=created.response.id)
    while (event := connection.recv()).type != "response.steer.failed":
        pass
    assert event.error.code == "steering_not_supported"
    assert event.steer.input == "Faster!"


def completed(connection: ResponsesConnection) -> str:
    """The id of the response, once it is complete."""
    while (event := connection.recv()).type != "response.completed":
        assert event.type != "error", event
    return event.response.id
