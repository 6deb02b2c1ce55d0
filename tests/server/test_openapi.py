"""The OpenAPI document against the server that it describes: its routes, its real answers, and generated requests.

The generated requests come from a fixed seed; `ORE_TEST_SEED=n` tries others.
"""

import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

import jsonschema_rs
import msgspec
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from live_server import Answer, ask
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from ore import __version__
from ore.backends.scripted import Script, says
from ore.core.deltas import (
    Finish,
    Reasoning,
    ReasoningSummary,
    Refusal,
    Text,
    ToolArguments,
    ToolCall,
    Usage,
    WholeItem,
)
from ore.errors import InvalidRequest, ModelFailed, TooManyRequests, Unavailable
from ore.protocol import items
from ore.protocol.responses import CreateBody, check_create
from ore.server.conversations import ConversationEndpoints
from ore.server.embeddings import EmbeddingEndpoints
from ore.server.endpoints import Endpoints
from ore.server.openapi import openapi_document
from servers import ScriptedServer

Json = dict[str, Any]

SEED = int(os.environ.get("ORE_TEST_SEED", "20261122"))
EXAMPLES = 25
"""Generated requests for each operation and mode."""

DOCUMENT = openapi_document()


def _without_keys(document: Json) -> Json:
    """The document without idempotency keys: they join requests, which no schema expresses, and have own tests."""
    document = json.loads(json.dumps(document))
    for operation in (one for path in document["paths"].values() for one in _methods(path).values()):
        if "parameters" in operation:
            operation["parameters"] = [one for one in operation["parameters"] if one["in"] != "header"]
    return document


def _methods(path: Json) -> Json:
    return {method: operation for method, operation in path.items() if method != "parameters"}


SCHEMA = schemathesis.openapi.from_dict(_without_keys(DOCUMENT))
OPERATIONS = {operation.ok().label: operation.ok() for operation in SCHEMA.get_all_operations()}
MODEL = "ore-tiny"

END = Finish("stop", Usage(input_tokens=3, output_tokens=2))
SCRIPTS: dict[str, Script] = {
    MODEL: says("hello", pieces=2),
    "cut": [Text("hel"), Finish("max_output_tokens", Usage(input_tokens=3, output_tokens=1))],
    "breaks": [Text("hel"), ModelFailed("The model broke. Send the request again.")],
    "refuses": [Refusal("No."), END],
    "thinks": [ReasoningSummary("Short."), Reasoning("Hmm."), Text("hello"), END],
    "calls": [ToolCall("call_1", "get_weather"), ToolArguments('{"place":"Oslo"}'), Finish("tool_calls")],
    "writes": [ToolCall("call_2", "note", "custom_tool_call"), ToolArguments("free text"), Finish("tool_calls")],
    "passes": [WholeItem({"type": "acme:thing", "id": "thing_1", "status": "completed"}), END],
    "silent": [END],
    "too long": [InvalidRequest("The context is too long.", code="context_length_exceeded", param="input")],
    "busy": [TooManyRequests("The queue is full. Try again.", retry_after=2)],
    "down": [Unavailable("The engine is starting. Try again.")],
    "gone": [ModelFailed("The engine is gone. Send the request again.")],
    "buggy": [RuntimeError("/secret/path")],
}


@pytest.fixture(scope="module")
def server(scripted: ScriptedServer) -> Iterator[ScriptedServer]:
    before = dict(scripted.scripts)
    scripted.scripts.clear()
    scripted.scripts.update(SCRIPTS)
    scripted.backend.vectors = lambda request: [[0.6, 0.8]] * len(request.inputs)
    yield scripted
    scripted.backend.vectors = None
    scripted.scripts.clear()
    scripted.scripts.update(before)


# The document by itself


def test_the_document_is_openapi_3_1() -> None:
    """The official schema of OpenAPI 3.1 has nothing to say against it, and every one of its schemas compiles."""
    problems = [str(problem) for problem in OPENAPI_31_VALIDATOR.iter_errors(DOCUMENT)]
    assert problems == []
    assert json.loads(msgspec.json.encode(DOCUMENT)) == DOCUMENT
    for name in DOCUMENT["components"]["schemas"]:
        judge({"$ref": f"#/components/schemas/{name}"})


def test_the_document_says_what_it_is() -> None:
    """Title and version are those of ORE, and no reference leaves the document or leads nowhere."""
    assert DOCUMENT["info"]["title"] == "Open Responses Engine"
    assert DOCUMENT["info"]["version"] == __version__
    references = set(_references(DOCUMENT))
    for reference in references:
        assert isinstance(resolve({"$ref": reference}), dict)
    for kind, parts in DOCUMENT["components"].items():
        unused = [name for name in parts if f"#/components/{kind}/{name}" not in references]
        assert unused == [], f"nothing refers to these {kind}"


def test_every_operation_is_named_and_can_fail() -> None:
    """Each operation has an id of its own, a tag, a summary, and errors in our shape."""
    operations = [operation for path in DOCUMENT["paths"].values() for operation in _methods(path).values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    for operation in operations:
        assert set(operation["tags"]) <= tags
        assert operation["tags"]
        assert operation["summary"]
        assert operation["description"]
        assert {"4XX", "5XX"} <= set(operation["responses"])


def test_every_field_of_a_request_is_described() -> None:
    """The request schema has the fields that the server reads, each with a sentence about it, and no others."""
    fields = DOCUMENT["components"]["schemas"]["CreateResponse"]["properties"]
    assert list(fields) == list(CreateBody.__struct_fields__)
    assert [name for name, schema in fields.items() if not schema.get("description")] == []


def test_every_checked_item_type_is_described() -> None:
    """No item type that the server checks passes as an unknown one in the document."""
    other = DOCUMENT["components"]["schemas"]["InputOtherItem"]["properties"]["type"]
    assert set(other["not"]["enum"]) == set(items._CHECKS)


def test_every_example_is_true() -> None:
    """Examples of requests are accepted, and examples of answers match their schema."""
    media = DOCUMENT["paths"]["/v1/responses"]["post"]["requestBody"]["content"]["application/json"]
    for example in media["examples"].values():
        judge(media["schema"]).validate(example["value"])
        check_create(example["value"], lambda purpose: f"{purpose}_1")
    for name, schema in DOCUMENT["components"]["schemas"].items():
        for example in schema.get("examples", ()):
            judge({"$ref": f"#/components/schemas/{name}"}).validate(example)


# The document and the routes


def test_every_route_is_described_and_nothing_else(server: ScriptedServer) -> None:
    """The paths and methods of the document are those that the server takes, but for the page about them."""
    paths = [(route, re.sub(r":\w+}", "}", route.path)) for route in _routes()]
    served = {(method, path) for route, path in paths for method in route.methods or ()}
    described = {(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in _methods(item)}
    assert described == {pair for pair in served if pair[0] != "HEAD"} | {("GET", "/openapi.json")}


def test_the_document_is_served(server: ScriptedServer) -> None:
    """`GET /openapi.json` is this document."""
    answer = ask(server.port, "GET", "/openapi.json")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == DOCUMENT


# Real answers


@pytest.mark.parametrize(
    ("model", "status"),
    [
        (MODEL, "completed"),
        ("refuses", "completed"),
        ("thinks", "completed"),
        ("calls", "completed"),
        ("writes", "completed"),
        ("passes", "completed"),
        ("silent", "completed"),
        ("cut", "incomplete"),
        ("breaks", "failed"),
        ("buggy", "failed"),
    ],
)
def test_responses_are_as_described(server: ScriptedServer, model: str, status: str) -> None:
    """A response is as described however it ends, waited for, read again, and in each event of its stream."""
    if model == "buggy":
        server.scripts[model] = [Text("hel"), RuntimeError("/secret/path")]
    waited = create(server, model=model, input="Hi")
    conforms(waited, "post", "/v1/responses", 200)
    assert waited.json()["status"] == status
    stored = ask(server.port, "GET", f"/v1/responses/{waited.json()['id']}")
    conforms(stored, "get", "/v1/responses/{response_id}", 200)
    streamed = create(server, model=model, input="Hi", stream=True)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    events = list(_events(streamed))
    assert events[-1]["response"]["status"] == status
    for event in events:
        judge({"$ref": "#/components/schemas/StreamEvent"}).validate(event)


def test_every_setting_is_echoed_as_described(server: ScriptedServer) -> None:
    """A response that echoes every setting there is still matches its schema."""
    answer = create(
        server,
        model=MODEL,
        input=[{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}],
        instructions="Be brief.",
        tools=[
            {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True},
            {"type": "custom", "name": "c"},
            {"type": "web_search"},
        ],
        tool_choice={"type": "allowed_tools", "tools": [{"type": "function", "name": "f"}]},
        text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}, "verbosity": "low"},
        reasoning={"effort": "max", "summary": "auto"},
        metadata={"a": "b"},
        user="u",
        max_output_tokens=16.0,
        max_tool_calls=3,
        truncation="auto",
        safety_identifier="s",
        prompt_cache_key="k",
    )
    conforms(answer, "post", "/v1/responses", 200)
    assert answer.json()["max_output_tokens"] == 16
    assert "web_search" in answer.headers["x-ore-warning"]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"input": 7}, 400),
        ({"model": "nobody"}, 404),
        ({"model": "too long"}, 400),
        ({"model": "busy"}, 429),
        ({"model": "down"}, 503),
        ({"model": "gone"}, 502),
        ({"model": "refused by a bug"}, 500),
        ({"previous_response_id": "resp_0"}, 400),
    ],
)
def test_refusals_are_as_described(server: ScriptedServer, fields: Json, status: int) -> None:
    """Each way to refuse a request has its status in the document, and our error object as its body."""
    server.scripts["refused by a bug"] = [RuntimeError("/secret/path")]
    answer = create(server, **{"model": MODEL, "input": "Hi", **fields})
    conforms(answer, "post", "/v1/responses", status)
    assert b"/secret/path" not in answer.body


def test_the_other_answers_are_as_described(server: ScriptedServer) -> None:
    """Lists, models, deletions, health and version match their schemas, and so do the errors of their operations."""
    made = create(server, model=MODEL, input=[{"role": "user", "content": "a"}, {"role": "user", "content": "b"}])
    response_id, talk = made.json()["id"], conversation(server)
    expected = [
        ("GET", f"/v1/responses/{response_id}/input_items?limit=1", "/v1/responses/{response_id}/input_items", 200),
        ("GET", f"/v1/responses/{response_id}/input_items?limit=0", "/v1/responses/{response_id}/input_items", 400),
        ("GET", "/v1/responses/resp_0/input_items", "/v1/responses/{response_id}/input_items", 404),
        ("GET", f"/v1/responses/{response_id}?stream=true", "/v1/responses/{response_id}", 400),
        ("GET", "/v1/ore/responses?limit=2", "/v1/ore/responses", 200),
        ("GET", f"/v1/ore/responses?after={response_id}", "/v1/ore/responses", 200),
        ("GET", "/v1/ore/responses?after=resp_0", "/v1/ore/responses", 400),
        ("DELETE", f"/v1/responses/{response_id}", "/v1/responses/{response_id}", 200),
        ("DELETE", f"/v1/responses/{response_id}", "/v1/responses/{response_id}", 404),
        ("GET", f"/v1/responses/{response_id}", "/v1/responses/{response_id}", 404),
        ("GET", "/v1/responses", "/v1/responses", 405),
        ("GET", f"/v1/conversations/{talk}", "/v1/conversations/{conversation_id}", 200),
        ("GET", "/v1/conversations/conv_0", "/v1/conversations/{conversation_id}", 404),
        ("GET", f"/v1/conversations/{talk}/items", "/v1/conversations/{conversation_id}/items", 200),
        ("GET", f"/v1/conversations/{talk}/items?limit=0", "/v1/conversations/{conversation_id}/items", 400),
        ("GET", f"/v1/conversations/{talk}/items/i", "/v1/conversations/{conversation_id}/items/{item_id}", 200),
        ("DELETE", f"/v1/conversations/{talk}/items/i", "/v1/conversations/{conversation_id}/items/{item_id}", 200),
        ("GET", f"/v1/conversations/{talk}/items/i", "/v1/conversations/{conversation_id}/items/{item_id}", 404),
        ("DELETE", f"/v1/conversations/{talk}", "/v1/conversations/{conversation_id}", 200),
        ("DELETE", f"/v1/conversations/{talk}", "/v1/conversations/{conversation_id}", 404),
        ("GET", "/v1/models", "/v1/models", 200),
        ("GET", f"/v1/models/{MODEL}", "/v1/models/{model_id}", 200),
        ("GET", "/v1/models/org/nobody", "/v1/models/{model_id}", 404),
        ("GET", "/livez", "/livez", 200),
        ("GET", "/readyz?verbose", "/readyz", 200),
        ("GET", "/health", "/health", 200),
        ("GET", "/version", "/version", 200),
    ]
    for method, path, template, status in expected:
        conforms(ask(server.port, method, path), method.lower(), template, status)
    handshake = {"connection": "upgrade", "upgrade": "websocket", "sec_websocket_version": "13"}
    conforms(ask(server.port, "GET", "/v1/responses", **handshake), "get", "/v1/responses", 400)
    handshake["sec_websocket_key"] = "MDEyMzQ1Njc4OWFiY2RlZg=="
    stranger = ask(server.port, "GET", "/v1/responses", **handshake, origin="http://evil.example")
    conforms(stranger, "get", "/v1/responses", 403)
    assert ask(server.port, "GET", "/v1/responses", **handshake).status == 101


# Generated requests


@pytest.mark.parametrize("label", OPERATIONS)
def test_requests_that_match_the_document_are_taken(server: ScriptedServer, label: str) -> None:
    """What the document allows is accepted once it respects the rules between fields, and answered as described."""
    fuzz(server, OPERATIONS[label], GenerationMode.POSITIVE)


@pytest.mark.parametrize(
    "label",
    [
        "POST /v1/responses",
        "POST /v1/responses/compact",
        "GET /v1/responses/{response_id}",
        "GET /v1/responses/{response_id}/input_items",
        "GET /v1/ore/responses",
        "POST /v1/embeddings",
        "POST /v1/conversations",
        "POST /v1/conversations/{conversation_id}",
        "POST /v1/conversations/{conversation_id}/items",
        "GET /v1/conversations/{conversation_id}/items",
    ],
)
def test_requests_that_do_not_match_are_refused(server: ScriptedServer, label: str) -> None:
    """What the document forbids is a 4xx, answered as described."""
    fuzz(server, OPERATIONS[label], GenerationMode.NEGATIVE)


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize("field", ["input", "tools", "text"])
def test_the_shapes_that_are_checked_by_code_are_as_described(
    server: ScriptedServer, field: str, mode: GenerationMode
) -> None:
    """Items, tools and formats, whose schemas are written by hand, are accepted and refused as the document says."""
    fuzz(server, _about(field), mode, hidden=set(CreateBody.__struct_fields__) - {field})


def fuzz(server: ScriptedServer, operation: Any, mode: GenerationMode, hidden: Iterable[str] = ()) -> None:
    """Send generated requests to an operation, and judge the answers. `hidden` fields exist, but it knows them not."""
    print(f"ORE_TEST_SEED={SEED}")  # noqa: T201
    posts = operation.method == "post"
    asks = "requestBody" in operation.definition.raw and operation.path.startswith("/v1/responses")
    embeds = operation.path == "/v1/embeddings"
    documented = set(operation.definition.raw["responses"])
    checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
    if mode is GenerationMode.NEGATIVE:
        checks.append(negative_data_rejection)
    elif posts:
        checks.append(positive_data_acceptance)
    asked = create(server, model=MODEL, input="Hi", background=True, stream=True)  # then every operation applies
    created = json.loads(asked.body.split(b"data: ", 1)[1].splitlines()[0])
    known = {"response_id": created["response"]["id"], "model_id": MODEL}
    known |= {"conversation_id": conversation(server), "item_id": "i"}
    numbers = itertools.count()

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES if posts else EXAMPLES // 3,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def play(case: Any) -> None:
        if mode is GenerationMode.POSITIVE and asks:
            case.body = with_rules({key: value for key, value in case.body.items() if key not in hidden})
        elif mode is GenerationMode.POSITIVE and embeds:
            case.body["model"] = MODEL
        elif mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
            for item in case.body.get("items") or []:
                _name_apart(item.get("tools"))
        odd = next(numbers) % 2
        if posts or (odd and operation.method == "get"):  # every other request is for something that there is
            case.path_parameters |= {name: known[name] for name in case.path_parameters}
        answer = case.call_and_validate(base_url=server.url, session=session, timeout=10, checks=checks)
        assert str(answer.status_code) in documented | {"400", "404"}

    with requests.Session() as session:
        play()


def _about(field: str) -> Any:
    """The create operation of a document that asks for one field, with something in it, and knows no other."""
    schema = DOCUMENT["components"]["schemas"]["CreateResponse"]["properties"][field]
    (wanted,) = [one for one in schema["anyOf"] if one.get("type") == "array" or "$ref" in one]
    least = {"minItems": 1} if "items" in wanted else {}
    body = {"type": "object", "properties": {field: {**wanted, **least}}, "required": [field]}
    components = {**DOCUMENT["components"], "schemas": {**DOCUMENT["components"]["schemas"], "CreateResponse": body}}
    schema = schemathesis.openapi.from_dict({**_without_keys(DOCUMENT), "components": components})
    return schema["/v1/responses"]["POST"]


def with_rules(body: Json) -> Json:
    """A generated body, put right where rules join fields, which no schema expresses."""
    body = {**body, "model": MODEL}
    body.pop("previous_response_id", None)
    body.pop("conversation", None)
    if not body.get("input"):
        body["input"] = "Hi"
    if body.get("background"):
        body["store"] = True
    if isinstance(body["input"], list):
        body["input"] = list(_paired(body["input"]))
        for item in body["input"]:
            _name_apart(item.get("tools"))
            item.pop("encrypted_content", None)  # nobody else can seal for this server
    if body.get("stream_options"):
        body["stream"] = True
    _name_apart(body.get("tools"))
    wanted = (body.get("text") or {}).get("format") or {}
    if wanted.get("strict"):
        wanted["schema"] = {"type": "object"}  # which objects are schemas, no schema says
    if body.get("tool_choice") not in ("auto", "none"):
        body["tool_choice"] = _chosen(body.get("tools") or [])
    return body


def _name_apart(tools: Any) -> None:
    """Two tools of one request or item have two names."""
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        if isinstance(tool, dict) and "name" in tool:
            tool["name"] = f"tool_{index}"
        if isinstance(tool, dict) and tool.get("type") == "namespace":
            _name_apart(tool["tools"])


def _paired(given_items: list[Json]) -> Iterator[Json]:
    """Calls before the outputs that have none, and outputs after the calls that have none."""
    missing = {"name": "f", "arguments": "{}", "input": "", "output": "done"}
    calls = {output: call for call, output in items.CALL_OUTPUTS.items()}
    for item in given_items:
        kind, call_id = item.get("type"), item.get("call_id")
        if kind in calls and call_id is not None:
            yield {**missing, "type": calls[kind], "call_id": call_id}
        yield item
        if kind in items.CALL_OUTPUTS and call_id is not None:
            yield {**missing, "type": items.CALL_OUTPUTS[kind], "call_id": call_id}


def _chosen(tools: list[Json]) -> str | Json:
    named = [tool for tool in tools if tool["type"] in ("function", "custom")]
    return {"type": named[0]["type"], "name": named[0]["name"]} if named else "auto"


# Reading the document


def judge(schema: Json) -> Any:
    """A validator for a schema of the document."""
    return jsonschema_rs.Draft202012Validator({**schema, "components": DOCUMENT["components"]}, offline=True)


def conforms(answer: Answer, method: str, path: str, status: int) -> None:
    """The answer has this status, which the operation lists by itself, and the body described under it."""
    assert answer.status == status, answer.body
    described = resolve(DOCUMENT["paths"][path][method]["responses"][str(status)])
    assert answer.headers["content-type"] == "application/json"
    judge(described["content"]["application/json"]["schema"]).validate(answer.json())
    assert answer.headers["x-request-id"]
    assert set(described["headers"]) & {"retry-after"} <= set(answer.headers)
    if status >= 400:
        assert answer.error()["message"]


def resolve(schema: Json) -> Json:
    """What a `$ref` means."""
    if "$ref" not in schema:
        return schema
    found: Any = DOCUMENT
    for step in schema["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    return dict(found)


def create(server: ScriptedServer, **body: Any) -> Answer:
    return send(server, "/v1/responses", body)


def conversation(server: ScriptedServer) -> str:
    """The id of a new conversation that holds the item `i`, and more."""
    body = {"items": [{"role": "user", "content": "Hi", "id": "i"}, {"role": "assistant", "content": "Hello"}]}
    answer = send(server, "/v1/conversations", body)
    conforms(answer, "post", "/v1/conversations", 200)
    return str(answer.json()["id"])


def send(server: ScriptedServer, path: str, body: Json) -> Answer:
    return ask(server.port, "POST", path, msgspec.json.encode(body), content_type="application/json")


def _events(answer: Answer) -> Iterator[Json]:
    for frame in answer.body.decode().removesuffix("data: [DONE]\n\n").strip().split("\n\n"):
        name, _, data = frame.partition("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        yield event


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        if "discriminator" in value:
            yield from value["discriminator"]["mapping"].values()
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _routes() -> list[Any]:
    """Those of the endpoints, which need no parts to be listed."""
    parts: Any = None
    return (
        Endpoints(
            supervisor=parts,
            router=parts,
            store=parts,
            sealer=parts,
            metrics=parts,
            new_id=parts,
            sse_idle=1,
            sse_done=True,
            strict_fields=False,
        ).routes()
        + EmbeddingEndpoints(router=parts, strict_fields=False, seconds=1).routes()
        + ConversationEndpoints(store=parts, new_id=parts, now=parts, strict_fields=False).routes()
    )
