"""What tests of the writer, of runs and of the wire share: recordings, and scripts of any deltas. Not a test."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st

from ore.core import deltas as d
from ore.core.writer import ResponseWriter, Seal
from ore.errors import HTTPFault, ModelFailed
from ore.ids import NewId
from ore.protocol import events as e
from ore.protocol.decoding import JsonObject
from ore.protocol.items import ItemStatus
from ore.protocol.responses import Response, ResponseError
from ore.protocol.wire import BOTH, Wire

NOW = 1_795_000_001
CITED = {"type": "url_citation", "url": "https://a.example", "title": "A", "start_index": 0, "end_index": 1}
LOGPROB = {
    "token": "a",
    "logprob": -0.5,
    "bytes": [97],
    "top_logprobs": [{"token": "b", "logprob": -1.0, "bytes": [98]}],
}


def counted() -> NewId:
    """Ids by counting, with the purpose as prefix: what the core is given instead of randomness."""
    made = 0

    def new_id(purpose: str) -> str:
        nonlocal made
        made += 1
        return f"{purpose}_{made}"

    return new_id


def begun(**more: Any) -> Response:
    return Response(id="resp_1", created_at=NOW - 1, status="in_progress", model="m", **more)


class Recording:
    """A writer, and every event that it made."""

    def __init__(self, response: Response | None = None, wire: Wire = BOTH, seal: Seal | None = None) -> None:
        self.events: list[e.Event] = []
        self.writer = ResponseWriter(counted(), self.events.append, wire=wire, seal=seal)
        self.writer.begin(response or begun())

    def write(self, deltas: Iterable[d.Delta]) -> "Recording":
        for delta in deltas:
            self.writer.write(delta)
        return self

    def end(self, status: str = "completed") -> "Recording":
        """End as a run does."""
        closed: ItemStatus = "completed" if status == "completed" else "incomplete"
        self.writer.close(closed)
        fault: HTTPFault | None = None
        error = None
        if status == "failed":
            fault = ModelFailed("The model broke.")
            error = ResponseError("server_error", "The model broke.")
        final = self.writer.final(
            status,  # type: ignore[arg-type]
            now=NOW,
            usage=d.Usage(input_tokens=9, output_tokens=2, cached_tokens=1, reasoning_tokens=1),
            incomplete="max_output_tokens" if status == "incomplete" else None,
            error=error,
        )
        self.writer.end(final, fault)
        return self

    @property
    def wire(self) -> list[JsonObject]:
        """The events as a client decodes them."""
        return [msgspec.json.decode(e.encode(event)) for event in self.events]

    @property
    def final(self) -> JsonObject:
        """The response as a client decodes it."""
        shown: JsonObject = msgspec.json.decode(e.encode(self.writer.response))
        return shown


def recorded(deltas: Iterable[d.Delta], status: str = "completed", wire: Wire = BOTH) -> Recording:
    return Recording(wire=wire).write(deltas).end(status)


WHOLE_ITEMS: list[JsonObject] = [
    {
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "whole", "annotations": [], "logprobs": []}],
    },
    {"type": "function_call", "status": "completed", "call_id": "call_w", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "status": "completed", "call_id": "call_w", "output": "4"},
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}], "encrypted_content": "e"},
    {"type": "compaction", "encrypted_content": "e"},
]

SEARCH: JsonObject = {
    "type": "web_search_call",
    "id": "ws_upstream",
    "status": "completed",
    "action": {"type": "search", "query": "q", "queries": ["q"]},
}

RICH: tuple[d.Delta, ...] = (
    d.Reasoning("Let me "),
    d.Reasoning("think."),
    d.ReasoningSummary("First"),
    d.ReasoningSummary(" part."),
    d.ReasoningSummary("Second.", index=1),
    d.Text("Hel", (LOGPROB,)),
    d.Text("lo."),
    d.Annotation(CITED),
    d.Text(" More."),
    d.Refusal("But "),
    d.Refusal("no."),
    d.ToolCall("call_1", "get_weather"),
    d.ToolArguments('{"city":'),
    d.ToolArguments('"Oslo"}'),
    d.WholeItem(WHOLE_ITEMS[3] | {"id": "rs_upstream"}),
    d.ToolCall("call_2", "shout", kind="custom_tool_call"),
    d.ToolArguments("free text"),
    d.ToolCall("call_3", "close", namespace="windows"),
    d.ToolArguments("{}"),
    d.ToolCall("call_4", "shell", kind="shell_call"),
    d.ToolArguments('{"commands": ["ls"]}'),
    d.ItemBegun(SEARCH | {"status": "in_progress"}),
    d.ItemEvent("response.web_search_call.searching", {"item_id": "ws_upstream"}),
    d.WholeItem(SEARCH),
    d.Begin("message", "commentary"),
    d.Text("Found "),
    d.Begin("part"),
    d.Text("it."),
)
"""Every kind of delta at least once, and every kind of event."""

TEXTS = st.text(st.characters(codec="utf-8"), max_size=4)
_SAYING: st.SearchStrategy[list[d.Delta]] = st.one_of(
    st.builds(lambda text, logprobs: [d.Text(text, tuple(logprobs))], TEXTS, st.lists(st.just(LOGPROB), max_size=1)),
    TEXTS.map(lambda text: [d.Text(text)]),
    TEXTS.map(lambda text: [d.Refusal(text)]),
    TEXTS.map(lambda text: [d.Reasoning(text)]),
    st.builds(lambda text, index: [d.ReasoningSummary(text, index)], TEXTS, st.integers(0, 2)),
    st.just([d.Annotation(CITED)]),
)
_WHOLE: st.SearchStrategy[list[d.Delta]] = st.builds(
    lambda item, has_id: [d.WholeItem(item | {"id": ""} if has_id else item)],
    st.sampled_from(WHOLE_ITEMS),
    st.booleans(),
)


def _calls(kinds: Sequence[Any]) -> st.SearchStrategy[list[d.Delta]]:
    return st.builds(
        lambda kind, pieces: [d.ToolCall("call", "f", kind), *map(d.ToolArguments, pieces)],
        st.sampled_from(kinds),
        st.lists(TEXTS, max_size=3),
    )


def _named_apart(groups: list[list[d.Delta]]) -> list[d.Delta]:
    """One list in which call ids, and the ids that an upstream gave, are unique."""
    flat: list[d.Delta] = []
    for at, delta in enumerate(delta for group in groups for delta in group):
        if isinstance(delta, d.ToolCall):
            delta = d.ToolCall(f"call_{at}", delta.name, delta.kind)
        elif isinstance(delta, d.WholeItem) and "id" in delta.item:
            delta = d.WholeItem(delta.item | {"id": f"up_{at}"})
        flat.append(delta)
    return flat


def scripts(
    *, kinds: Sequence[str] = ("function_call", "custom_tool_call"), max_size: int = 8
) -> st.SearchStrategy[list[d.Delta]]:
    """Any sequence of deltas that a backend may say, without the `Finish`."""
    return st.lists(_SAYING | _SAYING | _calls(kinds) | _WHOLE, max_size=max_size).map(_named_apart)
