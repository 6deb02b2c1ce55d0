"""Errors of providers, of whatever form, are read the same way for every dialect."""

from typing import Any

import msgspec
import pytest

from ore.backends.upstream_errors import read_error


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {"error": {"message": "No.", "type": "invalid_request_error", "param": "model", "code": None}},
            ("No.", "", "model"),
        ),
        ({"error": {"message": "No.", "param": "input[3].id", "code": "invalid_value"}}, ("No.", "invalid_value", "")),
        (
            {"error": {"message": "Your input exceeds the context window of this model.", "code": None}},
            ("Your input exceeds the context window of this model.", "context_length_exceeded", ""),
        ),
        (
            {"object": "error", "message": "This model's maximum context length is 4096 tokens.", "code": 400},
            ("This model's maximum context length is 4096 tokens.", "context_length_exceeded", ""),
        ),
        ({"error": {"message": "m", "type": "exceed_context_size_error"}}, ("m", "context_length_exceeded", "")),
        (
            {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 2 > 1"}},
            ("prompt is too long: 2 > 1", "context_length_exceeded", ""),
        ),
        ({"type": "error", "error": {"type": "not_found_error", "message": "m: x"}}, ("m: x", "", "")),
        ({"detail": "Not Found"}, ("Not Found", "", "")),
        ({"detail": [{"loc": ["body", "input"], "msg": "bad"}]}, ("body.input: bad", "", "")),
        ({"error": "plain"}, ("plain", "", "")),
        ([], ("It gave no reason.", "", "")),
    ],
)
def test_errors_are_read_in_every_shape(body: Any, expected: tuple[str, str, str]) -> None:
    """OpenAI's, vLLM's, FastAPI's; a context that is too long has one code, and indexes of ours are not shown."""
    error = read_error(400, msgspec.json.encode(body))
    assert (error.message, error.code, error.param) == expected


def test_errors_that_are_no_json_are_quoted() -> None:
    """A proxy's page, or nothing."""
    assert read_error(502, b"<html>Bad gateway</html>").message == "Bad gateway"
    assert read_error(502, b"").message == "It gave no reason."
    assert read_error(500, b"\xff[").status == 500


def test_a_quota_that_is_used_up_keeps_its_code() -> None:
    """It is in the type, or in the code."""
    body = {"error": {"message": "You exceeded your quota.", "type": "insufficient_quota", "code": None}}
    assert read_error(429, msgspec.json.encode(body)).code == "insufficient_quota"


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (422, b'{"detail": [{"loc": ["body", "tools"], "msg": "too many"}]}', "body.tools: too many"),
        (422, b'{"object": "error", "message": {"detail": [{"loc": ["stop"], "msg": "no"}]}}', "stop: no"),
        (400, b'{"detail": "not so"}', "not so"),
        (400, b'{"message": "not so"}', "not so"),
        (400, b'{"error": {"message": "Provider returned error", "metadata": {"raw": "not so"}}}', "error: not so"),
        (502, b"<html><style>p {}</style><h1>Bad &amp; gone</h1></html>", "Bad & gone"),
        (503, b"", "It gave no reason."),
        (500, b"\xff\xfe", "\ufffd\ufffd"),
        (400, b"[" * 100_000, "[[["),
    ],
)
def test_words_of_errors(status: int, body: bytes, message: str) -> None:
    assert message in read_error(status, body).message


def test_gemini_tells_in_the_body_when_to_come_back() -> None:
    body = b'[{"error": {"code": 429, "message": "m", "details": [{"retryDelay": "17s"}]}}]'
    assert read_error(429, body).retry_after == 17.0
