"""What a model's files say of its control tokens and template: a GGUF file, and a folder as hubs have them."""

import json
from pathlib import Path

import pytest
from local_random_gguf import CONTROL, TEMPLATE, USER_DEFINED, write_random_gguf

from ore.backends.local.gguf_header import read_values
from ore.backends.local.tokenizer_facts import TokenizerFacts, read_tokenizer_facts
from ore.errors import StartupError

MARKERS = {"<tool_call>", "</tool_call>", "<think>", "</think>"}
ALWAYS = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}


@pytest.mark.parametrize(("kind", "control"), [(USER_DEFINED, ALWAYS), (CONTROL, ALWAYS | MARKERS)])
def test_a_gguf_tells_its_control_tokens(tmp_path: Path, kind: int, control: set[str]) -> None:
    """Markers that users defined are found as they stand, and are text all the same."""
    told = read_tokenizer_facts(write_random_gguf(tmp_path / "m.gguf", marker_type=kind))
    assert told.special == ALWAYS | MARKERS
    assert told.control == control
    assert (told.bos_token, told.eos_token) == ("<|endoftext|>", "<|im_end|>")
    assert told.ends == {"<|endoftext|>", "<|im_end|>"}
    assert told.chat_template == TEMPLATE


def test_values_are_read_by_key(tmp_path: Path) -> None:
    """Strings, numbers, switches and lists; keys that are not there are left out."""
    path = write_random_gguf(tmp_path / "m.gguf", merges=("a b",))
    keys = ["general.name", "llama.context_length", "tokenizer.ggml.add_bos_token", "tokenizer.ggml.merges", "none"]
    assert [read_values(path, keys).get(key) for key in keys] == ["random", 2048, False, ["a b"], None]


def test_a_folder_tells_them_too(tmp_path: Path) -> None:
    """Tokens are strings or objects, and the template is in the configuration or has a file of its own."""
    added = [{"content": "<|im_end|>", "special": True}, {"content": "<think>", "special": False}]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    about = {"eos_token": {"content": "<|im_end|>"}, "bos_token": None, "chat_template": "T"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(about))
    told = read_tokenizer_facts(tmp_path)
    assert (told.control, told.bos_token, told.eos_token) == ({"<|im_end|>"}, "", "<|im_end|>")
    assert told.special == {"<|im_end|>", "<think>"}
    assert told.chat_template == "T"
    named = [{"name": "tool_use", "template": "A"}, {"name": "default", "template": "B"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert read_tokenizer_facts(tmp_path).chat_template == "B"
    (tmp_path / "chat_template.jinja").write_text("C")
    assert read_tokenizer_facts(tmp_path).chat_template == "C"


def test_a_message_that_goes_on_is_no_end() -> None:
    """Models that have a token to return with use the other one between messages."""
    assert "<|end|>" in TokenizerFacts(special=frozenset({"<|end|>"})).ends
    assert TokenizerFacts(special=frozenset({"<|end|>", "<|return|>"})).ends == {"<|return|>"}


@pytest.mark.parametrize("text", ["", "GGUF", "not a model"])
def test_what_is_no_model_is_a_startup_error(tmp_path: Path, text: str) -> None:
    """With the reason."""
    (tmp_path / "m.gguf").write_text(text)
    with pytest.raises(StartupError, match="not a GGUF"):
        read_tokenizer_facts(tmp_path / "m.gguf")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(StartupError, match="damaged"):
        read_tokenizer_facts(tmp_path)
