"""What the `openai` SDK does with state: background runs, replays, counting, compaction, conversations, WebSocket.

Against the bundled model where its tokens count, and against a scripted one where it has to wait or to reason.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

from clients.weather import WEATHER
from clients.wire import wait_until
from ore.backends.scripted import says
from ore.core.deltas import Finish, Reasoning, Text
from servers import OreProcess, ScriptedServer

MODEL = "ore-tiny"
PERSON: Any = {
    "type": "json_schema",
    "name": "person",
    "strict": True,
    "schema": {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 20}},
        "required": ["name"],
        "additionalProperties": False,
    },
}
TALK: Any = [
    {"role": "user", "content": "My name is Ada."},
    {"role": "assistant", "content": "Hello Ada! " + "It is good to meet you. " * 60},
    {"role": "user", "content": "Where were we?"},
]


def client_of(url: str, **options: Any) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key="local", **{"max_retries": 0, "timeout": 60} | options)


@pytest.fixture(scope="module")
def client(tiny: OreProcess) -> Iterator[OpenAI]:
    with client_of(tiny.url) as client:
        yield client


@pytest.fixture
def actor(scripted: ScriptedServer) -> Iterator[OpenAI]:
    """A client of models that follow a script: `talks`, `thinks` before it talks, or is `mute` for a minute."""
    models = {
        "talks": says("Hello there.", pieces=4),
        "thinks": [Reasoning("A secret."), Text("Hello."), Finish("stop")],
        "mute": [Text("Well"), 60.0, Finish("stop")],
    }
    scripted.scripts.update(models)
    with client_of(scripted.url) as client:
        yield client
    for name in models:
        del scripted.scripts[name]


def create(client: OpenAI, input: Any = "Hello!", **more: Any) -> Any:
    return client.responses.create(model=MODEL, input=input, temperature=0, **more)


def texts(items: Any) -> list[str]:
    return [item.content[0].text for item in items]


# Background


def test_a_background_response_is_polled(client: OpenAI) -> None:
    """It is there at once, ends by itself, and is then what a waiting call would have given."""
    first = create(client, background=True)
    assert first.status in ("queued", "in_progress")
    wait_until(lambda: client.responses.retrieve(first.id).status not in ("queued", "in_progress"))
    ended = client.responses.retrieve(first.id)
    assert (ended.status, ended.output_text) == ("completed", create(client).output_text)


@pytest.fixture
def replayable(client: OpenAI) -> list[Any]:
    """The events of a background stream."""
    with create(client, background=True, stream=True) as stream:
        return list(stream)


def test_a_background_stream_is_retrieved_from_any_event(client: OpenAI, replayable: list[Any]) -> None:
    """`retrieve(stream=True)` brings the same events after that number; the whole stream without one."""
    response_id = replayable[0].response.id
    for after in (0, len(replayable) // 2, len(replayable) - 2):
        with client.responses.retrieve(response_id, stream=True, starting_after=after) as stream:
            assert list(stream) == replayable[after + 1 :]
    with client.responses.retrieve(response_id, stream=True) as stream:
        assert list(stream) == replayable


def test_the_stream_helper_resumes(client: OpenAI, replayable: list[Any]) -> None:
    """`stream(response_id, starting_after)` shows what comes after, and knows the whole in the end."""
    response_id = replayable[0].response.id
    with client.responses.stream(response_id=response_id, starting_after=3) as stream:
        numbers = [event.sequence_number for event in stream]
        final = stream.get_final_response()
    assert numbers == list(range(4, len(replayable)))
    assert final.output_text == replayable[-1].response.output_text


def test_cancel(actor: OpenAI) -> None:
    """A background response is cancelled once, and stays so however often it is asked for."""
    running = actor.responses.create(model="mute", input="Hi", background=True)
    assert actor.responses.cancel(running.id).status == "cancelled"
    assert actor.responses.cancel(running.id) == actor.responses.retrieve(running.id)
    done = actor.responses.create(model="talks", input="Hi", background=True)
    wait_until(lambda: actor.responses.retrieve(done.id).status == "completed")
    assert actor.responses.cancel(done.id).status == "completed"


def test_only_background_responses_are_cancelled(actor: OpenAI) -> None:
    """A response that somebody waited for is not, and one that never was is not found."""
    done = actor.responses.create(model="talks", input="Hi")
    with pytest.raises(openai.BadRequestError, match="synchronous"):
        actor.responses.cancel(done.id)
    with pytest.raises(openai.NotFoundError):
        actor.responses.cancel("resp_none")


# Counting


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"instructions": "Be brief, and kind."},
        {"tools": [WEATHER]},
        {"tools": [WEATHER], "tool_choice": "required"},
        {"text": {"format": PERSON}},
        {"input": TALK},
    ],
    ids=lambda more: "-".join(more) or "plain",
)
def test_what_is_counted_is_what_it_costs(client: OpenAI, more: Any) -> None:
    """`input_tokens.count` says what `usage.input_tokens` of the same create will say."""
    body = {"model": MODEL, "input": "Hello!", **more}
    counted = client.responses.input_tokens.count(**body).input_tokens
    assert counted == client.responses.create(**body, max_output_tokens=32).usage.input_tokens


def test_history_is_counted(client: OpenAI) -> None:
    """A chain and a conversation count with all that they bring."""
    first = create(client, "My name is Ada.")
    for earlier in ({"previous_response_id": first.id}, {"conversation": client.conversations.create(items=TALK).id}):
        body: Any = {"model": MODEL, "input": "And?", **earlier}
        counted = client.responses.input_tokens.count(**body).input_tokens
        assert counted == client.responses.create(**body).usage.input_tokens
        assert counted > client.responses.input_tokens.count(model=MODEL, input="And?").input_tokens


# A context that is too long


LONG_TALK: Any = [{"role": role, "content": "word " * 200} for _ in range(15) for role in ("user", "assistant")]


def test_truncation(client: OpenAI) -> None:
    """`auto` drops the oldest turns until the rest fits; `disabled`, which is the default, refuses."""
    history = [*LONG_TALK, {"role": "user", "content": "Hello!"}]
    response = create(client, history, truncation="auto", max_output_tokens=16)
    assert (response.truncation, response.error) == ("auto", None)
    assert 0 < response.usage.input_tokens < 4096
    assert response.output_text
    for more in ({}, {"truncation": "disabled"}):
        with pytest.raises(openai.BadRequestError) as caught:
            create(client, history, **more)
        assert caught.value.code == "context_length_exceeded"


# Compaction


# The SDK's own type of the output knows no user's message, which the wire demands; it is sent on all the same.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_compact_and_go_on(client: OpenAI) -> None:
    """The compacted window is shorter than the talk, keeps the user's words, and is the next input as it is."""
    before = client.responses.input_tokens.count(model=MODEL, input=TALK).input_tokens
    compacted = client.responses.compact(model=MODEL, input=TALK)
    window: Any = [item.to_dict() for item in compacted.output]
    assert [item["content"][0]["text"] for item in window[:-1]] == ["My name is Ada.", "Where were we?"]
    going_on = create(client, [*window, {"role": "user", "content": "Hello!"}])
    assert going_on.status == "completed"
    assert going_on.usage.input_tokens < before


def test_a_context_is_compacted_when_it_passes_the_threshold(client: OpenAI) -> None:
    """The compaction comes first, then the answer; the next turn continues from both, with less to read."""
    above: Any = [{"type": "compaction", "compact_threshold": 1000}]
    talk = [*TALK[:1], {"role": "assistant", "content": "It is good to meet you. " * 250}, *TALK[2:]]
    before = client.responses.input_tokens.count(model=MODEL, input=talk).input_tokens
    assert before > 1000
    first = create(client, talk, context_management=above)
    assert (first.status, [item.type for item in first.output]) == ("completed", ["compaction", "message"])
    second = create(client, "Hello!", previous_response_id=first.id, context_management=above)
    assert (second.status, [item.type for item in second.output]) == ("completed", ["message"])
    assert second.usage.input_tokens < before
    short = create(client, context_management=above)
    assert [item.type for item in short.output] == ["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_trigger_gives_one_compaction_and_nothing_else(client: OpenAI, stream: bool) -> None:
    """A coding agent that ends its input with a trigger gets exactly one item, which the next turn begins with."""
    answer = create(client, [*TALK, {"type": "compaction_trigger"}], store=False, stream=stream)
    response = list(answer)[-1].response if stream else answer
    (item,) = response.output
    assert (response.status, item.type) == ("completed", "compaction")
    going_on = create(client, [item.to_dict(), {"role": "user", "content": "Hello!"}], store=False)
    assert going_on.status == "completed"


# Items


def test_a_reference_is_the_item(client: OpenAI) -> None:
    """An item that is referred to is read as if it had been sent."""
    message = create(client).output[0]
    reference: Any = {"type": "item_reference", "id": message.id}
    question = {"role": "user", "content": "Again?"}
    referred = create(client, [reference, question])
    assert referred.usage.input_tokens == create(client, [message.to_dict(), question]).usage.input_tokens
    with pytest.raises(openai.NotFoundError):
        create(client, [{**reference, "id": "msg_none"}, question])


def test_reasoning_is_carried_by_the_client(actor: OpenAI, scripted: ScriptedServer) -> None:
    """Sealed, it goes out with a response that nobody stores; sent back, the model reads what it thought."""
    include: Any = ["reasoning.encrypted_content"]
    body: Any = {"model": "thinks", "store": False, "include": include}
    first = actor.responses.create(input="Hi", **body)
    reasoning, message = first.output
    assert "secret" not in reasoning.encrypted_content
    carried = [reasoning.to_dict(), message.to_dict()]
    carried[0].pop("content", None)
    actor.responses.create(input=[{"role": "user", "content": "Hi"}, *carried, *TALK[2:]], **body)
    seen = scripted.backend.requests[-1].items[1]
    assert (seen["type"], seen["content"][0]["text"]) == ("reasoning", "A secret.")


@pytest.mark.parametrize("sealed", ["gAAAAABfromElsewhere", "ore1.bm90IG91cnM"])
def test_reasoning_of_another_server_is_refused(actor: OpenAI, sealed: str) -> None:
    """With the code that says which key is wrong, and where."""
    foreign: Any = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": sealed}
    with pytest.raises(openai.BadRequestError) as caught:
        actor.responses.create(model="talks", input=[foreign, *TALK[2:]], store=False)
    assert caught.value.code == "invalid_encrypted_content"
    assert caught.value.param == "input[0].encrypted_content"


@pytest.mark.parametrize("padded", [True, False, None])
def test_padding_is_asked_for(client: OpenAI, padded: bool | None) -> None:
    """Deltas carry padding for whoever wants it, and for nobody else."""
    options: Any = {} if padded is None else {"stream_options": {"include_obfuscation": padded}}
    with create(client, stream=True, **options) as stream:
        deltas = [event for event in stream if event.type == "response.output_text.delta"]
    assert deltas
    assert {bool(getattr(delta, "obfuscation", None)) for delta in deltas} == {bool(padded)}


# Conversations


def test_a_conversation_remembers(client: OpenAI) -> None:
    """Each turn reads all before it and adds both its sides; items are listed, found and deleted by their ids."""
    conversation = client.conversations.create(metadata={"k": "v"}, items=TALK[:1])
    first = create(client, "What is my name?", conversation=conversation.id)
    second = create(client, "Sure?", conversation={"id": conversation.id})
    assert first.conversation.id == second.conversation.id == conversation.id
    assert second.usage.input_tokens > first.usage.input_tokens + first.usage.output_tokens
    items = list(client.conversations.items.list(conversation.id, order="asc", limit=2))
    expected = ["My name is Ada.", "What is my name?", first.output_text, "Sure?", second.output_text]
    assert texts(items) == expected
    assert texts(client.conversations.items.list(conversation.id)) == expected[::-1]
    assert client.conversations.items.retrieve(items[2].id, conversation_id=conversation.id) == items[2]
    client.conversations.items.delete(items[0].id, conversation_id=conversation.id)
    added = client.conversations.items.create(conversation.id, items=TALK[2:])
    assert texts(client.conversations.items.list(conversation.id, order="asc")) == [*expected[1:], "Where were we?"]
    assert [item.status for item in added.data] == ["completed"]


def test_conversations_come_and_go(client: OpenAI) -> None:
    """Metadata is replaced; what was deleted is gone for reading and for responses."""
    conversation = client.conversations.create(items=[])
    client.conversations.update(conversation.id, metadata={"z": "1"})
    assert client.conversations.retrieve(conversation.id).metadata == {"z": "1"}
    assert client.conversations.delete(conversation.id).deleted
    for use in (
        lambda: client.conversations.retrieve(conversation.id),
        lambda: client.conversations.items.list(conversation.id),
        lambda: create(client, conversation=conversation.id),
    ):
        with pytest.raises(openai.NotFoundError):
            use()


def test_a_busy_conversation_is_worth_another_try(actor: OpenAI, scripted: ScriptedServer) -> None:
    """A second response is refused with 409 while the first is made; the SDK tries again, and gets its turn."""
    conversation = actor.conversations.create()
    running = actor.responses.create(model="mute", input="Hi", conversation=conversation.id, background=True)
    with pytest.raises(openai.ConflictError) as caught:
        actor.responses.create(model="talks", input="Hi", conversation=conversation.id)
    assert caught.value.code == "conversation_locked"
    statuses: list[int] = []

    def watch(response: httpx2.Response) -> None:
        statuses.append(response.status_code)
        if response.status_code == 409:
            actor.responses.cancel(running.id)

    http = openai.DefaultHttpxClient(event_hooks={"response": [watch]})
    with client_of(scripted.url, max_retries=2, http_client=http) as patient:
        second = patient.responses.create(model="talks", input="Hi", conversation=conversation.id)
    assert (second.status, statuses) == ("completed", [409, 200])


# WebSocket


@pytest.mark.filterwarnings("ignore:connect\\(\\) must be used as a context manager:DeprecationWarning")
def test_turns_over_one_connection(client: OpenAI) -> None:
    """Nothing is stored, and each turn still reads all turns before it; elsewhere they are unknown."""
    turns: list[Any] = []
    with client.responses.connect() as connection:
        for words in ("My name is Ada.", "What is my name?", "Sure?"):
            previous: Any = {"previous_response_id": turns[-1].id} if turns else {}
            connection.response.create(model=MODEL, input=words, store=False, **previous)
            turns.append(next(event.response for event in connection if event.type == "response.completed"))
    for earlier, later in pairwise(turns):
        assert later.previous_response_id == earlier.id
        assert later.usage.input_tokens > earlier.usage.input_tokens + earlier.usage.output_tokens
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, previous_response_id=turns[-1].id)
    assert caught.value.code == "previous_response_not_found"
