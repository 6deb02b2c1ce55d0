"""What goes when a context is too long: the oldest first, whole, and never what has to stay (wire contract, 18)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ore.core import history
from ore.core.truncation import droppable, without


def message(role: str, text: str = "") -> dict[str, Any]:
    return {"type": "message", "role": role, "id": text or role, "content": []}


def call(call_id: str) -> dict[str, Any]:
    return {"type": "function_call", "id": f"fc_{call_id}", "call_id": call_id, "status": "completed"}


def output(call_id: str) -> dict[str, Any]:
    return {"type": "function_call_output", "id": f"fco_{call_id}", "call_id": call_id}


def test_turns_before_the_last_question_go_first() -> None:
    """Each from one user message to the next, with the calls in it; then what was done since, but for the last step."""
    items = [
        message("system"),
        message("user", "one"),
        call("a"),
        output("a"),
        message("assistant"),
        message("user", "two"),
        message("assistant"),
        message("user", "last"),
        call("b"),
        output("b"),
        call("c"),
        call("d"),
        output("d"),
        output("c"),
        message("assistant", "closing"),
    ]
    assert droppable(items) == [[1, 2, 3, 4], [5, 6], [8, 9], [10, 11, 12, 13]]


@pytest.mark.parametrize(
    "items",
    [[], [message("user")], [message("system"), message("user")], [message("developer")], [call("a"), output("a")]],
    ids=["nothing", "a question", "a question with instructions", "instructions", "one step"],
)
def test_what_has_to_stay_is_never_offered(items: list[dict[str, Any]]) -> None:
    """There is nothing to drop: the request is too long as it is."""
    assert droppable(items) == []


TURNS = st.lists(
    st.one_of(
        st.just([message("user")]),
        st.just([message("assistant")]),
        st.just([message("system")]),
        st.just([{"type": "reasoning", "id": "rs", "summary": []}]),
        st.integers(1, 3).map(lambda n: [*(call(f"{i}") for i in range(n)), *(output(f"{i}") for i in range(n))]),
    ),
    max_size=12,
)


@given(TURNS, st.data())
def test_whatever_is_dropped_leaves_a_context(turns: list[list[dict[str, Any]]], data: st.DataObject) -> None:
    """After any number of groups: calls and outputs still pair up, order is kept, and what must stay is there."""
    items = [dict(item) for turn in turns for item in turn]
    for at, item in enumerate(items):
        item["id"] = f"{at}"
    for at, group in enumerate(_calls(turns)):
        for item in group:
            items[item]["call_id"] = f"{at}_{items[item]['call_id']}"
    groups = droppable(items)
    left = without(items, groups[: data.draw(st.integers(0, len(groups)))])
    assert [item["id"] for item in left] == sorted((item["id"] for item in left), key=int)
    assert [item for item in items if item.get("role") == "system"] == [i for i in left if i.get("role") == "system"]
    users = [item for item in items if item.get("role") == "user"]
    assert users[-1:] == [item for item in left if item.get("role") == "user"][-1:]
    history.context(left, [], lambda _: "new")  # raises when calls and outputs do not pair up


def _calls(turns: list[list[dict[str, Any]]]) -> list[list[int]]:
    """The places of each turn's calls and outputs."""
    places, at = [], 0
    for turn in turns:
        places.append([at + n for n, item in enumerate(turn) if "call_id" in item])
        at += len(turn)
    return places
