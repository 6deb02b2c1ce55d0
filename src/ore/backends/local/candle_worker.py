"""The far end of the Candle engine: a `Worker` around one `mistralrs.Runner`.

Run as `python -m ore.backends.local.candle_worker` by `engine_process`. The runner batches by itself and gives each
request's tokens through an iterator that blocks; so each request has a thread that reads its own, and `step` gives what
the threads have brought. It refuses to let the runner apply a chat template: the prompt is ours.

What the wheel cannot do, found by trying (0.9.5):

- A method of the runner must not be called while another runs ("Already borrowed"): a lock goes around each call. The
  iterators are free of it.
- Control tokens do not show in the text, unless the template looks like that of Gemma 4, whose channel markers are then
  taken out. Ours (`_TEMPLATE`) mentions them in a comment.
- A text in a grammar that is a control token cannot be enforced: refused before a token is sampled.
- Sequences of one length are decoded together, and where their caches have grown differently the runner panics. The
  process ends then and is brought back; with one slot, which is the default, it does not happen.
- Reading a prompt cannot be interrupted: who leaves meanwhile frees the runner at the first token.
- There is no seed per request, and prefixes are shared between all owners.
"""

import codecs
import contextlib
import os
import queue
import re
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from ore.backends.base import JsonObject
from ore.backends.local.engine import End, EndReason, Facts, Generation, Piece
from ore.backends.local.far_end import NearEnd, Place, main, threads_for
from ore.backends.local.faults import failed, refused
from ore.backends.local.options import DEFAULT_CONTEXT_CAP
from ore.backends.local.stop_texts import StopTexts
from ore.backends.local.tokenizer_facts import TokenizerFacts, read_tokenizer_facts
from ore.backends.local.worker_server import serve_worker
from ore.errors import HTTPFault, InvalidRequest, StartupError

_TEMPLATE: Final = "{{ messages[0]['content'] }}{# <|channel> <channel|> #}"
"""Gives the prompt as it is. What the comment does is told above."""

_PAUSE: Final = 0.005
"""Seconds that a step waits for the threads, at most: nobody is heard meanwhile."""

_EVERY_TOKEN: Final = 2**31 - 1
"""For `top_k`: the runner's own default may be that of the model's generation_config.json."""

_QUOTED: Final = re.compile(r'<[^<>\n]*>|("(?:[^"\\]|\\.)*"|/(?:[^/\\\n]|\\.)+/)')
"""Strings and regular expressions of a grammar, and past the tokens that are named outside of them."""

Said = tuple[int, Piece | HTTPFault]


class Parameters(Place, kw_only=True):
    """The line on stdin. `isq` is the name of a quantisation (`Q4K`, ...) or empty; `threads` 0 is one per core."""

    path: str
    slots: int
    context: int
    threads: int
    isq: str
    prefix_cache: int
    paged_attention: bool


def serve(parameters: Parameters, near_end: NearEnd) -> None:
    """Load the model, and work until the process ends."""
    vocabulary = read_tokenizer_facts(Path(parameters.path))
    worker = CandleWorker(load(parameters), vocabulary, parameters.context)
    serve_worker(worker, parameters.socket, parameters.api_key, near_end.ready)


def load(parameters: Parameters) -> Any:
    """The `mistralrs.Runner` of a model. Raises `StartupError`."""
    path = Path(parameters.path)
    if threads := threads_for(path, parameters.threads):
        os.environ["RAYON_NUM_THREADS"] = str(threads)
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("RUST_LOG", "warn")
    from mistralrs import Runner, Which

    which = (
        Which.Plain(model_id=str(path))
        if path.is_dir()
        else Which.GGUF(quantized_model_id=str(path.parent), quantized_filename=path.name)
    )
    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder) / "prompt.jinja"
        template.write_text(_TEMPLATE)
        try:
            return Runner(
                which=which,
                max_seqs=parameters.slots,
                prefix_cache_n=parameters.prefix_cache,
                no_paged_attn=not parameters.paged_attention,
                token_source="none",  # noqa: S106 - the word for: nothing is fetched
                jinja_explicit=str(template),
                in_situ_quant=parameters.isq or None,
            )
        except ValueError as error:
            raise StartupError(f"Candle cannot load it: {str(error).splitlines()[0][:300]}") from error


class CandleWorker:
    """A `Worker`."""

    def __init__(self, runner: Any, vocabulary: TokenizerFacts, context: int) -> None:
        self._runner = runner
        self._calling = threading.Lock()
        self._vocabulary = vocabulary
        self._special = re.compile(
            "|".join(map(re.escape, sorted(vocabulary.special, key=len, reverse=True))) or r"(?!)"
        )
        trained = runner.max_sequence_length() or DEFAULT_CONTEXT_CAP
        self.context = min(context or DEFAULT_CONTEXT_CAP, trained)
        self._under_way: dict[int, _Sampling] = {}
        self._brought: queue.SimpleQueue[Said] = queue.SimpleQueue()

    def facts(self) -> Facts:
        vocabulary = self._vocabulary
        return Facts(
            context=self.context,
            chat_template=vocabulary.chat_template,
            bos_token=vocabulary.bos_token,
            eos_token=vocabulary.eos_token,
            adds_bos=bool(self.tokenize("", add_special=True, parse_special=True)),
        )

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Where control tokens are to be text, the runner gets them in two halves: it has no way to be told."""
        parts = [text] if parse_special else self._broken(text)
        with self._calling:
            tokens = self._runner.tokenize_text(parts[0], add_special, None)
            return [*tokens, *(t for part in parts[1:] for t in self._runner.tokenize_text(part, False, None))]

    def _broken(self, text: str) -> list[str]:
        ends = [found.start() + 1 for found in self._special.finditer(text)]
        return [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]

    def begin(self, key: int, generation: Generation) -> None:
        self._check(generation)
        sampling = self._under_way[key] = _Sampling(self, key, generation)
        threading.Thread(target=sampling.run, daemon=True).start()

    def _check(self, generation: Generation) -> None:
        """Raise for a text in a grammar that is a control token: the engine would come to a halt in front of it."""
        for quoted in _QUOTED.findall(generation.grammar):
            if quoted and (found := self._special.search(_unescaped(quoted))):
                raise InvalidRequest(
                    f"The schema or grammar contains {found[0]!r}, a control token of this model, which it cannot "
                    "write as text. Choose another text.",
                    param="tools" if "\ncall" in generation.grammar else "text.format",
                )

    def cancel(self, key: int) -> None:
        self._under_way.pop(key).cancelled = True

    def step(self) -> Iterable[Said]:
        said: list[Said] = []
        with contextlib.suppress(queue.Empty):
            said.append(self._brought.get(timeout=_PAUSE))
            while True:
                said.append(self._brought.get_nowait())
        said = [(key, what) for key, what in said if key in self._under_way]
        for key, what in said:
            if isinstance(what, HTTPFault) or what.end:
                del self._under_way[key]
        return said

    @property
    def busy(self) -> bool:
        return bool(self._under_way)

    # From the threads of the samplings.

    def bring(self, key: int, what: Piece | HTTPFault) -> None:
        self._brought.put((key, what))

    def open(self, generation: Generation, limit: int) -> Iterator[Any]:
        """The runner's iterator over the chunks of an answer."""
        from mistralrs import ChatCompletionRequest

        request = ChatCompletionRequest(**_fields(generation, limit, sorted(self._vocabulary.ends)))
        with self._calling:
            chunks: Iterator[Any] = self._runner.send_chat_completion_request(request)
        return chunks

    def hides(self, token: str, generation: Generation) -> bool:
        """Whether a token is none of the text."""
        return token in self._vocabulary.control and token not in generation.visible


class _Sampling:
    """One answer: its thread reads the runner's iterator. Dropping that is what stops the runner."""

    def __init__(self, worker: CandleWorker, key: int, generation: Generation) -> None:
        self._worker = worker
        self._key = key
        self._generation = generation
        self._stops = StopTexts(generation.stop)
        self._entries: list[JsonObject] = []
        self._hidden: list[str] = []
        self._given = 0
        self._tokens = 0
        self.cancelled = False

    def run(self) -> None:
        try:
            self._sample()
        except HTTPFault as error:
            self._worker.bring(self._key, error)
        except ValueError as error:
            self._worker.bring(self._key, self._fault(str(error)))

    def _sample(self) -> None:
        generation = self._generation
        prompt = len(self._worker.tokenize(generation.prompt, add_special=True, parse_special=True))
        room = self._worker.context - prompt
        limit = room if generation.max_tokens is None else min(room, generation.max_tokens)
        for chunk in self._worker.open(generation, limit):
            if self.cancelled:
                return
            choice = chunk.choices[0]
            self._take(choice)
            if self._stops.hit:
                end = End(reason="stop_text", input_tokens=prompt, output_tokens=self._tokens)
                self._worker.bring(self._key, Piece(tokens=self._tokens, end=end))
                return
            if choice.finish_reason is not None:
                self._finish(choice.finish_reason, chunk.usage)
                return

    def _take(self, choice: Any) -> None:
        text, entry = choice.delta.content or "", choice.logprobs
        if entry is not None:
            self._tokens += 1
            token = bytes(entry.bytes or b"").decode("utf-8", "replace")
            if self._worker.hides(token, self._generation):
                self._hidden.append(token)
            elif self._generation.alternatives is not None:
                self._entries.append(_entry(entry, self._generation.alternatives))
        if text := self._shown(text):
            self._give(self._stops.feed(text, len(self._entries)))

    def _shown(self, text: str) -> str:
        """Without the tokens that are to be hidden. After half a character, text comes later than its token."""
        while self._hidden and self._hidden[0] in text:
            text = text.replace(self._hidden.pop(0), "", 1)
        return text

    def _give(self, held: list[tuple[str, int]]) -> None:
        """Bring texts that are certain, with the entries of their tokens."""
        if held:
            reached = held[-1][1]
            entries, self._given = tuple(self._entries[self._given : reached]), reached
            text = "".join(text for text, _ in held)
            self._worker.bring(self._key, Piece(text=text, tokens=self._tokens, logprobs=entries))

    def _finish(self, why: str, usage: Any) -> None:
        self._give(self._stops.rest())
        reason: EndReason = "length" if why == "length" else "stop"
        details = usage.prompt_tokens_details
        end = End(
            reason=reason,
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.completion_tokens,
            cached_tokens=0 if details is None else details.cached_tokens,
        )
        self._worker.bring(self._key, Piece(tokens=usage.completion_tokens, end=end))

    def _fault(self, message: str) -> HTTPFault:
        """A grammar that the runner does not take is the request's; a runner whose channel is closed has crashed."""
        if "Received none" in message or "channel closed" in message:
            os._exit(70)  # a new process is the only cure; the near end brings it
        if self._generation.grammar and not self._tokens:
            return refused(message.splitlines()[0])
        return failed()


def _fields(generation: Generation, limit: int, ends: list[str]) -> JsonObject:
    """A request in the runner's words. Logprobs are always on: they tell tokens apart."""
    fields: JsonObject = {
        "messages": generation.prompt,
        "model": "default",
        "stream": True,
        "max_tokens": limit,
        "temperature": generation.temperature,
        "top_p": generation.top_p,
        "stop_seqs": ends,
        "logprobs": True,
        "top_logprobs": max(1, generation.alternatives or 0),
    }
    if generation.presence_penalty or generation.frequency_penalty:
        fields["presence_penalty"] = generation.presence_penalty
        fields["frequency_penalty"] = generation.frequency_penalty
    if not generation.own_distribution:
        fields |= {"top_k": _EVERY_TOKEN, "min_p": 0.0}
    if generation.grammar:
        fields |= {"grammar": generation.grammar, "grammar_type": "lark"}
    return fields


def _entry(said: Any, alternatives: int) -> JsonObject:
    """The runner's entry in the wire's shape (section 6)."""
    others = [_alternative(other) for other in said.top_logprobs[:alternatives]]
    raw = bytes(said.bytes or b"")
    return {
        "token": raw.decode("utf-8", "replace"),
        "logprob": min(0.0, said.logprob),
        "bytes": list(raw),
        "top_logprobs": others,
    }


def _alternative(said: Any) -> JsonObject:
    text = said.bytes or ""
    return {"token": text, "logprob": min(0.0, said.logprob), "bytes": list(text.encode())}


def _unescaped(quoted: str) -> str:
    """What a string or a regular expression of a grammar says, near enough to find a marker in it."""
    inner = quoted[1:-1]
    with contextlib.suppress(msgspec.DecodeError):
        return str(msgspec.json.decode(f'"{inner}"'))
    with contextlib.suppress(UnicodeError):
        return codecs.decode(inner.encode("latin-1", "backslashreplace"), "unicode_escape")
    return inner


if __name__ == "__main__":
    main(Parameters, serve)
