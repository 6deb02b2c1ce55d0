"""Makes tiny models with random weights, as folders that model hubs would have."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM

SPECIAL = ["<|end|>", "<|start|>", "<tool_call>", "</tool_call>", "<think>", "</think>"]
TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message.role }}\n{{ message.content }}<|end|>\n{% endfor %}"
    "{% if tools %}{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}{% endif %}<|start|>assistant\n"
)
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 1024,
    "eos_token_id": 0,
    "bos_token_id": None,
    "pad_token_id": None,
    "tie_word_embeddings": True,
    "dtype": "float32",
}


def tokenizer() -> Tokenizer:
    """Byte-level BPE with the markers of a chat template."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=SPECIAL, show_progress=False
    )
    made.train_from_iterator(["the quick brown fox says hello to the world and to the weather tool"] * 9, trainer)
    return made


def model(kind: str = "llama", **config: Any) -> Any:
    torch.manual_seed(7)
    made = tokenizer()
    whole = {**SHAPE, "vocab_size": made.get_vocab_size() + 3, "initializer_range": 0.3, **config}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **whole)).eval()


def save(folder: Path, made: Any) -> Path:
    """Weights, tokenizer and template."""
    made.save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|end|>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
