"""`engine = "auto"`: by the file, by whether there is a GPU, and by what is installed, and it says why."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from backends.local_random_gguf import write_random_gguf
from ore import engines
from ore.backends.local import auto
from ore.commands.serve import engines_of, with_engine
from ore.engines import chosen
from ore.errors import StartupError
from ore.settings import ModelSettings, Settings

ALL = {"llama_cpp", "openvino", "torch", "candle", "sklearn"}


def only(*names: str) -> Callable[[str], bool]:
    return lambda name: name in names


@pytest.fixture
def gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of an architecture that OpenVINO takes, and not small."""
    monkeypatch.setattr(auto, "SMALL_BYTES", 1000)
    return write_random_gguf(tmp_path / "model.gguf")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["Qwen3ForCausalLM"]}))
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def test_gguf_files_go_to_llama_cpp_unless_another_is_quicker(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO, if it is installed, there is no GPU, and the model is neither small nor unknown to it."""
    assert auto.suited(gguf, only(*ALL), gpu=False).engine == "openvino"
    assert auto.suited(gguf, only(*ALL), gpu=True).engine == "llama_cpp"
    assert auto.suited(gguf, only("llama_cpp"), gpu=False) == ("llama_cpp", "a GGUF file")
    monkeypatch.undo()
    assert auto.suited(gguf, only(*ALL), gpu=False).engine == "llama_cpp"
    assert auto.suited(gguf.parent / "unknown.gguf", only(*ALL), gpu=False).engine == "llama_cpp"


def test_folders_go_by_what_lies_in_them(folder: Path) -> None:
    """Safetensors to PyTorch on a GPU and for architectures that nobody else takes; OpenVINO's own format to it."""
    assert auto.suited(folder, only(*ALL), gpu=True).engine == "torch"
    assert auto.suited(folder, only(*ALL), gpu=False).engine == "openvino"
    assert auto.suited(folder, only("torch", "candle"), gpu=False).engine == "torch"
    (folder / "config.json").write_text('{"architectures": ["MambaForCausalLM"]}')
    assert auto.suited(folder, only(*ALL), gpu=False).engine == "torch"
    (folder / "openvino_model.xml").write_text("")
    assert auto.suited(folder, only(*ALL), gpu=True).engine == "openvino"


@pytest.mark.parametrize("name, engine", [("a.skops", "sklearn"), ("a.ONNX", "sklearn"), ("a.py", "torch")])
def test_other_files_have_one_engine(name: str, engine: str) -> None:
    """By their suffix."""
    assert auto.suited(Path(name), only(*ALL), gpu=False).engine == engine


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    """It is said what was looked for."""
    with pytest.raises(StartupError, match=r"neither safetensors nor openvino_model\.xml"):
        auto.suited(tmp_path, only(*ALL), gpu=False)


def test_what_is_not_installed_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Whether it was chosen or set."""
    monkeypatch.setattr(engines, "is_installed", lambda engine: engine == "llama_cpp")
    with pytest.raises(StartupError, match=r"pip install 'open-responses-engine\[\w+\]'"):
        chosen(folder, ModelSettings(path=str(folder)))
    with pytest.raises(StartupError, match=r"candle is needed \(as set\).*\[candle\]"):
        chosen(folder, ModelSettings(path="x.gguf", engine="candle"))


def test_the_flag_goes_over_the_setting(gguf: Path) -> None:
    """It is for the default model, which must be one of this machine."""
    settings = Settings(data_dir="/d", default_model="m", models={"m": ModelSettings(path=str(gguf))})
    settings = with_engine(settings, "llama_cpp")
    assert dict(engines_of(settings)) == {"m": ("llama_cpp", "as set")}
    with pytest.raises(StartupError, match="--engine is for a model on this machine"):
        with_engine(replace(settings, default_model="openai/gpt-5"), "torch")
