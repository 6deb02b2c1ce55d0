"""What a backend may say: a closed union of thirteen frozen values.

Small on purpose: a translator for a new engine or provider must be writable in an afternoon. A delta has no id, no
index and no number; only `ore.core.writer` mints those.
"""

from typing import Any, Literal

from msgspec import Struct

from ore.protocol.items import Phase


class Usage(Struct, frozen=True, kw_only=True):
    """Tokens of one sampling of the model, as the engine counted them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """How many of `input_tokens` came out of a prefix cache."""
    reasoning_tokens: int = 0
    """How many of `output_tokens` were reasoning."""

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
        )


class Begin(Struct, frozen=True, tag=True):
    """A message, a reasoning item or a part of the open item begins, even where one of its kind is open.

    Only for upstreams that tell items and parts apart; others have them opened by what they say. `phase` is a message's
    (wire contract, 5.1).
    """

    what: Literal["message", "reasoning", "part"]
    phase: Phase | None = None


class Text(Struct, frozen=True, tag=True):
    """A piece of the answer. `logprobs` are entries of the wire's shape (section 6), one per token of the piece."""

    text: str
    logprobs: tuple[dict[str, Any], ...] = ()


class Annotation(Struct, frozen=True, tag=True):
    """A citation on the text part that is open, in the wire's shape (section 6)."""

    annotation: dict[str, Any]


class Refusal(Struct, frozen=True, tag=True):
    """A piece of a refusal."""

    text: str


class Reasoning(Struct, frozen=True, tag=True):
    """A piece of raw reasoning text."""

    text: str


class ReasoningState(Struct, frozen=True, tag=True):
    """What the backend wants back with the reasoning item that is open: a signature, an encrypted blob.

    It comes at the item's end: reasoning that follows it is another item.
    """

    state: str


class ReasoningSummary(Struct, frozen=True, tag=True):
    """A piece of a reasoning summary. `index` counts the item's parts from 0; a change closes the part before it."""

    text: str
    index: int = 0


CallKind = Literal[
    "function_call", "custom_tool_call", "shell_call", "local_shell_call", "apply_patch_call", "tool_search_call"
]


class ToolCall(Struct, frozen=True, tag=True):
    """The model begins a call. The arguments follow as `ToolArguments` until any other delta comes.

    `kind` names the item: `function_call` (arguments are JSON), `custom_tool_call` (input is free text), or the call of
    a tool in `ore.core.native_tools` (arguments are the JSON of the function that its row shows the model). `name` and
    `namespace` are the client's.
    """

    call_id: str
    name: str
    kind: CallKind = "function_call"
    namespace: str | None = None


class ToolArguments(Struct, frozen=True, tag=True):
    """A piece of the arguments of the call that is open, as the model wrote it: not always valid JSON."""

    text: str


class ItemBegun(Struct, frozen=True, tag=True):
    """An item that the upstream makes by itself begins, in the wire's shape and with its id; `WholeItem` ends it."""

    item: dict[str, Any]


class ItemEvent(Struct, frozen=True, tag=True):
    """An event about the item begun by `ItemBegun`: its wire name, and the fields that are its own (section 7.2)."""

    name: str
    fields: dict[str, Any]


class WholeItem(Struct, frozen=True, tag=True):
    """An item that the upstream already made, in the wire's shape; kept as it came, with its id if it has one."""

    item: dict[str, Any]


class Finish(Struct, frozen=True, tag=True):
    """The last delta of every stream: why the model stopped, and what it cost."""

    reason: Literal["stop", "max_output_tokens", "content_filter", "tool_calls"]
    usage: Usage = Usage()
    service_tier: str | None = None
    """The tier that the upstream says it used."""


Delta = (
    Begin
    | Text
    | Annotation
    | Refusal
    | Reasoning
    | ReasoningState
    | ReasoningSummary
    | ToolCall
    | ToolArguments
    | ItemBegun
    | ItemEvent
    | WholeItem
    | Finish
)
