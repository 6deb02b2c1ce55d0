"""Write a checkpoint of ore-tiny as GGUF: weights, tokenizer, special tokens and chat template in one file.

The result runs in llama.cpp as a `llama` model. It refuses to change the weights beyond their rounding: matrices become
q8_0 (or f16), norms stay f32.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter

from model import Shape
from tokenizer import SPECIAL

HERE = Path(__file__).parent
NAMES = {
    "attn_norm": "attn_norm.weight",
    "out": "attn_output.weight",
    "ffn_norm": "ffn_norm.weight",
    "down": "ffn_down.weight",
}


def tensors(shape: Shape, state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """The weights by llama.cpp's names; fused matrices are taken apart."""
    named = {"token_embd.weight": state["embedding"], "output_norm.weight": state["norm"]}
    wide, narrow = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    for i in range(shape.layers):
        prefix, target = f"blocks.{i}.", f"blk.{i}."
        for ours, theirs in NAMES.items():
            named[target + theirs] = state[prefix + ours]
        query, key, value = state[prefix + "qkv"].split([wide, narrow, narrow])
        named |= {target + "attn_q.weight": query, target + "attn_k.weight": key, target + "attn_v.weight": value}
        biases = state[prefix + "qkv_bias"].split([wide, narrow, narrow])
        named |= {f"{target}attn_{name}.bias": bias for name, bias in zip("qkv", biases, strict=True)}
        gate, up = state[prefix + "gate_up"].chunk(2)
        named |= {target + "ffn_gate.weight": gate, target + "ffn_up.weight": up}
    return {name: tensor.float().contiguous().numpy() for name, tensor in named.items()}


def write_facts(writer: GGUFWriter, shape: Shape, description: str) -> None:
    """What the model is and its sizes."""
    writer.add_name("ore-tiny")
    writer.add_description(description)
    writer.add_license("apache-2.0")
    writer.add_languages(["en"])
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(1e-5)


def write_tokenizer(writer: GGUFWriter, path: Path) -> None:
    """Vocabulary, merges, special tokens and the chat template."""
    data = json.loads(path.read_text())
    vocabulary = dict(data["model"]["vocab"])
    vocabulary |= {token["content"]: token["id"] for token in data["added_tokens"]}
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    kinds = gguf.TokenType
    # As llama.cpp's converter does: markers that a parser has to see in the text are user-defined, not control.
    hidden = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}
    types = [kinds.CONTROL if t in hidden else kinds.USER_DEFINED if t in SPECIAL else kinds.NORMAL for t in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in data["model"]["merges"]])
    writer.add_bos_token_id(vocabulary["<|endoftext|>"])
    writer.add_eos_token_id(vocabulary["<|im_end|>"])
    writer.add_eot_token_id(vocabulary["<|im_end|>"])
    writer.add_pad_token_id(vocabulary["<|endoftext|>"])
    writer.add_add_bos_token(False)
    writer.add_chat_template((HERE / "template.jinja").read_text().rstrip("\n"))


def export(checkpoint: Path, tokenizer: Path, out: Path, half: bool, weights: str) -> str:
    """Write the file, at once or not at all; say what was written."""
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    shape = Shape(**saved["shape"])
    count = sum(tensor.numel() for tensor in saved[weights].values()) / 1e6
    kind = GGMLQuantizationType.F16 if half else GGMLQuantizationType.Q8_0
    draft = out.with_suffix(".new")
    writer = GGUFWriter(draft, "llama")
    write_facts(writer, shape, f"The bundled language model of ORE: {count:.1f} million parameters, generated data.")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if half else gguf.LlamaFileType.MOSTLY_Q8_0)
    write_tokenizer(writer, tokenizer)
    for name, data in tensors(shape, saved[weights]).items():
        if data.ndim == 1:
            writer.add_tensor(name, data)
        else:
            writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    draft.replace(out)
    return f"{out}: {out.stat().st_size / 1e6:.1f} MB, {count:.2f}M parameters, step {saved['step']}"


def main() -> None:
    """Read the options and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--type", choices=["q8_0", "f16"], default="q8_0")
    parser.add_argument("--weights", choices=["model", "average"], default="model", help="the last, or their average")
    options = parser.parse_args()
    print(export(options.checkpoint, options.tokenizer, options.out, options.type == "f16", options.weights))


if __name__ == "__main__":
    main()
