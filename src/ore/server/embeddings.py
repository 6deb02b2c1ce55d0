"""`POST /v1/embeddings`, as OpenAI's API has it: reads its request, asks the router, answers.

There is no run, and nothing is stored.
"""

from functools import partial

import anyio
import anyio.to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response as HTTPResponse
from starlette.routing import Route

from ore.backends.base import Embedded, EmbeddingRequest
from ore.errors import DeadlineExceeded
from ore.protocol.embeddings import Embed, check_embeddings, embedding_list
from ore.protocol.events import encode
from ore.routing.router import Router
from ore.server.answers import json_response
from ore.server.reading import OWNER, checked
from ore.server.sse import while_connected


class EmbeddingEndpoints:
    """The one endpoint, over a router. `seconds` is how long an answer may take."""

    def __init__(self, *, router: Router, strict_fields: bool, seconds: float) -> None:
        self._router = router
        self._strict_fields = strict_fields
        self._seconds = seconds

    def routes(self) -> list[Route]:
        return [Route("/v1/embeddings", self.create, methods=["POST"])]

    async def create(self, request: Request) -> HTTPResponse:
        """The vectors of some texts. A client that leaves stops the work on them."""
        wanted = await checked(request, partial(check_embeddings, strict_fields=self._strict_fields))
        made, name = None, ""
        with anyio.CancelScope() as working:
            async with while_connected(request.receive, working.cancel):
                name, made = await self._made(wanted)
        if made is None:
            raise ClientDisconnect
        return json_response(await anyio.to_thread.run_sync(_answer, made, name, wanted.base64))

    async def _made(self, wanted: Embed) -> tuple[str, Embedded]:
        """The name of the model, and its vectors."""
        route = await self._router.route(wanted.model)
        asked = EmbeddingRequest(
            model=route.name, inputs=wanted.inputs, dimensions=wanted.dimensions, user=wanted.user, owner=OWNER
        )
        try:
            with anyio.fail_after(self._seconds):
                return route.name, await self._router.embed(route, asked)
        except TimeoutError:
            raise DeadlineExceeded(
                f"The embeddings took longer than {self._seconds:g} s. Send fewer inputs at once.", code="timeout"
            ) from None


def _answer(made: Embedded, model: str, base64: bool) -> bytes:
    return encode(embedding_list(made.vectors, model, made.input_tokens, base64=base64))
