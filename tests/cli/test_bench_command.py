"""`ore bench`: the installed engines, measured on one model, as a table, as JSON and as a picture."""

import json
from pathlib import Path
from typing import Any

import pytest

from ore.commands.bench_measures import Measured, recommended
from ore.commands.bench_pictures import bars, svg

QUICK = ("bench", "ore-tiny", "--engines", "llama_cpp", "--clients", "1,2", "--tokens", "4", "--prompt", "32")


@pytest.mark.engine
def test_a_model_is_measured(ore: Any, folder: Path) -> None:
    """Every number is there; progress goes to standard error; the picture is an SVG file."""
    found = ore(*QUICK, "--json", "--plot", str(folder / "bars.svg"))
    assert found.exit_code == 0, found.output
    said = json.loads(found.stdout)
    assert said["recommended"] == "Recommended here: llama_cpp."
    measured = said["engines"]["llama_cpp"]
    assert measured["problem"] is None
    assert set(measured["decode"]) == {"1", "2"}
    numbers = ("load_seconds", "cold_seconds", "cached_seconds", "prefill", "resident", "bandwidth_share")
    assert all(measured[key] > 0 for key in numbers)
    assert "llama_cpp: loading\nllama_cpp: first token\nllama_cpp: 1 client\n" in found.stderr
    assert (folder / "bars.svg").read_text("utf-8").startswith("<svg ")


@pytest.mark.engine
def test_a_table_and_bars(ore: Any) -> None:
    """Without options: for people."""
    found = ore(*QUICK)
    assert found.exit_code == 0, found.output
    assert "prefill tok/s" in found.stdout
    assert "2 x llama_cpp  █" in found.stdout
    assert found.stdout.endswith("Recommended here: llama_cpp.\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("ore-tiny", "--engines", "sklearn,none"), "is not installed; install it with"),
        (("ore-tiny", "--clients", "0"), "--clients is '0'"),
        (("ore-tiny", "--clients", "a,b"), "numbers from 1 to 256"),
        (("model.onnx",), "measures language models"),
        (("gone.gguf",), "correct its path"),
    ],
)
def test_what_cannot_be_measured_is_refused(ore: Any, arguments: tuple[str, ...], sentence: str) -> None:
    """In one sentence, with exit status 2."""
    found = ore("bench", *arguments)
    assert found.exit_code == 2
    assert sentence in found.output


def test_a_file_that_no_engine_loads(ore: Any, folder: Path) -> None:
    """The reason is told, and the exit status is 1."""
    (folder / "broken.gguf").write_bytes(b"GGUF")
    found = ore("bench", "broken.gguf", "--engines", "llama_cpp", "--json")
    assert found.exit_code == 1
    assert "could not be loaded" in json.loads(found.stdout)["engines"]["llama_cpp"]["problem"]


def test_the_recommendation_tells_few_from_many() -> None:
    """The quickest for one client may not be that for many; an engine with a problem is none."""
    one = Measured(engine="one", decode={1: 90.0, 8: 100.0})
    many = Measured(engine="many", decode={1: 50.0, 8: 200.0})
    broken = Measured(engine="broken", problem="It could not.")
    assert recommended([one, many, broken]) == "Recommended here: many for 8 clients, one for 1."
    assert recommended([one, broken]) == "Recommended here: one."
    assert recommended([broken]) == "No engine could run it."
    assert [line.split()[2] for line in bars([one, many, broken])] == ["one", "many", "one", "many"]
    assert svg("<m>", [one, many]).count("<rect") == 5
