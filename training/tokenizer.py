"""Build the byte-level BPE vocabulary of ore-tiny from generated dialogues.

Words and the space before them are kept apart, so that an invented word has the same tokens wherever it stands: that
makes copying easy. Only the most frequent plain words get a token with the space in it. Digits stand alone. The
split of the text is that of the `qwen2` pre-tokenizer, which llama.cpp knows. It refuses to add words of any corpus.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from generate import make, render

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<tools>",
    "</tools>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
APART = r"\p{L}+|\p{N}| (?=[\p{L}\p{N}])| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
SPACED = 260


def split_by(pattern: str) -> pre_tokenizers.PreTokenizer:
    """A pre-tokenizer that cuts a text into the matches of a pattern, then into bytes."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def learn(texts: list[str], size: int) -> Tokenizer:
    """Byte pairs within words first, then the frequent words together with their space."""
    draft = Tokenizer(models.BPE())
    draft.pre_tokenizer = split_by(APART)
    trainer = trainers.BpeTrainer(
        vocab_size=size - SPACED - len(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    draft.train_from_iterator(texts, trainer)
    model = json.loads(draft.to_str())["model"]
    pieces = [piece for piece, _ in sorted(model["vocab"].items(), key=lambda item: item[1])]
    merges = [tuple(merge) for merge in model["merges"]]
    counts = Counter(word for text in texts for word in re.findall(r" ([A-Za-z]+)", text))
    known = set(pieces)
    words = [
        w for w, _ in counts.most_common() if w in known and (w == "a" or len(w) > 1) and (w.islower() or w == "I")
    ]
    for word in words[:SPACED]:
        merges.append(("Ġ", word))
        pieces.append("Ġ" + word)
    tokenizer = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges))
    tokenizer.pre_tokenizer = split_by(QWEN2)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    return tokenizer


def texts_of(seed: int, count: int) -> list[str]:
    """Rendered dialogues without their markers."""
    rng = random.Random(seed)
    markers = re.compile("|".join(re.escape(token) for token in SPECIAL))
    return [markers.sub("\n", render(e.messages, e.tools)) for e in (make(rng, False) for _ in range(count))]


def main() -> None:
    """Learn and save the tokenizer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where to write tokenizer.json")
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--texts", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    texts = texts_of(options.seed, options.texts)
    tokenizer = learn(texts, options.size)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(options.out))
    sizes = [len(tokenizer.encode(text).ids) for text in texts[:1000]]
    print(f"{tokenizer.get_vocab_size()} tokens; {sum(sizes) / len(sizes):.0f} per dialogue")


if __name__ == "__main__":
    main()
