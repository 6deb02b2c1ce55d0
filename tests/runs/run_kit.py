"""What the tests of runs share: a store in memory, a backend that can be held, and what must hold of every run."""

from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Literal

import anyio
import msgspec

from core.writing import RICH, counted
from ore.backends.base import ModelRequest
from ore.backends.scripted import Script, ScriptedBackend, Step
from ore.core.deltas import Delta, Finish, Usage
from ore.core.sealing import KEY_BYTES, Sealer
from ore.ids import new_id
from ore.protocol.decoding import JsonObject
from ore.protocol.events import encode
from ore.protocol.responses import Create, check_create
from ore.routing.router import Router
from ore.runs.run import Run
from ore.runs.shapes import from_stored
from ore.runs.supervisor import Supervisor
from ore.stores.base import (
    ClaimedRun,
    Fenced,
    ItemPage,
    Lease,
    Reservation,
    ResponsePage,
    RunState,
    StoredAnswer,
    StoredConversation,
    StoredEvent,
    StoredItem,
    StoredResponse,
    StoredRun,
    Turn,
)
from stores.store_kit import Model as StoreModel

NOW = 1_795_000_000
OWNER = "me"
FINISH = Finish("stop", Usage(input_tokens=3, output_tokens=2))
STEPS: tuple[Step, ...] = (*RICH, FINISH)
HOLD: Final = 86_400.0
"""A step at which the backend says that it was reached, and waits to be released."""


class KeptRun:
    """A background run in a `MemoryStore`."""

    def __init__(self, run: StoredRun) -> None:
        self.run = run
        self.events: list[StoredEvent] = []
        self.fence = self.attempt = 1
        self.free = self.ended = False


class MemoryStore:
    """A store that keeps its promises for as long as the test lasts, on any event loop."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], StoredResponse] = {}
        self.runs: dict[tuple[str, str], KeptRun] = {}
        self.models: defaultdict[str, StoreModel] = defaultdict(StoreModel)
        self.renewed: list[tuple[str, str]] = []
        self.saves = 0
        self.fault: Exception | None = None
        self.hangs = False

    async def start(self) -> None:
        """Nothing to open."""

    async def stop(self) -> None:
        """Nothing to close."""

    async def save(
        self,
        owner: str,
        response: StoredResponse,
        *,
        fence: int | None = None,
        events: Sequence[StoredEvent] = (),
    ) -> None:
        await anyio.lowlevel.checkpoint()
        if self.hangs:
            await anyio.sleep_forever()
        if self.fault is not None:
            raise self.fault
        if fence is not None:
            await self.append(owner, response.id, fence, events, None)
            self.runs[owner, response.id].ended = True
        self.saves += 1
        self.kept[owner, response.id] = response
        self.models[owner].save(response)

    async def list_responses(
        self, owner: str, *, limit: int, order: Literal["asc", "desc"], after: str | None
    ) -> ResponsePage:
        await anyio.lowlevel.checkpoint()
        return self.models[owner].list_responses(limit, order, after)

    async def begin(self, owner: str, response: StoredResponse, run: StoredRun, lease: Lease) -> int:
        await self.save(owner, response)
        self.runs[owner, response.id] = KeptRun(run)
        return 1

    async def append(
        self, owner: str, response_id: str, fence: int, events: Sequence[StoredEvent], progress: bytes | None
    ) -> None:
        await anyio.lowlevel.checkpoint()
        if self.fault is not None:
            raise self.fault
        kept = self.runs[owner, response_id]
        if kept.fence != fence or kept.ended:
            raise Fenced(response_id)
        kept.events.extend(events)
        if progress is not None:
            kept.run = msgspec.structs.replace(kept.run, progress=progress)

    async def events(self, owner: str, response_id: str, *, after: int, limit: int) -> list[StoredEvent]:
        await anyio.lowlevel.checkpoint()
        found = [event for event in self.runs[owner, response_id].events if event.number > after]
        return found if limit < 0 else found[:limit]

    async def run_state(self, owner: str, response_id: str) -> RunState | None:
        await anyio.lowlevel.checkpoint()
        kept = self.runs.get((owner, response_id))
        if kept is None:
            return None
        return RunState(streamed=kept.run.streamed, ended=kept.ended, events=len(kept.events))

    async def renew(self, runs: Sequence[tuple[str, str]], lease: Lease) -> None:
        await anyio.lowlevel.checkpoint()
        self.renewed = list(runs)

    async def claim(self, lease: Lease, *, limit: int) -> list[ClaimedRun]:
        await anyio.lowlevel.checkpoint()
        free = [key for key, kept in self.runs.items() if kept.free and not kept.ended]
        claimed = [await self.take(owner, response_id, lease) for owner, response_id in free[:limit]]
        return [run for run in claimed if run is not None]

    async def take(self, owner: str, response_id: str, lease: Lease) -> ClaimedRun | None:
        await anyio.lowlevel.checkpoint()
        kept = self.runs.get((owner, response_id))
        if kept is None or kept.ended:
            return None
        kept.fence, kept.attempt, kept.free = kept.fence + 1, kept.attempt + 1, False
        response = self.kept[owner, response_id]
        return ClaimedRun(
            owner=owner,
            fence=kept.fence,
            attempt=kept.attempt,
            response=response,
            run=kept.run,
        )

    async def release(self, owner: str, response_id: str, fence: int) -> None:
        await anyio.lowlevel.checkpoint()
        kept = self.runs[owner, response_id]
        if kept.fence == fence:
            kept.free, kept.attempt = True, kept.attempt - 1

    async def prune(self, *, events_before: float | None, responses_before: float | None, limit: int) -> int:
        raise NotImplementedError("runs are not kept long enough")

    async def find_item(self, owner: str, item_id: str) -> StoredItem | None:
        await anyio.lowlevel.checkpoint()
        mine = [response for (whose, _), response in self.kept.items() if whose == owner]
        items = [item for response in mine for item in (*response.input, *response.output) if item.id == item_id]
        return items[-1] if items else None

    async def load(self, owner: str, response_id: str) -> StoredResponse | None:
        await anyio.lowlevel.checkpoint()
        return self.kept.get((owner, response_id))

    async def delete(self, owner: str, response_id: str) -> bool:
        await anyio.lowlevel.checkpoint()
        self.kept.pop((owner, response_id), None)
        return self.models[owner].delete(response_id)

    async def chain(self, owner: str, response_id: str) -> list[Turn] | None:
        await anyio.lowlevel.checkpoint()
        if self.fault is not None:
            raise self.fault
        return self.models[owner].chain(response_id)

    async def input_items(
        self, owner: str, response_id: str, *, limit: int, order: Literal["asc", "desc"], after: str | None
    ) -> ItemPage | None:
        raise NotImplementedError("runs do not list")

    async def create_conversation(
        self, owner: str, conversation: StoredConversation, items: Sequence[StoredItem] = ()
    ) -> None:
        (await self._asked(owner)).create_conversation(conversation, items)

    async def load_conversation(self, owner: str, conversation_id: str) -> StoredConversation | None:
        return (await self._asked(owner)).load_conversation(conversation_id)

    async def update_conversation(self, owner: str, conversation_id: str, metadata: bytes) -> StoredConversation | None:
        return (await self._asked(owner)).update_conversation(conversation_id, metadata)

    async def delete_conversation(self, owner: str, conversation_id: str) -> bool:
        return (await self._asked(owner)).delete_conversation(conversation_id)

    async def add_conversation_items(self, owner: str, conversation_id: str, items: Sequence[StoredItem]) -> bool:
        return (await self._asked(owner)).add_conversation_items(conversation_id, items)

    async def conversation_items(
        self, owner: str, conversation_id: str, *, holder: str | None = None
    ) -> tuple[StoredItem, ...] | None:
        return (await self._asked(owner)).conversation_items(conversation_id, holder)

    async def list_conversation_items(
        self, owner: str, conversation_id: str, *, limit: int, order: Literal["asc", "desc"], after: str | None
    ) -> ItemPage | None:
        return (await self._asked(owner)).list_conversation_items(conversation_id, limit, order, after)

    async def conversation_item(self, owner: str, conversation_id: str, item_id: str) -> StoredItem | None:
        return (await self._asked(owner)).conversation_item(conversation_id, item_id)

    async def delete_conversation_item(self, owner: str, conversation_id: str, item_id: str) -> bool:
        return (await self._asked(owner)).delete_conversation_item(conversation_id, item_id)

    async def lock_conversation(self, owner: str, conversation_id: str, holder: str, seconds: float) -> bool | None:
        return (await self._asked(owner)).lock_conversation(conversation_id, holder, seconds)

    async def unlock_conversation(self, owner: str, conversation_id: str, holder: str) -> None:
        (await self._asked(owner)).unlock_conversation(conversation_id, holder)

    async def reserve(
        self, owner: str, key: str, fingerprint: bytes, *, holder: str, seconds: float
    ) -> Reservation | StoredAnswer:
        return (await self._asked(owner)).reserve(key, fingerprint, holder, seconds)

    async def complete(self, owner: str, key: str, holder: str, answer: StoredAnswer, *, seconds: float) -> None:
        (await self._asked(owner)).complete(key, holder, answer, seconds)

    async def free(self, owner: str, key: str, holder: str) -> None:
        (await self._asked(owner)).free(key, holder)

    async def _asked(self, owner: str) -> StoreModel:
        """What answers for this owner, once others had their turn."""
        await anyio.lowlevel.checkpoint()
        if self.fault is not None:
            raise self.fault
        return self.models[owner]

    async def health(self) -> bool:
        return True


class HeldBackend(ScriptedBackend):
    """A scripted backend that stops at `HOLD` until it is released; `reached` says that it did."""

    def __init__(self, scripts: dict[str, Script]) -> None:
        super().__init__(scripts)
        self.reached = anyio.Event()
        self.release = anyio.Event()
        self.hold_entering = False

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[Delta]]:
        if self.hold_entering:
            await self._hold()
        async with super().stream(request) as playing:
            yield playing

    async def _play(self, steps: Sequence[Step]) -> AsyncGenerator[Delta]:
        for step in steps:
            if step is HOLD:
                await self._hold()
            elif isinstance(step, Exception):
                raise step
            else:
                await anyio.lowlevel.checkpoint()
                yield step  # type: ignore[misc]

    async def _hold(self) -> None:
        self.reached.set()
        await self.release.wait()


class World:
    """A supervisor over one held backend and one store, and the means to play a request."""

    def __init__(self, supervisor: Supervisor, backend: HeldBackend, store: MemoryStore, scripts: dict[str, Script]):
        self.supervisor = supervisor
        self.backend = backend
        self.store = store
        self.scripts = scripts

    def create(self, **fields: Any) -> Create:
        return check_create({"model": "m", "input": "Hi", **fields}, counted() if "ids" in fields else new_id)

    async def play(
        self, *steps: Step, meddle: Callable[[Run], Any] | None = None, owner: str = OWNER, **fields: Any
    ) -> "Played":
        """Run a script to its end. `meddle` is called once the script holds."""
        if steps:
            self.scripts["m"] = steps
        run = self.supervisor.start(owner, self.create(**fields))
        played = Played(run)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(played.follow)
            if meddle is not None:
                await self.backend.reached.wait()
                meddle(run)
        await run.ended()
        while self.supervisor.active:
            await anyio.lowlevel.checkpoint()
        return played


@asynccontextmanager
async def world(*steps: Step, run_seconds: float = 3600.0, router: Router | None = None) -> AsyncIterator[World]:
    scripts: dict[str, Script] = {"m": steps or STEPS}
    backend, store = HeldBackend(scripts), MemoryStore()
    async with Supervisor(
        router or Router({"scripted": backend}),
        store,
        Sealer(bytes(range(KEY_BYTES))),
        new_id=new_id,
        now=lambda: NOW,
        run_seconds=run_seconds,
    ) as supervisor:
        yield World(supervisor, backend, store, scripts)
    assert supervisor.active == 0


class Played:
    """A run that was followed from its start."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.bodies: list[bytes] = []
        self.types: list[str] = []
        self._follower = run.follow()

    async def follow(self) -> None:
        async for batch in self._follower.batches():
            self.bodies += [entry.body for entry in batch]
            self.types += [entry.type for entry in batch]
        self._follower.leave()

    @property
    def events(self) -> list[JsonObject]:
        return [msgspec.json.decode(body) for body in self.bodies]

    @property
    def final(self) -> JsonObject:
        shown: JsonObject = msgspec.json.decode(encode(self.run.response))
        return shown


TERMINAL = {"response.completed": "completed", "response.incomplete": "incomplete", "response.failed": "failed"}


def check_run(played: Played, here: World, *, stored: bool = True) -> None:
    """What holds of every run that began, however it ended (invariants I1, I2, I3, I5 and I6)."""
    events, final = played.events, played.final
    assert here.backend.active == 0
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert played.types == [event["type"] for event in events]
    assert played.types[:2] == ["response.created", "response.in_progress"]
    ended = [TERMINAL[kind] for kind in played.types if kind in TERMINAL]
    assert ended == ([] if final["status"] == "cancelled" else [final["status"]])
    if ended:
        assert events[-1]["response"] == final
        assert ("error" in played.types) == (ended == ["failed"])
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    added = [event["item"]["id"] for event in events if event["type"] == "response.output_item.added"]
    assert [item["id"] for item in done] == added
    assert done == final["output"]
    statuses = [item.get("status", "completed") for item in final["output"]]
    assert set(statuses[:-1]) <= {"completed"}
    assert final["status"] != "completed" or set(statuses) <= {"completed"}
    found = here.store.kept.get((played.run.owner, played.run.id))
    assert (found is not None) == stored
    if found is not None:
        assert from_stored(found) == encode(played.run.response)
        assert found.status == final["status"]
