"""Input items and content parts: every accepted form, every refusal with its code and path."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from json_values import ANY_JSON, objects, words

from core.writing import counted
from ore.errors import InvalidRequest
from ore.protocol.content import MAX_TEXT
from ore.protocol.items import CALL_OUTPUTS, check_input, check_item

PNG = "data:image/png;base64,iVBORw0KGgo="


def text(value: str) -> dict[str, Any]:
    return {"type": "input_text", "text": value}


def said(value: str) -> dict[str, Any]:
    return {"type": "output_text", "text": value, "annotations": [], "logprobs": []}


def message(role: str, *parts: dict[str, Any], id: str = "message_1", **more: Any) -> dict[str, Any]:
    return {"type": "message", "id": id, "status": "completed", "role": role, "content": list(parts), **more}


def call(**more: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", **more}


def answer(**more: Any) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": "c", "output": "4", **more}


ACCEPTED: dict[str, tuple[Any, Any]] = {
    "a string": ("Hi", [message("user", text("Hi"))]),
    "an empty string": ("", [message("user", text(""))]),
    "null": (None, []),
    "an empty array": ([], []),
    "no type": ([{"role": "user", "content": "Hi"}], [message("user", text("Hi"))]),
    "type null": ([{"type": None, "role": "user", "content": "Hi"}], [message("user", text("Hi"))]),
    "system": ([{"role": "system", "content": "S"}], [message("system", text("S"))]),
    "developer": ([{"role": "developer", "content": "D"}], [message("developer", text("D"))]),
    "assistant string": ([{"role": "assistant", "content": "A"}], [message("assistant", said("A"))]),
    "string parts": ([{"role": "user", "content": ["a", "b"]}], [message("user", text("a"), text("b"))]),
    "string parts of the assistant": ([{"role": "assistant", "content": ["a"]}], [message("assistant", said("a"))]),
    "content null": ([{"role": "assistant", "content": None}], [message("assistant", said(""))]),
    "content empty": ([{"role": "user", "content": []}], [message("user")]),
    "nulls": (
        [{"type": "message", "id": None, "status": None, "phase": None, "role": "user", "content": "Hi"}],
        [message("user", text("Hi"))],
    ),
    "phase": (
        [{"role": "assistant", "phase": "final_answer", "content": "A"}],
        [message("assistant", said("A"), phase="final_answer")],
    ),
    "phase commentary": (
        [{"role": "assistant", "phase": "commentary", "content": "A"}],
        [message("assistant", said("A"), phase="commentary")],
    ),
    "own id": ([{"id": "msg_mine", "role": "user", "content": ""}], [message("user", text(""), id="msg_mine")]),
    "empty id": ([{"id": "", "role": "user", "content": ""}], [message("user", text(""))]),
    "own status": (
        [{"role": "assistant", "status": "incomplete", "content": "A"}],
        [message("assistant", said("A")) | {"status": "incomplete"}],
    ),
    "text without annotations": (
        [{"role": "assistant", "content": [{"type": "output_text", "text": "A"}]}],
        [message("assistant", said("A"))],
    ),
    "annotations null": (
        [
            {
                "role": "assistant",
                "content": [{"type": "output_text", "text": "A", "annotations": None, "logprobs": None}],
            }
        ],
        [message("assistant", said("A"))],
    ),
    "refusal": (
        [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}],
        [message("assistant", {"type": "refusal", "refusal": "no"})],
    ),
    "image without detail": (
        [{"role": "user", "content": [{"type": "input_image", "image_url": PNG}]}],
        [message("user", {"type": "input_image", "image_url": PNG, "detail": "auto"})],
    ),
    "image as Chat Completions has it": (
        [{"role": "user", "content": [{"type": "input_image", "image_url": {"url": PNG, "detail": "low"}}]}],
        [message("user", {"type": "input_image", "image_url": PNG, "detail": "low"})],
    ),
    "image by file": (
        [{"role": "user", "content": [{"type": "input_image", "file_id": "f", "detail": "original"}]}],
        [message("user", {"type": "input_image", "file_id": "f", "image_url": None, "detail": "original"})],
    ),
    "file": (
        [{"role": "user", "content": [{"type": "input_file", "filename": "a", "file_data": "QQ==", "file_url": None}]}],
        [message("user", {"type": "input_file", "filename": "a", "file_data": "QQ=="})],
    ),
    "unknown part": (
        [{"role": "user", "content": [{"type": "input_smell", "smell": None}]}],
        [message("user", {"type": "input_smell", "smell": None})],
    ),
    "unknown fields of parts": (
        [{"role": "user", "content": [{"type": "input_text", "text": "a", "prompt_cache_breakpoint": {"mode": "x"}}]}],
        [message("user", {"type": "input_text", "text": "a", "prompt_cache_breakpoint": {"mode": "x"}})],
    ),
    "unknown fields of a message": (
        [{"role": "user", "content": "a", "acme": [1, None]}],
        [message("user", text("a"), acme=[1, None])],
    ),
    "call": ([call()], [call(id="function_call_1", status="completed")]),
    "call with nulls": ([call(id=None, status=None)], [call(id="function_call_1", status="completed")]),
    "call with broken arguments": (
        [call(arguments="{nope")],
        [call(arguments="{nope", id="function_call_1", status="completed")],
    ),
    "call without arguments": ([call(arguments="")], [call(arguments="", id="function_call_1", status="completed")]),
    "call with more": ([call(namespace="n")], [call(namespace="n", id="function_call_1", status="completed")]),
    "answer": ([answer()], [answer(id="function_call_output_1", status="completed")]),
    "empty answer": ([answer(output="")], [answer(output="", id="function_call_output_1", status="completed")]),
    "answer in parts": (
        [answer(output=["a", {"type": "input_video", "video_url": "u"}])],
        [
            answer(
                output=[text("a"), {"type": "input_video", "video_url": "u"}],
                id="function_call_output_1",
                status="completed",
            )
        ],
    ),
    "custom call": (
        [{"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "x"}],
        [
            {
                "type": "custom_tool_call",
                "call_id": "c",
                "name": "f",
                "input": "x",
                "id": "custom_tool_call_1",
                "status": "completed",
            }
        ],
    ),
    "reasoning": (
        [{"type": "reasoning", "summary": [], "content": None, "encrypted_content": None}],
        [{"type": "reasoning", "id": "reasoning_1", "summary": []}],
    ),
    "reasoning without a summary": (
        [{"type": "reasoning"}],
        [{"type": "reasoning", "id": "reasoning_1", "summary": []}],
    ),
    "raw reasoning": (
        [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}], "content": ["t"]}],
        [
            {
                "type": "reasoning",
                "id": "reasoning_1",
                "summary": [{"type": "summary_text", "text": "s"}],
                "content": [{"type": "reasoning_text", "text": "t"}],
            }
        ],
    ),
    "reference": ([{"type": "item_reference", "id": "x"}], [{"type": "item_reference", "id": "x"}]),
    "reference without a type": ([{"id": "x"}], [{"type": "item_reference", "id": "x"}]),
    "reference with type null": ([{"type": None, "id": "x"}], [{"type": "item_reference", "id": "x"}]),
    "compaction": (
        [{"type": "compaction", "encrypted_content": "e"}],
        [{"type": "compaction", "id": "compaction_1", "encrypted_content": "e"}],
    ),
    "unknown item": (
        [{"type": "acme:thing", "id": "t", "status": "odd", "nested": {"a": [None, 1.5]}, "n": None}],
        [{"type": "acme:thing", "id": "t", "status": "odd", "nested": {"a": [None, 1.5]}, "n": None}],
    ),
    "hosted item": (
        [{"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}}],
        [{"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}}],
    ),
}


@pytest.mark.parametrize(("given_", "kept"), ACCEPTED.values(), ids=ACCEPTED)
def test_each_accepted_form_has_one_kept_form(given_: Any, kept: Any) -> None:
    """Whatever form an item was sent in, it is kept in the form that is read back."""
    assert check_input(given_, counted()) == kept


@pytest.mark.parametrize(("given_", "kept"), ACCEPTED.values(), ids=ACCEPTED)
def test_the_kept_form_is_accepted_back_unchanged(given_: Any, kept: Any) -> None:
    """What is read back may be sent again, and stays as it is."""
    assert check_input(kept, counted()) == kept


LONG = "x" * (MAX_TEXT + 1)
REFUSED: dict[str, tuple[Any, str, str]] = {
    "input is a number": (5, "invalid_type", "input"),
    "input is an object": ({"role": "user"}, "invalid_type", "input"),
    "input too long": (LONG, "string_above_max_length", "input"),
    "item is a string": (["Hi"], "invalid_type", "input[0]"),
    "item is null": ([None], "invalid_type", "input[0]"),
    "item without anything": ([{}], "missing_required_parameter", "input[0].type"),
    "item with an odd type": ([{"type": 5, "role": "user"}], "missing_required_parameter", "input[0].type"),
    "item with an empty type": ([{"type": "", "role": "user"}], "missing_required_parameter", "input[0].type"),
    "id and more, no type": ([{"id": "a", "x": 1}], "missing_required_parameter", "input[0].type"),
    "second item": ([{"role": "user", "content": ""}, 5], "invalid_type", "input[1]"),
    "no role": ([{"type": "message", "content": ""}], "invalid_value", "input[0].role"),
    "odd role": ([{"role": "tool", "content": ""}], "invalid_value", "input[0].role"),
    "role of the wrong type": ([{"role": ["user"], "content": ""}], "invalid_value", "input[0].role"),
    "no content": ([{"role": "user"}], "missing_required_parameter", "input[0].content"),
    "content a number": ([{"role": "user", "content": 5}], "invalid_type", "input[0].content"),
    "content an object": ([{"role": "user", "content": {}}], "invalid_type", "input[0].content"),
    "content too long": ([{"role": "user", "content": LONG}], "string_above_max_length", "input[0].content"),
    "string part too long": (
        [{"role": "user", "content": [LONG]}],
        "string_above_max_length",
        "input[0].content[0]",
    ),
    "part a number": ([{"role": "user", "content": [5]}], "invalid_type", "input[0].content[0]"),
    "part null": ([{"role": "user", "content": ["a", None]}], "invalid_type", "input[0].content[1]"),
    "part without type": (
        [{"role": "user", "content": [{"text": "a"}]}],
        "missing_required_parameter",
        "input[0].content[0].type",
    ),
    "part without text": (
        [{"role": "user", "content": [{"type": "input_text"}]}],
        "missing_required_parameter",
        "input[0].content[0].text",
    ),
    "text of the wrong type": (
        [{"role": "user", "content": [{"type": "input_text", "text": 5}]}],
        "invalid_type",
        "input[0].content[0].text",
    ),
    "refusal without text": (
        [{"role": "assistant", "content": [{"type": "refusal"}]}],
        "missing_required_parameter",
        "input[0].content[0].refusal",
    ),
    "image without a source": (
        [{"role": "user", "content": ["a", {"type": "input_image"}]}],
        "missing_required_parameter",
        "input[0].content[1].image_url",
    ),
    "image by another scheme": (
        [{"role": "user", "content": [{"type": "input_image", "image_url": "file:///etc/passwd"}]}],
        "invalid_image_url",
        "input[0].content[0].image_url",
    ),
    "image of the wrong type": (
        [{"role": "user", "content": [{"type": "input_image", "image_url": 5}]}],
        "invalid_type",
        "input[0].content[0].image_url",
    ),
    "image detail": (
        [{"role": "user", "content": [{"type": "input_image", "image_url": PNG, "detail": "best"}]}],
        "invalid_value",
        "input[0].content[0].detail",
    ),
    "file without a source": (
        [{"role": "user", "content": [{"type": "input_file", "filename": "a"}]}],
        "missing_required_parameter",
        "input[0].content[0].file_data",
    ),
    "file of the wrong type": (
        [{"role": "user", "content": [{"type": "input_file", "file_data": 5}]}],
        "invalid_type",
        "input[0].content[0].file_data",
    ),
    "phase": ([{"role": "assistant", "content": "", "phase": "late"}], "invalid_value", "input[0].phase"),
    "status": ([{"role": "assistant", "content": "", "status": "odd"}], "invalid_value", "input[0].status"),
    "id of the wrong type": ([{"role": "user", "content": "", "id": 5}], "invalid_type", "input[0].id"),
    "id too long": ([{"role": "user", "content": "", "id": "x" * 513}], "string_above_max_length", "input[0].id"),
    "id of an unknown item": ([{"type": "acme:thing", "id": []}], "invalid_type", "input[0].id"),
    "call without call_id": ([call(call_id=None)], "missing_required_parameter", "input[0].call_id"),
    "call with an empty call_id": ([call(call_id="")], "string_below_min_length", "input[0].call_id"),
    "call with a long call_id": ([call(call_id="c" * 65)], "string_above_max_length", "input[0].call_id"),
    "call without name": ([call(name=None)], "missing_required_parameter", "input[0].name"),
    "call with an empty name": ([call(name="")], "string_below_min_length", "input[0].name"),
    "call with a long name": ([call(name="n" * 129)], "string_above_max_length", "input[0].name"),
    "call without arguments": ([call(arguments=None)], "missing_required_parameter", "input[0].arguments"),
    "arguments as an object": ([call(arguments={})], "invalid_type", "input[0].arguments"),
    "answer without call_id": ([answer(call_id=None)], "missing_required_parameter", "input[0].call_id"),
    "answer without output": ([answer(output=None)], "missing_required_parameter", "input[0].output"),
    "answer a number": ([answer(output=4)], "invalid_type", "input[0].output"),
    "answer with a bad part": ([answer(output=[{}])], "missing_required_parameter", "input[0].output[0].type"),
    "custom call without input": (
        [{"type": "custom_tool_call", "call_id": "c", "name": "f"}],
        "missing_required_parameter",
        "input[0].input",
    ),
    "reasoning with an odd summary": ([{"type": "reasoning", "summary": "s"}], "invalid_type", "input[0].summary"),
    "reasoning with odd content": ([{"type": "reasoning", "content": 5}], "invalid_type", "input[0].content"),
    "reasoning with odd encryption": (
        [{"type": "reasoning", "encrypted_content": 5}],
        "invalid_type",
        "input[0].encrypted_content",
    ),
    "reference without an id": ([{"type": "item_reference"}], "missing_required_parameter", "input[0].id"),
    "reference with an empty id": ([{"type": "item_reference", "id": ""}], "string_below_min_length", "input[0].id"),
    "shell output without call_id": (
        [{"type": "shell_call_output", "output": []}],
        "missing_required_parameter",
        "input[0].call_id",
    ),
}


@pytest.mark.parametrize(("given_", "code", "param"), REFUSED.values(), ids=REFUSED)
def test_each_wrong_form_is_refused_with_its_path(given_: Any, code: str, param: str) -> None:
    """A refusal names the code and the place, and never repeats a long value."""
    with pytest.raises(InvalidRequest) as caught:
        check_input(given_, counted())
    assert (caught.value.code, caught.value.param) == (code, param)
    assert caught.value.status == 400
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("kind", sorted({*CALL_OUTPUTS, *CALL_OUTPUTS.values()}))
def test_a_call_id_is_a_string_wherever_pairing_looks(kind: str) -> None:
    """History puts call ids into sets, so no item may bring one that is no string."""
    with pytest.raises(InvalidRequest) as caught:
        check_item({"type": kind, "name": "f", "arguments": "", "input": "", "call_id": [1]}, "input[0]", counted())
    assert (caught.value.code, caught.value.param) == ("invalid_type", "input[0].call_id")


PARTS = objects(
    ("type", "text", "refusal", "image_url", "file_id", "detail", "file_data", "filename", "annotations", "logprobs"),
    words("input_text", "output_text", "refusal", "input_image", "input_file", PNG, "auto"),
)
ITEMS = objects(
    ("type", "role", "content", "id", "status", "phase", "call_id", "name", "arguments", "output", "summary"),
    words(
        *("message", "function_call", "function_call_output", "reasoning", "item_reference", "local_shell_call"),
        *("user", "assistant", "completed", "final_answer", "acme:thing", "custom_tool_call", "x"),
    )
    | st.lists(PARTS | st.text("a", max_size=2), max_size=2),
)


# Checking is a projection: its own output passes unchanged, and anything else is an InvalidRequest below `input[0]`.
@settings(deadline=None, max_examples=250)
@given(ITEMS | ANY_JSON)
def test_checking_twice_changes_nothing(item: Any) -> None:
    """For any JSON, an item is either refused or brought into its one kept form."""
    try:
        kept = check_item(item, "input[0]", counted())
    except InvalidRequest as refusal:
        assert refusal.param is not None
        assert refusal.param.startswith("input[0]")
        return
    assert kept["type"]
    assert kept["id"]
    assert check_item(kept, "input[0]", counted()) == kept


# An item of a type that ORE does not know comes back as it went in, but for an id if it had none.
@settings(deadline=None, max_examples=100)
@given(st.dictionaries(st.text("abc", min_size=3, max_size=4), ANY_JSON, max_size=4))
def test_unknown_items_are_untouched(fields: dict[str, Any]) -> None:
    """Nothing is dropped, added or rewritten in what is merely passed through."""
    item = {"type": "acme:thing", "id": "t_1", **fields}
    assert check_item(item, "input[0]", counted()) == item
    del item["id"]
    assert check_item(item, "input[0]", counted()) == {**item, "id": "acme:thing_1"}


def test_what_the_client_sent_is_not_changed() -> None:
    """Checking makes new objects and leaves the request's own alone."""
    part = {"type": "output_text", "text": "a"}
    item = {"role": "assistant", "content": [part], "status": None}
    check_item(item, "input[0]", counted())
    assert part == {"type": "output_text", "text": "a"}
    assert item == {"role": "assistant", "content": [part], "status": None}
