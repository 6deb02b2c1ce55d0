"""History: the order of the context, the pairing of calls and outputs, and the words of each refusal (section 9)."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ore.core import history
from ore.core.history import check_continuable, previous_not_found
from ore.core.lifecycle import NEXT_STATUS
from ore.errors import InvalidRequest
from ore.protocol.items import CALL_OUTPUTS


def message(id: str) -> dict[str, Any]:
    return {"type": "message", "id": id, "role": "user", "content": []}


def call(call_id: str, kind: str = "function_call", **more: Any) -> dict[str, Any]:
    return {"type": kind, "id": f"{kind}_{call_id}", "call_id": call_id, "status": "completed", **more}


def output(call_id: str, kind: str = "function_call") -> dict[str, Any]:
    return {"type": CALL_OUTPUTS[kind], "id": f"{kind}_{call_id}_out", "call_id": call_id}


def minted(purpose: str) -> str:
    return f"{purpose}_minted"


def context(earlier: list[dict[str, Any]], new: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    return history.context(earlier, new, minted).items


def refusal(earlier: list[dict[str, Any]], new: list[dict[str, Any]]) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        context(earlier, new)
    return caught.value


def test_the_context_is_what_was_and_then_what_is_new() -> None:
    """Earlier items come first, then the input, each in its order and untouched."""
    earlier, new = [message("a"), message("b")], [message("c"), message("d")]
    assert context(earlier, new) == (*earlier, *new)
    assert context([], []) == ()


def test_an_item_that_is_echoed_is_not_doubled() -> None:
    """A client that sends back what the chain holds changes nothing, even without the parts that it does not need."""
    said = {**message("m"), "role": "assistant", "content": [{"type": "output_text", "text": "a", "annotations": [1]}]}
    bare = {**said, "content": [{"type": "output_text", "text": "a", "annotations": [], "logprobs": []}]}
    earlier = [message("a"), call("c", arguments="{}"), output("c"), said]
    echoed = history.context(earlier, [call("c", arguments="{}"), bare, output("c"), message("e")], minted)
    assert echoed.items == (*earlier, message("e"))
    assert echoed.taken == (message("e"),)


@pytest.mark.parametrize(
    "other",
    [
        {"content": [{"type": "input_text", "text": "other"}]},
        {"role": "developer"},
        {"type": "acme:thing"},
    ],
)
def test_something_else_under_a_known_id_is_not_lost(other: dict[str, Any]) -> None:
    """Clients that count their ids, or use one for all, get a new id for it; nothing is dropped."""
    item = message("a") | other
    seen = history.context([message("a")], [item], minted)
    assert seen.items == (message("a"), item | {"id": f"{item['type']}_minted"})
    assert seen.taken == seen.items[1:]


def test_the_same_item_twice_in_a_request_is_meant() -> None:
    """Both stay, under two ids."""
    assert [item["id"] for item in context([], [message("a"), message("a")])] == ["a", "message_minted"]


@pytest.mark.parametrize("kind", CALL_OUTPUTS)
def test_a_call_and_its_output_pair_up(kind: str) -> None:
    """Every kind of call that a client answers is answered by its output, in the same request or across the chain."""
    assert len(context([], [call("c", kind), output("c", kind)])) == 2
    assert len(context([message("a"), call("c", kind)], [output("c", kind)])) == 3


@pytest.mark.parametrize("kind", sorted(set(CALL_OUTPUTS) - {"local_shell_call"}))
def test_a_call_without_its_output_is_refused(kind: str) -> None:
    """The exact message that clients look for, with `input` as its parameter."""
    refused = refusal([call("call_x", kind)], [message("a")])
    assert refused.message == "No tool output found for function call call_x."
    assert (refused.status, refused.param, refused.code) == (400, "input", "invalid_value")


def test_old_shell_calls_are_answered_by_item_id() -> None:
    """A `local_shell_call` has an output without `call_id`, so its lack is not a fault."""
    answer = {"type": "local_shell_call_output", "id": "x", "output": "ok"}
    assert len(context([], [call("c", "local_shell_call"), answer])) == 2


@pytest.mark.parametrize("kind", CALL_OUTPUTS)
def test_an_output_without_its_call_is_refused(kind: str) -> None:
    """The exact message that clients, and the official suite, look for."""
    refused = refusal([message("a")], [output("call_x", kind)])
    assert refused.message == "No tool call found for function call output with call_id call_x."
    assert (refused.status, refused.param) == (400, "input")


@pytest.mark.parametrize(
    ("items", "missing"),
    [
        ([call("c"), output("c"), call("c")], "No tool output found for function call c."),
        ([call("c"), output("c"), output("c")], "No tool call found for function call output with call_id c."),
        ([call("c"), output("c", "custom_tool_call")], "No tool output found for function call c."),
    ],
)
def test_each_call_has_an_output_of_its_own_kind(items: list[dict[str, Any]], missing: str) -> None:
    """One output answers one call; a call made again needs another one."""
    assert refusal([], [item | {"id": f"i{at}"} for at, item in enumerate(items)]).message == missing


def test_an_output_may_not_come_before_its_call() -> None:
    """The order counts: a model cannot read an answer to what it has not asked yet."""
    assert "No tool call found" in refusal([], [output("c"), call("c")]).message


def test_a_call_that_was_cut_off_is_left_out() -> None:
    """A call that ended incomplete and was not answered is no part of the context; an answered one is."""
    cut = call("c", status="incomplete")
    assert context([message("a"), cut], [message("b")]) == (message("a"), message("b"))
    assert context([cut], [output("c")]) == (cut, output("c"))


def test_hosted_calls_need_no_output() -> None:
    """Items of tools that a server ran carry their own result."""
    hosted = [{"type": "web_search_call", "id": "ws"}, {"type": "mcp_call", "id": "m"}, {"type": "acme:x", "id": "y"}]
    assert context(hosted, []) == tuple(hosted)


@pytest.mark.parametrize("status", NEXT_STATUS)
def test_which_responses_can_be_continued(status: str) -> None:
    """Completed, incomplete and cancelled ones can; a running one not yet, a failed one never (section 11)."""
    codes = {
        "queued": "previous_response_not_ready",
        "in_progress": "previous_response_not_ready",
        "failed": "previous_response_failed",
    }
    if status not in codes:
        check_continuable(status, "resp_x")
        return
    with pytest.raises(InvalidRequest) as caught:
        check_continuable(status, "resp_x")
    assert (caught.value.code, caught.value.param) == (codes[status], "previous_response_id")
    assert "resp_x" in caught.value.message


def test_an_unknown_predecessor_is_named() -> None:
    """The message of section 9, and what to do instead; its code and parameter."""
    assert previous_not_found("resp_x").payload() == {
        "message": "Previous response with id 'resp_x' not found. Send the conversation so far as 'input' instead.",
        "type": "invalid_request_error",
        "param": "previous_response_id",
        "code": "previous_response_not_found",
    }
    assert len(previous_not_found("x" * 10_000).message) < 300


PAIRS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["call", "output", "cut", "say"])), max_size=8)


def built(pairs: list[tuple[str, str]]) -> list[dict[str, Any]]:
    made = {
        "call": call,
        "output": output,
        "cut": lambda name: call(name, status="incomplete"),
        "say": message,
    }
    return [made[kind](name) | {"id": f"{kind}_{at}"} for at, (name, kind) in enumerate(pairs)]


# Whatever is let through, every call in it has an output and every output stands behind its call, in the given order.
@settings(deadline=None, max_examples=200)
@given(PAIRS, st.integers(0, 8))
def test_what_passes_is_paired(pairs: list[tuple[str, str]], split: int) -> None:
    """The model never sees half of a call, and where the split between earlier and new lies makes no difference."""
    items = built(pairs)
    try:
        seen = context(items[:split], items[split:])
    except InvalidRequest as refused:
        assert refusal([], items).message == refused.message
        return
    assert seen == context([], items)
    assert [item for item in items if item in seen] == list(seen)
    calls = [item["call_id"] for item in seen if item["type"] == "function_call"]
    outputs = [item["call_id"] for item in seen if item["type"] == "function_call_output"]
    assert set(calls) == set(outputs)
    assert all(item["type"] != "function_call" for item in items if item not in seen and item["status"] == "completed")


def test_a_search_that_the_server_ran_needs_no_answer() -> None:
    """Only the client's own searches pair up."""
    run = [call("c", "tool_search_call", execution="server"), output("d", "tool_search_call") | {"execution": "server"}]
    assert context([], run) == tuple(run)
    assert "c" in refusal([], [call("c", "tool_search_call", execution="client")]).message


CHECKS = [{"id": "sc_1", "code": "a", "message": "Sure?"}, {"id": "sc_2"}]


@pytest.mark.parametrize(
    ("pending", "acknowledged", "missing"),
    [
        ([], None, None),
        (None, None, None),
        (CHECKS, CHECKS, None),
        (CHECKS, [{"id": "sc_2"}, {"id": "sc_1"}, {"id": "more"}], None),
        (CHECKS, None, "sc_1"),
        (CHECKS, [{"id": "sc_1"}], "sc_2"),
        (CHECKS, "yes", "sc_1"),
    ],
)
def test_safety_checks_of_a_computer_call_come_back_acknowledged(pending: Any, acknowledged: Any, missing: Any) -> None:
    """A check that nobody acknowledged stops the conversation."""
    asked = call("c", "computer_call", pending_safety_checks=pending)
    answer = output("c", "computer_call") | {"acknowledged_safety_checks": acknowledged}
    if missing is None:
        assert context([asked], [answer]) == (asked, answer)
    else:
        assert missing in refusal([asked], [answer]).message


def test_an_echo_that_says_something_else_is_another_item() -> None:
    """The id alone does not make a native call the same."""
    asked = call("c", "shell_call", action={"commands": ["ls"]})
    changed = asked | {"action": {"commands": ["rm"]}, "call_id": "d"}
    items = context([asked], [output("c", "shell_call"), changed, output("d", "shell_call")])
    assert [item["id"] for item in items if item["type"] == "shell_call"] == ["shell_call_c", "shell_call_minted"]
