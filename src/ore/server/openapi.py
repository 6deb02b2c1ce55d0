"""The OpenAPI 3.1 document of what the endpoints serve, and `GET /openapi.json`.

Its operations are written here, its schemas in `ore.server.openapi_schemas`. It decides nothing: a test compares it
with the routes, and real answers with it.
"""

from functools import cache
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ore import __version__
from ore.protocol import OPEN_RESPONSES_RELEASE
from ore.protocol.configuration import INCLUDES
from ore.protocol.decoding import JsonObject
from ore.protocol.events import encode
from ore.server.openapi_schemas import CREATE_EXAMPLE, RESPONSE_EXAMPLE, all_schemas, ref

JSON = "application/json"
RESPONSES, CONVERSATIONS, EMBEDDINGS = "Responses", "Conversations", "Embeddings"
MODELS, SERVER = "Models", "Server"


def openapi_routes() -> list[Route]:
    return [Route("/openapi.json", openapi_json, methods=["GET"])]


async def openapi_json(_: Request) -> Response:
    """`GET /openapi.json`: this document."""
    return Response(_encoded(), media_type=JSON)


@cache
def openapi_document() -> JsonObject:
    """The whole document. The same object each time: do not change it."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Open Responses Engine",
            "version": __version__,
            "summary": "The Responses API in front of every model you use.",
            "description": f"Speaks Open Responses {OPEN_RESPONSES_RELEASE}. Errors of any kind have one shape, "
            "`ErrorBody`, and every answer has the header `x-request-id`.",
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": RESPONSES, "description": "Ask a model, and come back to what it said."},
            {"name": CONVERSATIONS, "description": "Keep what was said under one id, across responses."},
            {"name": EMBEDDINGS, "description": "Texts as vectors, to compare and to search them."},
            {"name": MODELS, "description": "What can be asked, and what each can do."},
            {"name": SERVER, "description": "How the server is, and what it is."},
        ],
        "paths": _response_paths()
        | _conversation_paths()
        | _item_paths()
        | _embedding_paths()
        | _model_paths()
        | _server_paths(),
        "components": {
            "schemas": all_schemas(),
            "responses": _fault_responses(),
            "headers": _HEADERS,
        },
    }


@cache
def _encoded() -> bytes:
    return encode(openapi_document())


# Operations


def _response_paths() -> JsonObject:
    return {
        "/v1/responses": {"post": _create(), "get": _websocket()},
        "/v1/responses/compact": {"post": _compact()},
        "/v1/responses/input_tokens": {"post": _count()},
        "/v1/responses/{response_id}": {
            "parameters": [_RESPONSE_ID],
            "get": _operation(
                RESPONSES,
                "getResponse",
                "Read a response",
                "As last stored, or as it stands while it runs. Responses made with `store: false` are not kept. With "
                "`stream`, the events of a background response that was created with `stream: true`: those it had, "
                "then those to come.",
                _streamed("The response, or with `stream` its events."),
                faults=(400, 404, 503),
                parameters=[_INCLUDE, _STREAM, _STARTING_AFTER, _OBFUSCATION],
            ),
            "delete": _operation(
                RESPONSES,
                "deleteResponse",
                "Delete a response",
                "It is gone together with its items. Responses that continue from it can be read, but not continued.",
                _json(200, "It was there, and is gone.", "Deleted"),
                faults=(400, 403, 404, 503),
            ),
        },
        "/v1/responses/{response_id}/cancel": {
            "parameters": [_RESPONSE_ID],
            "post": _operation(
                RESPONSES,
                "cancelResponse",
                "Cancel a background response",
                "One that has ended stays as it is. Any other kind of response ends with its connection.",
                _json(200, "The response as it ended.", "Response", RESPONSE_EXAMPLE),
                faults=(400, 403, 404, 503),
            ),
        },
        "/v1/responses/{response_id}/input_items": {
            "parameters": [_RESPONSE_ID],
            "get": _operation(
                RESPONSES,
                "listInputItems",
                "List what the model was given",
                "What stood in the conversation, input and output of the whole chain before this response, then its "
                "own input, a page at a time.",
                _json(200, "One page.", "ItemList"),
                faults=(400, 404, 503),
                parameters=[_LIMIT, _ORDER, _AFTER, _INCLUDE],
            ),
        },
        "/v1/ore/responses": {
            "get": _operation(
                RESPONSES,
                "listResponses",
                "List stored responses",
                "An extension of ORE's: other servers of the Responses API have no such list. Each response with a "
                "line about it; read it by its id for the rest.",
                _json(200, "One page.", "ResponseList"),
                faults=(400, 503),
                parameters=[_LIMIT, _ORDER, _AFTER],
            ),
        },
    }


def _create() -> JsonObject:
    answer = _streamed("The response, or with `stream: true` its events.")
    operation = _operation(
        RESPONSES,
        "createResponse",
        "Ask a model",
        "The connection is the request: closing it stops the model. A response that fails after it began is a 200 "
        'with the status "failed"; read `status` before `output`.',
        answer,
        faults=(400, 403, 404, 409, 413, 415, 429, 500, 502, 503, 504),
        parameters=[_IDEMPOTENCY_KEY],
    )
    _say_replayed(answer)
    body = {"schema": ref("CreateResponse"), "examples": _CREATE_EXAMPLES}
    return {**operation, "requestBody": {"required": True, "content": {JSON: body}}}


def _say_replayed(answer: JsonObject) -> None:
    answer["200"]["headers"]["x-ore-idempotent-replay"] = {"$ref": "#/components/headers/x-ore-idempotent-replay"}


def _streamed(description: str) -> JsonObject:
    """The answer of an operation that gives a response, or its events."""
    stream = {
        "schema": ref("ServerSentEvent"),
        "examples": {"stream": {"summary": "The first event of a stream", "value": _STREAM_EXAMPLE}},
    }
    answer = _json(200, description, "Response", RESPONSE_EXAMPLE)
    answer["200"]["content"]["text/event-stream"] = stream
    answer["200"]["headers"]["x-ore-warning"] = {"$ref": "#/components/headers/x-ore-warning"}
    return answer


def _count() -> JsonObject:
    operation = _operation(
        RESPONSES,
        "countInputTokens",
        "Count the tokens of a request",
        "By the model's own tokenizer, with history, tools and everything else that the model would be given. Nothing "
        "is sampled or stored.",
        _json(200, "The count.", "InputTokens"),
        faults=(400, 403, 404, 413, 415, 500, 503),
    )
    return {**operation, "requestBody": {"required": True, "content": {JSON: {"schema": ref("CountInputTokens")}}}}


def _compact() -> JsonObject:
    answer = _json(200, "The conversation from now on.", "Compaction")
    _say_replayed(answer)
    operation = _operation(
        RESPONSES,
        "compactResponse",
        "Make a long conversation short",
        "The model summarises the conversation. `output` is the next request's `input`, as it is, before what is new; "
        "send no `previous_response_id` with it. Only this server can open the item of type `compaction`, which stands "
        "for everything before it. Nothing is stored.",
        answer,
        faults=(400, 403, 404, 409, 413, 415, 429, 500, 502, 503, 504),
        parameters=[_IDEMPOTENCY_KEY],
    )
    return {**operation, "requestBody": {"required": True, "content": {JSON: {"schema": ref("CompactResponse")}}}}


def _websocket() -> JsonObject:
    return _operation(
        RESPONSES,
        "openWebSocket",
        "Open a WebSocket",
        'Frames are JSON texts. Send `{"type": "response.create", ...}` with what POST takes; back come the events of '
        "its stream, one a frame, or an `error` frame. Turns of a connection follow one another; with `stream_id` they "
        "have lanes that run at the same time. The connection remembers the newest response of each lane, also with "
        "`store: false`. Anything but a handshake is a 405.",
        {"101": {"description": "The connection is a WebSocket now."}},
        faults=(400, 403, 405, 426, 503),
    )


def _conversation_paths() -> JsonObject:
    return {
        "/v1/conversations": {
            "post": _making(
                "CreateConversation",
                "createConversation",
                "Begin a conversation",
                "With its first items, if there are any. Name it as `conversation` when you ask a model.",
                _json(200, "The conversation.", "Conversation"),
            )
        },
        "/v1/conversations/{conversation_id}": {
            "parameters": [_CONVERSATION_ID],
            "get": _operation(
                CONVERSATIONS,
                "getConversation",
                "Read a conversation",
                "Its items are a list of their own.",
                _json(200, "The conversation.", "Conversation"),
                faults=(404, 503),
            ),
            "post": _taking(
                "UpdateConversation",
                "updateConversation",
                "Change a conversation's metadata",
                "What you send replaces all that was there; null empties it.",
                _json(200, "The conversation, changed.", "Conversation"),
            ),
            "delete": _operation(
                CONVERSATIONS,
                "deleteConversation",
                "Delete a conversation",
                "It is gone together with its items. Responses that were made in it stay.",
                _json(200, "It was there, and is gone.", "ConversationDeleted"),
                faults=(403, 404, 503),
            ),
        },
    }


def _item_paths() -> JsonObject:
    item_id = _parameter("path", "item_id", {"type": "string"}, "As in the item's `id`.")
    return {
        "/v1/conversations/{conversation_id}/items": {
            "parameters": [_CONVERSATION_ID],
            "get": _operation(
                CONVERSATIONS,
                "listItems",
                "List a conversation's items",
                "A page at a time.",
                _json(200, "One page.", "ItemList"),
                faults=(400, 404, 503),
                parameters=[_LIMIT, _ORDER, _AFTER, _INCLUDE],
            ),
            "post": _making(
                "AddItems",
                "addItems",
                "Add items to a conversation",
                "All or none, at its end. An item whose id the conversation has already gets a new one.",
                _json(200, "The items as they are kept.", "ItemList"),
                parameters=[_INCLUDE],
            ),
        },
        "/v1/conversations/{conversation_id}/items/{item_id}": {
            "parameters": [_CONVERSATION_ID, item_id],
            "get": _operation(
                CONVERSATIONS,
                "getItem",
                "Read an item",
                "As it is kept.",
                _json(200, "The item.", "KeptItem"),
                faults=(400, 404, 503),
                parameters=[_INCLUDE],
            ),
            "delete": _operation(
                CONVERSATIONS,
                "deleteItem",
                "Delete an item",
                "No response will be given it any more.",
                _json(200, "The conversation that it was in.", "Conversation"),
                faults=(403, 404, 503),
            ),
        },
    }


def _taking(body: str, name: str, summary: str, description: str, answers: JsonObject, **more: Any) -> JsonObject:
    """An operation on conversations that takes a body of this schema."""
    faults = (400, 403, 404, 413, 415, 503)
    operation = _operation(CONVERSATIONS, name, summary, description, answers, faults=faults, **more)
    return {**operation, "requestBody": {"required": True, "content": {JSON: {"schema": ref(body)}}}}


def _making(body: str, name: str, summary: str, description: str, answers: JsonObject, **more: Any) -> JsonObject:
    """An operation that takes a body, and does its work once for each idempotency key."""
    _say_replayed(answers)
    parameters = [*more.pop("parameters", ()), _IDEMPOTENCY_KEY]
    operation = _taking(body, name, summary, description, answers, parameters=parameters, **more)
    operation["responses"]["409"] = {"$ref": "#/components/responses/409"}
    return operation


def _embedding_paths() -> JsonObject:
    answer = _json(200, "The vectors, in the order of the inputs.", "EmbeddingList")
    _say_replayed(answer)
    operation = _operation(
        EMBEDDINGS,
        "createEmbeddings",
        "Make embeddings",
        "As OpenAI's API has it, for models that embed: those whose `capabilities` have `embeddings`. The vectors of "
        "a model here have length one. Inputs are never cut: one that is too long is refused by its index.",
        answer,
        faults=(400, 403, 404, 409, 413, 415, 429, 500, 502, 503, 504),
        parameters=[_IDEMPOTENCY_KEY],
    )
    body = {"required": True, "content": {JSON: {"schema": ref("CreateEmbeddings")}}}
    return {"/v1/embeddings": {"post": {**operation, "requestBody": body}}}


def _model_paths() -> JsonObject:
    model_id = _parameter("path", "model_id", {"type": "string"}, "A model's name; it may contain slashes.")
    return {
        "/v1/models": {
            "get": _operation(
                MODELS,
                "listModels",
                "List the models",
                "All of them, in a stable order, each with what it can do.",
                _json(200, "The list.", "ModelList"),
            )
        },
        "/v1/models/{model_id}": {
            "parameters": [model_id],
            "get": _operation(
                MODELS,
                "getModel",
                "Read a model",
                "What it can do, and how many tokens it takes.",
                _json(200, "The model.", "Model"),
                faults=(404,),
            ),
        },
    }


def _server_paths() -> JsonObject:
    verbose = _parameter("query", "verbose", {}, "Any value. Say which check failed.", allowEmptyValue=True)
    ready = _json(200, "Send requests.", "Readiness") | _json(503, "Send requests elsewhere.", "Readiness")
    why = "Not draining, store writable, engines up."

    def operation(name: str, summary: str, description: str, answers: JsonObject, **more: Any) -> JsonObject:
        return {"get": _operation(SERVER, name, summary, description, answers, **more)}

    return {
        "/livez": operation("live", "Is it alive?", "The process answers.", _json(200, "It is.", "Liveness")),
        "/readyz": operation("ready", "Can it take requests?", why, ready, parameters=[verbose]),
        "/health": operation("health", "The same as /readyz", why, ready, parameters=[verbose]),
        "/version": operation(
            "version", "Which version is it?", "ORE's own, and the contract's.", _json(200, "Both.", "Version")
        ),
        "/metrics": operation(
            "metrics",
            "Numbers for Prometheus",
            "Which targets answered, failed or were passed over, and how soon they began.",
            _answer(200, "Prometheus' text format.", {"type": "string"}, media_type="text/plain"),
        ),
        "/openapi.json": operation(
            "describe", "This document", "OpenAPI 3.1.", _answer(200, "The document.", {"type": "object"})
        ),
    }


# Their parts


def _operation(
    tag: str,
    name: str,
    summary: str,
    description: str,
    answers: JsonObject,
    *,
    faults: tuple[int, ...] = (),
    **more: Any,
) -> JsonObject:
    """An operation. Beside its own `faults` each has those of any HTTP request."""
    errors: JsonObject = {str(status): {"$ref": f"#/components/responses/{status}"} for status in faults}
    errors |= {kind: {"$ref": f"#/components/responses/{kind}"} for kind in ("4XX", "5XX")}
    return {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        "description": description,
        **more,
        "responses": {**answers, **errors},
    }


def _json(status: int, description: str, schema: str, example: JsonObject | None = None) -> JsonObject:
    return _answer(status, description, ref(schema), example)


def _answer(
    status: int, description: str, schema: JsonObject, example: JsonObject | None = None, *, media_type: str = JSON
) -> JsonObject:
    media = {"schema": schema} | ({"example": example} if example else {})
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in ("x-request-id",)}
    return {str(status): {"description": description, "headers": headers, "content": {media_type: media}}}


def _parameter(where: str, name: str, schema: JsonObject, description: str, **more: Any) -> JsonObject:
    required = {"required": True} if where == "path" else {}
    return {"name": name, "in": where, **required, "description": description, "schema": schema, **more}


def _fault_responses() -> JsonObject:
    """Our error object under every status, by the names that `_operation` refers to."""
    content = {JSON: {"schema": ref("ErrorBody")}}
    header = {"x-request-id": {"$ref": "#/components/headers/x-request-id"}}
    again = header | {"retry-after": {"$ref": "#/components/headers/retry-after"}}
    return {
        name: {"description": text, "headers": again if name in ("409", "429", "503") else header, "content": content}
        for name, text in _FAULTS.items()
    }


_FAULTS = {
    "400": "A value, a combination of values or the JSON itself is wrong; `param` names it where one can be named.",
    "403": "A web page from an origin that is not configured may not change anything here.",
    "404": "There is no such thing. For models, the message lists those there are.",
    "405": "The path does not take this method.",
    "409": "The first request with this `Idempotency-Key` is still running. Try again after `retry-after` seconds.",
    "413": "The body is larger than this server takes.",
    "415": "The body is not JSON, or encoded in a way that the server cannot undo.",
    "426": "WebSocket is turned off; send POST.",
    "429": "Too many requests wait already. Try again after `retry-after` seconds.",
    "500": "A fault of the server's own. Report it with the request id.",
    "502": "The model or its engine broke down.",
    "503": "Overloaded, shutting down, or the store cannot be written.",
    "504": "A time limit of the server's ran out.",
    "4XX": "The request could not be used: unreadable, too large or too slow.",
    "5XX": "The server could not answer.",
}

_HEADERS: JsonObject = {
    "x-request-id": {"description": "Names this answer in the server's log.", "schema": {"type": "string"}},
    "retry-after": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}},
    "x-ore-idempotent-replay": {
        "description": "This answer was given before, to the same request under the same key.",
        "schema": {"const": "true"},
    },
    "x-ore-warning": {
        "description": "What of the request had no effect: skipped tools, images that were not seen.",
        "schema": {"type": "string"},
    },
}

_RESPONSE_ID = _parameter("path", "response_id", {"type": "string"}, "As in the response's `id`.")
_CONVERSATION_ID = _parameter("path", "conversation_id", {"type": "string"}, "As in the conversation's `id`.")
_IDEMPOTENCY_KEY = _parameter(
    "header",
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]*$"},
    "A name for this request, such as a UUID. Sent again with the same body, it gets the same answer, and nothing "
    "happens twice; answers are kept for 24 hours unless the server is set otherwise. Refusals (4xx, 503) are not "
    "kept.",
)
_INCLUDE = _parameter(
    "query",
    "include",
    {"type": "array", "items": {"enum": list(INCLUDES)}},
    "Extra data wanted. `include[]` is understood too.",
)
_STREAM = _parameter(
    "query",
    "stream",
    {"type": "boolean", "default": False},
    "Events instead of the response, for those made in the background with `stream: true`.",
)
_STARTING_AFTER = _parameter(
    "query",
    "starting_after",
    {"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
    "The `sequence_number` of the last event you have; without it the stream begins with the first.",
)
_OBFUSCATION = _parameter(
    "query",
    "include_obfuscation",
    {"type": "boolean", "default": False},
    "Pad the events against traffic analysis.",
)
_LIMIT = _parameter("query", "limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}, "Page size.")
_ORDER = _parameter("query", "order", {"enum": ["asc", "desc"], "default": "desc"}, "Newest first, unless `asc`.")
_AFTER = _parameter("query", "after", {"type": "string"}, "Start behind the one with this id.")

_STREAM_EXAMPLE = 'event: response.created\ndata: {"type":"response.created","sequence_number":0,"response":{...}}\n\n'

_WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather at a place, now.",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
}
_PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
_CREATE_EXAMPLES: JsonObject = {
    "text": {"summary": "A text", "value": CREATE_EXAMPLE},
    "stream": {"summary": "Events as they come", "value": {**CREATE_EXAMPLE, "stream": True}},
    "items": {
        "summary": "A conversation",
        "value": {
            "model": "ore-tiny",
            "instructions": "Answer in one word.",
            "input": [
                {"role": "user", "content": "I am Ada."},
                {"role": "assistant", "content": "Hello, Ada."},
                {"role": "user", "content": "Who am I?"},
            ],
        },
    },
    "tool": {
        "summary": "A tool that you run",
        "value": {"model": "ore-tiny", "input": "How is the weather in Oslo?", "tools": [_WEATHER]},
    },
    "json": {
        "summary": "JSON that matches a schema",
        "value": {
            "model": "ore-tiny",
            "input": "Ada is 36.",
            "text": {"format": {"type": "json_schema", "name": "person", "schema": _PERSON, "strict": True}},
        },
    },
}
