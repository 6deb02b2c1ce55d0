"""Unchanged `openai` code against a real `ore serve` of the bundled model.

What the model says is held to little: it greets, it calls the one function that fits, it fills a schema. What goes
over the wire is held to everything that the SDK shows.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import openai
import pydantic
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import ResponseFunctionToolCall

from clients.weather import WEATHER, WEATHER_QUESTION
from clients.wire import get, wait_until
from servers import OreProcess

pytestmark = pytest.mark.engine

MODEL = "ore-tiny"
ENDLESS: Any = {
    "type": "json_schema",
    "name": "endless",
    "strict": True,
    "schema": {
        "type": "object",
        "properties": {"numbers": {"type": "array", "items": {"type": "integer"}, "minItems": 4000}},
        "required": ["numbers"],
        "additionalProperties": False,
    },
}
"""A format that no answer fulfils before the context is full: the longest answer there is."""


@pytest.fixture(scope="module")
def client(tiny: OreProcess) -> Iterator[OpenAI]:
    """One that never repeats a request by itself, so that a test sees the first answer."""
    with OpenAI(base_url=f"{tiny.url}/v1", api_key="local", max_retries=0, timeout=60) as client:
        yield client


def create(client: OpenAI, input: Any = "Hello!", **more: Any) -> Any:
    """The likeliest answer, so that a test says the same thing twice."""
    return client.responses.create(model=MODEL, input=input, temperature=0, **more)


# Creating


def test_create(client: OpenAI) -> None:
    """A greeting comes back as text, with its cost, its time and its request id."""
    response = create(client)
    assert response.status == "completed"
    assert response.output_text
    assert response.model == MODEL
    assert response.completed_at >= response.created_at
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens > 0
    assert response._request_id.startswith("req_")


def test_stream_helper_reaches_the_final_response(client: OpenAI) -> None:
    """`stream()` gives typed events in order, and a final response with the very text of the deltas."""
    with client.responses.stream(model=MODEL, input="Hello!", temperature=0) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == final.output_text != ""
    assert client.responses.retrieve(final.id).output_text == final.output_text


def test_raw_stream(client: OpenAI) -> None:
    """`stream=True` iterates over the events and ends by itself."""
    with create(client, stream=True) as stream:
        events = list(stream)
    assert events[-1].type == "response.completed"
    assert events[-1].response.status == "completed"


def test_an_idempotency_key_answers_once(client: OpenAI) -> None:
    """`extra_headers` carry the key: the same call gives the same response, another one is refused."""
    named: Any = {"extra_headers": {"Idempotency-Key": "the sdk's"}}
    first = create(client, **named)
    assert create(client, **named).id == first.id
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, "Something else.", **named)
    assert (caught.value.code, caught.value.param) == ("idempotency_key_reused", None)


def test_streamed_and_waiting_answers_agree(client: OpenAI) -> None:
    """The likeliest answer is the same whether it is streamed or not."""
    with create(client, "What is ORE?", stream=True) as stream:
        streamed = list(stream)[-1].response
    assert streamed.output_text == create(client, "What is ORE?").output_text


class Person(pydantic.BaseModel):
    name: str
    age: int


PERSON_TEXT = "Extract the person: Ada is 36 years old and lives in London."


def test_parse_fills_a_pydantic_class(client: OpenAI) -> None:
    """`parse` returns an instance of the class, filled from the text."""
    response = client.responses.parse(model=MODEL, input=PERSON_TEXT, text_format=Person, temperature=0)
    assert response.status == "completed"
    assert response.output_parsed == Person(name="Ada", age=36)


def test_parse_while_streaming(client: OpenAI) -> None:
    """`stream()` with a class gives an instance at its end, out of the text that was streamed."""
    with client.responses.stream(model=MODEL, input=PERSON_TEXT, text_format=Person, temperature=0) as stream:
        final = stream.get_final_response()
    assert final.output_parsed == Person.model_validate_json(final.output_text)


def test_logprobs(client: OpenAI) -> None:
    """Asked for, each token comes with its probability and so many alternatives, streaming or not."""
    wanted: Any = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    part = create(client, **wanted).output[0].content[0]
    assert "".join(entry.token for entry in part.logprobs) == part.text
    assert all(entry.logprob <= 0 and len(entry.top_logprobs) == 2 for entry in part.logprobs)
    with create(client, stream=True, **wanted) as stream:
        streamed = [entry for event in stream if event.type == "response.output_text.delta" for entry in event.logprobs]
    assert [entry.token for entry in streamed] == [entry.token for entry in part.logprobs]


# Functions


def call_in(response: Any) -> ResponseFunctionToolCall:
    assert response.status == "completed"
    (call,) = [item for item in response.output if item.type == "function_call"]
    assert isinstance(call, ResponseFunctionToolCall)
    assert call.name == "get_weather"
    assert isinstance(json.loads(call.arguments)["city"], str)
    return call


def output_of(call: ResponseFunctionToolCall) -> dict[str, str]:
    return {"type": "function_call_output", "call_id": call.call_id, "output": '{"temperature": 18, "sky": "sunny"}'}


def test_function_round_trip_by_previous_response_id(client: OpenAI) -> None:
    """Call, output, answer: the server knows the call from the response before."""
    first = create(client, WEATHER_QUESTION, tools=[WEATHER])
    call = call_in(first)
    final = create(client, [output_of(call)], tools=[WEATHER], previous_response_id=first.id)
    assert final.status == "completed"
    assert final.output
    items = client.responses.input_items.list(final.id, order="asc").data
    assert [item.type for item in items] == ["message", "function_call", "function_call_output"]


def test_function_round_trip_with_the_whole_history(client: OpenAI) -> None:
    """Call, output, answer: the client sends everything back, nothing is stored."""
    history: list[Any] = [{"role": "user", "content": WEATHER_QUESTION}]
    first = create(client, history, tools=[WEATHER], store=False)
    history += [*first.output, output_of(call_in(first))]
    final = create(client, history, tools=[WEATHER], store=False)
    assert final.status == "completed"
    assert final.output


def test_streamed_function_call(client: OpenAI) -> None:
    """The helper puts the arguments together from their deltas."""
    with client.responses.stream(model=MODEL, input=WEATHER_QUESTION, tools=[WEATHER], temperature=0) as stream:
        deltas = [event.delta for event in stream if event.type == "response.function_call_arguments.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == call_in(final).arguments


class GetWeather(pydantic.BaseModel):
    city: str


def test_a_pydantic_function_is_called(client: OpenAI) -> None:
    """`parse` turns the arguments of a call into an instance of the class that described the function."""
    tool: Any = openai.pydantic_function_tool(GetWeather, name="get_weather", description="Get the weather for a city")
    response = client.responses.parse(model=MODEL, input=WEATHER_QUESTION, tools=[tool], temperature=0)
    assert isinstance(call_in(response).parsed_arguments, GetWeather)


def test_an_unanswered_call_is_refused(client: OpenAI) -> None:
    """To go on after a call without its output is a 400 that names the call."""
    first = create(client, WEATHER_QUESTION, tools=[WEATHER])
    with pytest.raises(openai.BadRequestError, match=call_in(first).call_id) as caught:
        create(client, "And now?", previous_response_id=first.id)
    assert caught.value.param == "input"


# Stored state


def test_previous_response_id_recalls(client: OpenAI) -> None:
    """The next turn is given the turn before, both sides of it."""
    first = create(client, "My name is Ada.")
    second = create(client, "What is my name?", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert second.usage.input_tokens > first.usage.input_tokens + first.usage.output_tokens
    texts = [item.content[0].text for item in client.responses.input_items.list(second.id, order="asc")]
    assert texts == ["My name is Ada.", first.output_text, "What is my name?"]


def test_retrieve_is_what_was_created(client: OpenAI) -> None:
    """Byte for byte: not only the objects are equal."""
    created = client.responses.with_raw_response.create(
        model=MODEL, input=WEATHER_QUESTION, tools=[WEATHER], metadata={"a": "b"}, instructions="Be brief."
    )
    retrieved = client.responses.with_raw_response.retrieve(created.parse().id)
    assert retrieved.content == created.content
    assert retrieved.parse() == created.parse()


def test_delete(client: OpenAI) -> None:
    """What was deleted is not found, not listed, not continued and not deleted again."""
    response = create(client)
    client.responses.delete(response.id)
    for use in (client.responses.retrieve, client.responses.delete, client.responses.input_items.list):
        with pytest.raises(openai.NotFoundError):
            use(response.id)
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, previous_response_id=response.id)
    assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")


def test_what_is_not_to_be_stored_is_not(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(create(client, store=False).id)


@pytest.fixture(scope="module")
def many_items(client: OpenAI) -> tuple[str, list[str]]:
    """A response to 120 messages with ids of the client's, and those ids in order."""
    ids = [f"msg_{number:03}" for number in range(120)]
    items = [{"type": "message", "id": item_id, "role": "user", "content": item_id[-1]} for item_id in ids]
    return create(client, items, max_output_tokens=16).id, ids


@pytest.mark.parametrize("limit", [100, 7, None])
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_input_items_are_paged(
    client: OpenAI, many_items: tuple[str, list[str]], order: Any, limit: int | None
) -> None:
    """The SDK's pager finds each of more than 100 items once, in either order, whatever the size of a page."""
    response_id, ids = many_items
    page = client.responses.input_items.list(response_id, order=order, limit=limit or openai.omit)
    assert len(page.data) == (limit or 20)
    assert [item.id for item in page] == (ids if order == "asc" else ids[::-1])


def test_newest_items_come_first(client: OpenAI, many_items: tuple[str, list[str]]) -> None:
    """Without an order; and a cursor is exclusive."""
    response_id, ids = many_items
    page = client.responses.input_items.list(response_id, limit=2, after=ids[50])
    assert [item.id for item in page.data] == [ids[49], ids[48]]


# Compaction


# The SDK's own type of the output knows no user's message, which the wire demands; it is sent on all the same.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_a_compacted_conversation_goes_on(client: OpenAI) -> None:
    """`compact` gives the input of the next turn, as it is."""
    first = create(client, "My name is Ada.")
    compacted = client.responses.compact(model=MODEL, previous_response_id=first.id)
    assert [item.type for item in compacted.output] == ["message", "compaction"]
    assert compacted.usage.total_tokens > 0
    window: Any = [*compacted.output, {"role": "user", "content": "What is my name?"}]
    assert create(client, window, store=False).status == "completed"


# Models


def test_models(client: OpenAI) -> None:
    """The list names the bundled model, and each model can be fetched by its name."""
    models = list(client.models.list())
    assert MODEL in [model.id for model in models]
    assert client.models.retrieve(MODEL) == next(model for model in models if model.id == MODEL)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("none/such")


# Errors


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    """The message says which models there are."""
    with pytest.raises(openai.NotFoundError, match=MODEL) as caught:
        client.responses.create(model="gpt-none", input="Hello!")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert caught.value.request_id


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"temperature": 9}, "temperature", None),
        ({"input": [{"role": "nobody", "content": "Hello!"}]}, "input[0].role", "invalid_value"),
        ({"previous_response_id": "resp_none"}, "previous_response_id", "previous_response_not_found"),
        ({"extra_body": {"max_output_tokens": "many"}}, "max_output_tokens", "invalid_type"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_bad_request_is_named(
    client: OpenAI, body: dict[str, Any], param: str, code: str | None, stream: bool
) -> None:
    """The error says which parameter is wrong and why, streaming or not."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**{"model": MODEL, "input": "Hello!", "stream": stream, **body})
    assert caught.value.param == param
    assert caught.value.code
    assert code in (None, caught.value.code)
    assert caught.value.type == "invalid_request_error"


def test_a_context_that_is_too_long_is_refused(client: OpenAI) -> None:
    """With the code that agents look for before they shorten their history."""
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, "word " * 20_000)
    assert caught.value.code == "context_length_exceeded"


# Leaving


def idle(tiny: OreProcess) -> bool:
    """Whether no run is there and no slot of the engine is taken."""
    ready = get(tiny.url, "/readyz?verbose").json()
    return ready["active_runs"] == 0 and ready["backends"][MODEL]["running"] == 0


def test_closing_a_stream_frees_the_engine(tiny: OreProcess, client: OpenAI) -> None:
    """A client that leaves in the middle ends its run, which is kept as cancelled."""
    stream = client.responses.create(model=MODEL, input="Count.", text=openai_text(ENDLESS), stream=True)
    with stream:
        response_id = next(event.response.id for event in stream if event.type == "response.created")
        next(event for event in stream if event.type == "response.output_text.delta")
    wait_until(lambda: idle(tiny))
    assert client.responses.retrieve(response_id).status == "cancelled"


def test_a_client_that_loses_patience_frees_the_engine(tiny: OreProcess, client: OpenAI) -> None:
    """A timeout of the client's ends the run that it waited for."""
    with pytest.raises(openai.APITimeoutError):
        create(client.with_options(timeout=0.2), "Count.", text=openai_text(ENDLESS))
    wait_until(lambda: idle(tiny))


def openai_text(text_format: Any) -> Any:
    return {"format": text_format}


# Async


def in_async_client(tiny: OreProcess, use: Callable[[AsyncOpenAI], Awaitable[None]]) -> None:
    async def run() -> None:
        async with AsyncOpenAI(base_url=f"{tiny.url}/v1", api_key="local", max_retries=0, timeout=60) as client:
            await use(client)

    asyncio.run(run())


def test_async_client(tiny: OreProcess) -> None:
    """Create, stream, parse, page and delete, all at once where they can be."""

    async def use(client: AsyncOpenAI) -> None:
        async def streamed() -> str:
            async with client.responses.stream(model=MODEL, input="Hello!", temperature=0) as stream:
                return (await stream.get_final_response()).output_text

        created, text, parsed = await asyncio.gather(
            client.responses.create(model=MODEL, input="Hello!", temperature=0),
            streamed(),
            client.responses.parse(model=MODEL, input=PERSON_TEXT, text_format=Person, temperature=0),
        )
        assert created.output_text == text
        assert isinstance(parsed.output_parsed, Person)
        assert [item.type async for item in client.responses.input_items.list(created.id)] == ["message"]
        await client.responses.delete(created.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(created.id)

    in_async_client(tiny, use)


def test_a_cancelled_task_frees_the_engine(tiny: OreProcess) -> None:
    """Cancelling the task that waits hangs up, which ends the run."""

    async def use(client: AsyncOpenAI) -> None:
        task = asyncio.create_task(client.responses.create(model=MODEL, input="Count.", text=openai_text(ENDLESS)))
        await asyncio.to_thread(wait_until, lambda: not idle(tiny))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    in_async_client(tiny, use)
    wait_until(lambda: idle(tiny))
