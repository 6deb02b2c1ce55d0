"""Settings of a request besides input and tools (wire contract, sections 3 and 18), in the form that is echoed.

Each function takes what the client sent and returns what the response shows: effective values, defaults filled in.
"""

import re
from typing import Any

from ore.errors import InvalidRequest
from ore.protocol.decoding import JsonObject, one_of, type_name

INCLUDES = (
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
    "file_search_call.results",
    "web_search_call.action.sources",
    "web_search_call.results",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "message.input_image.image_url",
)
TRUNCATIONS = ("auto", "disabled")
SERVICE_TIERS = ("auto", "default", "flex", "priority", "scale", "fast", "ultrafast")
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""From least to most."""
MAX_STOPS = 16
MIN_COMPACT_THRESHOLD = 1000
_FORMAT_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def check_include(value: list[Any]) -> tuple[str, ...]:
    return tuple(one_of(entry, INCLUDES, f"include[{index}]") for index, entry in enumerate(value))


def check_metadata(value: JsonObject) -> dict[str, str]:
    """At most 16 pairs, keys up to 64 characters, string values up to 512."""
    if len(value) > 16:
        raise InvalidRequest(
            f"'metadata' may have at most 16 pairs, but has {len(value)}.",
            code="object_above_max_properties",
            param="metadata",
        )
    for key, entry in value.items():
        at = f"metadata.{key[:64]}"
        if len(key) > 64:
            raise InvalidRequest(
                "A key of 'metadata' has more than 64 characters.", code="string_above_max_length", param="metadata"
            )
        if not isinstance(entry, str):
            message = f"Invalid type for '{at}': expected a string, but got {type_name(entry)}."
            raise InvalidRequest(message, code="invalid_type", param=at)
        if len(entry) > 512:
            raise InvalidRequest(f"'{at}' may have at most 512 characters.", code="string_above_max_length", param=at)
    return value


def check_text(value: JsonObject | None) -> JsonObject:
    """`text`: the format with all keys of its echo, `verbosity` only when it was set."""
    value = value or {}
    text: JsonObject = {"format": check_format(value.get("format"))}
    if value.get("verbosity") is not None:
        text["verbosity"] = one_of(value["verbosity"], ("low", "medium", "high"), "text.verbosity")
    return text


def check_format(value: Any) -> JsonObject:
    if value is None:
        return {"type": "text"}
    if not isinstance(value, dict):
        raise InvalidRequest(
            '\'text.format\' is an object such as {"type": "text"}.', code="invalid_type", param="text.format"
        )
    kind = one_of(value.get("type"), ("text", "json_object", "json_schema"), "text.format.type")
    if kind != "json_schema":
        return {"type": kind}
    name, schema = value.get("name"), value.get("schema")
    if name is None:
        raise InvalidRequest(
            "Missing required parameter: 'text.format.name'.",
            code="missing_required_parameter",
            param="text.format.name",
        )
    if not isinstance(name, str) or not _FORMAT_NAME.fullmatch(name):
        raise InvalidRequest(
            "'text.format.name' needs 1 to 64 letters, digits, underscores or dashes.", param="text.format.name"
        )
    if not isinstance(schema, dict):
        raise InvalidRequest(
            '\'text.format.schema\' needs a JSON Schema, such as {"type": "object", "properties": {...}}.',
            code="missing_required_parameter" if schema is None else "invalid_json_schema",
            param="text.format.schema",
        )
    strict, description = value.get("strict"), value.get("description")
    if strict is not None and not isinstance(strict, bool):
        raise InvalidRequest("'text.format.strict' is a boolean.", code="invalid_type", param="text.format.strict")
    if description is not None and not isinstance(description, str):
        message = "'text.format.description' is a string."
        raise InvalidRequest(message, code="invalid_type", param="text.format.description")
    return {"type": kind, "name": name, "description": description, "schema": schema, "strict": bool(strict)}


def check_reasoning(value: JsonObject | None) -> JsonObject | None:
    """`reasoning` with both keys present, or None when nothing was asked for."""
    if not value:
        return None
    effort, summary = value.get("effort"), value.get("summary") or value.get("generate_summary")
    if effort is not None:
        effort = one_of(effort, EFFORTS, "reasoning.effort")
    if summary is not None:
        summary = one_of(summary, ("auto", "concise", "detailed"), "reasoning.summary")
    if effort is None and summary is None:
        return None
    return {"effort": effort, "summary": summary}


def check_stream_options(value: JsonObject | None) -> bool:
    """Whether events are to be obfuscated. OpenAI's default is yes; here whoever wants the padding asks for it."""
    wanted = (value or {}).get("include_obfuscation")
    if wanted is not None and not isinstance(wanted, bool):
        at = "stream_options.include_obfuscation"
        message = f"Invalid type for '{at}': expected a boolean, but got {type_name(wanted)}."
        raise InvalidRequest(message, code="invalid_type", param=at)
    return bool(wanted)


def check_context_management(value: list[Any] | None) -> int | None:
    """The tokens of context above which it is compacted: 0 leaves that to the model, None was not asked for."""
    threshold: int | None = None
    for index, entry in enumerate(value or []):
        at = f"context_management[{index}]"
        if not isinstance(entry, dict):
            message = f"Invalid type for '{at}': expected an object, but got {type_name(entry)}."
            raise InvalidRequest(message, code="invalid_type", param=at)
        one_of(entry.get("type"), ("compaction",), f"{at}.type")
        tokens = entry.get("compact_threshold")
        if tokens is None:
            threshold = 0
            continue
        if isinstance(tokens, float) and tokens.is_integer():
            tokens = int(tokens)
        if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < MIN_COMPACT_THRESHOLD:
            at = f"{at}.compact_threshold"
            message = f"Invalid '{at}': expected an integer >= {MIN_COMPACT_THRESHOLD}."
            raise InvalidRequest(message, code="integer_below_min_value", param=at)
        threshold = tokens
    return threshold


def check_stop(value: Any) -> tuple[str, ...]:
    """`stop`, an extension of ours: a string or up to 16 of them."""
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise InvalidRequest(f"'stop' is a string or an array of up to {MAX_STOPS} non-empty strings.", param="stop")
    return tuple(stops)
