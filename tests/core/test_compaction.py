"""Compaction and sealing: what survives, what stands for the rest, and that nobody else can open it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ore.core import compaction, history
from ore.core.sealing import KEY_BYTES, NotOurs, Sealer
from ore.errors import InvalidRequest, ModelFailed
from ore.protocol.content import MAX_ENCRYPTED
from ore.protocol.responses import check_create

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)
SEALER = Sealer(bytes(range(KEY_BYTES)))
OTHER = Sealer(bytes(KEY_BYTES))


def new_id(purpose: str) -> str:
    return f"{purpose}_new"


def message(role: str, text: str) -> dict[str, Any]:
    part = {"type": "output_text" if role == "assistant" else "input_text", "text": text}
    return {"type": "message", "id": f"msg_{text}", "role": role, "status": "completed", "content": [part]}


TALK = [
    message("developer", "rule"),
    message("user", "question"),
    {"type": "reasoning", "id": "rs_1", "summary": []},
    {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "id": "fco_1", "call_id": "c", "output": "42"},
    message("assistant", "answer"),
]


def sealed(items: list[dict[str, Any]], owner: str = "me") -> dict[str, Any]:
    return compaction.item(SEALER.seal(items, purpose=compaction.PURPOSE, owner=owner), new_id)


def opened(text: str) -> Any:
    return SEALER.open(text, purpose=compaction.PURPOSE, owner="me")


@given(JSON)
def test_what_was_sealed_can_be_opened(value: Any) -> None:
    """Any JSON value comes back, and its sealed form is one word of plain characters."""
    text = SEALER.seal(value, purpose="p", owner="o")
    assert text.isascii()
    assert text.replace(".", "").replace("-", "").replace("_", "").isalnum()
    assert SEALER.open(text, purpose="p", owner="o") == value


@pytest.mark.parametrize(
    "text", ["", "x", "ore1.", "ore1.AAAA", "ore1.é", "ore2.AAAA", "gAAAAABpM0Yj=", "ore1." + "A" * 99]
)
def test_what_is_no_seal_is_refused(text: str) -> None:
    """Whatever a client makes up is refused, and nothing but `NotOurs` comes out."""
    with pytest.raises(NotOurs):
        SEALER.open(text, purpose="p", owner="o")


def test_a_seal_is_for_one_key_one_purpose_and_one_owner() -> None:
    """Another installation, another use and another owner cannot open it; nor can anybody once a character changed."""
    text = SEALER.seal("secret", purpose="p", owner="o")
    wrong = [(OTHER, text, "p", "o"), (SEALER, text, "q", "o"), (SEALER, text, "p", "n")]
    wrong += [(SEALER, text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :], "p", "o") for at in (5, 20, 30)]
    for sealer, changed, purpose, owner in wrong:
        with pytest.raises(NotOurs):
            sealer.open(changed, purpose=purpose, owner=owner)
    assert "secret" not in text


def test_tools_that_were_added_are_kept() -> None:
    """Without them the next turn could not call what it could before."""
    added = {"type": "additional_tools", "id": "at_1", "role": "developer", "tools": []}
    found = {"type": "tool_search_output", "id": "tso_1", "call_id": "c", "tools": []}
    assert compaction.kept([*TALK, added, found]) == [*TALK[:2], added]


def test_what_the_others_said_is_kept_and_the_rest_is_summarised() -> None:
    """Messages of system, developer and user survive as they are; the summary is the assistant's."""
    stands = compaction.window(TALK, " It is 42. ", new_id)
    assert stands[:2] == TALK[:2]
    assert (stands[2]["role"], stands[2]["content"][0]["text"]) == ("assistant", compaction.INTRODUCED + "It is 42.")
    assert compaction.window(TALK[:2], "\n", new_id) == TALK[:2]
    with pytest.raises(ModelFailed, match="no summary"):
        compaction.window(TALK, "\n", new_id)


def context(earlier: list[dict[str, Any]], new: list[dict[str, Any]]) -> history.Context:
    return history.context(earlier, new, new_id, opened)


def test_the_newest_compaction_replaces_what_came_before_it() -> None:
    """Also an older compaction, calls without their outputs, and what stands in the chain before."""
    first, second = [message("user", "one")], [message("user", "two"), message("assistant", "summary")]
    new = [message("user", "old"), sealed(second), message("user", "new")]
    unanswered = {"type": "function_call", "id": "fc", "call_id": "gone", "name": "f", "arguments": "{}"}
    assert context([sealed(first) | {"id": "cmp_1"}, unanswered], new).items == (*second, new[-1])


def test_what_is_echoed_after_a_compaction_stays() -> None:
    """It is not in the window, so it is no echo there; only its id is taken already."""
    answer = message("assistant", "answer")
    seen = context([message("user", "a"), answer], [sealed([message("user", "a")]), answer, message("user", "b")])
    assert seen.items == (message("user", "a"), answer | {"id": "message_new"}, message("user", "b"))
    assert seen.taken[1:] == seen.items[1:]


def test_a_foreign_compaction_is_refused_with_its_place() -> None:
    """In the input by its path there; in the chain by the chain's parameter."""
    foreign = sealed([], owner="somebody else")
    for earlier, new, param in (
        ([], [message("user", "a"), foreign], "input[1].encrypted_content"),
        ([foreign], [message("user", "a")], "previous_response_id"),
        ([foreign], [foreign, message("user", "a")], "input[0].encrypted_content"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            context(earlier, new)
        assert (caught.value.code, caught.value.param) == ("invalid_encrypted_content", param)


def test_what_could_not_be_sent_back_is_not_made() -> None:
    """An item that is longer than an input may be is refused instead."""
    with pytest.raises(InvalidRequest, match="too large"):
        compaction.item("x" * (MAX_ENCRYPTED + 1), new_id)


def test_the_request_for_a_summary_is_not_stored() -> None:
    """It ends with our question, after all that was there, and is shortened where all of it is too long."""
    create = check_create({"model": "m", "input": "Hi"}, new_id)
    asked = compaction.summarising(create, new_id)
    assert asked.input[:-1] == create.input
    assert asked.input[-1]["content"][0]["text"] == compaction.ASKED
    assert not asked.store
    assert asked.truncation == "auto"


@given(st.lists(st.sampled_from(TALK)))
def test_a_context_without_compaction_is_left_alone(items: list[dict[str, Any]]) -> None:
    """Item for item, and no key is asked for."""
    assert compaction.unfold(items, compaction.refuse_all, "input") == items
