"""One sampling on its way: its tokens, its blocks, and what of it has come out."""

from msgspec import Struct

from ore.backends.base import JsonObject
from ore.backends.local.batching.blocks import BlockPool, BlockTable
from ore.backends.local.batching.sampler import Sampler
from ore.backends.local.batching.vocabulary import Detokenizer, Vocabulary
from ore.backends.local.engine import End, EndReason, Generation, Piece
from ore.backends.local.stop_texts import Held, StopTexts


class Sequence:
    """`prompt` are its first tokens; `limit` is how many there may be, the prompt's included."""

    def __init__(
        self,
        key: int,
        generation: Generation,
        prompt: list[int],
        limit: int,
        sampler: Sampler,
        vocabulary: Vocabulary,
        pool: BlockPool,
    ) -> None:
        self.key = key
        self.tokens = prompt
        self.computed = 0
        """Tokens whose keys and values are in the blocks."""
        self.table = BlockTable(pool, generation.cache_key)
        self.sampler = sampler
        self._prompt = len(prompt)
        self._limit = limit
        self._vocabulary = vocabulary
        self._cached = 0
        self._restarted = False
        self._writer = _Writer(generation, vocabulary)

    @property
    def ahead(self) -> int:
        """Tokens that are known and not computed."""
        return len(self.tokens) - self.computed

    @property
    def said(self) -> int:
        """Tokens that were sampled."""
        return len(self.tokens) - self._prompt

    def reuse(self) -> None:
        """Go on from blocks that others have filled."""
        before = self.computed
        self.computed = self.table.match(self.tokens, before)
        if not self._restarted:
            self._cached += self.computed - before

    def advance(self, count: int) -> None:
        """So many more tokens are computed."""
        self.computed += count
        self.table.publish(self.tokens, self.computed)

    def step_back(self) -> None:
        """Give all blocks up; what was computed is computed again later."""
        self.table.release()
        self.computed = 0
        self._restarted = True

    def take(self, token: int, entry: JsonObject | None = None) -> Piece | None:
        """One more token was sampled. What comes out of it, if anything. Raises `ModelFailed`."""
        text, entries, reason = self._grow(token, entry)
        room = self._limit - len(self.tokens)
        for forced in self.sampler.forced(room) if reason is None else ():
            more, _, reason = self._grow(forced, None)
            text += more
            if reason is not None:
                break
        if reason is not None:
            return self.end(reason, text, entries)
        return Piece(text=text, tokens=self.said, logprobs=entries) if text or entries else None

    def end(self, reason: EndReason, text: str = "", entries: tuple[JsonObject, ...] = ()) -> Piece:
        """The last piece."""
        if reason != "stop_text":
            rest, more = self._writer.finish()
            text, entries = text + rest, entries + more
        end = End(
            reason=reason,
            input_tokens=self._prompt,
            output_tokens=self.said,
            cached_tokens=min(self._cached, self._prompt),
        )
        return Piece(text=text, tokens=self.said, logprobs=entries, end=end)

    def _grow(self, token: int, entry: JsonObject | None) -> tuple[str, tuple[JsonObject, ...], EndReason | None]:
        self.tokens.append(token)
        self.sampler.accept(token)
        if token in self._vocabulary.end_tokens:
            return "", (), "stop"
        text, entries = self._writer.write(token, entry)
        if self._writer.stopped:
            return text, entries, "stop_text"
        if self.sampler.stopped:
            return text, entries, "stop"
        return text, entries, "length" if len(self.tokens) >= self._limit else None


class _Writer:
    """Tokens to text, with logprob entries beside the text that they belong to."""

    def __init__(self, generation: Generation, vocabulary: Vocabulary) -> None:
        self._detokenizer = Detokenizer(vocabulary, generation.visible, strip=not generation.grammar)
        self._stops = StopTexts(generation.stop)
        self._entries: list[JsonObject] = []

    @property
    def stopped(self) -> bool:
        return self._stops.hit

    def write(self, token: int, entry: JsonObject | None) -> tuple[str, tuple[JsonObject, ...]]:
        if entry is not None and token not in self._detokenizer.silent:
            self._entries.append(entry)
        text = _joined(self._stops.feed(self._detokenizer.feed(token), 0))
        if self._stops.hit:
            self._drop_unseen(text)
        held = self._stops.holds or not self._detokenizer.whole
        return text, () if held and not self._stops.hit else self._flush()

    def finish(self) -> tuple[str, tuple[JsonObject, ...]]:
        return _joined(self._stops.feed(self._detokenizer.finish(), 0) + self._stops.rest()), self._flush()

    def _drop_unseen(self, text: str) -> None:
        """Entries of a stop text are not shown."""
        room = len(text.encode())
        kept = []
        for entry in self._entries:
            if room <= 0:
                break
            room -= len(entry["bytes"])
            kept.append(entry)
        self._entries = kept

    def _flush(self) -> tuple[JsonObject, ...]:
        entries, self._entries = tuple(self._entries), []
        return entries


class Asked(Struct, frozen=True):
    """A sampling that has not begun."""

    key: int
    generation: Generation
    prompt: list[int]


def _joined(held: Held) -> str:
    return "".join(text for text, _ in held)
