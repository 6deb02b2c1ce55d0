"""The contract that every dialect keeps: the same conversations come to the same items, and are told the same way.

Each conversation is held with the scripted backend, which loses nothing, and then over HTTP with a provider of each
dialect, whose server judges every request as the provider's documentation does. What a dialect has no words for is
named in its voice.
"""

import itertools
from collections.abc import Callable
from typing import Any

import chat_completions_server
import messages_server
import pytest
import responses_server
from conversations import CONVERSATIONS, Conversation, Turn
from msgspec import Struct
from stub_server import Asked, Play, as_json, stub_server
from voices import VOICES, Entry, Voice, responses_heard

from ore.backends.base import Backend
from ore.backends.chat_completions import ChatCompletions
from ore.backends.dialect import Dialect, Listed
from ore.backends.messages import Messages
from ore.backends.provider import Provider, ProviderOptions
from ore.backends.responses import Responses
from ore.backends.scripted import ScriptedBackend
from ore.backends.upstream import Upstream, UpstreamOptions
from ore.core.callable_tools import TOOL_TYPES
from ore.protocol.decoding import JsonObject
from ore.routing.router import Router
from runs.run_kit import Played, check_run, world

pytestmark = pytest.mark.anyio


class Speaker(Struct, frozen=True):
    """A dialect, who judges its requests, and its model: what it can do, as facts or by the profile of its name."""

    dialect: Callable[[], Dialect]
    judge: Callable[[Asked], None]
    facts: dict[str, Any] = {}
    kind: str = "kit"
    model: str = "m"


ABLE = {"images": True, "files": True, "reasoning": True, "logprobs": True}
SPEAKERS: dict[str, Speaker] = {
    "chat_completions": Speaker(
        ChatCompletions,
        lambda asked: chat_completions_server.check_body(asked.body),
        {**ABLE, "effort": "reasoning_effort", "instructions_role": "system"},
    ),
    "messages": Speaker(Messages, messages_server.check, kind="anthropic", model="claude-sonnet-4-5"),
    "responses": Speaker(
        Responses, lambda asked: responses_server.check_body(asked.body), {**ABLE, "tool_types": TOOL_TYPES}
    ),
    "responses that know functions": Speaker(Responses, lambda asked: responses_server.check_body(asked.body), ABLE),
}


class Held(Struct):
    """A conversation that was held: what ORE answered, turn by turn, and what the model was told."""

    answers: list[JsonObject] = []
    told: list[list[Entry]] = []


async def hold(
    conversation: Conversation, providers: dict[str, Backend], engines: dict[str, Backend], model: str
) -> Held:
    """Hold it with a model, each turn the way that a client would."""
    held, history = Held(), list[JsonObject]()
    previous: str | None = None
    async with world(router=Router(engines, providers)) as here:
        for turn in conversation.turns:
            asked = _next(turn, conversation, history, previous)
            played = await here.play(model=model, **asked)
            check_run(played, here) if conversation.stored else None
            held.answers.append(essence(played))
            previous = played.run.id
            history += [*asked["input"][len(history) :], *played.final["output"]]
    return held


def _next(turn: Turn, conversation: Conversation, history: list[JsonObject], previous: str | None) -> dict[str, Any]:
    new = turn.asked["input"]
    new = [{"type": "message", "role": "user", "content": new}] if isinstance(new, str) else new
    if conversation.stored:
        return {**turn.asked, "input": new, "previous_response_id": previous}
    include = ["reasoning.encrypted_content"]
    return {**turn.asked, "input": [*history, *new], "store": False, "include": include}


def essence(played: Played) -> JsonObject:
    """An answer without what may differ: ids, sealed texts, and whether reasoning is raw or a summary."""
    final = played.final
    return {
        "status": final["status"],
        "incomplete": final["incomplete_details"],
        "error": final["error"],
        "usage": final["usage"],
        "output": [_item(item) for item in final["output"]],
    }


def _item(item: JsonObject) -> JsonObject:
    if item["type"] == "reasoning":
        return {"type": "reasoning", "text": "".join(p["text"] for p in [*item["summary"], *item.get("content", [])])}
    return {key: value for key, value in item.items() if key not in ("id", "phase")}


def heard_by_items(request: Any) -> list[Entry]:
    """What a model request says, in the words of the voices."""
    return responses_heard({"instructions": request.instructions, "input": list(request.items)})


def merged(told: list[Entry]) -> list[Entry]:
    """Without states and files, which have tests of their own; texts of one role in a row are one."""
    found: list[Entry] = []
    for entry in told:
        if entry[0] in ("thought", "file"):
            continue
        if found and found[-1][0] == entry[0] and entry[0] in ("system", "user", "assistant", "output"):
            found[-1] = (entry[0], f"{found[-1][1]} {entry[1]}".strip())
        else:
            found.append(entry)
    return [tuple(" ".join(part.split()) for part in entry) for entry in found]


def check_told(told: list[Entry], wanted: list[Entry]) -> None:
    """The same entries; a text may have a note of the dialect's beside it, such as a file that is inlined."""
    assert [entry[:-1] for entry in told] == [entry[:-1] for entry in wanted]
    for said, meant in zip(told, wanted, strict=True):
        assert meant[-1] in said[-1] if said[0] in ("user", "output") else said == meant


async def with_scripts(conversation: Conversation) -> Held:
    """Held with the scripted backend: what must come out, and what must be told."""
    turns = iter(conversation.turns)
    backend = ScriptedBackend({"m": lambda _: list(next(turns).says)})
    held = await hold(conversation, {}, {"scripted": backend}, "m")
    held.told = [heard_by_items(request) for request in backend.requests]
    return held


def provider_of(speaker: Speaker, name: str, url: str, **limits: float) -> Provider:
    """A provider that speaks so, and whose model is known without asking."""
    dialect = speaker.dialect()
    options = UpstreamOptions(base_url=url, headers=dialect.key_headers(messages_server.KEY), **limits)
    provider = Provider(dialect, Upstream(name, options), ProviderOptions(kind=speaker.kind, discover=False))
    provider._listed = {speaker.model: Listed(id=speaker.model, facts=speaker.facts)}
    return provider


async def with_dialect(conversation: Conversation, name: str) -> tuple[Held, list[Any]]:
    """Held over HTTP: and the bodies that were sent."""
    voice, speaker = VOICES[name.split()[0]], SPEAKERS[name]
    turns = iter(conversation.turns)
    refused: list[Exception] = []

    def answer(asked: Asked) -> Play:
        try:
            speaker.judge(asked)
        except Exception as error:
            refused.append(error)
            return as_json({"error": {"type": "invalid_request_error", "message": str(error)}}, 400)
        return Play(voice.speaks(next(turns).says, asked.body))

    async with stub_server(answer) as stub:
        provider = provider_of(speaker, "far", stub.url)
        await provider.start()
        try:
            held = await hold(conversation, {"far": provider}, {}, f"far/{speaker.model}")
        finally:
            await provider.stop()
        assert not refused, refused
        bodies = [asked.body for asked in stub.asked]
    held.told = [voice.heard(body) for body in bodies]
    return held, bodies


def lacking(voice: Voice) -> set[str]:
    return {name for name, conversation in CONVERSATIONS.items() if voice.lacks & set(conversation.needs)}


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("dialect", SPEAKERS)
async def test_a_conversation_comes_to_the_same_in_every_dialect(dialect: str, conversation: str) -> None:
    """The same items, statuses and usage come out, and the model was told the same."""
    if conversation in lacking(VOICES[dialect.split()[0]]):
        pytest.skip(f"{dialect} has no words for it")
    meant = await with_scripts(CONVERSATIONS[conversation])
    held, bodies = await with_dialect(CONVERSATIONS[conversation], dialect)
    assert held.answers == meant.answers
    for told, wanted in zip(held.told, meant.told, strict=True):
        check_told(merged(told), merged(wanted))
    assert len(bodies) == len(CONVERSATIONS[conversation].turns)


@pytest.mark.parametrize("conversation", ["thought and calls, stored", "thought and calls, stateless"])
@pytest.mark.parametrize("dialect", [name for name in SPEAKERS if name != "chat_completions"])
async def test_reasoning_goes_back_to_who_made_it(dialect: str, conversation: str) -> None:
    """Whatever a provider wants back with its reasoning survives our store, and a client that carries it."""
    held, _ = await with_dialect(CONVERSATIONS[conversation], dialect)
    thoughts = [[entry[1] for entry in told if entry[0] == "thought"] for told in held.told]
    assert list(map(len, thoughts)) == list(range(len(thoughts)))
    assert all(later[: len(earlier)] == earlier for earlier, later in itertools.pairwise(thoughts))


@pytest.mark.parametrize("dialect", SPEAKERS)
async def test_a_file_reaches_the_model(dialect: str) -> None:
    """As a document, or as text among the words."""
    _, (body,) = await with_dialect(CONVERSATIONS["a text file"], dialect)
    assert "73" in str(body) or "VGhlIGNvZGUgaXMgNzMu" in str(body)


def test_the_kit_is_large_enough() -> None:
    """Thirty conversations that every dialect has words for; tools of every form are among them."""
    spoken = set(CONVERSATIONS) - set().union(*map(lacking, VOICES.values()))
    assert len(spoken) >= 30
    kinds = {
        tool["type"] for each in CONVERSATIONS.values() for turn in each.turns for tool in turn.asked.get("tools", ())
    }
    assert {"function", "custom", "namespace"} <= kinds <= set(TOOL_TYPES)
