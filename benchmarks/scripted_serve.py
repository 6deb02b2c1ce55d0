"""The command `ore` with scripted models in place of any engine, for benchmarks.

    python benchmarks/scripted_serve.py serve ANY.gguf --port 0

`quick` answers; `row` does as a classical model would; `held` says one word and then nothing for a day.
"""

import ore.app
from ore.backends.base import Backend
from ore.backends.scripted import ScriptedBackend, says
from ore.cli import main
from ore.core.deltas import Finish, Text
from ore.settings import Settings

DAY = 86_400.0


async def backends(_settings: Settings, _progress: object) -> dict[str, Backend]:
    row = says(
        '{"label":"none","probabilities":{"none":1.0,"some":0.0,"all":0.0},"model_version":"sha256:0123456789ab"}'
    )
    scripts = {"row": row, "quick": says("Hello there.", pieces=3), "held": [Text("Well "), DAY, Finish("stop")]}
    return {"scripted": ScriptedBackend(scripts)}


if __name__ == "__main__":
    ore.app.make_backends = backends
    main()
