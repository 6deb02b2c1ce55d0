"""Reads the events of a Responses upstream as deltas, however well it keeps to the contract (sections 7.1 and 7.2).

Items are told one after the other: what a later one says is held until the one before it is over. Each item knows what
it has said, so that whatever an upstream says twice, late, or only at the end, is said once. What an item may say is
`tracks`; this module knows which event belongs to which item, and in which order they go out.
"""

from collections.abc import Sequence
from typing import Any, Final, TypeGuard

import msgspec
from msgspec import Struct

from ore.backends.base import JsonObject
from ore.backends.dialect import Unintelligible, UpstreamError
from ore.backends.responses.tracks import MESSAGE, REASONING, Call, Known, Passed, Spoken, Track, track_of
from ore.backends.upstream_errors import FAILED, error_in_stream
from ore.core.deltas import Delta, Finish, Reasoning, ReasoningSummary, Refusal, Text, Usage


class _Event(Struct, frozen=True):
    """What deltas have. Other events are decoded once more, as they came; upstreams are not held to types here."""

    type: str = ""
    output_index: Any = None
    item_id: Any = None
    content_index: Any = None
    summary_index: Any = None
    delta: Any = None
    logprobs: Any = None
    sequence_number: Any = None


class _Row(Struct, frozen=True):
    """What an event is about: the type of its item, and in a message or reasoning item what it makes."""

    kind: str
    makes: Any = None
    whole: str = "text"
    """The field of a done event that holds the whole."""


_DELTAS: Final = {
    "response.output_text.delta": _Row(MESSAGE, Text),
    "response.refusal.delta": _Row(MESSAGE, Refusal),
    "response.reasoning.delta": _Row(REASONING, Reasoning),
    "response.reasoning_text.delta": _Row(REASONING, Reasoning),
    "response.reasoning_summary_text.delta": _Row(REASONING, ReasoningSummary),
    "response.function_call_arguments.delta": _Row("function_call"),
    "response.custom_tool_call_input.delta": _Row("custom_tool_call"),
}
_DONES: Final = {
    "response.output_text.done": _Row(MESSAGE, Text),
    "response.refusal.done": _Row(MESSAGE, Refusal, "refusal"),
    "response.reasoning.done": _Row(REASONING, Reasoning),
    "response.reasoning_text.done": _Row(REASONING, Reasoning),
    "response.reasoning_summary_text.done": _Row(REASONING, ReasoningSummary),
    "response.function_call_arguments.done": _Row("function_call", whole="arguments"),
    "response.custom_tool_call_input.done": _Row("custom_tool_call", whole="input"),
}
_ANNOTATED: Final = "response.output_text.annotation.added"

_ENDS: Final = {
    "response.completed": "completed",
    "response.done": "completed",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
    "response.cancelled": "cancelled",
}
"""Events that end a response, and the status that they stand for where it says none."""


class ResponsesDecoder:
    """`Decoder` of one answer.

    What upstreams get wrong and is mended: missing `added` and `done` events, indexes and ids that do not agree, text
    that only the end tells, items between each other, anything said twice.
    """

    def __init__(self, known: Known) -> None:
        self._known = known
        self._decode = msgspec.json.Decoder(_Event).decode
        self._tracks: list[Track] = []
        self._by_key: dict[Any, Track] = {}
        self._front: Track | None = None
        self._waiting: list[Track] = []
        self._last = b""

    def feed(self, data: bytes) -> Sequence[Delta]:
        """See `Decoder.feed`."""
        event = self._decode(data)
        if data == self._last and event.sequence_number:
            return ()  # sent twice: numbers do not repeat
        self._last = data
        row = _DELTAS.get(event.type)
        if row is None:
            return self._hear(event.type, msgspec.json.decode(data))
        track, delta = self._front, event.delta
        if track is None or track.key != (event.output_index, event.item_id) or track.kind != row.kind:
            track = self._track(row.kind, event.output_index, event.item_id)
        if track.done or not isinstance(delta, str):
            return ()
        if isinstance(track, Spoken):
            index = event.summary_index if row.makes is ReasoningSummary else event.content_index
            return self._give(track, track.say(row.makes, index, delta, event.logprobs))
        return self._give(track, track.say(delta) if isinstance(track, Call) else ())

    def end(self) -> Sequence[Delta]:
        """What was held back. No `Finish`: a response that does not say how it ended has been cut off."""
        return self._close_all()

    def _hear(self, kind: str, event: JsonObject) -> Sequence[Delta]:
        """An event that is no delta."""
        if kind in _DONES:
            return self._hear_done(_DONES[kind], event)
        if kind == "response.output_item.added":
            return self._begin(event)
        if kind == "response.output_item.done":
            return self._complete(event.get("item"), event.get("output_index"))
        if kind == "response.content_part.done":
            return self._hear_part(event)
        if kind == _ANNOTATED:
            return self._annotate(event)
        if kind in _ENDS:
            return self._end(kind, event.get("response"))
        if not kind and event.get("object") == "response":
            return self._hear_whole(event)
        if kind in ("error", "response.error") or (not kind and "error" in event):
            raise error_in_stream(event)
        return self._pass_on(kind, event)

    def _hear_done(self, row: _Row, event: JsonObject) -> Sequence[Delta]:
        track, whole = self._track(row.kind, event.get("output_index"), event.get("item_id")), event.get(row.whole)
        if track.done or not isinstance(whole, str):
            return ()
        if isinstance(track, Spoken):
            index = event.get("summary_index" if row.makes is ReasoningSummary else "content_index")
            deltas = track.say_rest(row.makes, index, whole, event.get("logprobs"))
        elif isinstance(track, Call):
            deltas = [*track.learn(event), *track.say_rest(whole)]
        else:
            return ()
        track.over = True
        return self._give(track, deltas)

    def _hear_part(self, event: JsonObject) -> Sequence[Delta]:
        """A part of a message or a reasoning item that is done, for those who say only this."""
        part, track = event.get("part"), self._find(None, event.get("output_index"), event.get("item_id"))
        if not isinstance(track, Spoken) or track.done or not isinstance(part, dict):
            return ()
        deltas = track.say_part(part, event.get("content_index"))
        track.over = True
        return self._give(track, deltas)

    def _annotate(self, event: JsonObject) -> Sequence[Delta]:
        annotation, track = (
            event.get("annotation"),
            self._track(MESSAGE, event.get("output_index"), event.get("item_id")),
        )
        if track.done or not isinstance(track, Spoken) or not isinstance(annotation, dict):
            return ()
        return self._give(track, track.annotate(event.get("content_index"), annotation))

    def _begin(self, event: JsonObject) -> Sequence[Delta]:
        item, index = event.get("item"), event.get("output_index")
        if not _is_item(item):
            return ()
        known = self._by_key.get(_key(index, item.get("id")))
        if known is not None and known.kind == item["type"] and (not known.done or item.get("id")):
            return ()  # begun twice
        track = self._add(track_of(item, self._known), index, item.get("id"))
        return self._give(track, track.learn(item))

    def _complete(self, item: Any, index: Any) -> Sequence[Delta]:
        """An item as it came out; most of it has been said by then."""
        if not _is_item(item):
            return ()
        track = self._find(item["type"], index, item.get("id"), item.get("call_id"))
        if track is None:
            if not item.get("id") and any(each.done and each.item == item for each in self._tracks):
                return ()
            track = self._add(track_of(item, self._known), index, item.get("id"))
        return self._close(track, item)

    def _close(self, track: Track, item: JsonObject) -> Sequence[Delta]:
        if track.done:
            return ()
        deltas = track.complete(item)
        track.done = True
        self._remember(track, item.get("call_id"))
        return self._give(track, deltas)

    def _pass_on(self, kind: str, event: JsonObject) -> Sequence[Delta]:
        """An event that names an item which is passed on; any other is not known, and left out."""
        named = _key(event.get("output_index"), event.get("item_id"))
        track = self._find(None, *named) if named != (None, None) else None
        if not isinstance(track, Passed) or track.done:
            return ()
        return self._give(track, track.note(kind, event))

    def _end(self, kind: str, response: Any) -> Sequence[Delta]:
        response = response if isinstance(response, dict) else {}
        status = response.get("status")
        if status not in _ENDS.values():
            status = _ENDS[kind]
        if status == "failed":
            raise error_in_stream(response.get("error"))
        if status == "cancelled":
            raise UpstreamError(FAILED, "It cancelled the response.", code="cancelled")
        output = response.get("output")
        told = self._reconcile([item for item in output if _is_item(item)] if isinstance(output, list) else [])
        deltas = [*told, *self._close_all()]
        return [*deltas, self._finish(status, response)]

    def _hear_whole(self, response: JsonObject) -> Sequence[Delta]:
        """The answer of an upstream that streams nothing."""
        if response.get("status") not in _ENDS.values():
            raise Unintelligible("a response that has not ended")
        return self._end("response.completed", response)

    def _reconcile(self, output: list[JsonObject]) -> list[Delta]:
        """Say what only the finished response tells.

        Some upstreams make its items anew, with other ids, and more or fewer of them. So an item that is not known by
        its id is one that was begun and agrees with it; or it is new, if the ids of all others of its type were right.
        """
        pairs = [(item, self._with_id_of(item)) for item in output]
        right = {id(track) for _, track in pairs if track is not None}
        deltas: list[Delta] = []
        for item, track in pairs:
            if track is None:
                alike = [each for each in self._tracks if each.kind == item["type"] and id(each) not in right]
                track = next((each for each in alike if not each.done and each.agrees(item)), None)
                if track is None and not alike:
                    track = self._add(track_of(item, self._known), None, item.get("id"))
                    right.add(id(track))
            if track is not None:
                deltas += self._close(track, item)
        return deltas

    def _with_id_of(self, item: JsonObject) -> Track | None:
        for key in (("id", item.get("id")), ("call", item.get("call_id"))):
            track = self._by_key.get(key) if isinstance(key[1], str) and key[1] else None
            if track is not None and track.kind == item["type"]:
                return track
        return None

    def _close_all(self) -> list[Delta]:
        """What is open ends as far as it was told."""
        deltas: list[Delta] = []
        for track in [*filter(None, [self._front]), *self._waiting]:
            if not track.done:
                held = track.break_off()
                track.done = True
                deltas += self._give(track, held)
        return deltas

    def _finish(self, status: str, response: JsonObject) -> Finish:
        tier = response.get("service_tier")
        usage, tier = _usage(response.get("usage")), tier if isinstance(tier, str) else None
        if status == "incomplete":
            details = response.get("incomplete_details")
            filtered = isinstance(details, dict) and details.get("reason") == "content_filter"
            return Finish("content_filter" if filtered else "max_output_tokens", usage, tier)
        calls = any(track.awaits_client for track in self._tracks)
        return Finish("tool_calls" if calls else "stop", usage, tier)

    def _give(self, track: Track, deltas: Sequence[Delta]) -> Sequence[Delta]:
        """What of it can go out now: an item's own deltas when it is its turn, and then those that waited for it."""
        front = self._front
        if track is front:
            return deltas if not track.done else [*deltas, *self._next()]
        track.held.extend(deltas)
        if track not in self._waiting and (deltas or not track.done):
            self._waiting.append(track)
        if front is None or front.done or (front.over and deltas):
            return self._next()
        return ()

    def _next(self) -> list[Delta]:
        """Let the next item speak, and those after it as far as they are over."""
        deltas: list[Delta] = []
        while self._waiting:
            if self._front is not None and not self._front.done:
                deltas += self._front.leave()
            self._front = track = self._waiting.pop(0)
            deltas += track.held
            track.held = []
            if not (track.done or (track.over and any(each.held for each in self._waiting))):
                break
        return deltas

    def _track(self, kind: str, index: Any, item_id: Any) -> Track:
        """The item of that type that an event is about; one that nobody has begun begins with it."""
        track = self._find(kind, index, item_id)
        if track is None:
            track = self._add(track_of({"type": kind}, self._known), index, item_id)
        return track

    def _find(self, kind: str | None, index: Any, item_id: Any, call_id: Any = None) -> Track | None:
        """By index and id together; where they do not agree, by id, by call, or by index among those not done."""
        index, item_id = _key(index, item_id)
        exact = self._by_key.get((index, item_id))
        by_id = self._by_key.get(("id", item_id)) if item_id else None
        by_call = self._by_key.get(("call", call_id)) if isinstance(call_id, str) and call_id else None
        at_index = self._by_key.get(("at", index)) if index is not None else None
        if index is None and not item_id and self._tracks:
            at_index = self._tracks[-1]
        for track, may_be_done in ((exact, bool(item_id)), (by_id, True), (by_call, True), (at_index, False)):
            if track is not None and (may_be_done or not track.done) and kind in (None, track.kind):
                return track
        return None

    def _add(self, track: Track, index: Any, item_id: Any) -> Track:
        track.key = (index, item_id)
        self._tracks.append(track)
        index, item_id = _key(index, item_id)
        self._by_key[(index, item_id)] = track
        self._by_key[("at", index)] = track
        self._by_key.setdefault(("id", item_id), track)
        self._remember(track, track.item.get("call_id"))
        return track

    def _remember(self, track: Track, call_id: Any) -> None:
        if isinstance(call_id, str) and call_id:
            self._by_key.setdefault(("call", call_id), track)


def _key(index: Any, item_id: Any) -> tuple[int | None, str | None]:
    """An index and an id, where they are such."""
    return index if isinstance(index, int) else None, item_id if isinstance(item_id, str) and item_id else None


def _is_item(item: Any) -> TypeGuard[JsonObject]:
    return isinstance(item, dict) and isinstance(item.get("type"), str) and bool(item["type"])


def _usage(told: Any) -> Usage:
    def count(name: str, inside: str = "") -> int:
        place = told.get(inside) if inside else told
        value = place.get(name) if isinstance(place, dict) else None
        return value if isinstance(value, int) else 0

    if not isinstance(told, dict):
        return Usage()
    return Usage(
        input_tokens=count("input_tokens"),
        output_tokens=count("output_tokens"),
        cached_tokens=count("cached_tokens", "input_tokens_details"),
        reasoning_tokens=count("reasoning_tokens", "output_tokens_details"),
    )
