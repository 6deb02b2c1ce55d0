"""What a run's model is given: references, sealed reasoning, connections' memories, conversations, and what fits."""

from collections.abc import Sequence
from typing import Any

import anyio
import msgspec
import pytest
from run_kit import FINISH, OWNER, World, check_run, world

from ore.backends.base import Capabilities, ModelRequest
from ore.backends.scripted import Step
from ore.core import compaction
from ore.core import deltas as d
from ore.errors import Conflict, HTTPFault, InvalidRequest, NotFound
from ore.protocol.decoding import JsonObject
from ore.stores.base import StoredConversation, StoredItem

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])]

SAYS = (d.Text("Hello."), FINISH)


def given(here: World) -> list[str]:
    """What the model was given last: the text of messages, and other items by their type."""
    items = here.backend.requests[-1].items
    return [item["content"][0]["text"] if item["type"] == "message" else item["type"] for item in items]


async def refused(here: World, **fields: Any) -> HTTPFault:
    """The fault of a request that never began."""
    run = here.supervisor.start(OWNER, here.create(**fields))
    await run.ended()
    assert not run.has_response
    assert run.fault is not None
    return run.fault


async def test_a_reference_stands_for_a_stored_item() -> None:
    """It is resolved by its id alone; what the chain brings anyway is not there twice."""
    async with world(*SAYS) as here:
        first = await here.play(input="Hi")
        item_id = first.final["output"][0]["id"]
        reference = {"type": "item_reference", "id": item_id}
        await here.play(input=[{"role": "user", "content": "a"}, reference, {"role": "user", "content": "b"}])
        assert given(here) == ["a", "Hello.", "b"]
        again = [reference, {"role": "user", "content": "b"}]
        await here.play(input=again, previous_response_id=first.run.id)
        assert given(here) == ["Hi", "Hello.", "b"]


@pytest.mark.parametrize("owner", [OWNER, "somebody else"])
async def test_a_reference_to_nothing_is_refused(owner: str) -> None:
    """Unknown, or another owner's: the same 404."""
    async with world(*SAYS) as here:
        first = await here.play(input="Hi", owner="somebody else")
        item_id = first.final["output"][0]["id"] if owner != OWNER else "msg_0"
        fault = await refused(here, input=[{"type": "item_reference", "id": item_id}])
        assert isinstance(fault, NotFound)
        assert fault.param == "input[0].id"
        assert f"Item with id '{item_id}' not found." in fault.message


THINKS = (d.Reasoning("It is "), d.Reasoning("four."), d.Text("Four."), FINISH)
KEPT = {"include": ["reasoning.encrypted_content"], "store": False}


async def test_sealed_reasoning_comes_back_open() -> None:
    """The client carries it without `content`, and the model is given the text and the state again."""
    thinks = (d.Reasoning("It is four."), d.ReasoningState("signature"), d.Text("Four."), FINISH)
    async with world(*thinks) as here:
        first = await here.play(input="2 + 2?", **KEPT)
        item = first.final["output"][0]
        assert "signature" not in msgspec.json.encode(item).decode()
        carried = {key: value for key, value in item.items() if key != "content"}
        await here.play(input=[carried, *first.final["output"][1:], {"role": "user", "content": "Sure?"}])
        seen = here.backend.requests[-1].items[0]
        assert seen["content"] == [{"type": "reasoning_text", "text": "It is four."}]
        assert seen["state"] == "signature"


async def test_reasoning_is_sealed_where_it_was_asked_for() -> None:
    """Without the include a raw reasoning text has no `encrypted_content`; one with a state always has."""
    async with world(*THINKS) as here:
        plain = await here.play(input="Hi")
        assert "encrypted_content" not in plain.final["output"][0]
        kept = await here.play(input="Hi", **KEPT)
        assert kept.final["output"][0]["encrypted_content"].startswith("ore1.")
        state = await here.play(d.ReasoningState("s"), *SAYS, input="Hi")
        assert "encrypted_content" in state.final["output"][0]


@pytest.mark.parametrize("sealed", ["gAAAA-from-elsewhere", "ore1.AAAA", ""])
async def test_foreign_reasoning_is_refused(sealed: str) -> None:
    """What another installation sealed, or nobody did, is a 400 that names the item."""
    async with world(*SAYS) as here:
        item = {"type": "reasoning", "summary": [], "encrypted_content": sealed}
        fault = await refused(here, input=[{"role": "user", "content": "a"}, item])
        assert isinstance(fault, InvalidRequest)
        assert (fault.code, fault.param) == ("invalid_encrypted_content", "input[1].encrypted_content")


async def test_a_stored_turn_keeps_what_only_its_connection_knew() -> None:
    """Continued from a response that was not stored: the new one can be continued by anybody, with all before it."""
    async with world(*SAYS) as here:
        first = await here.play(input="One", store=False)
        known = (*first.run.context.items, *first.final["output"])
        create = here.create(input="Two", previous_response_id=first.run.id)
        run = here.supervisor.start(OWNER, create, remembered=lambda one: known if one == first.run.id else None)
        await run.ended()
        assert run.response.previous_response_id == first.run.id
        await here.play(input="Three", previous_response_id=run.id)
        assert given(here) == ["One", "Hello.", "Two", "Hello.", "Three"]


async def conversation(here: World, *texts: str) -> None:
    part = [{"type": "input_text", "text": ""}]
    items = [
        {"type": "message", "id": text, "role": "user", "status": "completed", "content": [{**part[0], "text": text}]}
        for text in texts
    ]
    stored = [StoredItem(item["id"], msgspec.json.encode(item)) for item in items]
    await here.store.create_conversation(OWNER, StoredConversation(id="conv", created_at=0, metadata=b"{}"), stored)


async def texts_of(here: World) -> list[str]:
    items = await here.store.conversation_items(OWNER, "conv")
    assert items is not None
    return [msgspec.json.decode(item.body)["content"][0]["text"] for item in items]


async def test_a_response_goes_on_with_its_conversation() -> None:
    """Its items come first, and are joined by what was asked and answered; the response says where it was made."""
    async with world(*SAYS) as here:
        await conversation(here, "Before")
        played = await here.play(input="Now", conversation="conv")
        check_run(played, here)
        assert given(here) == ["Before", "Now"]
        assert played.final["conversation"] == {"id": "conv"}
        assert await texts_of(here) == ["Before", "Now", "Hello."]
        await here.play(input="Then", conversation={"id": "conv"})
        assert given(here) == ["Before", "Now", "Hello.", "Then"]


async def test_an_unstored_response_adds_nothing() -> None:
    """Nor does one that failed; both give the conversation back."""
    async with world(*SAYS) as here:
        await conversation(here, "Before")
        await here.play(input="Now", conversation="conv", store=False)
        failed = await here.play(d.Text("a"), input="Now", conversation="conv")
        assert failed.final["status"] == "failed"
        assert await texts_of(here) == ["Before"]
        await here.play(*SAYS, input="Now", conversation="conv")
        assert await texts_of(here) == ["Before", "Now", "Hello."]


async def test_one_response_at_a_time_is_made_in_a_conversation() -> None:
    """The second one is a 409 that may be tried again; afterwards there is room."""
    from run_kit import HOLD

    async with world(d.Text("a"), HOLD, *SAYS) as here:
        await conversation(here, "Before")
        run = here.supervisor.start(OWNER, here.create(input="Now", conversation="conv"))
        await here.backend.reached.wait()
        fault = await refused(here, input="Me too", conversation="conv")
        assert isinstance(fault, Conflict)
        assert (fault.code, fault.headers["x-should-retry"]) == ("conversation_locked", "true")
        here.backend.release.set()
        await run.ended()
        await here.play(*SAYS, input="Me too", conversation="conv")


async def test_a_conversation_that_is_not_there_is_a_404() -> None:
    """Unknown, or another owner's."""
    async with world(*SAYS) as here:
        fault = await refused(here, input="Hi", conversation="conv_0")
        assert isinstance(fault, NotFound)
        assert fault.param == "conversation"


class Small:
    """A model whose window holds so many items, and that counts each as a token."""

    def __init__(self, here: World, window: int) -> None:
        self._stream, self.window = here.backend.stream, window
        here.backend.stream = self.stream  # type: ignore[method-assign,assignment]
        here.backend.capabilities = Capabilities(context_window=window)

    def stream(self, request: ModelRequest) -> Any:
        if len(request.items) > self.window:
            raise InvalidRequest("Too long.", code="context_length_exceeded", param="input")
        return self._stream(request)


def talk(turns: int) -> list[JsonObject]:
    said = [[("user", f"q{n}"), ("assistant", f"a{n}")] for n in range(turns)]
    items = [{"role": role, "content": text} for turn in said for role, text in turn]
    return [{"role": "system", "content": "be nice"}, *items, {"role": "user", "content": "last"}]


async def test_truncation_auto_drops_the_oldest_turns() -> None:
    """As few as it takes; system messages and the question stay. Disabled, the request is refused."""
    async with world(*SAYS) as here:
        Small(here, 8)
        fault = await refused(here, input=talk(10))
        assert fault.code == "context_length_exceeded"
        played = await here.play(input=talk(10), truncation="auto", max_output_tokens=2)
        assert given(here) == ["be nice", "q8", "a8", "q9", "a9", "last"]
        assert played.final["truncation"] == "auto"
        assert len(here.store.kept[OWNER, played.run.id].input) == 22  # what was sent is kept whole


async def test_what_cannot_be_shortened_is_refused() -> None:
    """A question alone that is too long is a 400 with either value."""
    async with world(*SAYS) as here:
        Small(here, 1)
        fault = await refused(here, input=talk(0), truncation="auto")
        assert fault.code == "context_length_exceeded"


def summarises(request: ModelRequest) -> Sequence[Step]:
    """Gives a summary to whoever asks for one, and answers everybody else."""
    asked = request.items[-1]["content"][0]["text"] == compaction.ASKED
    return [d.Text("We talked." if asked else "Hello."), FINISH]


async def test_a_long_context_is_compacted_on_the_way() -> None:
    """Above the threshold the answer begins with a compaction item, and the model sees what it stands for."""
    async with world() as here:
        here.scripts["m"] = summarises
        Small(here, 4000)
        short = await here.play(input=talk(10), context_management=[{"type": "compaction", "compact_threshold": 1000}])
        assert [item["type"] for item in short.final["output"]] == ["message"]
        managed = [{"type": "compaction", "compact_threshold": 1000}]
        long = await here.play(input=talk(600), context_management=managed)
        check_run(long, here)
        assert [item["type"] for item in long.final["output"]] == ["compaction", "message"]
        assert "response.compaction.compacting" in long.types
        assert given(here)[-1] == f"{compaction.INTRODUCED}We talked."
        assert not [text for text in given(here) if text.startswith("a")]
        assert long.final["usage"]["total_tokens"] == 10
        await here.play(input="Go on.", previous_response_id=long.run.id)
        assert given(here)[-3:] == [f"{compaction.INTRODUCED}We talked.", "Hello.", "Go on."]


async def test_a_trigger_compacts_and_does_nothing_else() -> None:
    """Exactly one item comes out, which a later request can go on from, stored or not."""
    async with world() as here:
        here.scripts["m"] = summarises
        asked = [*talk(2), {"type": "compaction_trigger"}]
        played = await here.play(input=asked, store=False)
        check_run(played, here, stored=False)
        assert [item["type"] for item in played.final["output"]] == ["compaction"]
        await here.play(input=[*played.final["output"], {"role": "user", "content": "Go on."}], store=False)
        assert given(here)[-2:] == [f"{compaction.INTRODUCED}We talked.", "Go on."]


async def test_a_compaction_that_fails_ends_the_response() -> None:
    """Without a summary nothing stands for the conversation: the response fails, and its item is incomplete."""
    async with world(d.Text("We"), InvalidRequest("broke")) as here:
        played = await here.play(input=[*talk(2), {"type": "compaction_trigger"}])
        check_run(played, here)
        assert played.final["status"] == "failed"
        assert played.final["output"][0]["encrypted_content"] == ""


async def test_counting_reads_what_a_run_would_be_given() -> None:
    """The chain, the conversation and the input; nothing is held, kept or sampled."""
    async with world(*SAYS) as here:
        first = await here.play(input="One")
        await conversation(here, "Before", "And before")
        asked = len(here.backend.requests)
        count = here.supervisor.count
        assert await count(OWNER, here.create(input="Two", previous_response_id=first.run.id)) == 3
        assert await count(OWNER, here.create(input="Two", conversation="conv")) == 3
        with pytest.raises(NotFound):
            await count(OWNER, here.create(input="Two", conversation="conv_0"))
        assert len(here.backend.requests) == asked


async def test_preparing_generates_nothing() -> None:
    """`generate: false`: created, in progress and completed, with an id that can be continued."""
    async with world(*SAYS) as here:
        create = msgspec.structs.replace(here.create(input="Prepare"), generate=False)
        run = here.supervisor.start(OWNER, create)
        await run.ended()
        assert run.response.status == "completed"
        assert run.response.output == []
        assert not here.backend.requests
        await here.play(input="Go", previous_response_id=run.id)
        assert given(here) == ["Prepare", "Go"]
    await anyio.lowlevel.checkpoint()


async def test_a_context_of_summary_and_questions_is_not_compacted_again() -> None:
    """What is kept word for word may be long: compacting it anew at every request would make nothing shorter."""
    async with world() as here:
        here.scripts["m"] = summarises
        Small(here, 4000)
        managed = [{"type": "compaction", "compact_threshold": 1000}]
        questions = [{"role": "user", "content": f"q{n}"} for n in range(1200)]
        first = await here.play(input=[*talk(600), *questions], context_management=managed)
        assert [item["type"] for item in first.final["output"]] == ["compaction", "message"]
        last_word = {"role": "user", "content": "Go on."}
        again = [first.final["output"][0], last_word]
        second = await here.play(input=again, context_management=managed)
        assert [item["type"] for item in second.final["output"]] == ["message"]


async def test_a_seal_that_was_lost_does_not_lock_a_history_up() -> None:
    """Stored reasoning that this key cannot open is read without what was sealed; in the input it is refused."""
    async with world(*THINKS) as here:
        await conversation(here)
        thought = {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "ore1.AAAA"}
        await here.store.add_conversation_items(OWNER, "conv", [StoredItem("rs", msgspec.json.encode(thought))])
        await here.play(input="Hi", conversation="conv")
        assert here.backend.requests[-1].items[0] == {"type": "reasoning", "id": "rs", "summary": []}


async def test_a_reference_to_what_was_folded_away_is_followed() -> None:
    """The chain has it, but the model is not shown it any more: who refers to it wants it shown."""
    async with world() as here:
        here.scripts["m"] = summarises
        first = await here.play(input="One")
        item_id = first.final["output"][0]["id"]
        folded = await here.play(input=[{"type": "compaction_trigger"}], previous_response_id=first.run.id)
        reference = {"type": "item_reference", "id": item_id}
        again = [reference, {"role": "user", "content": "What was that?"}]
        await here.play(input=again, previous_response_id=folded.run.id)
        assert given(here)[-2:] == ["Hello.", "What was that?"]


async def test_errors_name_where_an_item_came_from() -> None:
    """A compaction item of a conversation is the conversation's, and places in the input are those that were sent."""
    async with world(*SAYS) as here:
        first = await here.play(input="One")
        foreign = {"type": "compaction", "encrypted_content": "garbage"}
        reference = {"type": "item_reference", "id": first.final["output"][0]["id"]}
        fault = await refused(here, input=[reference, foreign], previous_response_id=first.run.id)
        assert fault.param == "input[1].encrypted_content"
        await conversation(here)
        await here.store.add_conversation_items(OWNER, "conv", [StoredItem("x", msgspec.json.encode(foreign))])
        fault = await refused(here, input="Hi", conversation="conv")
        assert (fault.code, fault.param) == ("invalid_encrypted_content", "conversation")


async def test_images_that_are_not_seen_are_owned_up_to() -> None:
    """A text model gets a line in their place, and the client a warning."""
    async with world(*SAYS) as here:
        image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
        played = await here.play(input=[{"role": "user", "content": [{"type": "input_text", "text": "What?"}, image]}])
        assert played.run.warnings == ("images were not seen, for this model cannot see them",)
        assert (await here.play(input="What?")).run.warnings == ()
