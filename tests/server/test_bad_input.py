"""What hostile and broken clients send, over real HTTP (faults F20, F21, F22): a helpful 4xx, and a server that lives.

Every refusal is our error object, and an ordinary request is answered right after it. What takes longer than the ten
seconds that the raw client waits counts as hung.
"""

import json
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live_server import Answer, RawClient, ask

import ore
from ore.backends.base import ModelRequest
from ore.backends.scripted import Step, says
from ore.settings import ServerSettings, Settings
from servers import ScriptedServer

MODEL = "hostile"
MIB = 1024 * 1024
HERE = str(Path(ore.__file__).parent)
LEAKS = ("Traceback", HERE, "/tmp", ".py", "site-packages", "msgspec", "sqlite", "object at 0x")  # noqa: S108
ANSWER = {"a": "a" * 60 + "!", "b": [1, 2], "c": {"d": None}}
"""What the model says where JSON is asked for, so that hostile schemas are really applied."""


def speak(request: ModelRequest) -> list[Step]:
    return says("hello" if request.text_format["type"] == "text" else json.dumps(ANSWER))


@pytest.fixture
def server(scripted: ScriptedServer) -> ScriptedServer:
    scripted.scripts[MODEL] = speak
    return scripted


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedServer]:
    """A server that takes bodies up to 1 MiB."""
    yield from serving(tmp_path_factory.mktemp("small"), ServerSettings(max_body_bytes=MIB))


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedServer]:
    """A server that waits a quarter of a second for heads and bodies."""
    yield from serving(tmp_path_factory.mktemp("hasty"), ServerSettings(header_timeout=0.25, body_timeout=0.25))


def serving(folder: Path, server: ServerSettings) -> Iterator[ScriptedServer]:
    with ScriptedServer(folder, Settings(server=server)) as running:
        running.scripts[MODEL] = speak
        yield running


def refused(answer: Answer, *statuses: int, code: str | None = None, param: str | None = None) -> None:
    """A 4xx that says what is wrong in a sentence of bounded length and gives nothing away."""
    assert answer.status in (statuses or (400,)), answer.body[:500]
    error = answer.error()
    assert error["type"] == "invalid_request_error"
    assert 10 < len(error["message"]) < 2500
    assert error["message"].endswith((".", "?"))
    assert [leak for leak in LEAKS if leak in error["message"]] == []
    assert error["param"] is None or len(error["param"]) < 200
    assert answer.headers["x-request-id"]
    if code is not None:
        assert error["code"] == code
    if param is not None:
        assert error["param"] == param


def answers_normally(client: RawClient) -> None:
    """An ordinary request over this connection is answered in full."""
    answer = client.request(
        "POST", "/v1/responses", b'{"model": "hostile", "input": "Hi"}', content_type="application/json"
    )
    assert answer.status == 200, answer.body
    assert answer.json()["output"][0]["content"][0]["text"] == "hello"


def is_alive(server: ScriptedServer) -> None:
    with RawClient(server.port) as client:
        answers_normally(client)


def create(client: RawClient, **fields: Any) -> Answer:
    body = json.dumps({"model": MODEL, "input": "Hi", **fields}).encode()
    return client.request("POST", "/v1/responses", body, content_type="application/json")


def conversation(client: RawClient) -> str:
    """The path of a new conversation with one item."""
    body = b'{"items": [{"role": "user", "content": "Hi"}]}'
    answer = client.request("POST", "/v1/conversations", body, content_type="application/json")
    return f"/v1/conversations/{answer.json()['id']}"


# F20: too much of everything

HEAD = b"POST /v1/responses HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"

OVERSIZED: dict[str, tuple[bytes, int]] = {
    "one long header": (HEAD + b"x-long: " + b"a" * 100_000 + b"\r\n\r\n", 431),
    "a header that never ends": (HEAD + b"x-long: " + b"a" * 100_000, 431),
    "a header name that never ends": (HEAD + b"x" * 100_000, 431),
    "ten thousand headers": (HEAD + b"x-many: 1\r\n" * 10_000 + b"\r\n", 431),
    "a long cookie": (HEAD + b"cookie: " + b"a=b; " * 20_000 + b"\r\n\r\n", 431),
    "a long bearer token": (HEAD + b"authorization: Bearer " + b"k" * 100_000 + b"\r\n\r\n", 431),
    "a long path": (b"GET /v1/responses/" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 414),
    "a long query": (b"GET /v1/models?" + b"a=b&" * 25_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 414),
    "a path that never ends": (b"GET /" + b"a" * 100_000, 431),
    "trailers without end": (
        HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\n" + b"x-trailer: 1\r\n" * 10_000,
        431,
    ),
    "a chunk extension without end": (HEAD + b"transfer-encoding: chunked\r\n\r\n1;" + b"a" * 100_000, 431),
    "a body announced as larger than allowed": (HEAD + b"content-length: 1048577\r\n\r\n", 413),
    "a body announced as endless": (HEAD + b"content-length: 9223372036854775807\r\n\r\n", 413),
}


@pytest.mark.parametrize("case", OVERSIZED)
def test_what_is_too_large_is_refused_early(small: ScriptedServer, case: str) -> None:
    """Oversized heads, URLs and announced bodies are refused before they are complete, and the connection ends."""
    sent, status = OVERSIZED[case]
    with RawClient(small.port) as client:
        client.send(sent)
        refused(client.answer(), status, *((414,) if case == "a path that never ends" else ()))
        assert client.closed()
    is_alive(small)


def test_a_chunked_body_without_length_is_counted(small: ScriptedServer) -> None:
    """A chunked body is refused as soon as it has grown too long, although nothing announced its size."""
    chunk = b"10000\r\n" + b"a" * 65_536 + b"\r\n"
    with RawClient(small.port) as client:
        client.send(HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunk * 17)
        refused(client.answer(), 413)
        assert client.closed()
    is_alive(small)


def test_an_upload_without_end_is_cut_off(small: ScriptedServer) -> None:
    """Who goes on sending after the refusal is hung up on."""
    chunk = b"100000\r\n" + b"a" * MIB + b"\r\n"
    with RawClient(small.port) as client:
        client.send(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        client.send_until_refused(chunk, 100_000)
        assert client.closed() or client.answer().status == 413
    is_alive(small)


def test_a_compressed_bomb_is_too_large(small: ScriptedServer) -> None:
    """A small body that decodes to a gigabyte of nothing is a 413."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = squeeze.compress(b'{"input":"') + b"".join(squeeze.compress(b" " * MIB) for _ in range(256))
    bomb += squeeze.flush()
    assert len(bomb) < MIB
    refused(ask(small.port, "POST", "/v1/responses", bomb, content_encoding="gzip"), 413)
    is_alive(small)


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/models", "/livez", "/v1/responses/resp_0"])
@pytest.mark.parametrize("method", ["GET", "DELETE", "PATCH"])
def test_every_path_has_the_same_limits(small: ScriptedServer, method: str, path: str) -> None:
    """A body that nobody asked for is limited too."""
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 2000000\r\n\r\n"
    with RawClient(small.port) as client:
        client.send(head.encode())
        refused(client.answer(), 413)
        assert client.closed()


@pytest.mark.parametrize(
    "part",
    [
        b"POST /v1/resp",
        HEAD,
        HEAD + b"content-length: 100\r\n\r\n",
        HEAD + b'content-length: 100\r\n\r\n{"model": "hostile", ',
        HEAD + b"transfer-encoding: chunked\r\n\r\n",
        HEAD + b'transfer-encoding: chunked\r\n\r\n9\r\n{"model":',
    ],
)
def test_what_never_comes_is_a_408(hasty: ScriptedServer, part: bytes) -> None:
    """Half a head or half a body ends in our error object, and the connection with it."""
    with RawClient(hasty.port) as client:
        client.send(part)
        refused(client.answer(), 408)
        assert client.closed()
    is_alive(hasty)


NOT_HTTP: dict[str, bytes] = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "noise": bytes(range(256)) * 4,
    "no version": b"POST /v1/responses\r\n\r\n",
    "unknown method": b"HACK /v1/responses HTTP/1.1\r\nhost: x\r\n\r\n",
    "space before the colon": HEAD + b"x-odd : 1\r\ncontent-length: 0\r\n\r\n",
    "NUL in a header": HEAD + b"x-odd: a\x00b\r\ncontent-length: 0\r\n\r\n",
    "two lengths": HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}}",
    "length and chunks": HEAD + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
    "negative length": HEAD + b"content-length: -1\r\n\r\n",
    "length that is no number": HEAD + b"content-length: two\r\n\r\n{}",
    "length beyond 64 bits": HEAD + b"content-length: 99999999999999999999999\r\n\r\n",
    "chunk size that is no number": HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "chunk size beyond 64 bits": HEAD + b"transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}",
    "chunk longer than it says": HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("case", NOT_HTTP)
def test_what_is_not_http_is_refused(server: ScriptedServer, case: str) -> None:
    """Broken framing, and every way to smuggle a second request, is a 400 that ends the connection."""
    with RawClient(server.port) as client:
        client.send(NOT_HTTP[case])
        refused(client.answer(), 400)
        assert client.closed()
    is_alive(server)


# F21: broken JSON

NOT_JSON: dict[str, bytes] = {
    "200,000 arrays": b"[" * 200_000,
    "200,000 objects": b'{"a":' * 200_000,
    "200,000 arrays inside": b'{"input":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "one level too many": b'{"input":' + b"[" * 128 + b"]" * 128 + b"}",
    "NaN": b'{"input":"Hi","temperature":NaN}',
    "Infinity": b'{"input":"Hi","temperature":Infinity}',
    "minus Infinity": b'{"input":"Hi","temperature":-Infinity}',
    "1e999": b'{"input":"Hi","temperature":1e999}',
    "an integer of 100,000 digits": b'{"input":"Hi","seed":' + b"9" * 100_000 + b"}",
    "a float of 100,000 digits": b'{"input":"Hi","seed":' + b"9" * 100_000 + b".5}",
    "lone high surrogate": rb'{"input":"\ud83d"}',
    "lone low surrogate": rb'{"input":"\ude00"}',
    "lone surrogate in a key": rb'{"input":"Hi","metadata":{"\ud83d":"x"}}',
    "lone surrogate in a model": rb'{"input":"Hi","model":"\ud83d"}',
    "bad UTF-8": b'{"input":"\xff\xfe"}',
    "UTF-8 cut short": b'{"input":"\xe2\x82"}',
    "surrogate as UTF-8": b'{"input":"\xed\xa0\x80"}',
    "overlong UTF-8": b'{"input":"\xc0\xaf"}',
    "UTF-16": '{"input":"Hi"}'.encode("utf-16"),
    "BOM": b'\xef\xbb\xbf{"input":"Hi"}',
    "NUL in a string": b'{"input":"a\x00b"}',
    "NUL behind it": b'{"input":"Hi"}\x00',
    "newline in a string": b'{"input":"a\nb"}',
    "cut short": b'{"input":"Hi"',
    "two objects": b'{"input":"Hi"}{"input":"Hi"}',
    "trailing comma": b'{"input":"Hi",}',
    "single quotes": b"{'input':'Hi'}",
    "a comment": b'{"input":"Hi"} // hello',
    "nothing": b"",
    "white space": b" \r\n\t ",
    "an array": b'[{"input":"Hi"}]',
    "a string": b'"Hi"',
    "a number": b"7",
    "null": b"null",
    "a form": b"model=hostile&input=Hi",
    "a stream of events": b'data: {"input":"Hi"}\n\n',
}


@pytest.mark.parametrize("case", NOT_JSON)
def test_broken_json_is_one_refusal(server: ScriptedServer, case: str) -> None:
    """Whatever is wrong with the JSON is `invalid_json`, and the connection is as good as before."""
    with RawClient(server.port) as client:
        answer = client.request("POST", "/v1/responses", NOT_JSON[case], content_type="application/json")
        refused(answer, 400, code="invalid_json")
        answers_normally(client)


ODD_JSON: dict[str, bytes] = {
    "duplicate keys": b'{"model":"nobody","input":"x","input":"Hi","model":"hostile"}',
    "escaped NUL": rb'{"model":"hostile","input":"a\u0000b","metadata":{"\u0000":"\u0000"},"user":"\u0000"}',
    "an integer beyond 64 bits": b'{"model":"hostile","input":"Hi","max_tool_calls":123456789012345678901234567890}',
    "a number that is nearly nothing": b'{"model":"hostile","input":"Hi","temperature":1e-400}',
    "a float of many digits": b'{"model":"hostile","input":"Hi","temperature":1.' + b"1" * 100_000 + b"}",
    "an integer with a point": b'{"model":"hostile","input":"Hi","max_output_tokens":16.0}',
    "unknown keys": b'{"model":"hostile","input":"Hi","__proto__":{},"constructor":1,"":null}',
    "100,000 unknown keys": b'{"model":"hostile","input":"Hi"'
    + b"".join(b',"k%d":null' % n for n in range(100_000))
    + b"}",
    "as deep as allowed": b'{"model":"hostile","input":"Hi","image":{"a":' + b"[" * 126 + b"]" * 126 + b"}}",
    "every plane of Unicode": '{"model":"hostile","input":"\u202e\ufeff\uffff\U0001f4a9\U0010ffff\\u2028"}'.encode(),
    "brackets in a string": b'{"model":"hostile","input":"' + b"[{" * 100_000 + b'"}',
}


@pytest.mark.parametrize("case", ODD_JSON)
def test_odd_json_is_json(server: ScriptedServer, case: str) -> None:
    """What is legal is taken, however odd: of duplicate keys the last one counts."""
    with RawClient(server.port) as client:
        answer = client.request("POST", "/v1/responses", ODD_JSON[case], content_type="application/json")
        assert answer.status == 200, answer.body[:500]
        assert ask(server.port, "GET", f"/v1/responses/{answer.json()['id']}").body == answer.body
        answers_normally(client)


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "application/octet-stream",
        "text/event-stream",
        "application/jsonx",
        "json",
        "/",
        ";charset=utf-8",
        "\u00ff\u00fe",
        "application/" + "a" * 10_000,
    ],
)
def test_other_content_types_are_a_415(server: ScriptedServer, kind: str) -> None:
    """A body that claims not to be JSON is refused with the header that it needs."""
    with RawClient(server.port) as client:
        answer = client.request("POST", "/v1/responses", b'{"input":"Hi"}', content_type=kind)
        refused(answer, 415, code="unsupported_media_type")
        assert "application/json" in answer.error()["message"]
        answers_normally(client)


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.acme+json"])
def test_json_by_other_names_is_taken(server: ScriptedServer, kind: str) -> None:
    """Parameters, case and structured suffixes do not matter; nor does a missing header."""
    body = b'{"model":"hostile","input":"Hi"}'
    assert ask(server.port, "POST", "/v1/responses", body, content_type=kind).status == 200
    assert ask(server.port, "POST", "/v1/responses", body).status == 200


@pytest.mark.parametrize(("encoding", "status"), [("br", 415), ("gzip, gzip", 415), ("zstd", 415), ("gzip", 400)])
def test_bodies_that_cannot_be_decoded_are_refused(server: ScriptedServer, encoding: str, status: int) -> None:
    """An unknown Content-Encoding is a 415, a broken one a 400."""
    answer = ask(server.port, "POST", "/v1/responses", b'{"input":"Hi"}', content_encoding=encoding)
    refused(answer, status)
    is_alive(server)


# F21: values that are too much

LONG = "x" * 1_000_000

BAD_FIELDS: dict[str, tuple[dict[str, Any], int, str | None]] = {
    "a model of a million characters": ({"model": LONG}, 404, "model"),
    "a model with NUL": ({"model": "a\0b"}, 404, "model"),
    "a previous id of a million characters": ({"previous_response_id": LONG}, 400, "previous_response_id"),
    "a previous id with NUL": ({"previous_response_id": "resp_\0"}, 400, "previous_response_id"),
    "a previous id that is a path": ({"previous_response_id": "../../etc/passwd"}, 400, "previous_response_id"),
    "a tier of a million characters": ({"service_tier": LONG}, 400, "service_tier"),
    "a truncation of a million characters": ({"truncation": LONG}, 400, "truncation"),
    "an effort of a million characters": ({"reasoning": {"effort": LONG}}, 400, "reasoning.effort"),
    "an include of a million characters": ({"include": [LONG]}, 400, "include[0]"),
    "a role of a million characters": ({"input": [{"role": LONG, "content": ""}]}, 400, "input[0].role"),
    "a metadata key of a million characters": ({"metadata": {LONG: "x"}}, 400, "metadata"),
    "a metadata value of a million characters": ({"metadata": {"a": LONG}}, 400, "metadata.a"),
    "a tool name of a million characters": ({"tools": [{"type": "function", "name": LONG}]}, 400, "tools[0].name"),
    "a choice of a million characters": ({"tool_choice": LONG}, 400, "tool_choice"),
    "a choice of a tool with a long name": (
        {"tool_choice": {"type": "function", "name": LONG}, "tools": [{"type": "function", "name": "f"}]},
        400,
        "tool_choice",
    ),
    "a choice of a type with a long name": ({"tool_choice": {"type": LONG}}, 400, "tool_choice"),
    "a choice whose name is an object": (
        {"tool_choice": {"type": "function", "name": {"a": LONG}}, "tools": [{"type": "function", "name": "f"}]},
        400,
        "tool_choice",
    ),
    "a choice among a thousand tools": (
        {
            "tool_choice": {"type": "function", "name": "nobody"},
            "tools": [{"type": "function", "name": f"{number:0128d}"} for number in range(1000)],
        },
        400,
        "tool_choice",
    ),
    "1025 tools": ({"tools": [{"type": "web_search"}] * 1025}, 400, "tools"),
    "a call id of a million characters": (
        {"input": [{"type": "function_call_output", "call_id": LONG, "output": "x"}]},
        400,
        "input[0].call_id",
    ),
    "an item id of a million characters": ({"input": [{"type": "acme:x", "id": LONG}]}, 400, "input[0].id"),
    "an output without its call": (
        {"input": [{"type": "function_call_output", "call_id": "call_0", "output": "x"}]},
        400,
        "input",
    ),
    "a custom tool's format that is no object": (
        {"tools": [{"type": "web_search"}, {"type": "custom", "name": "c", "format": "text"}]},
        400,
        "tools[1].format",
    ),
    "an item that is a number": ({"input": [7]}, 400, "input[0]"),
    "a part that is an array": ({"input": [{"role": "user", "content": [[]]}]}, 400, "input[0].content[0]"),
    "an image at a file": (
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "file:///etc/passwd"}]}]},
        400,
        "input[0].content[0].image_url",
    ),
    "a text of eleven million characters": ({"input": "x" * 11_000_000}, 400, "input"),
    "a seed that is too large": ({"seed": 2**64}, 400, "seed"),
    "a temperature that is too high": ({"temperature": 1e300}, 400, "temperature"),
    "true where a number belongs": ({"temperature": True}, 400, "temperature"),
    "a number as text": ({"max_output_tokens": "16"}, 400, "max_output_tokens"),
    "a name of a schema with a slash": (
        {"text": {"format": {"type": "json_schema", "name": "../x", "schema": {}}}},
        400,
        "text.format.name",
    ),
    "a thousand stops": ({"stop": ["x"] * 1000}, 400, "stop"),
}


@pytest.mark.parametrize("case", BAD_FIELDS)
def test_bad_values_name_their_field(server: ScriptedServer, case: str) -> None:
    """A value that cannot be used is refused with its path, and never quoted at length."""
    fields, status, param = BAD_FIELDS[case]
    with RawClient(server.port) as client:
        refused(create(client, **fields), status, param=param)
        answers_normally(client)


ODD_FIELDS: dict[str, dict[str, Any]] = {
    "30,000 items": {"input": [{"role": "user", "content": "x"}] * 30_000},
    "30,000 parts": {"input": [{"role": "user", "content": ["x"] * 30_000}]},
    "one id for every item": {"input": [{"type": "acme:x", "id": "same"}] * 100},
    "an id with NUL": {"input": [{"role": "user", "content": "x", "id": "a\0b"}]},
    "an empty id": {"input": [{"role": "user", "content": "x", "id": ""}]},
    "an empty model is the default": {"model": MODEL, "previous_response_id": "", "instructions": "", "user": ""},
    "a tool whose type breaks headers": {"tools": [{"type": "a\r\nx-evil: 1"}, {"type": "é\u202e\0" + LONG[:9000]}]},
    "a thousand tools": {"tools": [{"type": f"acme:{number}"} for number in range(1000)]},
}


@pytest.mark.parametrize("case", ODD_FIELDS)
def test_odd_values_do_no_harm(server: ScriptedServer, case: str) -> None:
    """What is allowed is kept and read back as it came; nothing of it breaks a header, a list or the store."""
    with RawClient(server.port) as client:
        answer = create(client, **ODD_FIELDS[case])
        assert answer.status == 200, answer.body[:500]
        assert "x-evil" not in answer.headers
        assert len(answer.headers.get("x-ore-warning", "")) < 600
        path = f"/v1/responses/{answer.json()['id']}"
        assert client.request("GET", path).body == answer.body
        assert client.request("GET", f"{path}/input_items?limit=100").json()["data"]
        assert client.request("DELETE", path).status == 200
        answers_normally(client)


def test_paging_ends_though_ids_repeat(server: ScriptedServer) -> None:
    """Each item of a list has an id of its own, so that a cursor means one place."""
    with RawClient(server.port) as client:
        same = [{"role": "user", "content": str(number), "id": "same"} for number in range(5)]
        first = create(client, input=same).json()["id"]
        path = f"/v1/responses/{create(client, input=same[:2], previous_response_id=first).json()['id']}/input_items"
        texts, ids, after = [], [], ""
        while True:
            page = client.request("GET", f"{path}?order=asc&limit=2&after={after}").json()
            texts += [item["content"][0]["text"] for item in page["data"]]
            ids += [item["id"] for item in page["data"]]
            if not page["has_more"]:
                break
            after = page["last_id"]
        assert texts == ["0", "1", "2", "3", "4", "hello", "1"]
        assert len(set(ids)) == len(ids)


# F22: hostile schemas


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"properties": {"a": schema}}
    return schema


SCHEMAS: dict[str, dict[str, Any]] = {
    "10 MB of properties": {"properties": {f"p{number}": {"type": "string"} for number in range(300_000)}},
    "10 MB of text": {"description": "x" * 10 * MIB},
    "10,000 enum values": {"enum": [f"value {number}" for number in range(10_000)]},
    "10,000 alternatives": {"anyOf": [{"const": number} for number in range(10_000)]},
    "as deep as JSON may be": nested(55),
    "a reference to itself": {"$ref": "#"},
    "a reference to its own definition": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
    "two references in a circle": {
        "$ref": "#/$defs/a",
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
    },
    "a circle through allOf": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]},
    "a circle through anyOf": {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}] * 8}}, "$ref": "#/$defs/a"},
    "a circle through not": {"not": {"$ref": "#"}},
    "a dynamic circle": {"$dynamicAnchor": "a", "$dynamicRef": "#a"},
    "an unevaluated circle": {
        "unevaluatedProperties": {"$ref": "#"},
        "allOf": [{"$ref": "#/$defs/a"}],
        "$defs": {"a": {}},
    },
    "a tree that contains itself": {"additionalProperties": {"$ref": "#"}},
    "definitions that double": {
        "$ref": "#/$defs/d0",
        "$defs": {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(24)} | {"d24": {}},
    },
    "a reference to nothing": {"$ref": "#/$defs/nothing"},
    "a reference that is a number": {"$ref": 7},
    "a reference to a file": {"$ref": "file:///etc/passwd"},
    "a catastrophic pattern": {"properties": {"a": {"pattern": "^(a+)+$"}}},
    "a pattern with look-around": {"properties": {"a": {"pattern": "^(?=(a+)+$)(a|aa)+$"}}},
    "a pattern with a back-reference": {"properties": {"a": {"pattern": r"^(a+)\1+(a+)+b\2$"}}},
    "a pattern of a gigabyte": {"properties": {"a": {"pattern": "((((a{0,500}){0,500}){0,500}){0,500})"}}},
    "a pattern that is none": {"properties": {"a": {"pattern": "("}}},
    "a thousand property patterns": {"patternProperties": {f"^(a|b{n})+$": {} for n in range(1000)}},
    "an unknown type": {"type": "elephant"},
    "a type that is a number": {"type": 7},
    "properties that are an array": {"properties": []},
    "bounds beyond all numbers": {"properties": {"b": {"minItems": 10**30, "items": {"multipleOf": 1e-300}}}},
    "a multiple of nothing": {"properties": {"b": {"items": {"multipleOf": 0}}}},
    "unknown formats": {"properties": {"a": {"format": "regex"}, "b": {"format": "\0"}}},
    "another dialect": {"$schema": "https://example.com/nowhere", "type": "object"},
    "an old dialect": {"$schema": "http://json-schema.org/draft-03/schema#", "type": "object"},
}


@pytest.mark.parametrize("case", SCHEMAS)
@pytest.mark.parametrize("place", ["format", "tool"])
def test_hostile_schemas_are_survived(server: ScriptedServer, case: str, place: str) -> None:
    """A schema that is huge, circular or catastrophic is applied or refused, and the server answers afterwards."""
    with RawClient(server.port) as client:
        answer = create(client, **placed(SCHEMAS[case], place))
        if answer.status == 200:
            assert answer.json()["status"] in ("completed", "failed")
            problem = answer.json()["error"]
            assert problem is None or (problem["code"] == "invalid_model_output" and len(problem["message"]) < 2500)
        else:
            refused(answer)
        answers_normally(client)


@pytest.mark.parametrize("place", ["format", "tool", "image"])
@pytest.mark.parametrize("keyword", ["$ref", "$dynamicRef", "$schema", "$id"])
def test_nothing_is_fetched(server: ScriptedServer, keyword: str, place: str) -> None:
    """No reference, dialect or identifier of a schema, and no URL of a picture, makes the server open a connection."""
    with socket.create_server(("127.0.0.1", 0)) as trap:
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/schema.json"
        if place == "image":
            parts = [{"type": "input_image", "image_url": url}, {"type": "input_file", "file_url": url}]
            fields: dict[str, Any] = {"input": [{"role": "user", "content": parts}]}
        else:
            fields = placed({keyword: url, "properties": {"a": {keyword: url}}}, place)
        with RawClient(server.port) as client:
            assert create(client, **fields).status in (200, 400)
            answers_normally(client)
        trap.setblocking(False)
        with pytest.raises(BlockingIOError):
            trap.accept()


def placed(schema: dict[str, Any], place: str) -> dict[str, Any]:
    """A request that has the schema as its output format, or as the parameters of a tool."""
    if place == "format":
        return {"text": {"format": {"type": "json_schema", "name": "hostile", "schema": schema, "strict": True}}}
    return {"tools": [{"type": "function", "name": "hostile", "parameters": schema, "strict": True}]}


# Hostile ids and queries

IDS: dict[str, str] = {
    "long": "a" * 20_000,
    "NUL": "%00",
    "NUL inside": "resp_%00",
    "newline": "resp_%0d%0ax-evil:%201",
    "space": "%20",
    "percent": "%25",
    "half an escape": "%",
    "no escape": "%zz",
    "bad UTF-8": "%ff%fe",
    "surrogate": "%ed%a0%80",
    "Unicode": "%F0%9F%92%A9%E2%80%AE",
    "SQL": "'%20OR%201=1;--",
    "wildcard": "%25%25*_",
    "markup": "%3Cscript%3Ealert(1)%3C/script%3E",
    "template": "%7B%7B7*7%7D%7D",
    "parent": "..%2f..%2fetc%2fpasswd",
    "dots": "..",
    "dot": ".",
    "backslash": "..%5c..%5cetc",
    "another kind of id": "msg_00000000000000000000000000000000",
    "nobody's": "resp_00000000000000000000000000000000",
    "null": "null",
    "number": "-1",
}
PLACES = {
    "retrieve": ("GET", "/v1/responses/{}"),
    "delete": ("DELETE", "/v1/responses/{}"),
    "input items": ("GET", "/v1/responses/{}/input_items"),
    "model": ("GET", "/v1/models/{}"),
    "conversation": ("GET", "/v1/conversations/{}"),
    "deleted conversation": ("DELETE", "/v1/conversations/{}"),
    "conversation items": ("GET", "/v1/conversations/{}/items"),
    "item of no conversation": ("GET", "/v1/conversations/conv_0/items/{}"),
    "deleted item of no conversation": ("DELETE", "/v1/conversations/conv_0/items/{}"),
}


@pytest.mark.parametrize("place", PLACES)
def test_hostile_ids_are_not_found(server: ScriptedServer, place: str) -> None:
    """An id that names nothing is a 404 of bounded length, whatever it is made of."""
    method, path = PLACES[place]
    with RawClient(server.port) as client:
        for encoded in IDS.values():
            answer = client.request(method, path.format(encoded))
            refused(answer, 404)
            assert len(answer.error()["message"]) < 600
            assert "x-evil" not in answer.headers
        answers_normally(client)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_hostile_ids_of_items_are_not_found(server: ScriptedServer, method: str) -> None:
    """In a conversation that is there, too; and it is whole afterwards."""
    with RawClient(server.port) as client:
        path = f"{conversation(client)}/items"
        for encoded in IDS.values():
            answer = client.request(method, f"{path}/{encoded}")
            refused(answer, 404)
            assert "x-evil" not in answer.headers
        assert len(client.request("GET", path).json()["data"]) == 1


BAD_QUERIES: dict[str, tuple[str, str]] = {
    "limit 0": ("/input_items?limit=0", "limit"),
    "limit 101": ("/input_items?limit=101", "limit"),
    "limit -1": ("/input_items?limit=-1", "limit"),
    "limit word": ("/input_items?limit=abc", "limit"),
    "limit empty": ("/input_items?limit=", "limit"),
    "limit in Devanagari": ("/input_items?limit=%E0%A5%A7%E0%A5%A6", "limit"),
    "limit superscript": ("/input_items?limit=%C2%B2", "limit"),
    "limit float": ("/input_items?limit=1.0", "limit"),
    "limit exponent": ("/input_items?limit=1e1", "limit"),
    "limit plus": ("/input_items?limit=%2B1", "limit"),
    "limit underscore": ("/input_items?limit=1_0", "limit"),
    "limit endless": ("/input_items?limit=" + "1" * 10_000, "limit"),
    "limit NUL": ("/input_items?limit=1%00", "limit"),
    "order unknown": ("/input_items?order=up", "order"),
    "order in capitals": ("/input_items?order=ASC", "order"),
    "order empty": ("/input_items?order=", "order"),
    "order SQL": ("/input_items?order=asc;%20drop%20table%20items", "order"),
    "after unknown": ("/input_items?after=msg_0", "after"),
    "after NUL": ("/input_items?after=%00", "after"),
    "after bad UTF-8": ("/input_items?after=%ff", "after"),
    "after SQL": ("/input_items?after='%20OR%201=1", "after"),
    "after endless": ("/input_items?after=" + "a" * 20_000, "after"),
    "include unknown": ("/input_items?include=everything", "include[0]"),
    "include unknown in brackets": ("/input_items?include%5B%5D=everything", "include[0]"),
    "include endless": ("?include=" + "a" * 20_000, "include[0]"),
    "include empty": ("?include=", "include[0]"),
    "the last of many includes": ("?" + "include=reasoning.encrypted_content&" * 500 + "include=x", "include[500]"),
    "stream": ("?stream=true", "stream"),
    "stream word": ("?stream=maybe", "stream"),
    "stream empty": ("?stream=", "stream"),
    "stream endless": ("?stream=" + "1" * 20_000, "stream"),
}


def test_bad_queries_name_their_parameter(server: ScriptedServer) -> None:
    """A query value that cannot be used is a 400 that names the parameter, on a response that is there."""
    with RawClient(server.port) as client:
        path = f"/v1/responses/{create(client).json()['id']}"
        for query, param in BAD_QUERIES.values():
            refused(client.request("GET", path + query), 400, param=param)
        answers_normally(client)


def test_bad_queries_for_the_items_of_a_conversation(server: ScriptedServer) -> None:
    """They are those for the items of a response, and are refused alike."""
    with RawClient(server.port) as client:
        path = f"{conversation(client)}/items"
        for query, param in BAD_QUERIES.values():
            if query.startswith("/input_items"):
                refused(client.request("GET", path + query.removeprefix("/input_items")), 400, param=param)
        answers_normally(client)


ODD_QUERIES = [
    "?",
    "?&&&===&",
    "?unknown=1&limit",
    "?%00=%00&%ff=%ff",
    "?stream=FALSE",
    "?include_obfuscation=false",
    "/input_items?limit=1&limit=100&order=desc",
    "/input_items?limit=007",
    "/input_items?after=",
]


def test_odd_queries_do_no_harm(server: ScriptedServer) -> None:
    """Parameters that nobody knows, and empty ones, are ignored."""
    with RawClient(server.port) as client:
        path = f"/v1/responses/{create(client).json()['id']}"
        for query in ODD_QUERIES:
            assert client.request("GET", path + query).status == 200, query
        answers_normally(client)


UNKNOWN_PATHS = [
    "/",
    "//",
    "/v1",
    "/v1/",
    "/v1/responses/",
    "/v1//responses",
    "/v2/responses",
    "/v1/response",
    "/../../etc/passwd",
    "/v1/../../etc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/%00",
    "/%ff",
    "/docs/../../etc/passwd",
    "/docs/%2e%2e/settings",
    "/.env",
    "/.git/config",
    "/v1/responses/a/b/c",
    "/v1/responses/a/input_items/b",
    "/" + "a/" * 5000,
    "/v1/" + "%F0%9F%92%A9" * 500,
]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_unknown_paths_are_not_found(server: ScriptedServer, method: str) -> None:
    """A path that is not there is a 404 or, with another method, a 405; never a redirect and never a file."""
    with RawClient(server.port) as client:
        for path in UNKNOWN_PATHS:
            refused(client.request(method, path, b"{}" if method == "POST" else b""), 404, 405)
        answers_normally(client)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
@pytest.mark.parametrize(
    "path",
    [
        *("/v1/responses", "/v1/models", "/v1/responses/resp_0", "/livez"),
        *("/v1/conversations", "/v1/conversations/c", "/v1/conversations/c/items", "/v1/conversations/c/items/i"),
    ],
)
def test_other_methods_name_the_right_ones(server: ScriptedServer, method: str, path: str) -> None:
    """A method that a path does not take is a 405 with `Allow`, and the connection goes on."""
    with RawClient(server.port) as client:
        answer = client.request(method, path)
        refused(answer, 405)
        assert answer.headers["allow"]
        answers_normally(client)
