"""Which engine suits a model on this machine: `engine = "auto"`.

By what the file is, by whether there is a GPU, and by what is installed. It looks at headers and device files only: it
refuses to load a model, to import an engine and to measure anything (`ore bench` does).
"""

import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec

from ore.backends.local.gguf_header import NotGguf, read_header
from ore.backends.local.openvino import architectures
from ore.errors import StartupError

Kind = Literal["gguf", "openvino", "safetensors", "python", "classical"]

SMALL_BYTES: Final = 32 * 2**20
"""Below this a model is so quick in any engine that the one that starts first is the best."""

_SUFFIXES: Final[dict[str, Kind]] = {".py": "python", ".skops": "classical", ".onnx": "classical"}

_GPUS: Final = ("/dev/nvidia0", "/dev/dxg", "/dev/kfd")
"""Device files of Nvidia's driver, of Nvidia's within WSL, and of AMD's."""


class Choice(NamedTuple):
    """An engine, and the reason in half a sentence."""

    engine: str
    why: str


def suited(path: Path, installed: Callable[[str], bool], *, gpu: bool | None = None) -> Choice:
    """The engine for the model at `path`. Where none of those that take it is installed: the one that should be.

    `gpu` says whether there is one; None looks. Raises `StartupError` for a file that no engine takes.
    """
    kind = kind_of(path)
    rated = _rated(kind, path, has_gpu() if gpu is None else gpu)
    return next((choice for choice in rated if installed(choice.engine)), rated[0])


def takers(path: Path) -> list[str]:
    """Every engine that takes such a file, the best suited first. Raises `StartupError`."""
    return [choice.engine for choice in _rated(kind_of(path), path, has_gpu())]


def kind_of(path: Path) -> Kind:
    """What a model is, by its name and what lies in its folder. Raises `StartupError`."""
    if not path.is_dir():
        return _SUFFIXES.get(path.suffix.lower(), "gguf")
    if (path / architectures.GRAPH).is_file():
        return "openvino"
    if any(path.glob("*.safetensors")):
        return "safetensors"
    raise StartupError(
        f"The folder {path.name} has no model: neither safetensors nor {architectures.GRAPH}. Correct its path."
    )


def has_gpu() -> bool:
    """Whether there is a GPU that PyTorch knows. Asks the system, and no driver."""
    apple = sys.platform == "darwin" and platform.machine() == "arm64"
    return apple or any(Path(device).exists() for device in _GPUS)


def _rated(kind: Kind, path: Path, gpu: bool) -> list[Choice]:
    """Those that take it, the best first."""
    match kind:
        case "gguf":
            return _for_gguf(path, gpu)
        case "safetensors":
            return _for_safetensors(path, gpu)
        case "openvino":
            return [Choice("openvino", "a folder in OpenVINO's own format")]
        case "python":
            return [Choice("torch", "a Python file with a model of your own")]
        case "classical":
            return [Choice("sklearn", f"a {path.suffix.lower()} file")]


def _for_gguf(path: Path, gpu: bool) -> list[Choice]:
    llama_cpp, candle = Choice("llama_cpp", "a GGUF file"), Choice("candle", "a GGUF file")
    if not _openvino_takes_gguf(path):
        return [llama_cpp, candle]
    if gpu or path.stat().st_size < SMALL_BYTES:
        return [llama_cpp, Choice("openvino", "a GGUF file"), candle]
    best = Choice("openvino", "a GGUF file and no GPU: it serves several clients at once the fastest")
    return [best, llama_cpp, candle]


def _for_safetensors(path: Path, gpu: bool) -> list[Choice]:
    torch = Choice("torch", "safetensors and a GPU" if gpu else "safetensors")
    candle = Choice("candle", "safetensors")
    if _architecture(path) not in architectures.SAFETENSORS:
        return [torch, candle]
    openvino = Choice("openvino", "safetensors and no GPU: it is the fastest on processors")
    return [torch, candle, openvino._replace(why="safetensors")] if gpu else [openvino, torch, candle]


def _openvino_takes_gguf(path: Path) -> bool:
    try:
        return read_header(path).architecture in architectures.GGUF
    except (NotGguf, OSError):
        return False


def _architecture(path: Path) -> str:
    try:
        config: Any = msgspec.json.decode((path / "config.json").read_bytes())
        return str(config["architectures"][0])
    except (OSError, msgspec.DecodeError, LookupError, TypeError):
        return ""
