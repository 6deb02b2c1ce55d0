"""The bodies that clients send about conversations: what they become, and how they are refused."""

from collections.abc import Callable
from typing import Any

import pytest

from core.writing import counted
from ore.errors import InvalidRequest
from ore.protocol.conversations import (
    MAX_ITEMS,
    check_metadata_update,
    check_new_conversation,
    check_new_items,
    with_free_ids,
)

HELLO: Any = {"role": "user", "content": "Hello"}


def message(id: str, text: str = "Hello") -> dict[str, Any]:
    """An item as it is kept."""
    part = {"type": "input_text", "text": text}
    return {"type": "message", "id": id, "status": "completed", "role": "user", "content": [part]}


@pytest.mark.parametrize("body", [{}, {"items": None, "metadata": None}, {"items": [], "metadata": {}}, {"other": 1}])
def test_a_conversation_may_be_empty(body: Any) -> None:
    """Nothing, null and emptiness are the same; unknown fields are ignored."""
    new = check_new_conversation(body, counted())
    assert (new.items, new.metadata) == ([], {})


def test_items_are_completed() -> None:
    """The forms that `input` takes become those that are read back, with an id of their own and a status."""
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    sent = [HELLO, {**HELLO, "id": "mine", "type": "message"}, call, {"type": "acme:thing", "extra": 1}]
    new = check_new_conversation({"items": sent, "metadata": {"a": "b"}}, counted())
    assert new.metadata == {"a": "b"}
    assert new.items == [
        message(new.items[0]["id"]),
        message("mine"),
        {**call, "id": new.items[2]["id"], "status": "completed"},
        {"type": "acme:thing", "id": new.items[3]["id"], "extra": 1},
    ]
    assert len({item["id"] for item in new.items}) == 4
    assert check_new_items({"items": sent}, counted()) == new.items


def test_an_id_that_comes_twice_becomes_two() -> None:
    """The first item keeps it."""
    first, second, third = check_new_items({"items": [{**HELLO, "id": "same"}] * 3}, counted())
    assert first["id"] == "same"
    assert len({"same", second["id"], third["id"]}) == 3


def test_an_id_that_is_taken_is_changed() -> None:
    """Only that item's, and nothing else of it."""
    freed = with_free_ids([message("a", "1"), message("b", "2")], {"b", "c"}, counted())
    assert freed[0] == message("a", "1")
    assert freed[1]["id"] not in ("a", "b", "c")
    assert freed[1] == message(freed[1]["id"], "2")


@pytest.mark.parametrize("metadata", [{}, {"a": "b"}, None])
def test_metadata_is_replaced_by_what_is_sent(metadata: Any) -> None:
    """Null empties it."""
    assert check_metadata_update({"metadata": metadata}) == (metadata or {})


Check = Callable[..., Any]
CREATE, ADD = check_new_conversation, check_new_items


def UPDATE(body: Any, _: Any, **options: Any) -> Any:  # noqa: N802 -- named as the other two
    return check_metadata_update(body, **options)


BAD: dict[str, tuple[Check, Any, str, str | None]] = {
    "too many first items": (CREATE, {"items": [HELLO] * (MAX_ITEMS + 1)}, "array_above_max_length", "items"),
    "items an object": (CREATE, {"items": {}}, "invalid_type", "items"),
    "items a text": (CREATE, {"items": "Hello"}, "invalid_type", "items"),
    "metadata an array": (CREATE, {"metadata": []}, "invalid_type", "metadata"),
    "metadata values": (CREATE, {"metadata": {"a": 1}}, "invalid_type", "metadata.a"),
    "metadata pairs": (
        CREATE,
        {"metadata": {str(n): "" for n in range(17)}},
        "object_above_max_properties",
        "metadata",
    ),
    "no metadata": (UPDATE, {}, "missing_required_parameter", "metadata"),
    "metadata a text": (UPDATE, {"metadata": "a"}, "invalid_type", "metadata"),
    "metadata key": (UPDATE, {"metadata": {"k" * 65: ""}}, "string_above_max_length", "metadata"),
    "no items": (ADD, {}, "missing_required_parameter", "items"),
    "items null": (ADD, {"items": None}, "invalid_type", "items"),
    "zero items": (ADD, {"items": []}, "array_below_min_length", "items"),
    "too many items": (ADD, {"items": [HELLO] * (MAX_ITEMS + 1)}, "array_above_max_length", "items"),
    "an item that is a text": (ADD, {"items": [HELLO, "Hello"]}, "invalid_type", "items[1]"),
    "an item without type": (ADD, {"items": [{}]}, "missing_required_parameter", "items[0].type"),
    "an item with a bad part": (
        ADD,
        {"items": [{"role": "user", "content": [{"type": "input_text", "text": 7}]}]},
        "invalid_type",
        "items[0].content[0].text",
    ),
    "a reference": (ADD, {"items": [HELLO, {"type": "item_reference", "id": "m"}]}, "unsupported_value", "items[1]"),
    "a reference without type": (CREATE, {"items": [{"id": "m"}]}, "unsupported_value", "items[0]"),
    "a demand": (ADD, {"items": [{"type": "compaction_trigger"}]}, "invalid_value", "items[0].type"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_bodies_are_refused(case: str) -> None:
    """Each is a 400 whose code and parameter say what is wrong, in a sentence."""
    check, body, code, param = BAD[case]
    with pytest.raises(InvalidRequest) as caught:
        check(body, counted())
    assert (caught.value.code, caught.value.param) == (code, param)
    assert caught.value.message.endswith(".")


@pytest.mark.parametrize(("check", "body"), [(CREATE, {}), (UPDATE, {"metadata": None}), (ADD, {"items": [HELLO]})])
def test_strict_fields_refuse_what_nobody_knows(check: Check, body: Any) -> None:
    """With the setting on, a key that the contract does not name is an error."""
    check(body, counted(), strict_fields=True)
    with pytest.raises(InvalidRequest, match="Unknown parameter: 'itmes'") as caught:
        check({**body, "itmes": []}, counted(), strict_fields=True)
    assert caught.value.param == "itmes"
