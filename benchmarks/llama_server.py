"""llama.cpp's own HTTP server, from the wheel, in a process of its own; and clients that stream from it.

Run as `python -m benchmarks.llama_server MODEL SLOTS SOCKET` by `LlamaServer`. It listens on a Unix socket. Nothing of
ORE runs in the process but the function that starts the engine.
"""

import asyncio
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

from ore.backends.local.llama_cpp_server import Parameters, serve

KEY = "benchmark"
_PREDICTED = re.compile(rb'"tokens_predicted":(\d+)')


class LlamaServer:
    """`with LlamaServer(model, slots, socket)`: it listens on `socket`, a path."""

    def __init__(self, model: Path, slots: int, socket: Path) -> None:
        self._command = [sys.executable, "-m", "benchmarks.llama_server", str(model), str(slots), str(socket)]

    def __enter__(self) -> "LlamaServer":
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        if "ready" not in self._process.stdout.readline():
            raise RuntimeError("llama.cpp's server did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


async def run_completions(socket: Path, prompts: list[str], requests: int, tokens: int) -> dict[str, float]:
    """One client for each prompt, each streaming `requests` times: tokens and seconds."""

    async def client(prompt: str) -> int:
        return sum([await _stream(socket, prompt, tokens) for _ in range(requests)])

    begun = time.perf_counter()
    counted = sum(await asyncio.gather(*map(client, prompts)))
    return {"tokens": counted, "seconds": time.perf_counter() - begun}


async def _stream(socket: Path, prompt: str, tokens: int) -> int:
    body = json.dumps({"prompt": prompt, "n_predict": tokens, "temperature": 0.7, "top_p": 0.95, "stream": True})
    reader, writer = await asyncio.open_unix_connection(socket, limit=1 << 20)
    head = f"POST /completion HTTP/1.1\r\nhost: engine\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n"
    writer.write(f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
    raw = b""
    try:
        while data := await reader.read(1 << 16):
            raw = raw[-65_536:] + data
    finally:
        writer.close()
    if not (found := _PREDICTED.findall(raw)):
        raise RuntimeError(f"no count in the stream: {raw[-300:]!r}")
    return int(found[-1])


def main() -> None:
    """Serve until killed."""
    model, slots, socket = sys.argv[1:]
    parameters = Parameters(
        path=model,
        socket=socket,
        api_key=KEY,
        slots=int(slots),
        context=1024,
        threads=0,
        batch=128,
        gpu_layers=-1,
        prompt_cache_mib=64,
    )
    server = serve(parameters)
    print("ready", flush=True)
    threading.Event().wait()
    del server


if __name__ == "__main__":
    main()
