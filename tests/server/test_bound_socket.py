"""The socket that ORE listens on."""

import asyncio
import socket

from ore.serving import bind


def test_connections_send_without_delay() -> None:
    """On asyncio's own loop too, an answer does not wait until the one before it was acknowledged."""

    async def accepted() -> int:
        seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def look(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(look, sock=bind("127.0.0.1", 0)) as server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.close()
            return await seen

    assert asyncio.run(accepted()) != 0
