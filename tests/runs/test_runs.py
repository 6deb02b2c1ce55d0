"""Runs over a scripted backend: a fault at every step, and the one way in which each run ends."""

import logging
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from run_kit import FINISH, HOLD, NOW, OWNER, STEPS, World, check_run, world

from core.writing import LOGPROB, RICH
from ore.backends.base import Sampling
from ore.core import deltas as d
from ore.errors import (
    DeadlineExceeded,
    HTTPFault,
    InternalFault,
    InvalidRequest,
    ModelFailed,
    NotFound,
    StorageFailed,
    Unavailable,
)
from ore.runs import loop
from ore.runs.run import Run

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])]

SECRET = "/etc/ore/secret.key"


def held_at(step: int) -> tuple[Any, ...]:
    return (*STEPS[:step], HOLD, *STEPS[step:])


async def test_a_run_that_nothing_disturbs() -> None:
    """All that the backend says is written, saved and returned, with its usage; the last event is `completed`."""
    async with world() as here:
        played = await here.play()
        check_run(played, here)
        assert played.types[-1] == "response.completed"
        assert played.final["completed_at"] == NOW
        assert played.final["usage"]["total_tokens"] == 5
        assert [item["type"] for item in played.final["output"]] == [
            *("reasoning", "message", "function_call", "reasoning", "custom_tool_call", "function_call", "shell_call"),
            *("web_search_call", "message"),
        ]


async def test_a_fault_at_every_step() -> None:
    """Wherever a backend breaks down, the client gets what there was, one `error` and one `response.failed`."""
    async with world() as here:
        for step in range(1, len(STEPS) + 1):
            fault = ModelFailed(f"The engine left at {step}.", code="engine_gone")
            played = await here.play(*STEPS[:step][: len(RICH)], fault)
            check_run(played, here)
            final = played.final
            assert final["status"] == "failed"
            assert final["error"] == {"code": "engine_gone", "message": f"The engine left at {step}."}
            assert played.types[-2:] == ["error", "response.failed"]
            assert final["completed_at"] is None


async def test_a_bug_at_every_step(caplog: pytest.LogCaptureFixture) -> None:
    """An exception that nobody foresaw fails the run; the log has it, the client does not."""
    async with world() as here:
        for step in range(1, len(STEPS)):
            with caplog.at_level(logging.ERROR, "ore.runs"):
                played = await here.play(*STEPS[:step], ValueError(SECRET))
            check_run(played, here)
            assert played.final["error"]["code"] == "server_error"
            assert SECRET not in b"".join(played.bodies).decode()
            assert SECRET in caplog.text
            caplog.clear()


async def test_a_stream_that_stops_without_a_finish_at_every_step() -> None:
    """A backend that merely ends is a failure, never a success (fault F14)."""
    async with world() as here:
        for step in range(1, len(STEPS)):
            played = await here.play(*STEPS[:step])
            check_run(played, here)
            assert played.final["status"] == "failed"
            assert "ended before it said why" in played.final["error"]["message"]


def disconnect(run: Run) -> None:
    run.stop("disconnected")


def shut_down(run: Run) -> None:
    run.stop("shutdown")


def run_out_of_time(run: Run) -> None:
    run.scope.deadline = anyio.current_time()


STOPS: dict[str, tuple[Callable[[Run], None], str, type[HTTPFault] | None]] = {
    "disconnected": (disconnect, "cancelled", None),
    "shutdown": (shut_down, "failed", Unavailable),
    "deadline": (run_out_of_time, "failed", DeadlineExceeded),
}


@pytest.mark.parametrize(("meddle", "status", "fault"), STOPS.values(), ids=STOPS)
async def test_a_stop_at_every_step(
    meddle: Callable[[Run], None], status: str, fault: type[HTTPFault] | None, anyio_backend: str
) -> None:
    """Wherever a run is stopped, the backend is left at once, and what there was is closed, saved and said."""
    for step in range(len(STEPS)):
        async with world(*held_at(step)) as here:
            played = await here.play(meddle=meddle)
            check_run(played, here)
            assert played.final["status"] == status
            if fault is not None:
                assert isinstance(played.run.fault, fault)
                assert played.final["error"]["code"] == fault("").code
            assert not here.backend.release.is_set()


@pytest.mark.parametrize(("meddle", "status", "fault"), STOPS.values(), ids=STOPS)
async def test_a_stop_before_the_backend_took_the_request(
    meddle: Callable[[Run], None], status: str, fault: type[HTTPFault] | None, anyio_backend: str
) -> None:
    """Until the backend has accepted there is no response: nothing is said, nothing is saved, the fault is raised."""
    async with world() as here:
        here.backend.hold_entering = True
        played = await here.play(meddle=meddle)
        assert played.bodies == []
        assert here.store.kept == {}
        assert here.backend.active == 0
        with pytest.raises(fault or InternalFault):
            _ = played.run.response


async def test_the_first_reason_to_stop_counts() -> None:
    """A client that leaves while the server shuts down was there first."""

    def both(run: Run) -> None:
        run.stop("disconnected")
        run.stop("shutdown")

    async with world(*held_at(3)) as here:
        played = await here.play(meddle=both)
        assert played.final["status"] == "cancelled"


REFUSALS: dict[str, tuple[Exception, type[HTTPFault]]] = {
    "a request fault": (InvalidRequest("Too long.", code="context_length_exceeded"), InvalidRequest),
    "a server fault": (Unavailable("Full."), Unavailable),
    "a bug": (ValueError(SECRET), InternalFault),
}


@pytest.mark.parametrize(("error", "fault"), REFUSALS.values(), ids=REFUSALS)
async def test_a_backend_that_refuses_makes_no_response(
    error: Exception, fault: type[HTTPFault], anyio_backend: str
) -> None:
    """What is raised on entering is an HTTP error: no event, no stored response."""
    async with world(error) as here:
        played = await here.play()
        assert played.bodies == []
        assert here.store.kept == {}
        with pytest.raises(fault) as caught:
            played.run.check_begun()
        assert SECRET not in caught.value.message


async def test_an_unknown_model_is_refused_before_anything() -> None:
    """The router's 404 reaches the caller, and the backend is not asked."""
    async with world() as here:
        played = await here.play(model="n")
        with pytest.raises(NotFound, match="'n' does not exist"):
            played.run.check_begun()
        assert here.backend.requests == []


async def test_tokens_run_out() -> None:
    """An answer that was cut is `incomplete`, with the item that was open, its usage and its reason."""
    async with world() as here:
        for reason in ("max_output_tokens", "content_filter"):
            played = await here.play(d.Text("Hel"), d.Finish(reason, d.Usage(output_tokens=1)))
            check_run(played, here)
            assert played.types[-1] == "response.incomplete"
            assert played.final["incomplete_details"] == {"reason": reason}
            assert played.final["output"][-1]["status"] == "incomplete"
            assert played.final["usage"]["output_tokens"] == 1


async def test_a_model_that_says_nothing() -> None:
    """Even then there is a message, empty, and the response is complete."""
    async with world(FINISH) as here:
        played = await here.play()
        check_run(played, here)
        assert played.final["output"][0]["content"][0]["text"] == ""


async def test_deltas_after_the_finish_are_not_read() -> None:
    """`Finish` is the last word: the stream is left there."""
    async with world(d.Text("a"), FINISH, d.Text("b"), ModelFailed("late")) as here:
        played = await here.play()
        check_run(played, here)
        assert played.final["output"][0]["content"][0]["text"] == "a"


SAVE_FAULTS: dict[str, tuple[Exception, str]] = {
    "refused": (StorageFailed("The disk is full.", code="storage_full"), "storage_full"),
    "a bug": (ValueError(SECRET), "server_error"),
}


@pytest.mark.parametrize(("error", "code"), SAVE_FAULTS.values(), ids=SAVE_FAULTS)
async def test_a_response_that_cannot_be_saved_fails(error: Exception, code: str, anyio_backend: str) -> None:
    """A client is never told `completed` about what is not there; it gets the items, and why."""
    async with world() as here:
        here.store.fault = error
        played = await here.play()
        check_run(played, here, stored=False)
        assert played.final["status"] == "failed"
        assert played.final["error"]["code"] == code
        assert SECRET not in b"".join(played.bodies).decode()
        assert len(played.final["output"]) == 9


async def test_a_store_that_hangs_does_not_hang_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """When saving takes too long the run still ends with its one terminal event."""
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.01)
    async with world() as here:
        here.store.hangs = True
        played = await here.play()
        check_run(played, here, stored=False)
        assert played.types[-2:] == ["error", "response.failed"]


async def test_what_need_not_be_stored_is_not() -> None:
    """`store: false` saves nothing, whether the run completes, fails or is left, and needs no store that works."""
    async with world() as here:
        here.store.fault = StorageFailed("The disk is full.")
        for steps in (STEPS, (*STEPS[:4], ModelFailed("gone"))):
            played = await here.play(*steps, store=False)
            check_run(played, here, stored=False)
        played = await here.play(*held_at(5), store=False, meddle=disconnect)
        check_run(played, here, stored=False)
        assert played.final["store"] is False


async def test_what_a_client_was_told_is_saved() -> None:
    """The terminal event goes out after the save, never before it."""
    async with world() as here:
        run = here.supervisor.start(OWNER, here.create())
        follower = run.follow()
        async for batch in follower.batches():
            if any(entry.type == "response.completed" for entry in batch):
                assert here.store.saves == 1
        assert here.store.saves == 1


async def test_a_run_that_nobody_follows_is_the_same() -> None:
    """A waiting call has no follower; its response is that of a stream, but for ids."""
    async with world() as here:
        run = here.supervisor.start(OWNER, here.create())
        await run.ended()
        followed = await here.play()
        alone, other = run.response, followed.run.response
        assert [type(item) for item in alone.output] == [type(item) for item in other.output]
        assert alone.usage == other.usage
        assert (OWNER, run.id) in here.store.kept


async def test_owners_do_not_see_each_other() -> None:
    """A run, and a stored response, are found by their owner alone."""
    async with world(*held_at(3)) as here:

        def look(run: Run) -> None:
            assert here.supervisor.find(OWNER, run.id) is run
            assert here.supervisor.find("you", run.id) is None
            assert here.supervisor.active == 1
            here.backend.release.set()

        played = await here.play(meddle=look)
        assert here.supervisor.find(OWNER, played.run.id) is None
        stranger = await here.play(FINISH, owner="you", previous_response_id=played.run.id)
        with pytest.raises(InvalidRequest, match="not found"):
            stranger.run.check_begun()


async def test_a_run_is_found_only_once_it_was_accepted() -> None:
    """A request that the backend has not taken yet is nobody's response."""
    async with world() as here:
        here.backend.hold_entering = True

        def look(run: Run) -> None:
            assert here.supervisor.find(OWNER, run.id) is None
            here.backend.release.set()

        check_run(await here.play(meddle=look), here)


async def test_a_snapshot_of_a_running_response() -> None:
    """Whoever looks while the run goes on sees the text so far."""
    async with world(d.Text("Hel"), d.Text("lo"), HOLD, FINISH) as here:
        seen: list[Any] = []

        def look(run: Run) -> None:
            seen.append(run.response.output[0].content[0].text)  # type: ignore[union-attr]
            seen.append(run.response.status)
            here.backend.release.set()

        await here.play(meddle=look)
        assert seen == ["Hello", "in_progress"]


async def test_draining_lets_runs_finish() -> None:
    """While draining no run starts, and those there end as they would have."""
    async with world(*held_at(3)) as here:

        def drain(_: Run) -> None:
            tasks.start_soon(here.supervisor.drain, 3600.0)
            tasks.start_soon(release)

        async def release() -> None:
            while not here.supervisor.draining:
                await anyio.lowlevel.checkpoint()
            with pytest.raises(Unavailable):
                here.supervisor.start(OWNER, here.create())
            here.backend.release.set()

        async with anyio.create_task_group() as tasks:
            played = await here.play(meddle=drain)
        check_run(played, here)
        assert played.final["status"] == "completed"


async def test_draining_ends_what_does_not_finish() -> None:
    """After the grace the rest is failed with its terminal event, saved, and the supervisor is empty."""
    async with world(*held_at(3)) as here:
        async with anyio.create_task_group() as tasks:
            played = await here.play(meddle=lambda _: tasks.start_soon(here.supervisor.drain, 0.0))
        check_run(played, here)
        assert played.final["status"] == "failed"
        assert isinstance(played.run.fault, Unavailable)


async def test_draining_with_nothing_to_do() -> None:
    """An idle supervisor drains at once, and twice."""
    async with world() as here:
        await here.supervisor.drain(3600.0)
        await here.supervisor.drain(3600.0)
        with pytest.raises(Unavailable) as caught:
            here.supervisor.start(OWNER, here.create())
        assert caught.value.headers["retry-after"] == "1"


async def test_leaving_the_supervisor_ends_its_runs() -> None:
    """No task is without an owner: what still runs is stopped, closed and saved on the way out."""
    async with world(*held_at(3)) as here:
        run = here.supervisor.start(OWNER, here.create())
        await here.backend.reached.wait()
    assert run.response.status == "failed"
    assert (OWNER, run.id) in here.store.kept
    assert here.backend.active == 0


async def test_a_server_that_is_torn_down_ends_its_runs() -> None:
    """Even when everything around a run is cancelled, it closes its items, saves, and lets nobody wait for ever."""
    runs: list[tuple[Run, World]] = []

    async def serve() -> None:
        async with world(*held_at(3)) as here:
            runs.append((here.supervisor.start(OWNER, here.create()), here))
            await here.backend.reached.wait()
            tasks.cancel_scope.cancel()
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
    ((run, here),) = runs
    await run.ended()
    assert run.log.closed
    assert run.response.status == "failed"
    assert isinstance(run.fault, Unavailable)
    assert (OWNER, run.id) in here.store.kept
    assert here.backend.active == 0


async def test_many_runs_at_once() -> None:
    """Runs do not disturb each other: each gets its own text, numbers and place in the store."""
    async with world() as here:
        here.scripts["m"] = lambda request: [
            *(d.Text(piece) for piece in request.items[0]["content"][0]["text"]),
            FINISH,
        ]
        texts = {f"text {n}" for n in range(30)}
        runs = [here.supervisor.start(OWNER, here.create(input=text)) for text in sorted(texts)]
        for run in runs:
            await run.ended()
        assert {run.response.output[0].content[0].text for run in runs} == texts  # type: ignore[union-attr]
        assert len(here.store.kept) == 30


async def test_effective_sampling_is_asked_for_and_echoed() -> None:
    """The model's own defaults fill what the request leaves open, and the response shows what was used (4.2)."""
    async with world(FINISH) as here:
        here.backend.defaults = Sampling(temperature=0.25, top_p=0.5, presence_penalty=0.125, frequency_penalty=-0.125)
        first = (await here.play()).final
        assert (first["temperature"], first["top_p"]) == (0.25, 0.5)
        assert (first["presence_penalty"], first["frequency_penalty"]) == (0.125, -0.125)
        assert here.backend.requests[-1].sampling == here.backend.defaults
        own = {"temperature": 0.0, "top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
        second = (await here.play(**own)).final
        assert {key: second[key] for key in own} == own
        assert here.backend.requests[-1].sampling == Sampling(**own)


async def test_settings_are_echoed_and_handed_on() -> None:
    """What the client asked for is what the model is asked for, and what every response object shows."""
    fields: dict[str, Any] = {
        "instructions": "Be brief.",
        "tools": [{"type": "function", "name": "f"}, {"type": "web_search"}],
        "tool_choice": {"type": "function", "name": "f"},
        "parallel_tool_calls": False,
        "max_output_tokens": 64,
        "max_tool_calls": 2,
        "reasoning": {"effort": "low"},
        "text": {"verbosity": "low"},
        "metadata": {"a": "b"},
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "user": "u",
        "truncation": "auto",
    }
    async with world(FINISH) as here:
        played = await here.play(seed=7, stop=["x"], **fields)
        check_run(played, here)
        (request,) = here.backend.requests
        for shown in (played.events[0]["response"], played.final):
            assert {key: shown[key] for key in fields if key not in ("tools", "text", "reasoning")} == {
                key: value for key, value in fields.items() if key not in ("tools", "text", "reasoning")
            }
            assert [tool["type"] for tool in shown["tools"]] == ["function", "web_search"]
            assert shown["text"] == {"format": {"type": "text"}, "verbosity": "low"}
            assert shown["reasoning"] == {"effort": "low", "summary": None}
        assert [tool["type"] for tool in request.tools] == ["function", "web_search"]
        assert (request.instructions, request.max_output_tokens, request.verbosity) == ("Be brief.", 64, "low")
        assert (request.sampling.seed, request.sampling.stop, request.owner) == (7, ("x",), OWNER)
        assert request.parallel_tool_calls is False


@pytest.mark.parametrize("text", ['"output":[]', '{"output":[]}', "\\", '\\"output\\":[]', "\u2028é😀"])
async def test_what_is_stored_is_put_together_again(text: str, anyio_backend: str) -> None:
    """Envelope and items are joined at the one empty `output`, whatever stands in the caller's own words."""
    async with world(d.Text(text), FINISH) as here:
        fields: dict[str, Any] = {"instructions": text, "user": text, "metadata": {"output": text, text: "[]"}}
        check_run(await here.play(**fields), here)
        check_run(await here.play(d.Text(text), ModelFailed(text), **fields), here)


async def test_logprobs_are_asked_for_only_with_the_include() -> None:
    """`top_logprobs` alone does nothing; with the include the model is asked for them."""
    async with world(d.Text("a", (LOGPROB,)), FINISH) as here:
        await here.play(top_logprobs=3)
        await here.play(top_logprobs=3, include=["message.output_text.logprobs"])
        assert [request.top_logprobs for request in here.backend.requests] == [None, 3]


SCHEMA = {"type": "json_schema", "name": "n", "schema": {"type": "object", "required": ["a"]}, "strict": True}
LOOSE = SCHEMA | {"strict": False}
FORMATS: dict[str, tuple[dict[str, Any], list[d.Delta], str]] = {
    "matches": (SCHEMA, [d.Text('{"a"'), d.Text(":1}")], "completed"),
    "does not match": (SCHEMA, [d.Text("{}")], "failed"),
    "is not JSON": ({"type": "json_object"}, [d.Text("Sure!")], "failed"),
    "is no object": ({"type": "json_object"}, [d.Text("[]")], "failed"),
    "is an object": ({"type": "json_object"}, [d.Text("{}")], "completed"),
    "is too deep": ({"type": "json_object"}, [d.Text('{"a":' * 50_000)], "failed"),
    "refusal": (SCHEMA, [d.Refusal("No.")], "completed"),
    "call": (SCHEMA, [d.ToolCall("c", "f"), d.ToolArguments("{}")], "completed"),
    "text beside a call": (SCHEMA, [d.Text("Wait."), d.ToolCall("c", "f"), d.ToolArguments("{}")], "completed"),
    "nothing but thoughts": (SCHEMA, [d.Reasoning("Hm.")], "failed"),
    "loosely matches": (LOOSE, [d.Text("{}")], "completed"),
    "loosely is not JSON": (LOOSE, [d.Text("{")], "failed"),
    "text": ({"type": "text"}, [d.Text("Sure!")], "completed"),
}


@pytest.mark.parametrize(("format_", "deltas", "status"), FORMATS.values(), ids=FORMATS)
async def test_structured_output_is_checked(
    format_: dict[str, Any], deltas: list[d.Delta], status: str, anyio_backend: str
) -> None:
    """Text that is not what `text.format` asked for fails the response with a code; refusals and calls are no text."""
    async with world(*deltas, FINISH) as here:
        played = await here.play(text={"format": format_})
        check_run(played, here)
        assert played.final["status"] == status
        if status == "failed":
            assert played.final["error"]["code"] == "invalid_model_output"
            assert played.final["usage"]["total_tokens"] == 5


STRICT = {"type": "function", "name": "f", "parameters": SCHEMA["schema"], "strict": True}
OTHER = {"type": "function", "name": "g"}
ALLOWED = {"type": "allowed_tools", "tools": [{"type": "function", "name": "g"}]}
HELD: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "strict arguments": ({"tools": [STRICT]}, "f", '{"a":1}', "completed"),
    "arguments that do not match": ({"tools": [STRICT]}, "f", "{}", "failed"),
    "arguments that are no JSON": ({"tools": [STRICT]}, "f", "{", "failed"),
    "loose arguments": ({"tools": [OTHER]}, "g", "{", "completed"),
    "an allowed call": ({"tools": [STRICT, OTHER], "tool_choice": ALLOWED}, "g", "{}", "completed"),
    "a call that is not allowed": ({"tools": [STRICT, OTHER], "tool_choice": ALLOWED}, "f", '{"a":1}', "failed"),
    "a call though none may be": ({"tools": [OTHER], "tool_choice": "none"}, "g", "{}", "failed"),
    "a call of nobody's function": ({"tools": [OTHER]}, "h", "{}", "completed"),
}


@pytest.mark.parametrize(("asked", "name", "arguments", "status"), HELD.values(), ids=HELD)
async def test_calls_are_checked(asked: dict[str, Any], name: str, arguments: str, status: str) -> None:
    """`strict` and `tool_choice` are held to whatever the backend did; what the client is to judge is passed on."""
    async with world(d.ToolCall("c", name), d.ToolArguments(arguments), FINISH) as here:
        played = await here.play(**asked)
        check_run(played, here)
        assert played.final["status"] == status


async def test_a_strict_schema_that_nothing_can_match_is_refused() -> None:
    """Before the model is asked."""
    async with world(FINISH) as here:
        broken = SCHEMA | {"schema": {"type": "object", "description": 5}}
        played = await here.play(text={"format": broken})
        with pytest.raises(InvalidRequest, match="Invalid schema") as caught:
            _ = played.run.response
        assert (caught.value.code, caught.value.param) == ("invalid_json_schema", "text.format.schema")
        assert here.backend.requests == []


async def test_structured_output_that_was_cut_is_incomplete() -> None:
    """Broken JSON is expected when the tokens run out, and is not held against the model (18)."""
    async with world(d.Text('{"a"'), d.Finish("max_output_tokens")) as here:
        played = await here.play(text={"format": SCHEMA})
        check_run(played, here)
        assert played.final["status"] == "incomplete"


def seen(here: World) -> list[str]:
    """What the model was shown last: the texts, and the names of what is no message."""
    return [
        item["content"][0]["text"] if item["type"] == "message" else item["type"]
        for item in here.backend.requests[-1].items
    ]


async def test_a_chain_of_five_turns_with_calls() -> None:
    """Each turn sees all earlier input and output in order, then its own input; instructions are not inherited."""
    async with world() as here:
        one = await here.play(d.Text("A"), FINISH, input="a", instructions="First.")
        two = await here.play(
            d.ToolCall("c1", "f"), d.ToolArguments("{}"), FINISH, input="b", previous_response_id=one.run.id
        )
        output = {"type": "function_call_output", "call_id": "c1", "output": "4"}
        three = await here.play(d.Text("C"), FINISH, input=[output], previous_response_id=two.run.id)
        four = await here.play(d.Text("D"), FINISH, input="d", previous_response_id=three.run.id)
        five = await here.play(d.Text("E"), FINISH, input="e", previous_response_id=four.run.id)
        check_run(five, here)
        assert seen(here) == ["a", "A", "b", "function_call", "function_call_output", "C", "d", "D", "e"]
        assert [request.instructions for request in here.backend.requests] == ["First.", None, None, None, None]
        assert five.final["previous_response_id"] == four.run.id
        assert len(here.store.kept[OWNER, five.run.id].input) == 1


async def test_a_chain_branches() -> None:
    """Two responses may name the same predecessor, and do not see each other."""
    async with world() as here:
        root = await here.play(d.Text("A"), FINISH, input="a")
        for text in ("b", "c"):
            await here.play(d.Text(text.upper()), FINISH, input=text, previous_response_id=root.run.id)
            assert seen(here) == ["a", "A", text]


async def test_a_chain_with_a_deleted_middle() -> None:
    """Neither the deleted response nor what came after it can be continued, and the message names the missing one."""
    async with world() as here:
        one = await here.play(d.Text("A"), FINISH)
        two = await here.play(d.Text("B"), FINISH, previous_response_id=one.run.id)
        three = await here.play(d.Text("C"), FINISH, previous_response_id=two.run.id)
        await here.store.delete(OWNER, two.run.id)
        for previous in (two.run.id, three.run.id):
            four = await here.play(FINISH, previous_response_id=previous)
            with pytest.raises(InvalidRequest) as caught:
                four.run.check_begun()
            assert caught.value.code == "previous_response_not_found"
            assert two.run.id in caught.value.message
        check_run(await here.play(d.Text("B"), FINISH, previous_response_id=one.run.id), here)


async def test_missing_and_orphan_outputs_across_a_chain() -> None:
    """A call that was made needs its output before the model runs again, and an output needs its call."""
    async with world() as here:
        one = await here.play(d.ToolCall("c1", "f"), d.ToolArguments("{}"), FINISH)
        orphan = {"type": "function_call_output", "call_id": "c2", "output": "4"}
        for given, message in (("b", "No tool output found for function call c1."), ([orphan], "No tool output")):
            two = await here.play(FINISH, input=given, previous_response_id=one.run.id)
            with pytest.raises(InvalidRequest, match=message) as caught:
                two.run.check_begun()
            assert caught.value.param == "input"
        three = await here.play(FINISH, input=[orphan])
        with pytest.raises(InvalidRequest, match="No tool call found for function call output with call_id c2"):
            three.run.check_begun()


async def test_which_predecessors_can_be_continued() -> None:
    """From completed, incomplete and cancelled ones yes, with what they said; from failed and unknown ones no."""
    async with world() as here:
        cut = await here.play(d.Text("A"), d.Finish("max_output_tokens"))
        check_run(await here.play(FINISH, previous_response_id=cut.run.id), here)
        left = await here.play(d.ToolCall("c", "f"), d.ToolArguments("{"), HOLD, meddle=disconnect)
        check_run(await here.play(FINISH, previous_response_id=left.run.id), here)
        assert seen(here) == ["Hi", "Hi"]
        failed = await here.play(d.Text("A"), ModelFailed("gone"))
        unstored = await here.play(FINISH, store=False)
        for previous, code in (
            (failed.run.id, "previous_response_failed"),
            (unstored.run.id, "previous_response_not_found"),
            ("resp_x", "previous_response_not_found"),
        ):
            refused = await here.play(FINISH, previous_response_id=previous)
            with pytest.raises(InvalidRequest) as caught:
                refused.run.check_begun()
            assert (caught.value.code, caught.value.param) == (code, "previous_response_id")


async def test_a_running_predecessor_cannot_be_continued() -> None:
    """A response that is not finished is not there yet for a chain, and the run itself goes on."""
    async with world(*held_at(3)) as here:
        refusals: list[str | None] = []

        async def continue_from(run: Run) -> None:
            other = here.supervisor.start(OWNER, here.create(previous_response_id=run.id))
            await other.ended()
            refusals.append(other.fault.code if other.fault else None)
            here.backend.release.set()

        async with anyio.create_task_group() as tasks:
            played = await here.play(meddle=lambda run: tasks.start_soon(continue_from, run))
        check_run(played, here)
        assert refusals == ["previous_response_not_found"]


async def test_a_store_that_cannot_read_refuses_the_request() -> None:
    """When the chain cannot be loaded the caller gets the store's own 503, before anything began."""
    async with world() as here:
        one = await here.play(d.Text("A"), FINISH)
        here.store.fault = StorageFailed("The disk is gone.")
        two = await here.play(FINISH, previous_response_id=one.run.id)
        with pytest.raises(StorageFailed):
            two.run.check_begun()
        assert here.backend.requests == here.backend.requests[:1]
