"""The baseline of `benchmarks.engine`: the same llama.cpp build and settings, called from threads of one process.

Reads one JSON line of parameters (see `Ask`) from stdin for each measurement and answers with one line; ends with
stdin. Nothing of ORE runs in this process but the function that starts the engine.
"""

import json
import sys
import threading
import time
from typing import Any

import msgspec

from ore.backends.local.llama_cpp_server import Parameters, serve


class Ask(msgspec.Struct):
    """`clients` threads, each asking `requests` times for `tokens` tokens after `prompts[i]`."""

    clients: int
    requests: int
    tokens: int
    prompts: list[str]


def main() -> None:
    """First the engine's parameters, then one `Ask` a line."""
    server = serve(msgspec.json.decode(sys.stdin.readline(), type=Parameters))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(measure(server, msgspec.json.decode(line, type=Ask))), flush=True)


def measure(server: Any, ask: Ask) -> dict[str, float]:
    """Tokens that came, and the seconds they took, from the first request to the last token."""
    counts = [0] * ask.clients

    def client(index: int) -> None:
        for _ in range(ask.requests):
            body = {
                "prompt": ask.prompts[index],
                "n_predict": ask.tokens,
                "temperature": 0.7,
                "top_p": 0.95,
                "cache_prompt": True,
                "stream": True,
                "stream_options": {"include_usage": True},
            }

            def take(chunk: dict[str, Any]) -> bool:
                if usage := chunk.get("usage"):
                    counts[index] += usage["completion_tokens"]
                return False

            server.handle_completions(body, take)

    threads = [threading.Thread(target=client, args=(index,)) for index in range(ask.clients)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"tokens": sum(counts), "seconds": time.perf_counter() - begun}


if __name__ == "__main__":
    main()
