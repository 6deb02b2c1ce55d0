"""What a connection gives its runs: a memory of earlier responses, and responses that are only prepared."""

import pytest
from run_kit import OWNER, Played, check_run, world

from ore.backends.scripted import says
from ore.ids import new_id
from ore.protocol.responses import check_create

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])]


async def test_memory_comes_before_the_store() -> None:
    """What the connection remembers under an id is the chain; the store is asked for what it does not know."""
    remembered = {"resp_remembered": [{"type": "message", "id": "msg_1", "role": "user", "content": []}]}
    async with world(*says("Hello.")) as here:
        stored = await here.play()
        for response_id, begins in (("resp_remembered", "msg_1"), (stored.run.id, stored.run.context.items[0]["id"])):
            create = here.create(previous_response_id=response_id)
            run = here.supervisor.start(OWNER, create, remembered=remembered.get)
            await run.ended()
            run.check_begun()
            assert run.context.items[0]["id"] == begins


async def test_a_response_that_is_only_prepared() -> None:
    """With `generate` off no model is asked: three events, no output, and the response is kept like any other."""
    async with world(*says("Hello.")) as here:
        create = check_create({"model": "m", "instructions": "Be short."}, new_id, generate=False)
        played = Played(here.supervisor.start(OWNER, create))
        await played.follow()
        check_run(played, here)
        assert played.types == ["response.created", "response.in_progress", "response.completed"]
        assert here.backend.requests == []
        assert (await here.play(previous_response_id=played.run.id)).final["status"] == "completed"
