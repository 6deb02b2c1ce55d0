"""Background runs: kept before they are shown, taken up where they broke off, and never a finished tool run twice."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest
from run_kit import FINISH, HOLD, NOW, OWNER, STEPS, HeldBackend, MemoryStore

from ore.backends.base import ModelRequest
from ore.backends.scripted import Script, Step
from ore.core import deltas as d
from ore.core.progress import PendingCall
from ore.core.sealing import KEY_BYTES, Sealer
from ore.errors import ModelFailed, StorageFailed, TooManyRequests
from ore.ids import new_id
from ore.protocol.decoding import JsonObject
from ore.protocol.responses import check_create
from ore.routing.router import Alias, Router
from ore.runs.durable import StoredFollower
from ore.runs.log import BrokenOff
from ore.runs.run import Run
from ore.runs.shapes import from_stored
from ore.runs.supervisor import BackgroundLimits, Supervisor
from ore.stores.base import StoredEvent
from ore.tools.base import Tool, ToolFailed

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])]


class Counter:
    """A tool of our own that counts how often each call was made, and may hold or fail."""

    type = "test:count"

    def __init__(self, *, repeatable: bool = False) -> None:
        self.repeatable = repeatable
        self.made: list[str] = []
        self.hold = False
        self.reached = anyio.Event()

    def definition(self, asked: JsonObject) -> JsonObject:
        return {"type": "function", "name": "count", "description": "Counts.", "parameters": None, "strict": None}

    async def run(self, call: PendingCall) -> str:
        self.made.append(call.call_id)
        if self.hold:
            self.reached.set()
            await anyio.sleep_forever()
        if call.arguments == "fail":
            raise ToolFailed("it did not work")
        return f"{call.arguments} is number {len(self.made)}"


def counts(*call_ids: str, more: Sequence[d.Delta] = ()) -> list[Step]:
    calls = [
        step for one in call_ids for step in (d.ToolCall(one, "count"), d.ToolArguments("{"), d.ToolArguments("}"))
    ]
    return [*more, *calls, d.Finish("tool_calls", d.Usage(input_tokens=1, output_tokens=1))]


def agent(request: ModelRequest) -> Sequence[Step]:
    """Says something and calls once, then calls once more, then answers from what it heard."""
    heard = [item["output"] for item in request.items if item["type"] == "function_call_output"]
    if len(heard) == 0:
        return counts("call_a", more=[d.Reasoning("Let me"), d.Reasoning(" count."), d.Text("One "), d.Text("moment.")])
    if len(heard) == 1:
        return counts("call_b", more=[d.Text("And "), d.Text("again.")])
    return [d.Text("Heard: "), *(d.Text(f"{one}. ") for one in heard), FINISH]


class Place:
    """A store and a backend that outlive the processes, here supervisors, that work on them."""

    def __init__(self, script: Script = STEPS, tool: Tool | None = None) -> None:
        self.store = MemoryStore()
        self.backend = HeldBackend({"m": script})
        self.router: Router | None = None
        self.tools = {tool.type: tool} if tool is not None else {}

    @asynccontextmanager
    async def process(self, **limits: Any) -> AsyncIterator[Supervisor]:
        async with Supervisor(
            self.router or Router({"scripted": self.backend}),
            self.store,
            Sealer(bytes(range(KEY_BYTES))),
            new_id=new_id,
            now=lambda: NOW,
            run_seconds=3600.0,
            background=BackgroundLimits(**limits),
            tools=self.tools,
        ) as supervisor:
            yield supervisor

    def start(self, supervisor: Supervisor, **fields: Any) -> Run:
        tools = [{"type": kind} for kind in self.tools]
        body = {"model": "m", "input": "Hi", "background": True, "stream": True, "tools": tools, **fields}
        return supervisor.start(OWNER, check_create(body, new_id))

    def events(self, response_id: str) -> list[StoredEvent]:
        return self.store.runs[OWNER, response_id].events

    def final(self, response_id: str) -> JsonObject:
        shown: JsonObject = msgspec.json.decode(from_stored(self.store.kept[OWNER, response_id]))
        return shown


def check_kept(place: Place, response_id: str) -> JsonObject:
    """I2, I3 and I5 for an ended run: gapless numbers, one terminal event, which says what is stored."""
    events, final = place.events(response_id), place.final(response_id)
    assert place.store.runs[OWNER, response_id].ended
    decoded = [msgspec.json.decode(event.body) for event in events]
    assert [event["sequence_number"] for event in decoded] == [event.number for event in events]
    assert [event.number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:3]] == ["response.created", "response.queued", "response.in_progress"]
    terminal = [event for event in decoded if event["type"] in ENDS]
    if final["status"] == "cancelled":
        assert not terminal
    else:
        assert [event["response"] for event in terminal] == [final]
        assert decoded[-1] == terminal[0]
    done = [event["item"] for event in decoded if event["type"] == "response.output_item.done"]
    assert done == final["output"]
    return final


ENDS = ("response.completed", "response.incomplete", "response.failed")


async def follow(supervisor: Supervisor, response_id: str, after: int = -1) -> list[StoredEvent]:
    follower = supervisor.follow(OWNER, response_id, after=after)
    return [event async for batch in follower.batches() for event in batch]


async def ended(place: Place, response_id: str) -> None:
    while not place.store.runs[OWNER, response_id].ended:
        await anyio.lowlevel.checkpoint()


async def test_a_background_run_is_queued_then_runs_then_ends() -> None:
    """Its events are kept with their numbers, its response is what the last one says, and anybody may follow it."""
    place = Place()
    async with place.process() as supervisor:
        run = place.start(supervisor)
        await run.begun()
        assert (OWNER, run.id) in place.store.runs  # kept before anybody heard of it
        await run.ended()
        final = check_kept(place, run.id)
        assert final["status"] == "completed"
        assert final["background"] is True
        whole = await follow(supervisor, run.id)
        for after in range(-1, len(whole) + 1):
            assert await follow(supervisor, run.id, after) == whole[after + 1 :]
        assert whole == place.events(run.id)


async def test_followers_see_only_what_is_kept() -> None:
    """While the store cannot keep events nobody is shown any; when it can again, all come, in order."""
    place = Place((*STEPS[:3], HOLD, *STEPS[3:]))
    async with place.process() as supervisor, anyio.create_task_group() as tasks:
        run = place.start(supervisor)
        await place.backend.reached.wait()
        await run.recorded()
        place.store.fault = StorageFailed("full")
        seen: list[StoredEvent] = []

        async def watch() -> None:
            async for batch in supervisor.follow(OWNER, run.id).batches():
                seen.extend(batch)

        tasks.start_soon(watch)
        before = list(place.events(run.id))
        place.backend.release.set()
        while not run.durable._writing:  # type: ignore[union-attr]
            await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        assert seen == before
        place.store.fault = None
        await run.ended()
    assert seen == place.events(run.id)
    check_kept(place, run.id)


@pytest.mark.parametrize("step", range(len(STEPS)))
async def test_a_run_is_taken_up_at_every_step(step: int) -> None:
    """Whatever was said when the process went: the next one goes on, and who follows sees no seam."""
    place = Place((*STEPS[:step], HOLD, *STEPS[step:]))
    async with place.process() as supervisor:
        run = place.start(supervisor)
        await place.backend.reached.wait()
        await run.recorded()
    seen = list(place.events(run.id))
    assert not place.store.runs[OWNER, run.id].ended
    place.backend.release.set()
    async with place.process() as supervisor:
        await ended(place, run.id)
        assert [*seen, *await follow(supervisor, run.id, len(seen) - 1)] == place.events(run.id)
    final = check_kept(place, run.id)
    assert final["status"] == "completed"
    uninterrupted = Place()
    async with uninterrupted.process() as supervisor:
        other = uninterrupted.start(supervisor)
        await other.ended()
    assert bare(final["output"]) == bare(uninterrupted.final(other.id)["output"])


def bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: bare(one) for key, one in value.items() if key not in ("id", "logprobs")}
    return [bare(one) for one in value] if isinstance(value, list) else value


async def test_tools_run_between_turns() -> None:
    """Each call has a receipt among the items, the model hears what came of it, and usage sums over all turns."""
    tool = Counter()
    place = Place(agent, tool)
    async with place.process() as supervisor:
        run = place.start(supervisor)
        await run.ended()
    final = check_kept(place, run.id)
    kinds = ["reasoning", "message", "test:count", "message", "test:count", "message"]
    assert [item["type"] for item in final["output"]] == kinds
    assert final["output"][2] == {
        "type": "test:count",
        "id": final["output"][2]["id"],
        "status": "completed",
        "call_id": "call_a",
        "name": "count",
        "arguments": "{}",
        "output": "{} is number 1",
    }
    assert tool.made == ["call_a", "call_b"]
    assert final["output"][-1]["content"][0]["text"] == "Heard: {} is number 1. {} is number 2. "
    assert final["usage"]["total_tokens"] == 2 + 2 + 5


async def interrupted_after(place: Place, count: int) -> tuple[str, list[StoredEvent]]:
    """Start a run, and end its process as soon as `count` events are kept; what is kept then."""
    keep, full = place.store.append, anyio.Event()

    async def keep_some(
        owner: str, response_id: str, fence: int, events: Sequence[StoredEvent], progress: bytes | None
    ) -> None:
        if full.is_set() or len(place.events(response_id)) + len(events) > count:
            full.set()
            raise StorageFailed("The process is as good as dead.")
        await keep(owner, response_id, fence, events, progress)

    place.store.append = keep_some  # type: ignore[method-assign]
    with anyio.CancelScope() as process:
        async with place.process() as supervisor:
            run = place.start(supervisor)
            await run.begun()
            while not full.is_set():
                await anyio.lowlevel.checkpoint()
            process.cancel()
    place.store.append = keep  # type: ignore[method-assign]
    place.store.runs[OWNER, run.id].free = True
    return run.id, list(place.events(run.id))


@pytest.mark.parametrize("count", range(36))
async def test_a_process_that_dies_loses_only_what_nobody_saw(count: int) -> None:
    """Killed when so many events are kept: the next process goes on, and no tool call that was over is made again."""
    tool = Counter(repeatable=True)
    place = Place(agent, tool)
    response_id, seen = await interrupted_after(place, count)
    over = [msgspec.json.decode(event.body)["item"] for event in seen if event.type == "response.output_item.done"]
    finished = {item["call_id"] for item in over if item["type"] == "test:count"}
    made = list(tool.made)
    async with place.process():
        await ended(place, response_id)
    final = check_kept(place, response_id)
    assert final["status"] == "completed"
    assert place.events(response_id)[: len(seen)] == seen
    assert not finished & set(tool.made[len(made) :])
    assert max(map(tool.made.count, ("call_a", "call_b"))) <= 2


async def test_a_call_that_may_not_be_repeated_is_told_to_be_unknown() -> None:
    """Begun before the process went and not over: it is not made again, and the model is told why."""
    tool = Counter()
    tool.hold = True
    place = Place(agent, tool)
    async with place.process() as supervisor:
        run = place.start(supervisor)
        await tool.reached.wait()
    tool.hold = False
    async with place.process():
        await ended(place, run.id)
    final = check_kept(place, run.id)
    assert final["status"] == "completed"
    first = next(item for item in final["output"] if item["type"] == "test:count")
    assert first["status"] == "failed"
    assert "restarted" in first["output"]
    assert tool.made == ["call_a", "call_b"]


async def test_a_call_is_repeated_once_at_most() -> None:
    """One that may be repeated is made once more, and a second crash in it is the last."""
    tool = Counter(repeatable=True)
    tool.hold = True
    place = Place(agent, tool)
    async with place.process() as supervisor:
        run = place.start(supervisor)
        await tool.reached.wait()
    tool.reached = anyio.Event()
    async with place.process():
        await tool.reached.wait()
    tool.hold = False
    async with place.process(attempts=5):
        await ended(place, run.id)
    final = check_kept(place, run.id)
    assert tool.made.count("call_a") == 2
    assert next(item for item in final["output"] if item["type"] == "test:count")["status"] == "failed"


async def test_what_a_tool_fails_with_is_for_the_model() -> None:
    """A failure is a receipt with the status failed; the response completes."""

    def script(request: ModelRequest) -> Sequence[Step]:
        if any(item["type"] == "function_call_output" for item in request.items):
            return [d.Text("It failed."), FINISH]
        return [d.ToolCall("c", "count"), d.ToolArguments("fail"), d.Finish("tool_calls")]

    place = Place(script, Counter())
    async with place.process() as supervisor:
        run = place.start(supervisor)
        await run.ended()
    final = check_kept(place, run.id)
    assert final["status"] == "completed"
    assert (final["output"][0]["status"], final["output"][0]["output"]) == ("failed", "it did not work")


async def test_max_tool_calls_ends_the_calling() -> None:
    """Calls beyond the limit are ignored, and the model, shown the tool no longer, answers."""

    def script(request: ModelRequest) -> Sequence[Step]:
        return counts("call_x", "call_y") if request.tools else [d.Text("Enough."), FINISH]

    tool = Counter()
    place = Place(script, tool)
    async with place.process() as supervisor:
        run = place.start(supervisor, max_tool_calls=3)
        await run.ended()
    final = check_kept(place, run.id)
    assert final["status"] == "completed"
    assert len(tool.made) == 3
    assert final["output"][-1]["content"][0]["text"] == "Enough."


async def test_a_tool_that_must_be_called_must_be_called_once() -> None:
    """`required` holds for the first step only, or the response would never end."""

    def script(request: ModelRequest) -> Sequence[Step]:
        return counts("c") if request.tool_choice == "required" else [d.Text("Done."), FINISH]

    place = Place(script, Counter())
    async with place.process() as supervisor:
        run = place.start(supervisor, tool_choice="required")
        await run.ended()
    assert [item["type"] for item in check_kept(place, run.id)["output"]] == ["test:count", "message"]


async def test_a_spent_choice_is_not_held_against_a_run_that_is_taken_up() -> None:
    """All was said when the process went: the next one judges by what the last turn was given."""

    def script(request: ModelRequest) -> Sequence[Step]:
        if request.tool_choice == "auto":
            return [d.ToolCall("m", "mine"), d.ToolArguments("{}"), FINISH]
        return counts("c")

    place = Place(script, Counter())
    async with place.process() as supervisor:
        mine = {"type": "function", "name": "mine"}
        run = place.start(supervisor, tools=[{"type": "test:count"}, mine], tool_choice={"type": "test:count"})
        await run.begun()
        begun = place.store.kept[OWNER, run.id]
        await run.ended()
    kept = place.store.runs[OWNER, run.id]
    assert kept.events.pop().type == "response.completed"
    kept.ended, kept.free, place.store.kept[OWNER, run.id] = False, True, begun
    async with place.process():
        await ended(place, run.id)
    final = check_kept(place, run.id)
    assert final["status"] == "completed"
    assert [item["type"] for item in final["output"]] == ["test:count", "function_call"]


@pytest.mark.parametrize(
    "choice",
    ["none", {"type": "allowed_tools", "tools": [{"type": "function", "name": "mine"}]}],
    ids=["none", "others"],
)
async def test_a_call_that_is_not_allowed_is_not_made(choice: Any) -> None:
    """Whatever a backend lets its model say: a tool that runs here runs only where `tool_choice` lets it."""
    tool = Counter()
    place = Place(counts("c", more=[d.Text("No.")]), tool)
    async with place.process() as supervisor:
        mine = {"type": "function", "name": "mine"}
        run = place.start(supervisor, tools=[{"type": "test:count"}, mine], tool_choice=choice)
        await run.ended()
    assert tool.made == []
    assert [item["type"] for item in check_kept(place, run.id)["output"]] == ["message"]


async def test_a_choice_that_is_spent_binds_nobody() -> None:
    """Our tool was forced and called; the call of the client's that follows is judged by its own turn."""

    def script(request: ModelRequest) -> Sequence[Step]:
        if request.tool_choice == "auto":
            return [d.ToolCall("f", "mine"), d.ToolArguments("{}"), d.Finish("tool_calls")]
        return counts("c")

    place = Place(script, Counter())
    async with place.process() as supervisor:
        tools = [{"type": "test:count"}, {"type": "function", "name": "mine"}]
        run = place.start(supervisor, tools=tools, tool_choice={"type": "test:count"})
        await run.ended()
    final = check_kept(place, run.id)
    assert final["status"] == "completed"
    assert [item["type"] for item in final["output"]] == ["test:count", "function_call"]


async def test_a_turn_with_both_kinds_of_calls_ends_with_the_client() -> None:
    """Calls of ours are made, then the client has its turn."""
    script = [*counts("c")[:-1], d.ToolCall("f", "mine"), d.ToolArguments("{}"), d.Finish("tool_calls")]
    tool = Counter()
    place = Place(script, tool)
    async with place.process() as supervisor:
        mine = {"type": "function", "name": "mine"}
        run = place.start(supervisor, tools=[{"type": "test:count"}, mine])
        await run.ended()
    final = check_kept(place, run.id)
    assert [item["type"] for item in final["output"]] == ["function_call", "test:count"]
    assert tool.made == ["c"]
    assert len(place.backend.requests) == 1


async def test_a_model_that_says_something_else_ends_the_run() -> None:
    """What clients saw cannot be taken back: the run fails with `server_error`, and is not stuck."""
    place = Place([d.Text("Hello"), HOLD, FINISH])
    async with place.process() as supervisor:
        run = place.start(supervisor)
        await place.backend.reached.wait()
        await run.recorded()
    place.backend._scripts["m"] = [d.Text("Goodbye"), FINISH]
    async with place.process():
        await ended(place, run.id)
    final = check_kept(place, run.id)
    assert (final["status"], final["error"]["code"]) == ("failed", "server_error")
    assert final["output"][0]["content"][0]["text"] == "Hello"
    assert final["output"][0]["status"] == "incomplete"


async def test_a_turn_is_told_again_by_who_told_it() -> None:
    """An alias may choose another target the next time, and that one would say something else."""
    place = Place([d.Begin("message"), d.Text("Hello"), HOLD, d.Text("."), FINISH])
    other = HeldBackend({"n": [d.Text("Goodbye"), FINISH]})
    there = {"a": place.backend, "b": other, "c": HeldBackend({"x": [d.Begin("message"), ModelFailed("Broke.")]})}
    place.router = Router({}, there, {"any": Alias(targets=("c/x", "a/m", "b/n"))})
    async with place.process() as supervisor:
        run = place.start(supervisor, model="any")
        await place.backend.reached.wait()
        await run.recorded()
    place.backend.release.set()
    place.router = Router({}, there, {"any": Alias(targets=("b/n", "a/m"))})
    async with place.process():
        await ended(place, run.id)
    final = check_kept(place, run.id)
    assert final["status"] == "completed"
    assert final["output"][0]["content"][0]["text"] == "Hello."
    assert not other.requests


@asynccontextmanager
async def doomed(place: Place, **limits: Any) -> AsyncIterator[Supervisor]:
    """A process that dies at the end of the block: it lets go of nothing, and its leases run out."""

    async def never(*_: Any) -> None:
        await anyio.lowlevel.checkpoint()

    async with place.process(**limits) as supervisor:
        yield supervisor
        release, place.store.release = place.store.release, never  # type: ignore[method-assign]
    place.store.release = release  # type: ignore[method-assign]
    for kept in place.store.runs.values():
        kept.free = True


async def test_a_run_that_ends_its_process_each_time_is_given_up() -> None:
    """After so many attempts it ends as failed, by whoever takes it up next."""
    place = Place([d.Text("a"), HOLD, FINISH])
    async with doomed(place, attempts=2) as supervisor:
        run = place.start(supervisor)
        await place.backend.reached.wait()
        await run.recorded()
    place.backend.reached = anyio.Event()
    async with doomed(place, attempts=2):
        await place.backend.reached.wait()
    async with place.process(attempts=2):
        await ended(place, run.id)
    final = check_kept(place, run.id)
    assert (final["status"], final["error"]["code"]) == ("failed", "server_error")


async def test_restarts_that_were_asked_for_use_up_nothing() -> None:
    """A long run survives any number of orderly restarts."""
    place = Place([d.Text("a"), HOLD, FINISH])
    async with place.process(attempts=1) as supervisor:
        run = place.start(supervisor)
        await place.backend.reached.wait()
        await run.recorded()
    for _ in range(3):
        place.backend.reached = anyio.Event()
        async with place.process(attempts=1):
            await place.backend.reached.wait()
    place.backend.release.set()
    async with place.process(attempts=1):
        await ended(place, run.id)
    assert check_kept(place, run.id)["status"] == "completed"


async def test_an_end_that_cannot_be_kept_is_kept_later() -> None:
    """The store fails at the end, for longer than the run waits: it is claimed again, and not renewed meanwhile."""
    place = Place()
    async with place.process(lease=0.03) as supervisor:
        save, run = place.store.save, place.start(supervisor)

        async def fails(*given: Any, fence: int | None = None, **more: Any) -> None:
            if fence is not None:
                raise RuntimeError("no room for the end")
            await save(*given, **more)

        place.store.save = fails  # type: ignore[method-assign,assignment]
        await run.ended()
        assert not place.store.runs[OWNER, run.id].ended
        place.store.save = save  # type: ignore[method-assign]
        place.store.runs[OWNER, run.id].free = True  # its lease ran out
        await ended(place, run.id)
    assert check_kept(place, run.id)["status"] == "completed"


async def test_what_nobody_drives_is_not_renewed() -> None:
    """A lease is prolonged for runs that go on here, and for no other."""
    place = Place([d.Text("a"), HOLD, FINISH])
    async with place.process(lease=0.03) as supervisor:
        run = place.start(supervisor)
        while place.store.renewed != [(OWNER, run.id)]:
            await anyio.lowlevel.checkpoint()
        await supervisor.cancel(OWNER, run.id)
        place.store.renewed = [("stale", "list")]
        other = place.start(supervisor)
        while place.store.renewed != [(OWNER, other.id)]:
            await anyio.lowlevel.checkpoint()


async def test_others_see_only_what_is_kept() -> None:
    """While the end is being saved the response is not over, for nobody could know it after a crash."""
    place = Place()
    async with place.process() as supervisor, anyio.create_task_group() as tasks:
        save, run, seen = place.store.save, place.start(supervisor), []

        async def watched(*given: Any, fence: int | None = None, **more: Any) -> None:
            if fence is not None:
                seen.append(run.snapshot.status)
            await save(*given, fence=fence, **more)

        place.store.save = watched  # type: ignore[method-assign,assignment]
        tasks.start_soon(run.ended)
        await run.ended()
        assert seen == ["in_progress"]
        assert run.snapshot.status == "completed"


async def test_a_client_that_leaves_while_its_run_is_kept_leaves_no_orphan() -> None:
    """What was kept has somebody who ends it: as cancelled."""
    place = Place()
    async with place.process() as supervisor:
        begin = place.store.begin

        async def slow(*given: Any) -> int:
            run.stop("disconnected")
            await anyio.lowlevel.checkpoint()
            return await begin(*given)

        place.store.begin = slow  # type: ignore[method-assign]
        run = place.start(supervisor)
        await run.ended()
    assert check_statuses(place, run.id) == "cancelled"


def check_statuses(place: Place, response_id: str) -> str:
    assert place.store.runs[OWNER, response_id].ended
    return str(place.final(response_id)["status"])


async def test_a_call_in_the_middle_of_a_turn_is_told_again() -> None:
    """Text, a call of ours, more text: whatever was kept of it when the process went."""
    tool = Counter()
    script = [d.Text("a"), *counts("c")[:-1], d.Text("b"), d.ToolCall("f", "mine"), d.ToolArguments("{}"), FINISH]
    for step in range(len(script)):
        place = Place([*script[:step], HOLD, *script[step:]], tool)
        tools = [{"type": "test:count"}, {"type": "function", "name": "mine"}]
        async with place.process() as supervisor:
            run = place.start(supervisor, tools=tools)
            await place.backend.reached.wait()
            await run.recorded()
        place.backend.release.set()
        async with place.process():
            await ended(place, run.id)
        final = check_kept(place, run.id)
        assert final["status"] == "completed", step
        assert [item["type"] for item in final["output"]] == ["message", "message", "function_call", "test:count"]


async def test_a_model_that_is_gone_ends_the_run() -> None:
    """A run that cannot be prepared again ends failed with `server_error`, which says why."""
    place = Place([d.Text("a"), HOLD, FINISH])
    async with place.process() as supervisor:
        run = place.start(supervisor)
        await place.backend.reached.wait()
    place.backend._scripts.clear()
    async with place.process():
        await ended(place, run.id)
    final = check_kept(place, run.id)
    assert final["error"]["code"] == "server_error"
    assert "does not exist" in final["error"]["message"]


@pytest.mark.parametrize("damage", ["request", "events"])
async def test_a_run_that_cannot_be_read_ends(damage: str) -> None:
    """What another version of ORE wrote and this one does not understand ends failed, and others are taken up."""
    place = Place([d.Text("a"), HOLD, FINISH])
    async with place.process() as supervisor:
        run, other = place.start(supervisor), place.start(supervisor)
        await place.backend.reached.wait()
        await run.recorded()
        await other.recorded()
    kept = place.store.runs[OWNER, run.id]
    if damage == "request":
        kept.run = msgspec.structs.replace(kept.run, request=b'{"input": 5}')
    else:
        kept.events[-1] = msgspec.structs.replace(kept.events[-1], body=b'{"type":"response.of_tomorrow"}')
    place.backend.release.set()
    async with place.process():
        await ended(place, run.id)
        await ended(place, other.id)
    assert place.final(run.id)["error"]["code"] == "server_error"
    assert [event.type for event in kept.events[-2:]] == ["error", "response.failed"]
    assert check_kept(place, other.id)["status"] == "completed"


async def test_cancelling_ends_a_run_once() -> None:
    """A running one ends cancelled with its open item incomplete; a second time changes nothing."""
    place = Place([d.Text("a"), HOLD, FINISH])
    async with place.process() as supervisor:
        run = place.start(supervisor)
        await place.backend.reached.wait()
        await supervisor.cancel(OWNER, run.id)
        final = check_kept(place, run.id)
        assert final["status"] == "cancelled"
        assert final["output"][0]["status"] == "incomplete"
        assert place.backend.active == 0
        await supervisor.cancel(OWNER, run.id)
        assert check_kept(place, run.id) == final
        assert (await follow(supervisor, run.id))[-1].type == "response.output_item.done"


async def test_a_run_that_nobody_drives_can_be_cancelled() -> None:
    """Its process is gone: whoever is asked takes it over and ends it."""
    place = Place([d.Text("a"), HOLD, FINISH])
    async with place.process() as supervisor:
        run = place.start(supervisor)
        await place.backend.reached.wait()
        await run.recorded()
    place.store.runs[OWNER, run.id].free = False
    async with place.process() as supervisor:
        await supervisor.cancel(OWNER, run.id)
        assert check_kept(place, run.id)["status"] == "cancelled"


async def test_whoever_lost_a_run_may_not_write_to_it() -> None:
    """The fence: a process that slept through its lease stops, and disturbs nothing."""
    place = Place([d.Text("a"), HOLD, d.Text("b"), FINISH])
    async with place.process() as sleeper:
        run = place.start(sleeper)
        await place.backend.reached.wait()
        await run.recorded()
        slept, place.backend = place.backend, HeldBackend({"m": [d.Text("a"), d.Text("b"), FINISH]})
        place.store.runs[OWNER, run.id].free = True
        async with place.process():
            await ended(place, run.id)
        final = check_kept(place, run.id)
        events = list(place.events(run.id))
        slept.release.set()
        await run.ended()
        assert run.stop_reason == "fenced"
        with pytest.raises(BrokenOff):
            await follow_log(run, place)
    assert place.events(run.id) == events
    assert place.final(run.id) == final


async def follow_log(run: Run, place: Place) -> None:
    follower = StoredFollower(place.store, OWNER, run.id, after=10**6, log=run.durable)
    async for _ in follower.batches():
        pass


async def test_a_full_queue_makes_a_background_run_wait() -> None:
    """It is accepted as queued, and starts when there is room; a foreground one is refused."""
    place = Place()
    full = True
    stream = place.backend.stream

    def busy(request: ModelRequest) -> Any:
        if full:
            waiting.set()
            raise TooManyRequests("full")
        return stream(request)

    waiting = anyio.Event()
    place.backend.stream = busy  # type: ignore[method-assign]
    async with place.process() as supervisor:
        run = place.start(supervisor)
        await waiting.wait()
        await run.begun()
        assert run.response.status == "queued"
        full = False
        await run.ended()
        assert check_kept(place, run.id)["status"] == "completed"


async def test_a_fault_is_kept_like_any_end() -> None:
    """An engine that breaks down ends the run with `error` and `response.failed`."""
    place = Place([d.Text("a"), ModelFailed("It broke.")])
    async with place.process() as supervisor:
        run = place.start(supervisor)
        await run.ended()
    final = check_kept(place, run.id)
    assert final["status"] == "failed"
    assert [event.type for event in place.events(run.id)][-2:] == ["error", "response.failed"]


async def test_a_request_that_is_refused_leaves_nothing() -> None:
    """What is wrong with a request is said at once, and nothing is kept."""
    place = Place()
    async with place.process() as supervisor:
        run = place.start(supervisor, previous_response_id="resp_none")
        await run.begun()
        assert not run.has_response
        assert run.fault is not None
        assert run.fault.code == "previous_response_not_found"
    assert not place.store.runs
