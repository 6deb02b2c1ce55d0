"""The endpoints: each reads its request, asks the runs or the store, and answers. No decisions of substance here.

Every path of the wire that ORE serves is in `routes`, in the order in which they must match.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response as HTTPResponse
from starlette.routing import Route

from ore import __version__
from ore.backends.base import Model
from ore.core.compaction import summarising
from ore.core.history import check_continuable
from ore.core.lifecycle import TERMINAL_STATUSES
from ore.core.sealing import Sealer
from ore.errors import InvalidRequest, MethodNotAllowed, NotFound, StorageFailed, UpgradeRequired
from ore.ids import NewId
from ore.protocol import OPEN_RESPONSES_RELEASE
from ore.protocol.configuration import check_include
from ore.protocol.decoding import JsonObject, quoted
from ore.protocol.events import encode
from ore.protocol.responses import Create, check_compact, check_count, check_create
from ore.routing.router import Router
from ore.runs.compaction import compacted
from ore.runs.log import Follower
from ore.runs.run import Run
from ore.runs.shapes import from_stored, running
from ore.runs.summary import ResponseSummary, summarised
from ore.runs.supervisor import Supervisor
from ore.server.answers import item_list, json_response, object_list, unknown_cursor
from ore.server.reading import OWNER, array, checked, flag, page_query
from ore.server.sse import EventStream, while_connected
from ore.stores.base import RunState, Store, StoredResponse, UnknownCursor
from ore.telemetry import METRICS_TYPE, Metrics

logger = logging.getLogger("ore.server")

Endpoint = Callable[[Request], Awaitable[Any]]


class _ResponseId(StringConvertor):
    """Any segment of a path but the fixed ones, so that these are not taken for ids where their method is wrong."""

    regex = "(?!(?:compact|input_tokens)$)[^/]+"


register_url_convertor("response", _ResponseId())


class Endpoints:
    """All endpoints over one supervisor, router and store."""

    def __init__(
        self,
        *,
        supervisor: Supervisor,
        router: Router,
        store: Store,
        sealer: Sealer,
        metrics: Metrics,
        new_id: NewId,
        sse_idle: float,
        sse_done: bool,
        strict_fields: bool,
        websocket: bool = True,
    ) -> None:
        self._supervisor = supervisor
        self._router = router
        self._store = store
        self._sealer = sealer
        self._metrics = metrics
        self._new_id = new_id
        self._sse_idle = sse_idle
        self._sse_done = sse_done
        self._strict_fields = strict_fields
        self._websocket = websocket

    def routes(self) -> list[Route]:
        """Fixed paths before those with a parameter."""
        table: list[tuple[str, str, Endpoint]] = [
            ("POST", "/v1/responses", self.create),
            ("GET", "/v1/responses", self.no_websocket),
            ("POST", "/v1/responses/compact", self.compact),
            ("POST", "/v1/responses/input_tokens", self.input_tokens),
            ("GET", "/v1/responses/{response_id:response}", self.retrieve),
            ("DELETE", "/v1/responses/{response_id:response}", self.delete),
            ("POST", "/v1/responses/{response_id:response}/cancel", self.cancel),
            ("GET", "/v1/responses/{response_id:response}/input_items", self.input_items),
            ("GET", "/v1/ore/responses", self.list_responses),
            ("GET", "/v1/models", self.models),
            ("GET", "/v1/models/{model_id:path}", self.model),
            ("GET", "/livez", self.live),
            ("GET", "/readyz", self.ready),
            ("GET", "/health", self.ready),
            ("GET", "/version", self.version),
            ("GET", "/metrics", self.metrics),
        ]
        return [Route(path, endpoint, methods=[method]) for method, path, endpoint in table]

    async def create(self, request: Request) -> Any:
        """`POST /responses`: the run is the same whether its events are forwarded or not."""
        create = await self._checked(request, check_create)
        check_previous_ended(self._supervisor, create)
        run = self._supervisor.start(OWNER, create)
        if create.background:
            return await self._in_background(run, request)
        follower = run.follow() if create.stream else None
        async with while_connected(request.receive, partial(run.stop, "disconnected")):
            await (run.begun() if follower is not None else run.ended())
        _check_stayed(run)
        if follower is None:
            return json_response(encode(run.response), headers=_warnings(run))
        run.check_begun()
        return self._stream(follower, create.obfuscated, left=partial(run.stop, "disconnected"), headers=_warnings(run))

    async def _in_background(self, run: Run, request: Request) -> Any:
        """Answer as soon as the run is kept. From then on it does not care who listens."""
        async with while_connected(request.receive, lambda: None if run.has_response else run.stop("disconnected")):
            await run.begun()
        _check_stayed(run)
        run.check_begun()
        if not run.create.stream:
            return json_response(encode(run.snapshot), headers=_warnings(run))
        padding = "&include_obfuscation=true" if run.create.obfuscated else ""
        request.state.place = f"/v1/responses/{run.id}?stream=true{padding}"
        return self._stream(self._supervisor.follow(OWNER, run.id), run.create.obfuscated, headers=_warnings(run))

    def _stream(
        self,
        follower: Follower,
        padded: bool,
        *,
        left: Callable[[], None] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> EventStream:
        headers, idle, done = headers or {}, self._sse_idle, self._sse_done
        return EventStream(follower, left=left, headers=headers, idle=idle, done=done, padded=padded)

    async def compact(self, request: Request) -> HTTPResponse:
        """`POST /responses/compact`: a run that summarises, whose response is not shown."""
        create = await self._checked(request, check_compact)
        run = self._supervisor.start(OWNER, summarising(create, self._new_id))
        async with while_connected(request.receive, partial(run.stop, "disconnected")):
            await run.ended()
        _check_stayed(run)
        return json_response(encode(compacted(run, self._sealer)))

    async def input_tokens(self, request: Request) -> HTTPResponse:
        """`POST /responses/input_tokens`: what the model would be given, counted by its own tokenizer."""
        create = await self._checked(request, check_count)
        tokens = await self._supervisor.count(OWNER, create)
        return json_response(encode({"object": "response.input_tokens", "input_tokens": tokens}))

    async def retrieve(self, request: Request) -> Any:
        """`GET /responses/{id}`: as last stored, or as it stands while it runs; or its events, from any point."""
        response_id = request.path_params["response_id"]
        check_include(array(request, "include"))
        if flag(request, "stream"):
            return await self._replay(request, response_id)
        if run := self._running(response_id):
            return json_response(encode(run.snapshot))
        stored = await self._store.load(OWNER, response_id)
        if stored is None:
            raise _no_response(response_id)
        if stored.status not in TERMINAL_STATUSES:
            events = await self._store.events(OWNER, response_id, after=-1, limit=-1)
            return json_response(running(stored, events))
        return json_response(from_stored(stored))

    async def _replay(self, request: Request, response_id: str) -> EventStream:
        """The events of a background response, from the beginning or after a number, then those to come."""
        after, padded = _starting_after(request), flag(request, "include_obfuscation")
        state = await self._background_state(response_id)
        if state is None or not state.streamed:
            message = (
                "This response cannot be streamed because it was not created with background=true and stream=true. "
                "Retrieve it without 'stream'."
            )
            raise InvalidRequest(message, param="stream")
        if state.ended and not state.events:
            message = "The events of this response are not kept any longer. Retrieve it without 'stream'."
            raise InvalidRequest(message, param="stream")
        return self._stream(self._supervisor.follow(OWNER, response_id, after=after), padded)

    async def _background_state(self, response_id: str) -> RunState | None:
        """How a background response stands; None for any other. Raises `NotFound` when there is none at all."""
        state = await self._store.run_state(OWNER, response_id)
        if state is None and not self._running(response_id) and await self._store.load(OWNER, response_id) is None:
            raise _no_response(response_id)
        return state

    async def cancel(self, request: Request) -> HTTPResponse:
        """`POST /responses/{id}/cancel`: only for background responses; one that has ended stays as it is."""
        response_id = request.path_params["response_id"]
        state = await self._background_state(response_id)
        if state is None:
            message = "Cannot cancel a synchronous response. Close its connection instead."
            raise InvalidRequest(message, param="response_id")
        if not state.ended:
            await self._supervisor.cancel(OWNER, response_id)
        stored = await self._store.load(OWNER, response_id)
        if stored is None:
            raise _no_response(response_id)
        if stored.status not in TERMINAL_STATUSES:
            raise StorageFailed("The response is stopped, but that could not be kept. Cancel it again in a moment.")
        return json_response(from_stored(stored))

    async def delete(self, request: Request) -> HTTPResponse:
        """`DELETE /responses/{id}`: gone with its items; a second time is a 404."""
        response_id = request.path_params["response_id"]
        state = await self._store.run_state(OWNER, response_id)
        if self._running(response_id) or (state is not None and not state.ended):
            message = f"Response '{response_id}' is still running. Wait for its end; or cancel a background response."
            raise InvalidRequest(message, param="response_id")
        if not await self._store.delete(OWNER, response_id):
            raise _no_response(response_id)
        return json_response(encode({"id": response_id, "object": "response", "deleted": True}))

    async def input_items(self, request: Request) -> HTTPResponse:
        """`GET /responses/{id}/input_items`: everything the model was given, a page at a time."""
        response_id = request.path_params["response_id"]
        check_include(array(request, "include"))
        limit, order, after = page_query(request)
        if self._running(response_id):
            message = f"Response '{response_id}' is still running. List its items when it has ended."
            raise InvalidRequest(message, param="response_id")
        try:
            page = await self._store.input_items(OWNER, response_id, limit=limit, order=order, after=after)
        except UnknownCursor:
            raise unknown_cursor(after) from None
        if page is None:
            raise _no_response(response_id)
        return item_list(page)

    async def list_responses(self, request: Request) -> HTTPResponse:
        """`GET /ore/responses`, which only ORE has: what is stored, a page at a time."""
        limit, order, after = page_query(request)
        try:
            page = await self._store.list_responses(OWNER, limit=limit, order=order, after=after)
        except UnknownCursor:
            raise unknown_cursor(after) from None
        return object_list([self._summary(head) for head in page.responses], has_more=page.has_more)

    def _summary(self, head: StoredResponse) -> ResponseSummary:
        """As `retrieve` would tell it: the store knows only how a response began until it has ended."""
        run = self._running(head.id)
        if run is not None and run.has_response:
            head = msgspec.structs.replace(head, status=run.snapshot.status)
        return summarised(head)

    async def _checked(self, request: Request, check: Callable[..., Create]) -> Create:
        return await checked(request, partial(check, new_id=self._new_id, strict_fields=self._strict_fields))

    def _running(self, response_id: str) -> Run | None:
        return _running(self._supervisor, response_id)

    async def models(self, _: Request) -> HTTPResponse:
        """`GET /models`: the plain list, each model with what it can do."""
        data = [model_object(model) for model in await self._router.models()]
        return json_response(encode({"object": "list", "data": data}))

    async def model(self, request: Request) -> HTTPResponse:
        """`GET /models/{id}`; ids may contain slashes."""
        model_id = request.path_params["model_id"]
        model = (await self._router.route(model_id)).first.model
        return json_response(encode(model_object(msgspec.structs.replace(model, id=model_id))))

    async def no_websocket(self, request: Request) -> HTTPResponse:
        """WebSocket that is off is refused with 426: Codex falls back to HTTP at once on that, and on nothing else."""
        if not self._websocket and request.headers.get("upgrade", "").lower() == "websocket":
            message = 'This server does not speak WebSocket. Send POST /v1/responses, with "stream": true for events.'
            raise UpgradeRequired(message, headers={"upgrade": "HTTP/1.1", "connection": "close"})
        raise MethodNotAllowed(
            "/v1/responses takes GET only for WebSockets, with an upgrade. It takes: POST. What is stored is listed at "
            "GET /v1/ore/responses.",
            headers={"allow": "POST"},
        )

    async def live(self, _: Request) -> HTTPResponse:
        """Alive: the event loop answers. Nothing else is asked."""
        return json_response(b'{"status":"ok"}')

    async def ready(self, request: Request) -> HTTPResponse:
        """Ready for traffic: not draining, store writable, engines up. `?verbose` says which is not."""
        checks: dict[str, Any] = {"accepting": not self._supervisor.draining, "store": await self._store.health()}
        engines = await self._router.health()
        checks |= {f"backend:{name}": health.ok for name, health in engines.items()}
        ok = all(checks.values())
        body: dict[str, Any] = {"status": "ok" if ok else "unavailable"}
        if "verbose" in request.query_params:
            body |= {"checks": checks, "active_runs": self._supervisor.active}
            body["backends"] = {name: dict(health.detail) for name, health in engines.items()}
        return json_response(encode(body), status=200 if ok else 503)

    async def metrics(self, _: Request) -> HTTPResponse:
        """`GET /metrics`: numbers for Prometheus. They name models and providers, and nothing of any request."""
        return HTTPResponse(self._metrics.exposition(), headers={"content-type": METRICS_TYPE})

    async def version(self, _: Request) -> HTTPResponse:
        """Which ORE, and which release of the contract."""
        return json_response(encode({"version": __version__, "open_responses": OPEN_RESPONSES_RELEASE}))


def _check_stayed(run: Run) -> None:
    """Answer nobody when the client has left and its run was stopped for that: such an answer is not one to keep."""
    if run.abandoned:
        raise ClientDisconnect


def check_previous_ended(supervisor: Supervisor, create: Create) -> None:
    """Refuse to continue from a response that is still running."""
    if create.previous_response_id and _running(supervisor, create.previous_response_id):
        check_continuable("in_progress", create.previous_response_id)


def _running(supervisor: Supervisor, response_id: str) -> Run | None:
    """A run that will be kept under that id. One with `store: false` is nobody's but its caller's."""
    run = supervisor.find(OWNER, response_id)
    return run if run is not None and run.create.store else None


def model_object(model: Model) -> JsonObject:
    """A model as the wire shows it: the four standard keys, and ORE's own, which tell what it can do and takes."""
    schemas = {"input_schema": model.input_schema, "output_schema": model.output_schema}
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        "capabilities": model.capabilities,
        **{key: schema for key, schema in schemas.items() if schema is not None},
    }


def _warnings(run: Run) -> dict[str, str]:
    """What of a request had no effect is told, and is no reason to refuse it (client rule 2)."""
    return {"x-ore-warning": "; ".join(run.warnings)} if run.warnings else {}


def _no_response(response_id: str) -> NotFound:
    message = f"Response with id {quoted(response_id)} not found. It was deleted, or made with 'store': false."
    return NotFound(message, param="response_id")


def _starting_after(request: Request) -> int:
    """The number of the last event that the client has; -1 for none."""
    value = request.query_params.get("starting_after", "")
    if not value:
        return -1
    if not (value.isascii() and value.isdigit() and len(value) <= 18):
        message = "Invalid 'starting_after': expected the 'sequence_number' of the last event you have."
        raise InvalidRequest(message, code="invalid_type", param="starting_after")
    return int(value)
