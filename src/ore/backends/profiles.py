"""What is known of model families, as data (`profiles.toml`): a quirk of a model is a row there, not a branch.

A profile is made of all rows whose patterns fit the model's name, later rows over earlier ones; a row may be bound to
some kinds of provider. Nothing here asks a provider: what discovery learns is laid over the profile by `provider`.
"""

import tomllib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Literal

import msgspec
from msgspec import Struct

from ore.backends.base import Capabilities, JsonObject, Sampling
from ore.core.callable_tools import TOOL_TYPES
from ore.protocol.configuration import EFFORTS


class Profile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one model can do, and how it wants to be asked. Times are in seconds, sizes in tokens."""

    context_window: int | None = None
    max_output_tokens: int | None = None
    images: bool = False
    files: bool = False
    """Whether it reads PDF files; text files are inlined for those that do not."""
    tools: bool = True
    tool_types: tuple[str, ...] | None = None
    """The tool types that are sent as they are; None: functions only, and the rest translated or skipped."""
    reasoning: bool = False
    logprobs: bool = False
    sampling: bool = True
    """Whether it takes `temperature` and `top_p`; those that do not refuse requests with them."""
    penalties: bool = True
    seed: bool = True
    stop: bool = True
    json_schema: Literal["native", "tool", "prompt"] = "native"
    """How it is held to a schema: by the provider, by a tool that it is made to call, or by asking."""
    parallel_tool_calls: bool = True
    """Whether it takes the field `parallel_tool_calls`."""
    instructions_role: Literal["system", "developer"] = "system"
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    default_max_tokens: int = 8192
    """Sent where the dialect demands a bound and the client named none."""
    effort: Literal["none", "reasoning_effort", "budget", "adaptive", "chat_template_kwargs"] = "none"
    """How `reasoning.effort` is said: not at all, as a word, as a budget of tokens, as thinking that adapts, or to the
    chat template."""
    efforts: tuple[str, ...] = ()
    """The words for it that are understood; see `nearest_effort`. Empty: all."""
    summarised: bool = True
    """Whether what it shows of its reasoning is a summary of it."""
    reasoning_field: Literal["reasoning_content", "reasoning"] = "reasoning_content"
    """The field of a Chat Completions message in which its reasoning goes back."""
    reasoning_back: Literal["never", "calls", "always"] = "never"
    """When reasoning is given back: never, with the calls that it led to, or always."""
    counts_tokens: bool = True
    """Whether the provider counts tokens, where its dialect knows how to ask."""
    think_tags: bool = False
    """Whether reasoning may stand between think tags in the text."""
    thinking_switch: bool = False
    """Whether the effort none is said by a field of its own, `thinking`, as DeepSeek and Kimi have it."""
    short_call_ids: bool = False
    """Whether ids of calls must be nine letters and digits, as Mistral has them."""
    openai_fields: bool = False
    """Whether it takes the fields of a Chat Completions request that only OpenAI knows; many servers refuse them."""
    thinks: Literal["asked", "unasked", "always"] = "asked"
    """When it thinks: only if a request asks for it, unless a request forbids it, or always."""
    forced_calls: bool = True
    """Whether it can be made to call a tool; those that cannot are told to."""
    system_messages: bool = False
    """Whether a system message may stand in the middle of a conversation."""
    bound_thinking: bool = False
    """Whether its thinking is only taken back behind the same words as before, so that a misfit must be let go."""

    def nearest_effort(self, wanted: str) -> str:
        """The most of what is understood that is not more than was asked for; the least, where all is more."""
        if not self.efforts:
            return wanted
        known = sorted(self.efforts, key=EFFORTS.index)
        return next((word for word in reversed(known) if EFFORTS.index(word) <= EFFORTS.index(wanted)), known[0])

    def sampled(self, asked: Sampling) -> JsonObject:
        """What of it the model takes, by OpenAI's names."""
        taken: JsonObject = {
            "temperature": asked.temperature if self.sampling else None,
            "top_p": asked.top_p if self.sampling else None,
            "presence_penalty": asked.presence_penalty if self.penalties else None,
            "frequency_penalty": asked.frequency_penalty if self.penalties else None,
            "seed": asked.seed if self.seed else None,
            "stop": list(asked.stop) or None if self.stop else None,
        }
        return {name: value for name, value in taken.items() if value is not None}

    def capabilities(self) -> Capabilities:
        """What of it `GET /v1/models` shows and routing asks for."""
        return Capabilities(
            context_window=self.context_window,
            max_output_tokens=self.max_output_tokens,
            tools=self.tools,
            tool_types=() if not self.tools else TOOL_TYPES if self.tool_types is None else self.tool_types,
            logprobs=self.logprobs,
            reasoning=self.reasoning,
            images=self.images,
            files=self.files,
        )


class _Row(Struct, frozen=True, forbid_unknown_fields=True):
    models: tuple[str, ...]
    """Patterns (`*`, `?`) over lower-case names."""
    profile: dict[str, Any]
    kinds: tuple[str, ...] = ()
    """Kinds of provider that it is bound to; empty: all."""


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    row: tuple[_Row, ...]


@lru_cache(maxsize=4096)
def profile_of(kind: str, model: str) -> Profile:
    """The profile of a provider's model, by the provider's kind and the model's name there."""
    return _made_of(_rows(), kind, model)


def _made_of(rows: Iterable[_Row], kind: str, model: str) -> Profile:
    bare = model.lower().rsplit("/", 1)[-1]
    fields: dict[str, Any] = {}
    for row in rows:
        if (not row.kinds or kind in row.kinds) and any(fnmatchcase(bare, pattern) for pattern in row.models):
            fields |= row.profile
    return msgspec.convert(fields, Profile)


@cache
def _rows() -> tuple[_Row, ...]:
    text = files("ore.backends").joinpath("profiles.toml").read_text("utf-8")
    return msgspec.convert(tomllib.loads(text), _File).row
