"""Five carriers, one truth: waiting, streaming, polling, resuming from anywhere and WebSocket give the same response.

Only what has to differ between two runs is set aside: ids become the order in which they appear; times, the word
`background` and what the engine found in its cache go. A replay differs in nothing: it is the very bytes that the
first listener got.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from clients.sockets import Socket
from clients.wire import Exchange, Sent, closed, create, final, get, stream, suite_events, wait_until
from core.writing import RICH
from ore.backends.scripted import says
from ore.core.deltas import Finish, Usage
from ore.ids import PREFIXES
from servers import OreProcess, ScriptedServer

Json = dict[str, Any]

OUR_ID = re.compile(rf"\b(?:{'|'.join(sorted(set(PREFIXES.values())))})_[0-9a-f]{{32}}\b")
MAY_DIFFER = ("created_at", "completed_at", "background")
PERSON: Json = {
    "type": "json_schema",
    "name": "person",
    "strict": True,
    "schema": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    },
}
WEATHER: Json = {
    "type": "function",
    "name": "get_weather",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
TINY: dict[str, Json] = {
    "text": {"input": "What is ORE?", "instructions": "Be brief.", "metadata": {"a": "b"}},
    "call": {
        "input": "What's the weather like in Oslo?",
        "tools": [WEATHER],
        "tool_choice": {"type": "function", "name": "get_weather"},
    },
    "structure": {"input": "Ada is 36 years old.", "text": {"format": PERSON}},
    "cut": {"input": "What is ORE?", "max_output_tokens": 16},
    "logprobs": {"input": "Hello!", "include": ["message.output_text.logprobs"], "top_logprobs": 2},
}


def same(value: Json) -> Json:
    """A response or an event without what differs from run to run."""
    seen: dict[str, str] = {}
    text = OUR_ID.sub(lambda found: seen.setdefault(found[0], f"id{len(seen)}"), json.dumps(value))
    kept: Json = json.loads(text)
    for holder in (kept, kept.get("response", {})):
        for key in MAY_DIFFER:
            holder.pop(key, None)
        (holder.get("usage") or {}).pop("input_tokens_details", None)
    return kept


def told(events: list[Sent]) -> list[Json]:
    """The events of a run, all ids and numbers alike; what only background runs say is left out."""
    bodies = [event.json for event in events if event.type != "response.queued"]
    whole = same({"events": [{**body, "sequence_number": at} for at, body in enumerate(bodies)]})
    return [without_status(same(event)) for event in whole["events"]]


def without_status(event: Json) -> Json:
    """A background run is created `queued`, any other `in_progress`."""
    if event["type"] == "response.created":
        event["response"].pop("status")
    return event


def polled(url: str, **body: Any) -> Json:
    """The final response of a background run that nobody listens to."""
    answer = create(url, **body, background=True)
    assert answer.status == 200, answer.body
    path = f"/v1/responses/{answer.json()['id']}"
    wait_until(lambda: get(url, path).json()["status"] not in ("queued", "in_progress"))
    return dict(get(url, path).json())


def replayed(url: str, response_id: str, after: int | None) -> list[Sent]:
    """What a replay sends, with its `[DONE]`; from the beginning when there is no number."""
    query = "stream=true" if after is None else f"stream=true&starting_after={after}"
    with Exchange(url, method="GET", path=f"/v1/responses/{response_id}?{query}") as exchange:
        assert exchange.head()[0] == 200
        return list(suite_events(exchange.chunks()))


def check_carriers(url: str, **body: Any) -> Json:
    """All five, each against the waiting call; gives its response."""
    waiting: Json = create(url, **body).json()
    streamed = stream(url, **body)
    in_background = stream(url, **body, background=True)
    with Socket(url) as socket:
        framed = socket.turn(**body)
    for response in (final(streamed), polled(url, **body), final(in_background), final(framed)):
        assert same(response) == same(waiting)
        assert same(get(url, f"/v1/responses/{response['id']}").json()) == same(response)
    assert told(streamed) == told(in_background) == told(framed)
    check_replays(url, in_background)
    return waiting


def check_replays(url: str, events: list[Sent]) -> None:
    """Resumed after each event, a stream goes on with exactly the rest of it."""
    response_id = final(events)["id"]
    for after in (None, *range(len(events))):
        *rest, done = replayed(url, response_id, after)
        assert done.data == "[DONE]"
        assert rest == events[0 if after is None else after + 1 :]


@pytest.mark.engine
@pytest.mark.parametrize("kind", TINY)
def test_the_bundled_model(tiny: OreProcess, kind: str) -> None:
    """The engine says the same whoever carries it, down to each event and each token's probability."""
    response = check_carriers(tiny.url, model="ore-tiny", seed=11, temperature=0, **TINY[kind])
    assert response["status"] == ("incomplete" if kind == "cut" else "completed")
    assert [item["type"] for item in response["output"]] == ["function_call" if kind == "call" else "message"]


@pytest.fixture
def rich(scripted: ScriptedServer) -> Iterator[str]:
    """A model that says every kind of delta there is."""
    scripted.scripts["rich"] = [*RICH, Finish("stop", Usage(input_tokens=9, output_tokens=2, reasoning_tokens=1))]
    yield "rich"
    del scripted.scripts["rich"]


def test_everything_that_a_model_can_say(scripted: ScriptedServer, rich: str) -> None:
    """Reasoning, refusals, citations and calls of every kind survive each carrier."""
    response = check_carriers(scripted.url, model=rich, input="Hi")
    assert response["status"] == "completed"
    assert len({item["type"] for item in response["output"]}) == 6


def test_a_failure(scripted: ScriptedServer) -> None:
    """A run that breaks after it began tells every carrier the same, and a replay tells it again."""
    scripted.scripts["breaks"] = [*says("Well")[:-1], RuntimeError("broken")]
    body = {"model": "breaks", "input": "Hi"}
    in_background = stream(scripted.url, **body, background=True)
    with Socket(scripted.url) as socket:
        framed = socket.turn(**body)
    streamed = stream(scripted.url, **body)
    for response in (final(in_background), polled(scripted.url, **body), final(framed)):
        assert response["status"] == "failed"
        assert same(response) == same(final(streamed))
    assert told(streamed) == told(in_background) == told(framed)
    check_replays(scripted.url, in_background)
    del scripted.scripts["breaks"]


def test_a_replay_joins_a_run_that_goes_on(scripted: ScriptedServer) -> None:
    """Resumed in the middle of the run, a stream brings what was and what is still to come, each event once."""
    scripted.scripts["halting"] = [*says("One ", pieces=1)[:-1], 0.3, *says("two three.", pieces=5)]
    body = {"model": "halting", "input": "Hi", "stream": True, "background": True}
    with Exchange(scripted.url, body) as exchange:
        exchange.head()
        first: list[Sent] = []
        for event in suite_events(exchange.chunks()):
            first.append(event)
            if event.type == "response.output_text.delta":
                break
    response_id = first[0].json["response"]["id"]
    later = closed(replayed(scripted.url, response_id, len(first) - 1))
    whole = closed(replayed(scripted.url, response_id, None))
    assert [*first, *later] == whole
    del scripted.scripts["halting"]


def test_padding_is_the_only_difference(scripted: ScriptedServer, rich: str) -> None:
    """Obfuscated, a replay says the same under the same numbers; deltas are padded, and nothing else is."""
    plain = stream(scripted.url, model=rich, input="Hi", background=True)
    response_id = final(plain)["id"]
    path = f"/v1/responses/{response_id}?stream=true&include_obfuscation=true"
    with Exchange(scripted.url, method="GET", path=path) as exchange:
        exchange.head()
        padded = [event.json for event in closed(list(suite_events(exchange.chunks())))]
    assert any("obfuscation" in body for body in padded)
    assert all(body["type"].endswith(".delta") for body in padded if "obfuscation" in body)
    assert [{key: body[key] for key in body if key != "obfuscation"} for body in padded] == [
        event.json for event in plain
    ]
