"""Streaming clients for benchmarks: plain sockets, so that the client costs next to nothing."""

import asyncio
import json
import re
import time

_OUTPUT_TOKENS = re.compile(rb'"output_tokens":(\d+)')


async def stream_once(port: int, body: dict[str, object]) -> int:
    """One streamed response on a connection of its own; the output tokens that its usage says."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(request(body))
    raw = b""
    try:
        while data := await reader.read(1 << 16):
            raw = raw[-65_536:] + data
    finally:
        writer.close()
    found = _OUTPUT_TOKENS.findall(raw)
    if not found:
        raise RuntimeError(f"no usage in the stream: {raw[-300:]!r}")
    return int(found[-1])


def request(body: dict[str, object]) -> bytes:
    """An HTTP request for a stream, with the connection closed at its end."""
    payload = json.dumps({**body, "stream": True}).encode()
    return (
        b"POST /v1/responses HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\nconnection: close\r\n"
        b"content-length: %d\r\n\r\n%b" % (len(payload), payload)
    )


async def run_clients(port: int, bodies: list[dict[str, object]], requests: int) -> dict[str, float]:
    """One client for each body, each streaming `requests` times; tokens and seconds as the baseline counts them."""

    async def client(body: dict[str, object]) -> int:
        return sum([await stream_once(port, body) for _ in range(requests)])

    begun = time.perf_counter()
    tokens = sum(await asyncio.gather(*(client(body) for body in bodies)))
    return {"tokens": tokens, "seconds": time.perf_counter() - begun}
