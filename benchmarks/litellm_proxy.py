"""The LiteLLM proxy, from PyPI, in an environment of its own: the other gateway of `benchmarks.gateway`.

It is installed once, into the user's cache folder, and set up as its makers recommend for production: no database, no
telemetry, no debug output, one worker. Nothing of it is part of ORE.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

VERSION: Final = "1.108.7"
"""The newest whose extra `proxy` could be installed when this was written: later ones ask for what no index had."""

START_SECONDS: Final = 120

CONFIG: Final = """\
litellm_settings:
  telemetry: false
  set_verbose: false
  num_retries: 0
  request_timeout: 600
general_settings:
  disable_spend_logs: true
model_list:
"""
MODEL: Final = """\
  - model_name: {name}
    litellm_params:
      model: openai/{model}
      api_base: http://127.0.0.1:{port}/v1
      api_key: sk-benchmark
      use_chat_completions_api: {over_chat}
"""


class NotInstalled(Exception):
    """It cannot be had here; the message says why."""


def installed(version: str = VERSION) -> Path:
    """Its environment, made if need be. Raises `NotInstalled`."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "ore" / "benchmarks" / f"litellm-{version}"
    if (folder / "ready").exists():
        return folder
    print(f"installing litellm[proxy] {version} into {folder}, once (0.8 GB, a minute or so) ...", file=sys.stderr)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
    for command in ([sys.executable, "-m", "venv", "--clear", str(folder)], [*pip, f"litellm[proxy]=={version}"]):
        done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise NotInstalled((done.stderr.strip().splitlines() or ["the installation failed"])[-1])
    (folder / "ready").touch()
    return folder


class LiteLLM:
    """`with LiteLLM(environment, folder, upstream_port) as server`: then `server.port` and `server.pid`.

    It has the models of the upstream, and each once more as `NAME-over-chat`, for Responses over Chat Completions.
    """

    def __init__(self, environment: Path, folder: Path, upstream: int) -> None:
        self._program = environment / "bin" / "litellm"
        self._config = folder / "litellm.yaml"
        models = [
            MODEL.format(name=name, model=model, port=upstream, over_chat=str(name != model).lower())
            for model in ("paced", "flat")
            for name in (model, f"{model}-over-chat")
        ]
        self._config.write_text(CONFIG + "".join(models))

    def __enter__(self) -> "LiteLLM":
        self.port = _free_port()
        settings = {
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOG": "ERROR",
            "LITELLM_TELEMETRY": "False",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "DISABLE_ADMIN_UI": "True",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # no keys to look up, as with ORE
        }
        bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [str(self._program), "--host", "127.0.0.1", "--port", str(self.port), "--num_workers", "1"]
        self._process = subprocess.Popen(
            [*command, "--config", str(self._config)],
            env={**bare, **settings},
            cwd=self._config.parent,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.pid = self._process.pid
        until = time.monotonic() + START_SECONDS
        while not self._ready():
            if time.monotonic() > until or self._process.poll() is not None:
                self.__exit__()
                raise RuntimeError("the LiteLLM proxy did not start")
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health/liveliness", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
