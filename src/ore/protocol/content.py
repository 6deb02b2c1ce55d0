"""Content parts (wire contract, section 6): those ORE makes, and the check of those it is given.

The check completes the short forms that clients send into the form that is shown when items are read back; it never
opens a URL or decodes a file.
"""

from typing import Any

from msgspec import Struct

from ore.errors import InvalidRequest
from ore.protocol.decoding import JsonObject, one_of, type_name

MAX_TEXT = 10_485_760
MAX_IMAGE_URL = 20_971_520
MAX_FILE_ID = 512
MAX_FILENAME = 4096
MAX_FILE_DATA = 73_400_320
MAX_ENCRYPTED = 20_971_520


class OutputText(Struct, tag_field="type", tag="output_text", kw_only=True):
    text: str
    annotations: list[JsonObject]
    logprobs: list[JsonObject]


class Refusal(Struct, tag_field="type", tag="refusal", kw_only=True):
    refusal: str


class SummaryText(Struct, tag_field="type", tag="summary_text", kw_only=True):
    text: str


class ReasoningText(Struct, tag_field="type", tag="reasoning_text", kw_only=True):
    text: str


Part = OutputText | Refusal | SummaryText | ReasoningText


TEXT_FIELDS = {
    "input_text": "text",
    "output_text": "text",
    "text": "text",
    "summary_text": "text",
    "reasoning_text": "text",
    "refusal": "refusal",
}
"""The parts that are text, and the field that holds it."""


def check_content(content: Any, at: str, *, plain: str) -> list[JsonObject]:
    """A message's content as an array of parts; a string becomes one part of type `plain`."""
    if content is None:
        content = ""
    if isinstance(content, str):
        return [_check_text({"type": plain, "text": check_string(content, at, MAX_TEXT)}, "text", at)]
    if not isinstance(content, list):
        message = f"Invalid type for '{at}': expected a string or an array of parts, but got {type_name(content)}."
        raise InvalidRequest(message, code="invalid_type", param=at)
    return [check_part(part, f"{at}[{index}]", plain=plain) for index, part in enumerate(content)]


def check_part(part: Any, at: str, *, plain: str) -> JsonObject:
    """One part. Unknown types are kept as they came; known ones get the keys that a reader relies on."""
    if isinstance(part, str):
        part = {"type": plain, "text": check_string(part, at, MAX_TEXT)}
    if not isinstance(part, dict):
        message = f"Invalid type for '{at}': expected an object with a 'type', but got {type_name(part)}."
        raise InvalidRequest(message, code="invalid_type", param=at)
    kind = part.get("type")
    if not isinstance(kind, str):
        raise InvalidRequest(
            f"Missing required parameter: '{at}.type'.", code="missing_required_parameter", param=f"{at}.type"
        )
    if kind in TEXT_FIELDS:
        return _check_text(part, TEXT_FIELDS[kind], at)
    if kind == "input_image":
        return _check_image(part, at)
    if kind == "input_file":
        return _check_file(part, at)
    return part


def _check_text(part: JsonObject, field: str, at: str) -> JsonObject:
    text = part.get(field)
    if text is None:
        raise InvalidRequest(
            f"Missing required parameter: '{at}.{field}'.", code="missing_required_parameter", param=f"{at}.{field}"
        )
    check_string(text, f"{at}.{field}", MAX_TEXT)
    if part["type"] == "output_text":
        return {**part, "annotations": part.get("annotations") or [], "logprobs": part.get("logprobs") or []}
    return part


def _check_image(part: JsonObject, at: str) -> JsonObject:
    url, file_id = part.get("image_url"), part.get("file_id")
    if isinstance(url, dict):  # the Chat Completions form, which several clients still send
        part = {**part, "image_url": url.get("url"), "detail": part.get("detail") or url.get("detail")}
        url = part["image_url"]
    if file_id is not None:
        check_string(file_id, f"{at}.file_id", MAX_FILE_ID)
    if url is None and not file_id:
        raise InvalidRequest(
            f"'{at}' needs an 'image_url': a data URL or an https URL.",
            code="missing_required_parameter",
            param=f"{at}.image_url",
        )
    if url is not None:
        check_string(url, f"{at}.image_url", MAX_IMAGE_URL)
        if not url.startswith(("data:", "https://", "http://")):
            message = f"Invalid value for '{at}.image_url': expected a data URL or an http(s) URL."
            raise InvalidRequest(message, code="invalid_image_url", param=f"{at}.image_url")
    detail = one_of(part.get("detail") or "auto", ("low", "high", "auto", "original"), f"{at}.detail")
    return {**part, "image_url": url, "detail": detail}


def _check_file(part: JsonObject, at: str) -> JsonObject:
    if not any(part.get(key) for key in ("file_data", "file_url", "file_id")):
        raise InvalidRequest(
            f"'{at}' needs 'file_data', 'file_url' or 'file_id'.",
            code="missing_required_parameter",
            param=f"{at}.file_data",
        )
    for key, limit in (
        ("file_data", MAX_FILE_DATA),
        ("file_url", MAX_IMAGE_URL),
        ("file_id", MAX_FILE_ID),
        ("filename", 4096),
    ):
        if part.get(key) is not None:
            check_string(part[key], f"{at}.{key}", limit)
    return {key: value for key, value in part.items() if value is not None}


def check_string(value: Any, at: str, limit: int) -> str:
    """A string of at most `limit` characters."""
    if not isinstance(value, str):
        raise InvalidRequest(
            f"Invalid type for '{at}': expected a string, but got {type_name(value)}.", code="invalid_type", param=at
        )
    if len(value) > limit:
        message = f"Invalid '{at}': it may have at most {limit:,} characters, but has {len(value):,}."
        raise InvalidRequest(message, code="string_above_max_length", param=at)
    return value
