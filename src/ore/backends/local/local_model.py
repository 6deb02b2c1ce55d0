"""A model on this machine as a `Backend`, whatever its engine.

Puts the parts together: template, grammar, admission, the engine, the output parser. It refuses to know one engine from
another and to hold a model to a schema that cannot be enforced.
"""

import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Final, Literal

import anyio
import anyio.to_thread
import jinja2
from msgspec import Struct, structs

from ore.backends.admission import Admission, Ticket
from ore.backends.base import (
    Capabilities,
    Embedded,
    EmbeddingRequest,
    Health,
    JsonObject,
    Load,
    Model,
    ModelRequest,
    Sampling,
)
from ore.backends.embeddings import makes_no_embeddings
from ore.backends.images import Eyes
from ore.backends.local.call_forms import plan_tools
from ore.backends.local.chat_template import ChatTemplate
from ore.backends.local.engine import CountsImages, End, Engine, Facts, Generation, Piece, Sampled
from ore.backends.local.families import family_of, in_prompt
from ore.backends.local.faults import context_exceeded
from ore.backends.local.grammar_process import GrammarCompiler
from ore.backends.local.markup import Markup
from ore.backends.local.memory import resident_bytes
from ore.backends.local.options import EngineOptions
from ore.backends.local.output_parser import OutputParser
from ore.core.deltas import Delta, Finish, Usage
from ore.core.tool_choice import ToolPlan
from ore.errors import ModelFailed, StartupError, Unavailable
from ore.ids import NewId, new_id

Reason = Literal["stop", "max_output_tokens", "content_filter", "tool_calls"]
RESTART_SECONDS: Final = 30.0
"""How long a request that waits in the queue waits for an engine that died."""

LONGEST_TOKEN: Final = 128
"""Bytes of a token, at most: a prompt of more than that for each token of the context need not be counted."""


class _Loaded(Struct, frozen=True):
    """What is known of a model since it is loaded."""

    facts: Facts
    template: ChatTemplate
    markup: Markup


class _Prepared(Struct, frozen=True):
    """A request that has passed every check."""

    generation: Generation
    markup: Markup
    plan: ToolPlan


class LocalModel:
    """A `Backend` that serves one model under `name`. `clock` is in seconds, for estimates only."""

    def __init__(
        self,
        name: str,
        options: EngineOptions,
        engine: Engine,
        *,
        new_id: NewId = new_id,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.options = options
        self.engine = engine
        self._new_id = new_id
        self._compiler = GrammarCompiler()
        self._eyes = Eyes()
        self._admission = Admission(options.slots, options.queue, clock)
        self._loaded: _Loaded | None = None
        self._created = 0

    async def start(self) -> None:
        """Load the model. Raises `StartupError`, with the reason that the engine gave."""
        if self._loaded is not None:
            return
        try:
            await self._compiler.start()
            await self.engine.start()
            self._created = int((await anyio.Path(self.options.path).stat()).st_mtime)
            self._loaded = await self._learn()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Unload it, and end whatever it was sampling. Idempotent."""
        self._loaded = None
        with anyio.CancelScope(shield=True):
            await self._compiler.stop()
            await self._eyes.stop()
            await self.engine.stop()

    @contextlib.asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[Delta]]:
        """See `Backend.stream`. Waiting for a slot happens in the first step of the iteration."""
        loaded = self._running()
        self._admission.check()
        prepared = await self._prepare(loaded, request)
        ticket = self._admission.enter(request.owner)
        sampling = _Sampling(self.engine, ticket, prepared, lambda: self._new_id("call"))
        try:
            yield sampling
        finally:
            sampling.close()

    async def count_tokens(self, request: ModelRequest) -> int:
        """Tokens of the rendered prompt: what `usage.input_tokens` will say."""
        loaded = self._running()
        prompt, images = await self._rendered(loaded, request, plan_tools(request))
        return await _count(self.engine, loaded, prompt, images)

    async def embed(self, request: EmbeddingRequest) -> Embedded:
        """Raises the 400 for a model that answers: its engine was not loaded to embed."""
        raise makes_no_embeddings(request.model)

    async def models(self) -> list[Model]:
        """The one model. Before `start` it is said to do what it most likely will."""
        return [self._model()]

    def model(self, name: str) -> Model | None:
        return self._model() if name == self.name else None

    def load(self) -> Load:
        return self._admission.load()

    def memory(self) -> int | None:
        """Bytes of memory that its engine takes now."""
        return resident_bytes(self.engine.pid)

    def _model(self) -> Model:
        likely = Capabilities(logprobs=True, images=self.options.sees)
        capabilities = likely if self._loaded is None else _able(self._loaded)
        defaults = Sampling(temperature=self.options.temperature, top_p=self.options.top_p)
        return Model(id=self.name, created=self._created, capabilities=capabilities, defaults=defaults)

    async def health(self) -> Health:
        """Whether the engine is up, and how busy it is. Asks nobody."""
        admission = self._admission
        return Health(
            ok=self.engine.up and self._loaded is not None,
            detail={
                "running": admission.running,
                "waiting": admission.waiting,
                "slots": admission.slots,
                "restarts": self.engine.restarts,
            },
        )

    def _running(self) -> _Loaded:
        if self._loaded is None or not self.engine.up:
            raise Unavailable(f"The model {self.name!r} is being restarted. Try again in a few seconds.", retry_after=3)
        return self._loaded

    async def _learn(self) -> _Loaded:
        facts = await self.engine.facts()
        try:
            template = ChatTemplate(
                facts.chat_template,
                bos_token=facts.bos_token,
                eos_token=facts.eos_token,
                adds_bos=facts.adds_bos,
                image_marker=facts.image_marker,
            )
        except jinja2.TemplateError as error:
            raise StartupError(
                f"The chat template in the file of model {self.name!r} is not valid jinja: {error}. "
                "Use another conversion of the model."
            ) from error
        return _Loaded(facts, template, await _markup(self.engine, facts))

    async def _prepare(self, loaded: _Loaded, request: ModelRequest) -> _Prepared:
        self._compiler.check_size(request)
        plan = plan_tools(request)
        prompt, images = await self._rendered(loaded, request, plan)
        markup = in_prompt(loaded.markup, prompt)
        grammar = await self._compiler.build(request, markup)
        await _check_fits(self.engine, loaded, prompt, images)
        ends_itself = plan.required or request.text_format.get("type", "text") != "text"
        generation = Generation(
            prompt=prompt,
            max_tokens=request.max_output_tokens,
            grammar=grammar,
            stop=() if ends_itself else request.sampling.stop,  # calls and JSON end by themselves, and nowhere else
            visible=tuple(sorted(markup.special)),
            alternatives=request.top_logprobs,
            images=images,
            cache_key=request.owner,
            **_sampling_fields(request, self.options),
        )
        return _Prepared(generation, markup, plan)

    async def _rendered(self, loaded: _Loaded, request: ModelRequest, plan: ToolPlan) -> tuple[str, tuple[bytes, ...]]:
        """The prompt, and the images of it, for a model that sees. For any other it says in words where images were."""
        template = loaded.template
        render = partial(template.render_seen if loaded.facts.images else _unseen(template), request, plan)
        prompt, parts = await anyio.to_thread.run_sync(render) if _is_long(request, plan) else render()
        return prompt, await self._eyes.see(parts, [_place(request, part) for part in parts]) if parts else ()


def _unseen(template: ChatTemplate) -> Callable[[ModelRequest, ToolPlan], tuple[str, list[JsonObject]]]:
    return lambda request, plan: (template.render(request, plan), [])


def _place(request: ModelRequest, part: JsonObject) -> str:
    """Where the client wrote a part; only `input`, where it comes from earlier."""
    for item, index in zip(request.items, request.places, strict=False):
        for key in ("content", "output") if index is not None else ():
            parts = item.get(key)
            at = next((at for at, one in enumerate(parts) if one is part), None) if isinstance(parts, list) else None
            if at is not None:
                return f"input[{index}].{key}[{at}].image_url"
    return "input"


def _able(loaded: _Loaded) -> Capabilities:
    facts = loaded.facts
    return Capabilities(
        context_window=facts.context,
        logprobs=facts.logprobs,
        reasoning=loaded.markup.thinks,
        images=facts.images,
    )


def _is_long(request: ModelRequest, plan: ToolPlan) -> bool:
    """Whether rendering takes so long that others should have their turn meanwhile."""
    return len(request.items) > 200 or len(plan.shown) > 50


class _Sampling:
    """The deltas of one request. `close` frees everything, at once, in every state."""

    def __init__(self, engine: Engine, ticket: Ticket, prepared: _Prepared, new_call_id: Callable[[], str]) -> None:
        self._engine = engine
        self._ticket = ticket
        self._prepared = prepared
        plan = prepared.plan
        self._parser = OutputParser(prepared.markup, new_call_id, calls=bool(plan.allowed), tools=plan.allowed)
        self._sampled: Sampled | None = None
        self._ready: deque[Delta] = deque()
        self._reasoning_tokens = 0
        self._seen_tokens = 0
        self._done = False

    def __aiter__(self) -> "_Sampling":
        return self

    async def __anext__(self) -> Delta:
        while not self._ready:
            if self._done:
                raise StopAsyncIteration
            for piece in await self._pieces():
                self._take(piece)
        return self._ready.popleft()

    def close(self) -> None:
        self._done = True
        if self._sampled is not None:
            self._sampled.close()
        self._ticket.release()

    async def _pieces(self) -> list[Piece]:
        if self._sampled is None:
            await self._ticket.wait()
            self._sampled = await self._begin()
        return await self._sampled.read()

    async def _begin(self) -> Sampled:
        """A request that was only waiting when the engine died is none of those it took along."""
        try:
            return await self._engine.generate(self._prepared.generation)
        except ModelFailed:
            if not await self._engine.back(RESTART_SECONDS):
                raise
            return await self._engine.generate(self._prepared.generation)

    def _take(self, piece: Piece) -> None:
        thinking = self._parser.thinking
        if piece.text or piece.logprobs:
            self._ready.extend(self._parser.feed(piece.text, piece.logprobs))
        if thinking:
            self._reasoning_tokens += max(0, piece.tokens - self._seen_tokens)
        self._seen_tokens = max(self._seen_tokens, piece.tokens)
        if piece.end is not None:
            self._finish(piece.end)

    def _finish(self, end: End) -> None:
        self._done = True
        limited = end.reason == "length"
        if end.reason == "stop_text" and self._parser.calling:
            raise ModelFailed("The model wrote one of your 'stop' texts inside a tool call. Choose others.")
        self._ready.extend(self._parser.finish(cut=limited))
        if self._prepared.plan.required and not self._parser.called and not limited:
            raise ModelFailed(
                "The model's engine did not hold the model to the tool call that was required. Try again."
            )
        usage = Usage(
            input_tokens=end.input_tokens,
            output_tokens=end.output_tokens,
            cached_tokens=min(end.cached_tokens, end.input_tokens),
            reasoning_tokens=min(self._reasoning_tokens, end.output_tokens),
        )
        reason: Reason = "max_output_tokens" if limited else "tool_calls" if self._parser.called else "stop"
        self._ready.append(Finish(reason, usage))


def _sampling_fields(request: ModelRequest, options: EngineOptions) -> JsonObject:
    sampling = request.sampling
    temperature = options.temperature if sampling.temperature is None else sampling.temperature
    top_p = options.top_p if sampling.top_p is None else sampling.top_p
    return {
        "temperature": temperature,
        "top_p": top_p,
        "seed": sampling.seed,
        "presence_penalty": sampling.presence_penalty or 0.0,
        "frequency_penalty": sampling.frequency_penalty or 0.0,
        "own_distribution": (temperature, top_p) == (options.temperature, options.top_p),
    }


async def _check_fits(engine: Engine, loaded: _Loaded, prompt: str, images: Sequence[bytes]) -> None:
    """Raise the 400 unless there is room for the prompt and one more token. A token is a byte at least."""
    context = loaded.facts.context
    size, markers = len(prompt.encode()), loaded.template.count_markers(prompt)
    if size + 2 < context and not images:
        return
    least = max(markers, (size - len(images) * len(loaded.facts.image_marker)) // LONGEST_TOKEN)
    count = least if least >= context else await _count(engine, loaded, prompt, images)
    if count >= context:
        raise context_exceeded(count, context)


async def _count(engine: Engine, loaded: _Loaded, prompt: str, images: Sequence[bytes]) -> int:
    """Tokens of a prompt: those of the texts between its images, which are read apart, and those of the images."""
    texts = prompt.split(loaded.facts.image_marker) if images else [prompt]
    tokens = [len(await engine.tokenize(text, add_special=not at)) for at, text in enumerate(texts) if text or not at]
    if images and isinstance(engine, CountsImages):
        tokens += [await engine.image_tokens(image) for image in images]
    return sum(tokens)


async def _markup(engine: Engine, facts: Facts) -> Markup:
    """Which markers are control tokens: one token when such are parsed, several when they are not."""
    markup = family_of(facts.chat_template)
    special = {}
    for marker in markup.markers:
        parsed = await engine.tokenize(marker, add_special=False, parse_special=True)
        plain = await engine.tokenize(marker, add_special=False, parse_special=False)
        if len(parsed) == 1 and len(plain) > 1:
            special[marker] = parsed[0]
    return structs.replace(markup, special=special)
