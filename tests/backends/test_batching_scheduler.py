"""Continuous batching, with a runner that knows what lies in its blocks."""

import pytest

pytest.importorskip("numpy")

from backends.batching_fakes import END, FakeRunner, answers, ask, counting, drain, text, token, worker
from ore.backends.local.engine import End, Piece
from ore.errors import InvalidRequest


def alone(prompt: str, tokens: int) -> str:
    """What a sequence says when nobody is beside it."""
    return text(answers(worker(FakeRunner(counting)), [ask(prompt, tokens)])[0])


def end_of(pieces: list[Piece]) -> End:
    assert pieces[-1].end is not None
    return pieces[-1].end


def test_each_says_what_it_would_say_alone() -> None:
    """Twenty prompts of different lengths, eight at a time: nobody's tokens depend on who is beside."""
    prompts = ["x" * n + "y" for n in range(1, 60, 3)]
    whole = answers(worker(FakeRunner(counting, blocks=400)), [ask(prompt, 7) for prompt in prompts])
    assert [text(pieces) for pieces in whole] == [alone(prompt, 7) for prompt in prompts]
    ends = [end_of(pieces) for pieces in whole]
    assert {(end.reason, end.output_tokens) for end in ends} == {("length", 7)}
    assert [end.input_tokens for end in ends] == [len(prompt) for prompt in prompts]


def test_prompts_are_read_in_parts_beside_those_who_decode() -> None:
    """While a long prompt is read, others get their tokens in the same steps."""
    runner = FakeRunner(counting, blocks=100)
    engine = worker(runner, prefill=16, context=300)
    engine.begin(0, ask("a", 50))
    engine.step()
    engine.begin(1, ask("b" * 100, 2))
    drain(engine, 2)
    mixed = [call for call in runner.calls if len(call) == 2]
    assert [len(call[1].tokens) for call in mixed[:7]] == [16, 16, 16, 16, 16, 16, 4]
    assert all(len(call[0].tokens) == 1 for call in mixed)
    assert [part.wants_logits for part in (mixed[0][1], mixed[6][1])] == [False, True]


def test_a_prefix_is_computed_once() -> None:
    """The same beginning is found in full blocks; never the whole prompt, whose last token must be computed."""
    engine = worker(FakeRunner(counting))
    first, again = (answers(engine, [ask("12345678", 2)])[0] for _ in range(2))
    other = answers(engine, [ask("1234567890", 2)])[0]
    assert [end_of(pieces).cached_tokens for pieces in (first, again, other)] == [0, 4, 8]
    assert text(first) == text(again)
    assert text(other) == alone("1234567890", 2)


def test_an_answer_is_part_of_the_prefix_of_the_next_turn() -> None:
    """What was sampled need not be read again."""
    engine = worker(FakeRunner(counting))
    said = text(answers(engine, [ask("12345678", 8)])[0])
    assert end_of(answers(engine, [ask("12345678" + said + "more", 1)])[0]).cached_tokens == 12


def test_owners_never_share() -> None:
    """Another cache key finds nothing."""
    engine = worker(FakeRunner(counting))
    for key, cached in (("a", 0), ("b", 0), ("a", 8)):
        pieces = answers(engine, [ask("123456789", 1, cache_key=key)])[0]
        assert end_of(pieces).cached_tokens == cached


def test_who_comes_while_the_same_prompt_is_read_takes_its_blocks() -> None:
    """Two with the same long prompt: the second goes on from what the first has computed meanwhile."""
    runner = FakeRunner(counting, blocks=100)
    engine = worker(runner, prefill=16)
    whole = answers(engine, [ask("p" * 81, 2), ask("p" * 81, 2)])
    assert end_of(whole[1]).cached_tokens == 80
    assert text(whole[0]) == text(whole[1])


def test_cancelling_frees_at_once() -> None:
    """Running, waiting or preparing: all blocks are free, and the worker has nothing to do."""
    engine = worker(FakeRunner(counting), slots=2)
    grammar = '%llguidance {}\nstart: "x"\n'
    for key in range(4):
        engine.begin(key, ask("h" * 20, None, grammar=grammar if key == 3 else "", cache_key=str(key)))
    engine.step()
    assert engine.free_blocks < 64
    for key in range(4):
        engine.cancel(key)
    engine.cancel(17)
    assert engine.free_blocks == 64
    assert not engine.busy


def test_whoever_came_last_makes_room() -> None:
    """Too few blocks for all: some are computed twice, and nobody notices."""
    runner = FakeRunner(counting, blocks=16)
    engine = worker(runner, context=60)
    prompts = ["a" * 10, "b" * 11, "c" * 12, "d" * 13]
    whole = answers(engine, [ask(prompt, 30) for prompt in prompts])
    assert [text(pieces) for pieces in whole] == [alone(prompt, 30) for prompt in prompts]
    assert sum(len(part.tokens) for call in runner.calls for part in call) > 46 + 4 * 29
    assert [end_of(pieces).cached_tokens for pieces in whole] == [0, 0, 0, 0]
    assert engine.free_blocks == 16


def test_slots_bound_who_decodes() -> None:
    """In order of arrival, no more at a time than there are slots."""
    runner = FakeRunner(counting)
    answers(worker(runner, slots=3), [ask("ab", 4) for _ in range(7)])
    assert max(map(len, runner.calls)) == 3


def test_the_context_ends_an_answer() -> None:
    """Without a limit the context is one; a prompt without room is a 400."""
    engine = worker(FakeRunner(counting), context=20)
    end = end_of(answers(engine, [ask("0123456789", None)])[0])
    assert (end.reason, end.output_tokens) == ("length", 10)
    with pytest.raises(InvalidRequest, match="20 tokens"):
        engine.begin(5, ask("0" * 20))


def test_an_end_token_ends() -> None:
    """It is counted and does not show."""
    engine = worker(FakeRunner(lambda tokens: END if len(tokens) >= 7 else 98))
    pieces = answers(engine, [ask("hello", 10)])[0]
    assert (text(pieces), end_of(pieces).reason, end_of(pieces).output_tokens) == ("bb", "stop", 3)


def test_stop_texts_are_found_across_tokens() -> None:
    """The stop text and what follows do not come out; what only began like one does."""
    script = b"say EN or the END of it"
    engine = worker(FakeRunner(lambda tokens: script[len(tokens) - 1] if len(tokens) <= len(script) else END))
    pieces = answers(engine, [ask("h", 100, stop=("END", "zzz"))])[0]
    assert (text(pieces), end_of(pieces).reason) == ("say EN or the ", "stop_text")
    assert text(answers(engine, [ask("h", 8, stop=("or t",))])[0]) == "say EN o"
    whole = [token(b"the "), token(b"END"), END]
    engine = worker(FakeRunner(lambda tokens: whole[len(tokens) - 1]))
    assert text(answers(engine, [ask("h", 10, stop=("e E",))])[0]) == "th"


def test_characters_stay_whole() -> None:
    """A character of several tokens comes out with its last one; a broken one at the end is replaced."""
    script = [token(b"\xc3"), token(b"\xa4"), token(b"\xf0\x9f"), token(b"\x98\x80"), token(b"\xc3"), END]
    engine = worker(FakeRunner(lambda tokens: script[len(tokens) - 1]))
    pieces = answers(engine, [ask("h", 10)])[0]
    assert [piece.text for piece in pieces] == ["ä", "😀", "�"]


@pytest.mark.parametrize("wide", [END + 1, END + 40])
def test_seeds_repeat(wide: int) -> None:
    """The same seed gives the same answer, whoever is beside; another one does not; unknown tokens never come."""
    fields = {"temperature": 1.5, "top_p": 0.99, "own_distribution": False}
    engine = worker(FakeRunner(lambda _: dict.fromkeys(range(97, 123), 1.0), width=wide))
    asked = [ask("hi", 20, seed=seed, **fields) for seed in (1, 2, 1)]
    first, other, again = (text(pieces) for pieces in answers(engine, asked))
    assert first == again != other
    assert text(answers(engine, [ask("hi", 20, seed=1, **fields)])[0]) == first


def test_a_runner_that_sees_only_what_it_must() -> None:
    """Each token of a prompt is computed once, and each that was sampled but the last."""
    runner = FakeRunner(counting)
    answers(worker(runner), [ask("hello", 5)])
    assert sum(len(part.tokens) for call in runner.calls for part in call) == 5 + 4
