"""The command `ore` with the provider of `benchmarks.gateway`, whose port `BENCHMARK_UPSTREAM` says.

    BENCHMARK_UPSTREAM=4711 python -m benchmarks.gateway_ore serve ANY.gguf --port 0

TO BE REPLACED by `ore serve` and [providers.NAME] when settings know providers.
"""

import os

import ore.app
from benchmarks.temporary_chat import ChatCompletions  # TO BE REPLACED by the real dialect
from ore.backends.base import Backend
from ore.backends.provider import Provider, ProviderOptions
from ore.backends.upstream import Upstream, UpstreamOptions
from ore.cli import main
from ore.settings import Settings


async def backends(_settings: Settings, _progress: object) -> dict[str, Backend]:
    url = f"http://127.0.0.1:{os.environ['BENCHMARK_UPSTREAM']}/v1"
    options = ProviderOptions(kind="openai_compatible", models=("paced", "flat"), max_concurrent=1024)
    return {"loopback": Provider(ChatCompletions(), Upstream("loopback", UpstreamOptions(base_url=url)), options)}


if __name__ == "__main__":
    ore.app.make_backends = backends
    main()
