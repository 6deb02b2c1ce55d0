"""`ore models train-demo` makes a model that can be served as it says."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clients.wire import Exchange
from servers import OreProcess


def train(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ore", "models", "train-demo", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=100)


def test_a_demo_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    """With those that do. So is a file that would be served as another kind of model."""
    refused = train(tmp_path, "nope")
    assert refused.returncode == 2
    assert "there is wine, diabetes, intents" in refused.stderr
    assert train(tmp_path, "wine", "--out", "x.pkl").returncode == 2


@pytest.mark.parametrize("name", ["wine", "diabetes", "intents"])
def test_a_demo_answers_as_it_was_told(name: str, tmp_path: Path) -> None:
    """The body of the curl line that it prints gets an answer."""
    pytest.importorskip("sklearn")
    pytest.importorskip("skops")
    said = train(tmp_path, name)
    assert said.returncode == 0, said.stderr
    assert float(re.findall(r"not seen: ([\d.]+)\.", said.stdout)[0]) > 0.1
    *_, body = shlex.split(said.stdout.splitlines()[-1])
    served = OreProcess(tmp_path, str(tmp_path / f"{name}.skops"))
    with served as server, Exchange(server.url, json.loads(body)) as exchange:
        answer: Any = exchange.answer().json()
    told = json.loads(answer["output"][0]["content"][0]["text"])
    assert told["model_version"].startswith("sha256:")
