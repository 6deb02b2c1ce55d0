"""From logits to tokens: penalties, nucleus, logprobs, and grammars that hold."""

import json
import math
import random

import pytest

np = pytest.importorskip("numpy")

from backends.batching_fakes import END, FakeRunner, answers, ask, byte_vocabulary, text, worker
from ore.backends.local.batching.sampler import Sampler
from ore.errors import InvalidRequest


def noise(tokens: list[int]) -> dict[int, float]:
    """Logits of a model that knows nothing: as good as random, and the same for the same tokens."""
    rng = random.Random(repr(tokens))
    return {token: rng.gauss(0, 3) for token in range(END + 1)}


def distribution(row: "np.ndarray", **fields: float | bool) -> set[int]:
    sampler = Sampler(ask(**fields), byte_vocabulary())
    return {sampler.pick(row.copy())[0] for _ in range(300)}


def test_a_nucleus_has_the_likeliest_tokens_only() -> None:
    """Half, a quarter, an eighth, an eighth: 0.7 takes two of them."""
    row = np.full(END + 1, -np.inf, np.float32)
    row[:4] = np.log([0.5, 0.25, 0.125, 0.125])
    assert distribution(row, temperature=1, top_p=0.7, seed=1, own_distribution=False) == {0, 1}
    assert distribution(row, temperature=1, top_p=1, seed=1, own_distribution=False) == {0, 1, 2, 3}
    assert distribution(row, temperature=1, top_p=0.4, seed=1) == {0}
    assert distribution(row, temperature=0.01, top_p=1, seed=1) == {0}


def test_a_flat_nucleus_is_looked_for_everywhere() -> None:
    """Where the likeliest tokens do not make the nucleus, all are sorted."""
    sampler = Sampler(ask(temperature=1, top_p=0.95, seed=3, own_distribution=False), byte_vocabulary())
    assert len({sampler._draw(np.zeros(5000, np.float32)) for _ in range(2000)}) > 1300


def test_penalties_count_what_was_said() -> None:
    """With a penalty the second likeliest comes next; presence counts once, frequency each time."""
    runner = FakeRunner(lambda _: {97: 5.0, 98: 4.5, 99: 3.0})
    assert text(answers(worker(runner), [ask(tokens=4, presence_penalty=1.0)])[0]) == "abaa"
    assert text(answers(worker(runner), [ask(tokens=6, frequency_penalty=1.0)])[0]) == "ababac"
    assert text(answers(worker(runner), [ask(tokens=4)])[0]) == "aaaa"


def test_logprobs_are_the_models_own() -> None:
    """They stand beside their text, sum to one, and no temperature, penalty or grammar changes them."""
    runner = FakeRunner(lambda _: {97: 5.0, 98: 4.5})
    pieces = answers(worker(runner), [ask(tokens=2, alternatives=2, presence_penalty=2.0)])[0]
    assert [[entry["token"] for entry in piece.logprobs] for piece in pieces] == [["a"], ["b"]]
    entry = pieces[1].logprobs[0]
    whole = math.log(math.exp(5) + math.exp(4.5) + END - 1)
    assert entry["logprob"] == pytest.approx(4.5 - whole, abs=1e-4)
    assert [(other["token"], other["bytes"]) for other in entry["top_logprobs"]] == [("a", [97]), ("b", [98])]


def test_logprobs_wait_for_their_text() -> None:
    """Entries of a character's tokens come with the character; those of a stop text do not come."""
    script = [256 + 2, 256 + 3, *b"so END", END]
    engine = worker(FakeRunner(lambda tokens: script[len(tokens) - 1]))
    pieces = answers(engine, [ask("h", 20, alternatives=0, stop=("END",))])[0]
    assert [(piece.text, len(piece.logprobs)) for piece in pieces if piece.text] == [
        ("ä", 2),
        ("s", 1),
        ("o", 1),
        (" ", 1),
    ]
    assert pieces[-1].logprobs == ()


SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["one", "two"]}, "size": {"type": "integer", "minimum": 1, "maximum": 99}},
    "required": ["name", "size"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("temperature", [0, 1])
def test_a_grammar_holds_a_model_that_knows_nothing(temperature: float) -> None:
    """Ten answers by random logits: each is what the schema says, and ends by itself."""
    grammar = f"%llguidance {{}}\nstart: %json {json.dumps(SCHEMA)}\n"
    asked = [ask("p" * n, 150, grammar=grammar, temperature=temperature, seed=n) for n in range(1, 11)]
    for pieces in answers(worker(FakeRunner(noise, blocks=400)), asked):
        assert pieces[-1].end is not None
        if pieces[-1].end.reason == "stop":
            answer = json.loads(text(pieces))
            assert answer["name"] in {"one", "two"}
            assert 1 <= answer["size"] <= 99
    assert pieces[-1].end.reason == "stop"


def test_a_grammar_that_can_say_no_more_ends_the_answer() -> None:
    """No end token is needed after the last byte, and none comes before the grammar accepts."""
    engine = worker(FakeRunner(lambda _: {END: 9.0, ord("x"): 1.0, ord("y"): 2.0}))
    pieces = answers(engine, [ask("h", 20, grammar="%llguidance {}\nstart: /[xz]{3}/\n")])[0]
    assert (text(pieces), pieces[-1].end.reason) == ("xxx", "stop")
    pieces = answers(engine, [ask("h", 20, grammar="%llguidance {}\nstart: /x+/\n")])[0]
    assert (text(pieces), pieces[-1].end.output_tokens) == ("x", 2)


def test_forced_tokens_need_no_steps() -> None:
    """What alone may follow is not sampled one by one."""
    runner = FakeRunner(noise)
    grammar = '%llguidance {}\nstart: /[ab]/ "=nothing else can come here=" /[cd]/\n'
    pieces = answers(worker(runner), [ask("h", 100, grammar=grammar)])[0]
    assert text(pieces)[1:-1] == "=nothing else can come here="
    assert len(runner.calls) <= 10


def test_forced_tokens_stop_at_the_limit() -> None:
    """The limit counts them."""
    pieces = answers(worker(FakeRunner(noise)), [ask("h", 6, grammar='%llguidance {}\nstart: /[ab]/ "=nothing"\n')])[0]
    assert pieces[-1].end.reason == "length"
    assert pieces[-1].end.output_tokens == 6


def test_what_is_no_grammar_is_refused() -> None:
    """The request is to blame, and the engine goes on."""
    engine = worker(FakeRunner(noise))
    with pytest.raises(InvalidRequest, match="refused"):
        answers(engine, [ask("h", 20, grammar="%llguidance {}\nstart: nowhere\n")])
    assert not engine.busy
