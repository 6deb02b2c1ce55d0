"""The Open Responses document as a judge of what is taken and of what is kept."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from samples import holds_nothing, of_schema

from core.writing import counted
from ore.errors import InvalidRequest
from ore.protocol.responses import check_create
from ore.protocol.wire import BOTH

ITEM_PARAMS = (
    "ItemReferenceParam",
    "ReasoningItemParam",
    "CompactionSummaryItemParam",
    "UserMessageItemParam",
    "SystemMessageItemParam",
    "DeveloperMessageItemParam",
    "AssistantMessageItemParam",
    "FunctionCallItemParam",
    "FunctionCallOutputItemParam",
)
KEPT_AS = {
    "UserMessageItemParam": "Message",
    "SystemMessageItemParam": "Message",
    "DeveloperMessageItemParam": "Message",
    "AssistantMessageItemParam": "Message",
    "FunctionCallItemParam": "FunctionCall",
    "FunctionCallOutputItemParam": "FunctionCallOutput",
    "ReasoningItemParam": "ReasoningBody",
    "CompactionSummaryItemParam": "CompactionBody",
}
"""What an input item of each schema is when it is read back."""


@pytest.fixture(scope="module")
def schemas(specification: Any) -> dict[str, Any]:
    """The document's schemas."""
    found: dict[str, Any] = specification._document["components"]["schemas"]
    return found


def examples(name: str, schemas: dict[str, Any], judge: Any) -> Iterator[Any]:
    """Values that the document calls valid."""
    for value in of_schema(schemas[name], schemas):
        judge.check(name, value)
        yield value


@pytest.mark.parametrize("name", ITEM_PARAMS)
def test_every_published_input_item_is_taken(name: str, schemas: dict[str, Any], specification: Any) -> None:
    """Whatever the document lets clients send is taken, but for file and image parts that hold nothing."""
    seen = 0
    for item in examples(name, schemas, specification):
        if holds_nothing(item):
            with pytest.raises(InvalidRequest, match="needs"):
                check_create({"input": [item]}, counted())
            continue
        (kept,) = check_create({"input": [item]}, counted()).input
        has_video = "input_video" in json.dumps(item)  # taken in function outputs, but no part of those read back
        if name in KEPT_AS and not has_video:
            specification.check(KEPT_AS[name], kept)
            specification.check("ItemField", kept)
        seen += 1
    assert seen >= 2


BODY_FIELDS = (
    *("model", "previous_response_id", "include", "tools", "metadata", "text", "temperature", "top_p", "truncation"),
    *("presence_penalty", "frequency_penalty", "parallel_tool_calls", "stream", "max_output_tokens", "instructions"),
    *("max_tool_calls", "reasoning", "safety_identifier", "prompt_cache_key", "store", "service_tier", "top_logprobs"),
)


@pytest.mark.parametrize("field", BODY_FIELDS)
def test_every_published_setting_is_taken(field: str, schemas: dict[str, Any], specification: Any) -> None:
    """Each field of the document is taken with each kind of value that the document lists for it."""
    for value in of_schema(schemas["CreateResponseBody"]["properties"][field], schemas, field):
        if field == "text" and value is not None and value.get("format") == {}:
            continue  # valid by an oversight of the document: none of its formats may be without a type
        body = {"model": "m", "input": "Hi", field: value}
        specification.check("CreateResponseBody", body)
        check_create(body, counted(), strict_fields=True)


def test_no_published_setting_is_forgotten(schemas: dict[str, Any]) -> None:
    """The fields that the test above leaves out are the input, the choice of tools, and what goes with streaming."""
    left = set(schemas["CreateResponseBody"]["properties"]) - set(BODY_FIELDS)
    assert left == {"input", "tool_choice", "stream_options", "background"}


def test_every_published_tool_choice_is_taken(schemas: dict[str, Any], specification: Any) -> None:
    """Each tool choice of the document is taken beside the tool that it names."""
    for choice in examples("ToolChoiceParam", schemas, specification):
        body = {"input": "", "tools": [{"type": "function", "name": "text"}], "tool_choice": choice}
        specification.check("CreateResponseBody", body)
        check_create(body, counted())


def test_echoed_tools_and_settings_are_the_published_ones(specification: Any) -> None:
    """What the response shows of tools, formats and reasoning is valid by the document."""
    create = check_create(
        {
            "input": "",
            "tools": [{"type": "function", "name": "f"}],
            "text": {"verbosity": "high"},
            "reasoning": {"effort": "minimal"},
        },
        counted(),
    )
    specification.check("FunctionTool", create.tools[0])
    specification.check("TextField", create.text)
    specification.check("Reasoning", BOTH.reasoning(create.reasoning))
