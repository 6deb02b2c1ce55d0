"""Conversations over real HTTP, with the `openai` SDK: its types judge every answer, and name each of its keys."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from live_server import Answer, ask
from openai import OpenAI
from openai.types.conversations import Conversation, ConversationDeletedResource, ConversationItemList
from pydantic import BaseModel

from ore.settings import ServerSettings, Settings
from servers import ScriptedServer

HELLO: Any = {"role": "user", "content": "Hello"}
CALL: Any = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
FORMS: list[Any] = [
    HELLO,
    {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Be brief."}]},
    {"role": "developer", "content": "Be kind."},
    {"role": "user", "content": [{"type": "input_image", "image_url": "https://example.com/a.png"}]},
    {"role": "assistant", "content": "Yes?", "phase": "commentary"},
    {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
    CALL,
    {"type": "function_call_output", "call_id": "call_1", "output": "4"},
    {"type": "custom_tool_call", "call_id": "call_2", "name": "g", "input": "x"},
    {"type": "custom_tool_call_output", "call_id": "call_2", "output": "5"},
]


@pytest.fixture(scope="module")
def client(scripted: ScriptedServer) -> Iterator[OpenAI]:
    """One that never repeats a request by itself, and holds each answer to the SDK's types."""
    with OpenAI(
        base_url=f"{scripted.url}/v1", api_key="local", max_retries=0, timeout=20, _strict_response_validation=True
    ) as client:
        yield client


def message(number: int) -> Any:
    return {"role": "user", "content": f"message {number}", "id": f"msg_{number}"}


def filled(client: OpenAI, count: int) -> str:
    """The id of a conversation with so many messages."""
    made = client.conversations.create(items=[message(n) for n in range(min(count, 20))])
    for begin in range(20, count, 20):
        client.conversations.items.create(made.id, items=[message(n) for n in range(begin, min(begin + 20, count))])
    return made.id


def ids(client: OpenAI, conversation_id: str, **query: Any) -> list[str | None]:
    return [item.id for item in client.conversations.items.list(conversation_id, **query)]


def knows_all(model: BaseModel) -> None:
    """The SDK's type names every key of the answer."""
    assert not model.model_extra


def gone(error: openai.NotFoundError, message: str, param: str) -> bool:
    return error.status_code == 404 and message in str(error) and error.param == param


class TestConversations:
    def test_a_conversation_from_its_creation_to_its_end(self, client: OpenAI) -> None:
        """Create, read, update, delete: each answer is what the SDK's types say, and nothing is left."""
        made = client.conversations.create(metadata={"topic": "a"}, items=[HELLO])
        assert isinstance(made, Conversation)
        knows_all(made)
        assert made.id.startswith("conv_")
        assert made.object == "conversation"
        assert made.metadata == {"topic": "a"}
        assert client.conversations.retrieve(made.id) == made
        changed = client.conversations.update(made.id, metadata={"other": "b"})
        assert changed == made.model_copy(update={"metadata": {"other": "b"}})
        assert client.conversations.retrieve(made.id) == changed
        assert client.conversations.update(made.id, metadata=None).metadata == {}
        deleted = client.conversations.delete(made.id)
        assert isinstance(deleted, ConversationDeletedResource)
        knows_all(deleted)
        assert (deleted.id, deleted.deleted) == (made.id, True)
        for call in (client.conversations.retrieve, client.conversations.delete):
            with pytest.raises(openai.NotFoundError) as caught:
                call(made.id)
            assert gone(caught.value, f"Conversation with id '{made.id}' not found.", "conversation_id")

    def test_nothing_is_needed_to_begin(self, client: OpenAI) -> None:
        """An empty body makes an empty conversation, and null is the same."""
        for body in ({}, {"items": None, "metadata": None}):
            made = client.conversations.create(**body)  # type: ignore[arg-type]
            assert made.metadata == {}
            assert ids(client, made.id) == []

    def test_an_empty_list_has_no_ends(self, scripted: ScriptedServer, client: OpenAI) -> None:
        """The SDK's pager stops there."""
        answer = ask(scripted.port, "GET", f"/v1/conversations/{client.conversations.create().id}/items")
        assert answer.json() == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}

    def test_every_method_says_what_is_missing(self, client: OpenAI) -> None:
        """A conversation that nobody made is a 404, whatever is asked of it."""
        asked = client.conversations
        for call in (
            lambda: asked.retrieve("conv_0"),
            lambda: asked.update("conv_0", metadata={}),
            lambda: asked.delete("conv_0"),
            lambda: asked.items.create("conv_0", items=[HELLO]),
            lambda: asked.items.list("conv_0"),
            lambda: asked.items.retrieve("i", conversation_id="conv_0"),
            lambda: asked.items.delete("i", conversation_id="conv_0"),
        ):
            with pytest.raises(openai.NotFoundError) as caught:
                call()
            assert gone(caught.value, "Conversation with id 'conv_0' not found.", "conversation_id")


class TestItems:
    def test_every_form_is_kept_and_read_back(self, client: OpenAI) -> None:
        """Each item comes back under an id, completed, as an item of the SDK's; alone as in the list."""
        made = client.conversations.create()
        added = client.conversations.items.create(made.id, items=FORMS)
        assert isinstance(added, ConversationItemList)
        knows_all(added)
        assert [item.type for item in added.data] == [form.get("type", "message") for form in FORMS]
        assert (added.first_id, added.last_id, added.has_more) == (added.data[0].id, added.data[-1].id, False)
        for item in added.data:
            assert item.type == "reasoning" or item.status == "completed"  # type: ignore[union-attr]
            assert item.id is not None
            assert client.conversations.items.retrieve(item.id, conversation_id=made.id) == item
        assert list(client.conversations.items.list(made.id, order="asc")) == added.data

    def test_unknown_items_are_kept_as_they_came(self, scripted: ScriptedServer) -> None:
        """Whatever a client invents is there again, key by key."""
        item = {"type": "acme:thing", "id": "thing/1", "deep": {"er": [None, 1.5, "\u0000"]}}
        made = post(scripted, "/v1/conversations", {"items": [item]})
        path = f"/v1/conversations/{made.json()['id']}/items/thing%2F1"
        assert ask(scripted.port, "GET", path).json() == item
        assert ask(scripted.port, "DELETE", path).json() == made.json()
        assert ask(scripted.port, "GET", path).status == 404

    @pytest.mark.parametrize("limit", [7, 20, 100])
    def test_paging_shows_every_item_once(self, client: OpenAI, limit: int) -> None:
        """More than a page can hold, in both orders, for small and for the largest pages."""
        made = filled(client, 130)
        expected = [f"msg_{n}" for n in range(130)]
        assert ids(client, made, order="asc", limit=limit) == expected
        assert ids(client, made, limit=limit) == expected[::-1]
        assert ids(client, made, order="asc", limit=limit, after="msg_99") == expected[100:]

    def test_a_page_says_whether_there_is_more(self, client: OpenAI) -> None:
        """Twenty items and the newest first, unless asked otherwise."""
        made = filled(client, 21)
        first = client.conversations.items.list(made)
        assert [item.id for item in first.data] == [f"msg_{n}" for n in range(20, 0, -1)]
        assert (first.has_more, first.last_id) == (True, "msg_1")
        second = first.get_next_page()
        assert [item.id for item in second.data] == ["msg_0"]
        assert second.has_more is False

    def test_a_deleted_item_is_gone(self, client: OpenAI) -> None:
        """The answer is the conversation; the others stay, and the item is a 404 from then on."""
        made = filled(client, 3)
        assert client.conversations.items.delete("msg_1", conversation_id=made) == client.conversations.retrieve(made)
        assert ids(client, made, order="asc") == ["msg_0", "msg_2"]
        for call in (client.conversations.items.retrieve, client.conversations.items.delete):
            with pytest.raises(openai.NotFoundError) as caught:
                call("msg_1", conversation_id=made)
            assert gone(caught.value, "Item with id 'msg_1' not found.", "item_id")

    def test_an_id_that_is_taken_gives_way(self, client: OpenAI) -> None:
        """Items that come under the id of another get one of their own, and none is lost."""
        made = client.conversations.create(items=[message(1), message(1)])
        added = client.conversations.items.create(made.id, items=[message(1), message(2), message(2)])
        assert added.data[1].id == "msg_2"
        shown = ids(client, made.id, order="asc")
        assert [shown[0], shown[3]] == ["msg_1", "msg_2"]
        assert len(set(shown)) == 5
        assert shown[2:] == [item.id for item in added.data]

    def test_all_or_none(self, scripted: ScriptedServer, client: OpenAI) -> None:
        """One bad item among good ones, and nothing is added."""
        made = filled(client, 1)
        answer = post(scripted, f"/v1/conversations/{made}/items", {"items": [HELLO, {"type": "message"}]})
        assert answer.status == 400
        assert answer.error()["param"] == "items[1].role"
        assert ids(client, made) == ["msg_0"]

    def test_two_conversations_are_apart(self, client: OpenAI) -> None:
        """The same ids in both are different items, and what is done to one does not touch the other."""
        one, other = filled(client, 3), filled(client, 3)
        client.conversations.items.delete("msg_0", conversation_id=one)
        client.conversations.update(one, metadata={"a": "b"})
        assert ids(client, other, order="asc") == ["msg_0", "msg_1", "msg_2"]
        assert client.conversations.retrieve(other).metadata == {}
        client.conversations.delete(one)
        assert client.conversations.items.retrieve("msg_0", conversation_id=other).id == "msg_0"

    def test_many_clients_at_once(self, client: OpenAI) -> None:
        """Twenty additions at the same time, all under the same ids: each is kept whole, side by side."""
        made = client.conversations.create().id

        def add(number: int) -> list[str | None]:
            items = [{**HELLO, "id": "a"}, {**HELLO, "id": f"own_{number}"}]
            return [item.id for item in client.conversations.items.create(made, items=items).data]

        with ThreadPoolExecutor(20) as pool:
            added = list(pool.map(add, range(20)))
        shown = ids(client, made, order="asc", limit=100)
        assert sorted(shown[n : n + 2] for n in range(0, 40, 2)) == sorted(added)
        assert shown[0] == "a"
        assert len(set(shown)) == 40


BAD: dict[str, tuple[str, Any, str | None]] = {
    "too many first items": ("", {"items": [HELLO] * 21}, "items"),
    "too many items": ("/items", {"items": [HELLO] * 21}, "items"),
    "no items": ("/items", {}, "items"),
    "items null": ("/items", {"items": None}, "items"),
    "zero items": ("/items", {"items": []}, "items"),
    "a reference": ("/items", {"items": [{"type": "item_reference", "id": "msg_0"}]}, "items[0]"),
    "a demand": ("/items", {"items": [{"type": "compaction_trigger"}]}, "items[0].type"),
    "include": ("/items?include=everything", {"items": [HELLO]}, "include[0]"),
    "metadata missing": ("/metadata", {}, "metadata"),
    "metadata a list": ("/metadata", {"metadata": []}, "metadata"),
    "metadata with a number": ("/metadata", {"metadata": {"a": 1}}, "metadata.a"),
    "an array": ("", [], None),
    "null": ("/items", None, None),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_bodies_name_their_parameter(scripted: ScriptedServer, client: OpenAI, case: str) -> None:
    """Each is a 400 with our error object, and leaves the conversation as it was."""
    where, body, param = BAD[case]
    made = filled(client, 1)
    path = {"": "/v1/conversations", "/metadata": f"/v1/conversations/{made}"}.get(where)
    answer = post(scripted, path or f"/v1/conversations/{made}{where}", body)
    assert answer.status == 400
    assert answer.error()["param"] == param
    assert answer.error()["message"].endswith(".")
    assert ids(client, made) == ["msg_0"]


@pytest.mark.parametrize("path", ["", "/conv_0", "/conv_0/items"])
def test_what_is_not_json_is_refused(scripted: ScriptedServer, path: str) -> None:
    """By its type or by its syntax, before anything is looked up."""
    answer = ask(scripted.port, "POST", f"/v1/conversations{path}", b"metadata=", content_type="text/plain")
    assert answer.status == 415
    answer = ask(scripted.port, "POST", f"/v1/conversations{path}", b'{"items":[', content_type="application/json")
    assert (answer.status, answer.error()["code"]) == (400, "invalid_json")


def test_strict_fields_are_strict_here_too(tmp_path: Path) -> None:
    """With the setting on, a misspelt key is not ignored by any of the three bodies."""
    with ScriptedServer(tmp_path, Settings(server=ServerSettings(strict_fields=True))) as server:
        made = post(server, "/v1/conversations", {}).json()["id"]
        for path in ("", f"/{made}", f"/{made}/items"):
            answer = post(server, f"/v1/conversations{path}", {"metadata": None, "items": [HELLO], "itmes": []})
            assert answer.status == 400
            assert answer.error()["code"] == "unknown_parameter"


def post(server: ScriptedServer, path: str, body: Any) -> Answer:
    return ask(server.port, "POST", path, json.dumps(body).encode(), content_type="application/json")
