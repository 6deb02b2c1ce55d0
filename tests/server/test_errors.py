"""Every exception has its body, and nothing in it that a caller must not see."""

import logging
from collections.abc import Iterator
from typing import Any

import anyio
import msgspec
import pytest
from live_server import ask, serving
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from ore import errors as tree
from ore.server import errors
from ore.server.middleware import middleware_stack


def faults(kind: type[tree.HTTPFault] = tree.HTTPFault) -> Iterator[type[tree.HTTPFault]]:
    yield kind
    for child in kind.__subclasses__():
        yield from faults(child)


FAULTS = list(faults())
SECRETS = ["/etc/ore/keys.toml", "sk-live-1", "SELECT", "127.0.0.1:5432", "Traceback", "File "]
UNEXPECTED = [
    FileNotFoundError(2, "No such file", "/etc/ore/keys.toml"),
    RuntimeError("SELECT key FROM keys WHERE key = 'sk-live-1'"),
    ConnectionRefusedError(111, "cannot connect to 127.0.0.1:5432"),
    tree.OreError("sk-live-1 is stored in /etc/ore/keys.toml"),
    tree.StartupError("/etc/ore/keys.toml is missing"),
    BaseExceptionGroup("two", [ValueError("SELECT"), KeyError("/etc/ore/keys.toml")]),
    HTTPException(502, "cannot connect to 127.0.0.1:5432"),
]


@pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)
def test_every_class_has_a_full_body(kind: type[tree.HTTPFault]) -> None:
    """Each class of `ore.errors` gives its status and all four keys of section 9, with its own type."""
    fault = kind("Say what to do next.")
    response = errors.to_http_response(fault)
    error = msgspec.json.decode(response.body)["error"]
    assert response.status_code == kind.status
    assert response.headers["content-type"] == "application/json"
    assert error == {"message": "Say what to do next.", "type": kind.type, "param": None, "code": kind.default_code}


@pytest.mark.parametrize("exc", UNEXPECTED, ids=lambda exc: type(exc).__name__)
def test_unexpected_exceptions_tell_nothing(exc: BaseException) -> None:
    """Whatever is not an `HTTPFault` is rendered without any of its own words."""
    body = bytes(errors.to_http_response(exc).body).decode()
    assert errors.to_http_response(exc).status_code == 500
    assert not [secret for secret in SECRETS if secret in body]


def test_a_group_of_one_counts_as_that_one() -> None:
    """A fault that crossed a task group keeps its status."""
    group = BaseExceptionGroup("", [BaseExceptionGroup("", [tree.NotFound("Gone.")])])
    assert errors.to_http_response(group).status_code == 404


def test_what_must_not_be_retried_says_so() -> None:
    """A conflict tells the SDK not to retry; a fault's own headers win over that; others say nothing."""
    assert errors.to_http_response(tree.Conflict("Busy.")).headers["x-should-retry"] == "false"
    mendable = tree.Conflict("Busy for a moment.", headers={"X-Should-Retry": "true"})
    assert errors.to_http_response(mendable).headers.getlist("x-should-retry") == ["true"]
    assert "x-should-retry" not in errors.to_http_response(tree.StorageFailed("Full.")).headers
    assert errors.to_http_response(tree.TooManyRequests("Slow.", retry_after=7)).headers["retry-after"] == "7"
    assert errors.to_http_response(tree.Unauthorized("Who?")).headers["www-authenticate"] == "Bearer"


def test_lone_surrogates_can_be_rendered() -> None:
    """A message that repeats a caller's broken text is still JSON."""
    body = errors.to_http_response(tree.InvalidRequest("Unknown parameter: '\ud800'.", param="\ud800")).body
    assert msgspec.json.decode(body)["error"]["param"] == "?"


def test_wrapped_http_exceptions_keep_their_status() -> None:
    """A third party's 4xx keeps its status, and its words: they were written for the caller."""
    response = errors.to_http_response(HTTPException(413, "Too much."))
    assert (response.status_code, msgspec.json.decode(response.body)["error"]["message"]) == (413, "Too much.")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    async def fine(_: Request) -> PlainTextResponse:
        return PlainTextResponse("fine")

    async def broken(request: Request) -> PlainTextResponse:
        match request.query_params.get("how"):
            case "fault":
                raise tree.ModelFailed("The model broke down.") from OSError("cannot read /models/secret.gguf")
            case "http":
                raise HTTPException(302, headers={"location": "/fine"})
        raise FileNotFoundError(2, "No such file", "/no/such/file")

    routes = [
        Route("/v1/responses", fine, methods=["POST"]),
        Route("/v1/responses", fine, methods=["GET"]),
        Route("/v1/responses/{response_id}", fine, methods=["GET", "DELETE"]),
        Route("/v1/responses/{response_id}/cancel", fine, methods=["POST"]),
        Route("/v1/models/{model:path}", fine),
        Route("/broken", broken),
        Mount("/extra", routes=[Route("/things", fine)]),
    ]
    stack = middleware_stack(is_draining=lambda: False, max_body_bytes=1024)
    app = Starlette(routes=routes, middleware=stack, exception_handlers=errors.exception_handlers())
    with serving(app) as port:
        yield port


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("/v1/response", "Did you mean /v1/responses?"),
        ("/responses", "Did you mean /v1/responses?"),
        ("/v1/v1/responses", "Did you mean /v1/responses?"),
        ("/v1/response/resp_1", "Did you mean /v1/responses/{response_id}?"),
        ("/v1/responses/resp_1/cancle", "Did you mean /v1/responses/{response_id}/cancel?"),
        ("/v1/model/ore-tiny", "Did you mean /v1/models/{model}?"),
        ("/extra/thing", "Did you mean /extra/things?"),
        ("/v1/chat/completions", "send POST /v1/responses, with 'input' for the messages."),
        ("/" + "a" * 20000, "GET /openapi.json lists what else there is."),
    ],
)
def test_unknown_paths_name_the_next_step(port: int, path: str, near: str) -> None:
    """A 404 for a path names the path that was probably meant, and repeats at most the start of a long one."""
    answer = ask(port, "GET", path)
    message = answer.error()["message"]
    assert answer.status == 404
    assert message.endswith(near)
    assert len(message) < 400


def test_wrong_methods_name_the_right_ones(port: int) -> None:
    """A 405 lists the methods of all routes with that path, in the message and in `allow`."""
    answer = ask(port, "DELETE", "/v1/responses")
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD, POST"
    assert answer.error()["message"] == "/v1/responses does not take DELETE. It takes: GET, HEAD, POST."


def test_a_mounted_route_names_its_methods_too(port: int) -> None:
    """Where only starlette knows the methods, its own list is passed on."""
    assert ask(port, "POST", "/extra/things").headers["allow"] == "GET, HEAD"


def test_bugs_are_a_500_with_a_request_id_and_a_log_line(port: int, caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected exception tells the caller only the request id, and the operator everything."""
    answer = ask(port, "GET", "/broken")
    assert answer.status == 500
    assert answer.headers["x-request-id"] in answer.error()["message"]
    assert "no/such/file" not in answer.body.decode()
    [record] = [record for record in caplog.records if record.name.startswith("ore")]
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert answer.headers["x-request-id"] in record.getMessage()


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
def test_failures_of_ours_log_their_cause(port: int, caplog: pytest.LogCaptureFixture, level: int) -> None:
    """A `ServerFault` goes to the log in one line with what was behind it, which the caller does not see."""
    caplog.set_level(level, "ore.server")
    answer = ask(port, "GET", "/broken?how=fault")
    assert (answer.status, answer.error()["message"]) == (502, "The model broke down.")
    [record] = [record for record in caplog.records if record.name.startswith("ore")]
    assert record.getMessage().endswith("502, The model broke down. (OSError: cannot read /models/secret.gguf)")
    assert (record.exc_info is not None) == (level == logging.DEBUG)


def test_other_http_exceptions_pass(port: int) -> None:
    """A redirect raised as an exception stays a redirect."""
    answer = ask(port, "GET", "/broken?how=http")
    assert (answer.status, answer.headers["location"]) == (302, "/fine")


def test_nobody_is_told_about_a_disconnect() -> None:
    """`ClientDisconnect` makes no response."""
    forget: Any = errors.exception_handlers()[ClientDisconnect]
    assert anyio.run(forget, Request({"type": "http"}), ClientDisconnect()) is None
