"""The default engine: one GGUF model in a llama.cpp process of its own, as a `Backend`.

Puts the parts together: template, grammar, admission, the process and its HTTP client, the output parser. It refuses
to load weights in this process and to hold a model to a schema that it cannot enforce.
"""

import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Final, Literal

import anyio
import anyio.to_thread
import jinja2
from msgspec import Struct, structs

from ore.backends.admission import Admission, Ticket
from ore.backends.base import Capabilities, Health, JsonObject, Load, Model, ModelRequest, Sampling
from ore.backends.local.call_forms import plan_tools
from ore.backends.local.chat_template import ChatTemplate
from ore.backends.local.engine_process import EngineProcess
from ore.backends.local.families import family_of, in_prompt
from ore.backends.local.grammar_process import GrammarCompiler
from ore.backends.local.llama_cpp_client import Chunk, Completion, LlamaCppClient, Props, context_exceeded
from ore.backends.local.markup import Markup
from ore.backends.local.options import EngineOptions
from ore.backends.local.output_parser import OutputParser
from ore.core.deltas import Delta, Finish, Usage
from ore.core.tool_choice import ToolPlan
from ore.errors import ModelFailed, StartupError, Unavailable
from ore.ids import NewId, new_id

Reason = Literal["stop", "max_output_tokens", "content_filter", "tool_calls"]
_RANDOM_SEED: Final = 0xFFFFFFFF

PENALTY_WINDOW: Final = 64
"""Tokens over which penalties count, llama.cpp's own default. It counts the prompt's too, and so the ends of earlier
turns: a longer window keeps a model from ending its own."""

RESTART_SECONDS: Final = 30.0
"""How long a request that waits in the queue waits for an engine that died."""

LONGEST_TOKEN: Final = 128
"""Bytes of a token, at most: a prompt of more than that for each token of the context need not be counted."""


class _Facts(Struct, frozen=True):
    """What a loaded model told us."""

    context: int
    template: ChatTemplate
    markup: Markup


class _Prepared(Struct, frozen=True):
    """A request that has passed every check."""

    body: JsonObject
    markup: Markup
    plan: ToolPlan


class LlamaCpp:
    """A `Backend` that serves one model under `name`. `clock` is in seconds, for estimates only."""

    def __init__(
        self,
        name: str,
        options: EngineOptions,
        *,
        new_id: NewId = new_id,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.options = options
        self._new_id = new_id
        self._process = EngineProcess(name, options)
        self._compiler = GrammarCompiler()
        self._admission = Admission(options.slots, options.queue, clock)
        self._client: LlamaCppClient | None = None
        self._facts: _Facts | None = None
        self._created = 0

    async def start(self) -> None:
        """Load the model. Raises `StartupError`, with the reason that the engine gave."""
        if self._client is not None:
            return
        await self._compiler.start()
        try:
            await self._process.start()
        except BaseException:
            await self._compiler.stop()
            raise
        self._client = LlamaCppClient(self._process.socket, self._process.api_key)
        try:
            self._created = int((await anyio.Path(self.options.path).stat()).st_mtime)
            self._facts = await self._learn(self._client)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the process and whatever it was sampling. Idempotent."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()
        await self._compiler.stop()
        await self._process.stop()

    @contextlib.asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[Delta]]:
        """See `Backend.stream`. Waiting for a slot happens in the first step of the iteration."""
        client, facts = self._running()
        self._admission.check()
        prepared = await self._prepare(client, facts, request)
        ticket = self._admission.enter(request.owner)
        sampling = _Sampling(client, self._process, ticket, prepared, lambda: self._new_id("call"), request)
        try:
            yield sampling
        finally:
            sampling.close()

    async def count_tokens(self, request: ModelRequest) -> int:
        """Tokens of the rendered prompt: what `usage.input_tokens` will say."""
        client, facts = self._running()
        return len(await client.tokenize(facts.template.render(request, plan_tools(request))))

    async def models(self) -> list[Model]:
        """The one model. Before `start` its capabilities are not known."""
        return [self._model()]

    def model(self, name: str) -> Model | None:
        return self._model() if name == self.name else None

    def load(self) -> Load:
        return self._admission.load()

    def _model(self) -> Model:
        facts = self._facts
        capabilities = Capabilities(logprobs=True)
        if facts is not None:
            capabilities = Capabilities(context_window=facts.context, logprobs=True, reasoning=facts.markup.thinks)
        defaults = Sampling(temperature=self.options.temperature, top_p=self.options.top_p)
        return Model(id=self.name, created=self._created, capabilities=capabilities, defaults=defaults)

    async def health(self) -> Health:
        """Whether the process is up, and how busy it is. Asks nobody."""
        admission = self._admission
        return Health(
            ok=self._process.up and self._client is not None,
            detail={
                "running": admission.running,
                "waiting": admission.waiting,
                "slots": admission.slots,
                "restarts": self._process.restarts,
            },
        )

    def _running(self) -> tuple[LlamaCppClient, _Facts]:
        if self._client is None or self._facts is None or not self._process.up:
            raise Unavailable(f"The model {self.name!r} is being restarted. Try again in a few seconds.", retry_after=3)
        return self._client, self._facts

    async def _learn(self, client: LlamaCppClient) -> _Facts:
        props = await client.props()
        adds_bos = len(await client.tokenize("", add_special=True)) > 0
        try:
            template = ChatTemplate(
                props.chat_template, bos_token=props.bos_token, eos_token=props.eos_token, adds_bos=adds_bos
            )
        except jinja2.TemplateError as error:
            raise StartupError(
                f"The chat template in the file of model {self.name!r} is not valid jinja: {error}. "
                "Use another conversion of the model."
            ) from error
        return _Facts(props.default_generation_settings.n_ctx, template, await _markup(client, props))

    async def _prepare(self, client: LlamaCppClient, facts: _Facts, request: ModelRequest) -> _Prepared:
        self._compiler.check_size(request)
        plan = plan_tools(request)
        render = partial(facts.template.render, request, plan)
        prompt = await anyio.to_thread.run_sync(render) if _is_long(request, plan) else render()
        markup = in_prompt(facts.markup, prompt)
        grammar = await self._compiler.build(request, markup)
        await _check_fits(client, facts, prompt)
        body = {"prompt": prompt, **_sampling_fields(request, self.options)}
        if grammar:
            body["grammar"] = grammar
        if request.sampling.stop and not plan.required and request.text_format.get("type", "text") == "text":
            body["stop"] = list(request.sampling.stop)  # calls and JSON end by themselves, and nowhere else
        if markup.special:
            body["preserved_tokens"] = sorted(markup.special)
        return _Prepared(body, markup, plan)


def _is_long(request: ModelRequest, plan: ToolPlan) -> bool:
    """Whether rendering takes so long that others should have their turn meanwhile."""
    return len(request.items) > 200 or len(plan.shown) > 50


class _Sampling:
    """The deltas of one request. `close` frees everything, at once, in every state."""

    def __init__(
        self,
        client: LlamaCppClient,
        process: EngineProcess,
        ticket: Ticket,
        prepared: _Prepared,
        new_call_id: Callable[[], str],
        request: ModelRequest,
    ) -> None:
        self._client = client
        self._process = process
        self._ticket = ticket
        self._prepared = prepared
        self._parser = OutputParser(
            prepared.markup, new_call_id, calls=bool(prepared.plan.allowed), tools=prepared.plan.allowed
        )
        self._alternatives = request.top_logprobs
        self._completion: Completion | None = None
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
            for chunk in await self._chunks():
                self._take(chunk)
        return self._ready.popleft()

    def close(self) -> None:
        self._done = True
        if self._completion is not None:
            self._completion.close()
        self._ticket.release()

    async def _chunks(self) -> list[Chunk]:
        if self._completion is None:
            await self._ticket.wait()
            self._completion = await self._begin()
        return await self._completion.read()

    async def _begin(self) -> Completion:
        """A request that was only waiting when the engine died is none of those it took along."""
        try:
            return await self._client.complete(self._prepared.body)
        except ModelFailed:
            if not await self._process.back(RESTART_SECONDS):
                raise
            return await self._client.complete(self._prepared.body)

    def _take(self, chunk: Chunk) -> None:
        thinking = self._parser.thinking
        if chunk.content or chunk.completion_probabilities:
            self._ready.extend(self._parser.feed(chunk.content, self._logprobs(chunk)))
        if thinking:
            self._reasoning_tokens += max(0, chunk.tokens_predicted - self._seen_tokens)
        self._seen_tokens = max(self._seen_tokens, chunk.tokens_predicted)
        if chunk.stop:
            self._finish(chunk)

    def _finish(self, chunk: Chunk) -> None:
        self._done = True
        limited = chunk.stop_type == "limit"
        if chunk.stop_type == "word" and self._parser.calling:
            raise ModelFailed("The model wrote one of your 'stop' texts inside a tool call. Choose others.")
        self._ready.extend(self._parser.finish(cut=limited))
        if self._prepared.plan.required and not self._parser.called and not limited:
            raise ModelFailed(
                "The model's engine did not hold the model to the tool call that was required. Try again."
            )
        usage = Usage(
            input_tokens=chunk.tokens_evaluated,
            output_tokens=chunk.tokens_predicted,
            cached_tokens=min(chunk.timings.cache_n, chunk.tokens_evaluated),
            reasoning_tokens=min(self._reasoning_tokens, chunk.tokens_predicted),
        )
        reason: Reason = "max_output_tokens" if limited else "tool_calls" if self._parser.called else "stop"
        self._ready.append(Finish(reason, usage))

    def _logprobs(self, chunk: Chunk) -> tuple[JsonObject, ...]:
        if self._alternatives is None:
            return ()
        return tuple(_entry(raw, self._alternatives) for raw in chunk.completion_probabilities)


def _entry(raw: JsonObject, alternatives: int) -> JsonObject:
    """llama.cpp's entry in the wire's shape (section 6)."""
    others = [_bare(other) for other in raw.get("top_logprobs", ())[:alternatives]]
    return {**_bare(raw), "top_logprobs": others}


def _bare(raw: JsonObject) -> JsonObject:
    return {"token": raw.get("token", ""), "logprob": raw.get("logprob", 0.0), "bytes": raw.get("bytes", [])}


def _sampling_fields(request: ModelRequest, options: EngineOptions) -> JsonObject:
    sampling = request.sampling
    fields: JsonObject = {
        "temperature": options.temperature if sampling.temperature is None else sampling.temperature,
        "top_p": options.top_p if sampling.top_p is None else sampling.top_p,
        "n_predict": -1 if request.max_output_tokens is None else request.max_output_tokens,
        "seed": _RANDOM_SEED if sampling.seed is None else sampling.seed % _RANDOM_SEED,
    }
    if sampling.presence_penalty or sampling.frequency_penalty:
        fields["presence_penalty"] = sampling.presence_penalty or 0.0
        fields["frequency_penalty"] = sampling.frequency_penalty or 0.0
        fields["repeat_last_n"] = PENALTY_WINDOW
    if (fields["temperature"], fields["top_p"]) != (options.temperature, options.top_p):
        fields |= {"top_k": 0, "min_p": 0.0}  # who asks for a distribution gets it, and not its largest forty tokens
    if request.top_logprobs is not None:
        fields["n_probs"] = max(1, request.top_logprobs)
    return fields


async def _check_fits(client: LlamaCppClient, facts: _Facts, prompt: str) -> None:
    """Raise the 400 unless there is room for the prompt and one more token. A token is a byte at least."""
    size, markers = len(prompt.encode()), facts.template.count_markers(prompt)
    if size + 2 < facts.context:
        return
    least = max(markers, size // LONGEST_TOKEN)
    count = least if least >= facts.context else len(await client.tokenize(prompt))
    if count >= facts.context:
        raise context_exceeded(count, facts.context)


async def _markup(client: LlamaCppClient, props: Props) -> Markup:
    """Which markers are control tokens: one token when such are parsed, several when they are not."""
    markup = family_of(props.chat_template)
    special = {}
    for marker in markup.markers:
        parsed = await client.tokenize(marker, add_special=False, parse_special=True)
        plain = await client.tokenize(marker, add_special=False, parse_special=False)
        if len(parsed) == 1 and len(plain) > 1:
            special[marker] = parsed[0]
    return structs.replace(markup, special=special)
