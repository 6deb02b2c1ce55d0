"""The schemas of the OpenAPI document: what a request may hold, and what ORE says.

They are made from the structs of `ore.protocol`, so that they cannot drift. Where a struct says only "an object",
because its check is code, the schema is written out here and agrees with what `check_create` accepts. Rules between
fields stay in words: they would be unreadable as JSON Schema.
"""

import types
import typing
from typing import Any, Union

import msgspec
from msgspec import Struct, UnsetType

from ore.backends.base import Capabilities
from ore.core.callable_tools import TOOL_TYPES
from ore.protocol import configuration, content, conversations, embeddings, events, items, responses, tools
from ore.protocol.decoding import JsonObject
from ore.runs.compaction import Compaction
from ore.runs.summary import ResponseSummary

Schema = dict[str, Any]

STATUSES = ("in_progress", "completed", "incomplete", "failed")
MADE_ITEMS: tuple[type[Struct], ...] = typing.get_args(items.MadeItem)
PARTS: tuple[type[Struct], ...] = typing.get_args(content.Part)
DETAILS: tuple[type[Struct], ...] = (
    responses.IncompleteDetails,
    responses.ResponseError,
    responses.InputTokensDetails,
    responses.OutputTokensDetails,
    responses.Usage,
    conversations.ConversationReference,
    Capabilities,
)


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def all_schemas() -> dict[str, Schema]:
    """Every schema of the document, by its name there."""
    return _request_schemas() | _response_schemas() | _event_schemas()


# Building blocks


def _text(most: int | None = None, *, least: int = 0, pattern: str | None = None) -> Schema:
    limits = {"minLength": least or None, "maxLength": most, "pattern": pattern}
    return {"type": "string", **{key: value for key, value in limits.items() if value is not None}}


def _choice(*values: Any) -> Schema:
    return {"enum": list(values)}


def _array(of: Schema, **limits: int) -> Schema:
    return {"type": "array", "items": of, **limits}


def _object(properties: dict[str, Schema], *required: str, **more: Any) -> Schema:
    found: Schema = {"type": "object", "properties": properties, **more}
    return {**found, "required": list(required)} if required else found


def _null_or(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _any_of(*names: str, description: str) -> Schema:
    return {"description": description, "anyOf": [ref(name) for name in names]}


# What ORE says: from the structs


def _said(kind: type[Struct]) -> Schema:
    """The object that a struct is encoded as: all its keys are there, but those that may be `UNSET`."""
    properties: dict[str, Schema] = {}
    required = []
    if (tag := kind.__struct_config__.tag) is not None:
        properties["type"] = {"const": tag}
        required.append("type")
    for field in msgspec.structs.fields(kind):
        properties[field.encode_name] = _SHAPES.get((kind, field.name)) or _schema_of(field.type)
        if UnsetType not in typing.get_args(field.type):
            required.append(field.encode_name)
    return _object(properties, *required)


def _schema_of(kind: Any) -> Schema:
    """The schema of a field's type. msgspec knows the plain ones; unions with any object it refuses."""
    if kind == items.Item:
        return ref("OutputItem")
    if kind == content.Part:
        return ref("OutputPart")
    if typing.get_origin(kind) is list:
        return _array(_schema_of(typing.get_args(kind)[0]))
    if typing.get_origin(kind) in (Union, types.UnionType):
        either = [_schema_of(one) for one in typing.get_args(kind) if one is not UnsetType]
        return either[0] if len(either) == 1 else {"anyOf": either}
    if isinstance(kind, type) and issubclass(kind, Struct):
        return ref(kind.__name__)
    return msgspec.json.schema(kind)


def _response_schemas() -> dict[str, Schema]:
    kinds: tuple[type[Struct], ...] = (responses.Response, *DETAILS, *MADE_ITEMS, *PARTS)
    made = {kind.__name__: _said(kind) for kind in kinds}
    made["Response"]["description"] = "A response. Its keys are always all there; null means that there is nothing."
    made["Response"]["examples"] = [RESPONSE_EXAMPLE]
    known = [kind.__struct_config__.tag for kind in MADE_ITEMS]
    return {
        **made,
        "Compaction": _said(Compaction),
        "InputTokens": _object(
            {"object": _choice("response.input_tokens"), "input_tokens": {"type": "integer", "minimum": 0}},
            *("object", "input_tokens"),
        ),
        "OutputItem": _any_of(*(kind.__name__ for kind in MADE_ITEMS), "OtherItem", description="What a model made."),
        "OtherItem": _object({"type": {"type": "string", "not": _choice(*known)}}, "type"),
        "OutputPart": _any_of(*(kind.__name__ for kind in PARTS), description="A piece of an item."),
        "EchoedTool": _object({"type": _text()}, "type", description="A tool as it was sent, with its defaults."),
        "Deleted": _object(
            {"id": _text(), "object": _choice("response"), "deleted": {"const": True}}, "id", "object", "deleted"
        ),
        "Conversation": _said(conversations.Conversation),
        "ConversationDeleted": _object(
            {"id": _text(), "object": _choice("conversation.deleted"), "deleted": {"const": True}},
            *("id", "object", "deleted"),
        ),
        "KeptItem": _object({"id": _text(), "type": _text()}, "id", "type", description="An item as it is kept."),
        "ItemList": _list_of("KeptItem"),
        "ResponseSummary": _said(ResponseSummary),
        "ResponseList": _list_of("ResponseSummary"),
        "Embedding": _said(embeddings.Embedding),
        "EmbeddingsUsage": _said(embeddings.EmbeddingsUsage),
        "EmbeddingList": _said(embeddings.EmbeddingList),
        "Model": _model(),
        "ModelList": _object({"object": _choice("list"), "data": _array(ref("Model"))}, "object", "data"),
        "Liveness": _object({"status": _choice("ok")}, "status"),
        "Readiness": _readiness(),
        "Version": _object({"version": _text(), "open_responses": _text()}, "version", "open_responses"),
        "ErrorBody": _error_body(),
    }


def _list_of(name: str) -> Schema:
    end = _null_or(_text())
    return _object(
        {
            "object": _choice("list"),
            "data": _array(ref(name)),
            "first_id": end,
            "last_id": end,
            "has_more": {"type": "boolean", "description": "Ask again with `after` set to the last one's id."},
        },
        *("object", "data", "first_id", "last_id", "has_more"),
    )


def _model() -> Schema:
    return _object(
        {
            "id": _text() | {"description": "The name to send as `model`."},
            "object": _choice("model"),
            "created": {"type": "integer", "description": "Seconds since 1970; 0 when unknown."},
            "owned_by": _text(),
            "capabilities": ref("Capabilities"),
            "input_schema": _published("what the text of the user is to be, of a model that takes data"),
            "output_schema": _published("what every answer satisfies, of a model that answers with data"),
        },
        *("id", "object", "created", "owned_by", "capabilities"),
    )


def _published(what: str) -> Schema:
    return {"type": "object", "description": f"A JSON Schema: {what}."}


def _readiness() -> Schema:
    return _object(
        {
            "status": _choice("ok", "unavailable"),
            "checks": {"type": "object", "additionalProperties": {"type": "boolean"}},
            "active_runs": {"type": "integer", "minimum": 0},
            "backends": {"type": "object", "additionalProperties": {"type": "object"}},
        },
        "status",
    )


def _error_body() -> Schema:
    error = _object(
        {
            "message": _text() | {"description": "What is wrong, and what to do next. For people."},
            "type": _text() | {"examples": ["invalid_request_error", "server_error"]},
            "param": _null_or(_text()) | {"description": "The field at fault, such as `input[2].content`."},
            "code": _null_or(_text()) | {"description": "What is wrong, for programs."},
        },
        *("message", "type", "param", "code"),
    )
    example = {
        "message": "Missing required parameter: 'input'. Send a string, or an array of items.",
        "type": "invalid_request_error",
        "param": "input",
        "code": "missing_required_parameter",
    }
    return _object({"error": error}, "error", examples=[{"error": example}])


def _event_schemas() -> dict[str, Schema]:
    """One schema per event, `OutputTextDeltaEvent` and so on, and their union."""
    kinds = {f"{kind.__name__}Event": kind for kind in _leaves(events.Event)}
    mapping = {kind.__struct_config__.tag: ref(name)["$ref"] for name, kind in kinds.items()}
    union = {
        "description": "One event of a stream, in the order of `sequence_number`.",
        "oneOf": [ref(name) for name in kinds],
        "discriminator": {"propertyName": "type", "mapping": mapping},
    }
    event = _text() | {"contentMediaType": "application/json", "contentSchema": ref("StreamEvent")}
    frame = _object(
        {
            "event": _text() | {"description": "The same as `type` in `data`."},
            "data": {"anyOf": [{"const": "[DONE]"}, event]},
        },
        "data",
        description="One frame of a stream. The last has no `event`, and `[DONE]` for its `data`.",
    )
    return {name: _said(kind) for name, kind in kinds.items()} | {"StreamEvent": union, "ServerSentEvent": frame}


def _leaves(kind: type[Struct]) -> list[type[Struct]]:
    below = kind.__subclasses__()
    return [leaf for one in below for leaf in _leaves(one)] if below else [kind]


# What clients send: from `CreateBody`, and by hand


def _request_schemas() -> dict[str, Schema]:
    compact = {"CompactResponse": _compact_response(), "CountInputTokens": _count_input_tokens()}
    return (
        {"CreateResponse": _create_response()}
        | compact
        | _conversation_bodies()
        | {"CreateEmbeddings": _create_embeddings()}
        | _input_items()
        | _input_parts()
        | _tools()
        | _settings()
    )


def _create_response() -> Schema:
    """The fields and limits of `CreateBody`; the shapes it leaves open come from `_REFINED`."""
    _, derived = msgspec.json.schema_components([responses.CreateBody])
    properties: dict[str, Schema] = {}
    for name, schema in derived["CreateBody"]["properties"].items():
        schema.pop("default")  # null, which stands for the default that the description names
        properties[name] = {**_REFINED.get(name, schema), "description": ABOUT[name]}
    return _object(properties, description="Every field may be left out or null.", examples=[CREATE_EXAMPLE])


def _compact_response() -> Schema:
    """The fields that `check_compact` reads, as a create request has them."""
    properties = {name: _create_response()["properties"][name] for name in responses.COMPACTED}
    properties["model"] = {**_text(least=1), "description": ABOUT["model"]}
    return _object(properties, "model", description="Other fields are ignored.")


def _count_input_tokens() -> Schema:
    """The fields that `check_count` reads, as a create request has them."""
    properties = {name: _create_response()["properties"][name] for name in responses.COUNTED}
    return _object(properties, description="Every field may be left out or null; others are ignored.")


def _create_embeddings() -> Schema:
    """The fields of `EmbeddingsBody`; `input` has the forms that `check_embeddings` tells apart."""
    most = embeddings.MAX_INPUTS
    text = _text(content.MAX_TEXT, least=1)
    token = {"type": "integer", "minimum": 0, "maximum": embeddings.LARGEST_TOKEN}
    tokens = _array(token, minItems=1, maxItems=most)
    inputs = _array({"anyOf": [text, tokens]}, minItems=1, maxItems=most)
    about = "A text, or several; or their tokens, in the model's own numbers."
    formats = "Numbers, or base64 of single-precision floats, the lowest byte first."
    fewer = "How many numbers each vector is to have: its first ones, of length one again."
    return _object(
        {
            "input": {"anyOf": [text, tokens, inputs], "description": about},
            "model": _null_or(_text()) | {"description": ABOUT["model"]},
            "encoding_format": _choice(*embeddings.FORMATS, None) | {"description": formats},
            "dimensions": _null_or({"type": "integer", "minimum": 1, "maximum": 65536}) | {"description": fewer},
            "user": _null_or(_text()) | {"description": "Passed on to providers."},
        },
        "input",
        examples=[{"model": "embedder", "input": ["a river", "a stream"]}],
    )


def _conversation_bodies() -> dict[str, Schema]:
    most = conversations.MAX_ITEMS
    described = _REFINED["metadata"] | {"description": "Up to 16 texts of your own, kept with the conversation."}
    said = {"role": "user", "content": "I am Ada."}
    return {
        "CreateConversation": _object(
            {"items": _null_or(_array(ref("InputItem"), maxItems=most)), "metadata": described},
            examples=[{"items": [said], "metadata": {"topic": "names"}}],
        ),
        "UpdateConversation": _object({"metadata": described}, "metadata", examples=[{"metadata": {"topic": "x"}}]),
        "AddItems": _object(
            {"items": _array(ref("InputItem"), minItems=1, maxItems=most)}, "items", examples=[{"items": [said]}]
        ),
    }


def _input_items() -> dict[str, Schema]:
    call = {"call_id": _text(64, least=1), "id": _ID, "status": _STATUS}
    named = call | {"namespace": _null_or(_text(128, least=1))}
    name, whole = _text(128, least=1), _text(content.MAX_TEXT)
    parts = _array(ref("InputPart"))
    others = {call: output for call, output in items.CALL_OUTPUTS.items() if call not in _CALLS}
    loose = "local_shell_call_output"  # the one output that may come without a `call_id`
    answers = [output for output in others.values() if output not in (loose, *items.TOOL_ITEMS)]
    plain = ("message", "reasoning", "compaction", "item_reference")
    known = sorted({*plain, *items.CALL_OUTPUTS, *items.CALL_OUTPUTS.values(), *items.TOOL_ITEMS})
    return {
        "InputItem": _any_of(
            *("InputMessage", "InputFunctionCall", "InputCustomToolCall", "InputCallOutput", "InputReasoning"),
            *("InputOtherCall", "InputOtherCallOutput", "InputTools", "InputOtherItem"),
            description="One item of the history. Items of unknown types are kept as they are. An item of type "
            "`compaction` is taken as it was given, and so is `encrypted_content`. In a request, `item_reference` "
            "stands for a stored item by its `id`, and `compaction_trigger` at the end asks for a compaction only.",
        ),
        "InputMessage": _object(
            {
                "type": _choice("message", None),
                "role": _choice(*items.ROLES),
                "content": {"anyOf": [_text(content.MAX_TEXT), parts, {"type": "null"}]},
                "phase": _choice("commentary", "final_answer", None),
                "id": _ID,
                "status": _STATUS,
            },
            *("role", "content"),
        ),
        "InputFunctionCall": _object(
            {"type": _choice("function_call"), "name": name, "arguments": whole, **named},
            *("type", "call_id", "name", "arguments"),
        ),
        "InputCustomToolCall": _object(
            {"type": _choice("custom_tool_call"), "name": name, "input": whole, **named},
            *("type", "call_id", "name", "input"),
        ),
        "InputCallOutput": _object(
            {
                "type": _choice(*(items.CALL_OUTPUTS[call] for call in _CALLS)),
                "output": {"anyOf": [whole, parts]},
                **call,
            },
            *("type", "call_id", "output"),
        ),
        "InputReasoning": _object(
            {
                "type": _choice("reasoning"),
                "summary": _null_or(_array(ref("SummaryText"))),
                "content": {"anyOf": [_text(content.MAX_TEXT), parts, {"type": "null"}]},
                "encrypted_content": _null_or(_text(content.MAX_ENCRYPTED)),
                "id": _ID,
            },
            "type",
        ),
        "InputOtherCall": _object(
            {"type": _choice(*others, loose), "call_id": _null_or(_text(64, least=1)), "id": _ID}, "type"
        ),
        "InputOtherCallOutput": _object(
            {"type": _choice(*answers), "call_id": _text(64, least=1), "id": _ID}, "type", "call_id"
        ),
        "InputTools": _object(
            {
                "type": _choice(*items.TOOL_ITEMS),
                "tools": _null_or(_array(ref("Tool"))),
                "call_id": _null_or(_text(64, least=1)),
                "id": _ID,
            },
            "type",
            description="Brings tools, which can be called from there on; where two have one name, the newest counts.",
        ),
        "InputOtherItem": _object({"type": _text(least=1) | {"not": _choice(*known)}, "id": _ID}, "type"),
    }


def _input_parts() -> dict[str, Schema]:
    texts = [kind for kind, field in content.TEXT_FIELDS.items() if field == "text"]
    url = _text(content.MAX_IMAGE_URL, pattern="^(data:|https?://)")
    detail = _choice("low", "high", "auto", "original", None)
    file_id, some = _text(512, least=1), _text(least=1)
    return {
        "InputPart": _any_of(
            *("InputTextPart", "InputRefusalPart", "InputImagePart", "InputFilePart", "InputOtherPart"),
            description="A piece of a message. Nothing is ever fetched from a URL in it.",
        ),
        "InputTextPart": _object({"type": _choice(*texts), "text": _text(content.MAX_TEXT)}, "type", "text"),
        "InputRefusalPart": _object(
            {"type": _choice("refusal"), "refusal": _text(content.MAX_TEXT)}, "type", "refusal"
        ),
        "InputImagePart": _object(
            {
                "type": _choice("input_image"),
                "image_url": {"anyOf": [url, _object({"url": url, "detail": detail}, "url"), {"type": "null"}]},
                "file_id": _null_or(file_id),
                "detail": detail,
            },
            "type",
            anyOf=[
                _object({"image_url": {"not": {"type": "null"}}}, "image_url"),
                _object({"file_id": file_id}, "file_id"),
            ],
        ),
        "InputFilePart": _object(
            {
                "type": _choice("input_file"),
                "file_data": _null_or(_text(content.MAX_FILE_DATA)),
                "file_url": _null_or(_text(content.MAX_IMAGE_URL)),
                "file_id": _null_or(_text(512)),
                "filename": _null_or(_text(4096)),
            },
            "type",
            anyOf=[_object({key: some}, key) for key in ("file_data", "file_url", "file_id")],
        ),
        "InputOtherPart": _object(
            {"type": _text() | {"not": _choice(*content.TEXT_FIELDS, "input_image", "input_file")}}, "type"
        ),
    }


def _tools() -> dict[str, Schema]:
    name = _text(pattern=f"^[a-zA-Z0-9_-]{{1,{tools.MAX_NAME}}}$")
    return {
        "Tool": _any_of(
            *("FunctionTool", "CustomTool", "NamespaceTool", "OtherTool"),
            description="A tool that the model may call. Models that know functions take these types: "
            f"{', '.join(f'`{kind}`' for kind in TOOL_TYPES)}; see `capabilities.tool_types` of a model. Tools of "
            "other types are skipped, and the header `x-ore-warning` names them.",
        ),
        "FunctionTool": _object(
            {
                "type": _choice("function"),
                "name": name,
                "description": _null_or(_text()),
                "parameters": _null_or({"type": "object"}) | {"description": "A JSON Schema."},
                "strict": {"type": ["boolean", "null"]},
            },
            *("type", "name"),
        ),
        "CustomTool": _object({"type": _choice("custom"), "name": name}, "type", "name"),
        "NamespaceTool": _object(
            {
                "type": _choice("namespace"),
                "name": name,
                "description": _text(),
                "tools": _array({"anyOf": [ref("FunctionTool"), ref("CustomTool")]}),
            },
            *("type", "name", "tools"),
            description="Tools under a common name, which their calls carry as `namespace`.",
        ),
        "OtherTool": _object({"type": _text() | {"not": _choice(*tools.NAMED_TOOLS, "namespace")}}, "type"),
        "ToolChoice": _object(
            {
                "type": _text() | {"examples": ["function", "allowed_tools"]},
                "name": name,
                "namespace": name,
                "mode": _choice("auto", "required", "none"),
                "tools": _array(
                    _object({"type": _text(), "name": name, "namespace": name}, "type"), minItems=1, maxItems=128
                ),
            },
            "type",
            description="One tool by its name, or `allowed_tools`. What it names has to be among `tools`.",
        ),
    }


def _json_schema(schema: Schema) -> Schema:
    return _object(
        {
            "type": _choice("json_schema"),
            "name": _text(pattern="^[a-zA-Z0-9_-]{1,64}$"),
            "schema": schema,
            "description": _null_or(_text()),
            "strict": {"type": ["boolean", "null"]},
        },
        *("type", "name", "schema"),
    )


def _settings() -> dict[str, Schema]:
    plain = _object({"type": _choice("text", "json_object")}, "type")
    effort, summary = configuration.EFFORTS, ("auto", "concise", "detailed")
    return {
        "TextFormat": {"anyOf": [plain, _json_schema({"type": "object"})]},
        "EchoedFormat": {"anyOf": [plain, _json_schema({"type": ["object", "null"]})]},
        "TextSettings": _object(
            {"format": _null_or(ref("TextFormat")), "verbosity": _choice("low", "medium", "high", None)}
        ),
        "ReasoningSettings": _object({"effort": _choice(*effort, None), "summary": _choice(*summary, None)}),
    }


_CALLS = ("function_call", "custom_tool_call")
_ID = _null_or(_text(512))
_STATUS = _choice(*STATUSES, None)
_ABSENT: Schema = {"type": "null"}

_REFINED: dict[str, Schema] = {
    "input": {"anyOf": [_text(content.MAX_TEXT), _array(ref("InputItem")), {"type": "null"}]},
    "conversation": {"anyOf": [_text(512), _object({"id": _text(512, least=1)}, "id"), {"type": "null"}]},
    "include": _null_or(_array(_choice(*configuration.INCLUDES))),
    "tools": _null_or(_array(ref("Tool"), maxItems=tools.MAX_TOOLS)),
    "tool_choice": {"anyOf": [_choice("auto", "none", "required", None), ref("ToolChoice")]},
    "text": _null_or(ref("TextSettings")),
    "reasoning": _null_or(ref("ReasoningSettings")),
    "truncation": _choice(*configuration.TRUNCATIONS, None),
    "metadata": _null_or(
        {
            "type": "object",
            "maxProperties": 16,
            "propertyNames": {"maxLength": 64},
            "additionalProperties": _text(512),
        }
    ),
    "stream_options": _null_or(_object({"include_obfuscation": {"type": "boolean"}})),
    "background": {"type": ["boolean", "null"]},
    "service_tier": _choice(*configuration.SERVICE_TIERS, None),
    "prompt": _ABSENT,
    "moderation": _null_or(_object({"policy": _ABSENT})),
    "background_options": _null_or(_object({"completion_window": _choice("soonest", None)})),
    "context_management": _null_or(
        _array(
            _object(
                {
                    "type": _choice("compaction"),
                    "compact_threshold": _null_or({"type": "integer", "minimum": configuration.MIN_COMPACT_THRESHOLD}),
                },
                "type",
            )
        )
    ),
    "stop": {"anyOf": [_text(least=1), _array(_text(least=1), maxItems=configuration.MAX_STOPS), {"type": "null"}]},
}
"""Fields whose shape `CreateBody` leaves to `check_create`."""

_SHAPES: dict[tuple[type[Struct], str], Schema] = {
    (responses.Response, "reasoning"): _null_or(
        _object(
            {
                "effort": _choice(*configuration.EFFORTS, None),
                "summary": _choice("auto", "concise", "detailed", None),
            },
            *("effort", "summary"),
        )
    ),
    (responses.Response, "text"): _object(
        {"format": ref("EchoedFormat"), "verbosity": _choice("low", "medium", "high")}, "format"
    ),
    (responses.Response, "tools"): _array(ref("EchoedTool")),
    (responses.Response, "tool_choice"): {"anyOf": [_choice("auto", "none", "required"), ref("ToolChoice")]},
    (responses.Response, "truncation"): _choice(*configuration.TRUNCATIONS),
    (embeddings.Embedding, "embedding"): {"anyOf": [_text(), _array({"type": "number"})]},
    (embeddings.EmbeddingList, "data"): _array(ref("Embedding")),
    (events.Error, "error"): _error_body()["properties"]["error"],
}
"""Fields that a struct calls an object or a string, and that are more than that."""

ABOUT: dict[str, str] = {
    "model": "A name out of `GET /v1/models`. Left out: the configured default.",
    "input": "What the model is given: a text, or items. May be left out beside the three next fields.",
    "instructions": "Stands before everything else. Not inherited from the previous response.",
    "previous_response_id": "Continue from this stored response: its whole chain comes first.",
    "conversation": "The conversation to go on with, by its id: its items come first, and are joined by those of input "
    "and answer. Not together with `previous_response_id`.",
    "include": "Extra data wanted in the answer.",
    "tools": "At most 1024, each with a name of its own.",
    "tool_choice": 'Whether and which tools are called; "auto" when left out.',
    "parallel_tool_calls": "Whether the model may make several calls in one answer; true when left out.",
    "max_tool_calls": "Bounds the calls of tools that the server runs.",
    "text": "The form of the answer: plain text, JSON, or JSON that matches a schema.",
    "reasoning": 'With the effort "none" a model that can leave thinking out does; the rest is echoed.',
    "temperature": "Left out: the model's own default.",
    "top_p": "Left out: the model's own default.",
    "presence_penalty": "0 when left out.",
    "frequency_penalty": "0 when left out.",
    "top_logprobs": "Alternatives shown per token; needs `message.output_text.logprobs` in `include`.",
    "max_output_tokens": "The answer ends as `incomplete` when it has so many tokens, reasoning included.",
    "truncation": "What to do with a history that is too long for the model: refuse it, which is the default, or with "
    '"auto" drop the oldest exchanges; system messages and the last turn stay.',
    "metadata": "Up to 16 texts of your own, kept with the response.",
    "store": "Keep the response, so that it can be read again and continued; true when left out.",
    "stream": "Answer with events as they come; false when left out.",
    "stream_options": 'Only together with `"stream": true`. `include_obfuscation` pads events; off when left out.',
    "background": "Answer at once, and go on without the connection, and after a restart; fetch the response later. "
    "Not together with `store: false`.",
    "service_tier": "Accepted and not used; there is one tier.",
    "safety_identifier": "Your own name for the user, echoed.",
    "prompt_cache_key": "Echoed. Prompts that begin alike share their prefix without it.",
    "user": "Older form of `safety_identifier`, echoed.",
    "prompt": "Not offered: send `instructions` and `input`.",
    "moderation": "Accepted without `policy`, and not used.",
    "background_options": "Accepted and not used.",
    "context_management": "Compact the history first when it has more tokens than `compact_threshold`, which is three "
    "quarters of the model's window when left out. The answer then begins with an item of type `compaction`.",
    "prompt_cache_retention": "Accepted and not used.",
    "prompt_cache_options": "Accepted and not used.",
    "client_metadata": "Accepted and not used.",
    "image": "Accepted and not used.",
    "access_programs": "Accepted and not used.",
    "seed": "An extension of ORE: the same seed and request give the same answer on a local model.",
    "stop": "An extension of ORE: texts that end a free answer; calls and JSON end by themselves.",
}
"""One line about every field of a request."""

CREATE_EXAMPLE: JsonObject = {"model": "ore-tiny", "input": "Say hello."}

RESPONSE_EXAMPLE: JsonObject = msgspec.to_builtins(
    responses.Response(
        id="resp_6f1c0a54e0f94d0c8f0d1b7f3d2a9e55",
        created_at=1_795_000_000,
        completed_at=1_795_000_001,
        status="completed",
        model="ore-tiny",
        output=[
            items.Message(
                id="msg_0b7de1a2c5f34c1f9a64be2f6a1c7d08",
                status="completed",
                content=[content.OutputText(text="Hello.", annotations=[], logprobs=[])],
            )
        ],
        usage=responses.Usage(
            input_tokens=9,
            input_tokens_details=responses.InputTokensDetails(0),
            output_tokens=2,
            output_tokens_details=responses.OutputTokensDetails(0),
            total_tokens=11,
        ),
    )
)
