"""Tokenizers as the scheduler sees them: control tokens, markers, characters."""

import json

import pytest

pytest.importorskip("numpy")
tokenizers = pytest.importorskip("tokenizers")

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from ore.backends.local.batching.vocabulary import Detokenizer, Vocabulary, from_tokenizer_json


def trained(decoder: object = None) -> Tokenizer:
    """Byte-level BPE with a turn's markers as control tokens, and a call's close marker as text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoder or decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<|end|>", "<|start|>"]
    )
    tokenizer.train_from_iterator(["hello world, these are words for tokens"] * 9, trainer)
    tokenizer.add_tokens([AddedToken("<call>", special=True), AddedToken("</call>", special=False)])
    return tokenizer


@pytest.fixture
def vocabulary() -> Vocabulary:
    return from_tokenizer_json(trained().to_str(), [0])


def test_markers_count_where_they_may(vocabulary: Vocabulary) -> None:
    """Also those that the file calls text: grammars name them as tokens."""
    for marker in ("<|start|>", "<call>", "</call>"):
        assert len(vocabulary.encode(marker, parse_special=True)) == 1
        assert len(vocabulary.encode(marker)) > 1
    assert not vocabulary.adds_bos


def test_a_grammar_names_markers(vocabulary: Vocabulary) -> None:
    """They are tokens in it, and everything between them is bytes."""
    matcher = vocabulary.matcher('%llguidance {}\nstart: <call> "hello" </call>\n')
    assert matcher.consume_tokens(vocabulary.encode("<call>hello</call>", parse_special=True))
    assert matcher.is_stopped()


def test_control_tokens_show_where_they_are_looked_for(vocabulary: Vocabulary) -> None:
    """Silent otherwise; what the file calls text always shows."""
    tokens = vocabulary.encode("<call>hällo 😀</call><|end|>", parse_special=True)

    def said(*visible: str) -> str:
        detokenizer = Detokenizer(vocabulary, visible)
        return "".join(map(detokenizer.feed, tokens))

    assert said() == "hällo 😀</call>"
    assert said("<call>") == "<call>hällo 😀</call>"


def test_the_space_before_a_text_is_not_its_own() -> None:
    """Tokenizers that put a space before a text take it away again; only once."""
    decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    vocabulary = from_tokenizer_json(trained(decoder).to_str(), [0])
    detokenizer = Detokenizer(vocabulary, strip=True)
    assert "".join(map(detokenizer.feed, vocabulary.encode(" hello hello"))) == "hello hello"


def test_every_text_comes_back(vocabulary: Vocabulary) -> None:
    """Bytes of tokens put together are the text."""
    for text in ("hello world", "  \n\ttabs", "日本語", json.dumps({"a": [1, "ß"]})):
        assert b"".join(vocabulary.pieces[token] for token in vocabulary.encode(text)).decode() == text
