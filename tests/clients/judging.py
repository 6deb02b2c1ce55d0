"""What a response and a stream must be, whoever asked for them. Each function raises AssertionError with the reason."""

from typing import Any, Protocol

from clients.wire import TERMINAL, Sent

Json = dict[str, Any]


class Judge(Protocol):
    """The published schema, as the fixture `specification` has it."""

    def check(self, name: str, value: Any) -> None: ...


def check_response(judge: Judge, response: Json, *, status: str = "completed") -> Json:
    """Valid, with at least one output item, and of this status: the suite's S, O and C."""
    judge.check("ResponseResource", without_schema(response))
    assert response["output"], "no output item"
    assert response["status"] == status, response["error"] or response["incomplete_details"]
    return response


def check_stream(judge: Judge, events: list[Sent]) -> Json:
    """Every event valid, numbered without gaps and consistent with the final response, which is returned."""
    assert events, "no event"
    for number, sent in enumerate(events):
        event = sent.json
        assert sent.event == event["type"]
        assert event["sequence_number"] == number
        judge.check(schema_of(event["type"]), without_schema(event))
    begun = [sent.event for sent in events[:3] if sent.event != "response.queued"]
    assert begun[:2] == ["response.created", "response.in_progress"]
    bodies = [sent.json for sent in events]
    response: Json = bodies[-1]["response"]
    assert {event["response"]["id"] for event in bodies if "response" in event} == {response["id"]}
    _check_items(bodies, response)
    _check_deltas(bodies, response)
    return response


def schema_of(event_type: str) -> str:
    """`response.output_text.delta` is `ResponseOutputTextDeltaStreamingEvent` in the document."""
    words = event_type.replace("reasoning_summary_text", "reasoning_summary").replace(".", "_").split("_")
    return "".join(word.capitalize() for word in words) + "StreamingEvent"


def without_schema(value: Json) -> Json:
    """The response or event with null for the schema of its text format, which is all that the document allows there.

    That is a slip of the document's (section 22, point 9): the SDKs want the schema back.
    """
    if "response" in value:
        return {**value, "response": without_schema(value["response"])}
    if "object" not in value or value["text"]["format"]["type"] != "json_schema":
        return value
    return {**value, "text": {**value["text"], "format": {**value["text"]["format"], "schema": None}}}


def _check_items(events: list[Json], response: Json) -> None:
    """Each item is added once and done once, in the order and the form of the final output."""
    added = [event["item"]["id"] for event in events if event["type"] == "response.output_item.added"]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    indexes = [event["output_index"] for event in events if event["type"] == "response.output_item.added"]
    assert added == [item["id"] for item in response["output"]]
    assert done == response["output"]
    assert indexes == list(range(len(added)))


def _check_deltas(events: list[Json], response: Json) -> None:
    """Deltas, put together, are what their done event says, and what the final output holds."""
    for event in events:
        kind = event["type"]
        if kind not in _WHOLE:
            continue
        pieces = [
            other["delta"]
            for other in events
            if other["type"] == kind.removesuffix("done") + "delta" and _place(other) == _place(event)
        ]
        item = response["output"][event["output_index"]]
        assert item["id"] == event["item_id"]
        whole = item[_WHOLE[kind]] if "content_index" not in event else item["content"][event["content_index"]]["text"]
        assert "".join(pieces) == event[_WHOLE[kind]] == whole


_WHOLE = {"response.output_text.done": "text", "response.function_call_arguments.done": "arguments"}


def _place(event: Json) -> tuple[Any, ...]:
    return event["item_id"], event["output_index"], event.get("content_index")


def check_failed_stream(judge: Judge, events: list[Sent]) -> Json:
    """A stream that broke after it began: the combined `error` event, then `response.failed` (section 8.4)."""
    response = check_stream(judge, events)
    assert [sent.event for sent in events[-2:]] == ["error", "response.failed"]
    assert [sent.event for sent in events if sent.event in TERMINAL] == ["response.failed"]
    error = events[-2].json
    assert set(error["error"]) == {"type", "code", "message", "param"}
    assert {key: error[key] for key in ("code", "message", "param")} == {
        key: error["error"][key] for key in ("code", "message", "param")
    }
    assert response["status"] == "failed"
    assert response["error"]["message"] == error["message"]
    assert response["error"]["code"]
    return response
