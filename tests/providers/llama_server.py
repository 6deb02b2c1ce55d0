"""llama.cpp's own server with the bundled model, over TCP, in a process of its own. Not a test.

Run as a program with the port and the number of tokens that a context has; one line on stdout says that it listens.
"""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ore

MODEL = Path(ore.__file__).parent / "models" / "ore-tiny.gguf"


@contextmanager
def llama_server(context: int) -> Iterator[str]:
    """Its address, without a path, while it runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, __file__, str(port), str(context)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n", "llama.cpp's server did not start"
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def main(port: str, context: str) -> None:
    import xllamacpp

    common = xllamacpp.CommonParams()
    common.model.path = str(MODEL)
    common.hostnames = ["127.0.0.1"]
    common.port = int(port)
    common.use_jinja = True
    common.n_parallel = 1
    common.n_ctx = int(context)
    common.fit_params = False
    common.ui = False
    common.offline = True
    common.cpuparams.n_threads = common.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(common)
    print("ready", flush=True)  # noqa: T201
    sys.stdin.buffer.read()  # a server whose test is gone ends with it
    del server


if __name__ == "__main__":
    main(*sys.argv[1:])
