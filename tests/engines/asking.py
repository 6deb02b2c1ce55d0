"""What the kits ask a local model, and how they read its answers."""

from collections.abc import Iterable
from typing import Any, Final

from ore.backends.base import ModelRequest, Sampling
from ore.backends.local.local_model import LocalModel
from ore.core.deltas import Delta, Finish, Reasoning, Text, ToolArguments, ToolCall

HOT: Final = Sampling(temperature=1.5, top_p=1.0)
"""Random weights at this temperature say nearly anything, so whatever comes out right was enforced."""

ENDLESS: Final = {"type": "json_schema", "name": "n", "schema": {"type": "string", "minLength": 3000}}
"""An answer that does not end by itself."""


def said(text: str, role: str = "user") -> dict[str, Any]:
    """A message."""
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def ask(text: str = "hello", **fields: Any) -> ModelRequest:
    """A short request; `items` replaces the message."""
    return ModelRequest(
        model="random", **({"items": (said(text),), "max_output_tokens": 16, "sampling": HOT, "owner": "o"} | fields)
    )


def obj(**properties: Any) -> dict[str, Any]:
    """A closed object schema, all of it required."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


async def run(model: LocalModel, request: ModelRequest) -> list[Delta]:
    """All that it says."""
    async with model.stream(request) as deltas:
        return [delta async for delta in deltas]


def text_of(deltas: Iterable[Delta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, Text))


def thought_of(deltas: Iterable[Delta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, Reasoning))


def calls_of(deltas: Iterable[Delta]) -> list[tuple[str, str]]:
    """Names and inputs."""
    calls: list[tuple[str, str]] = []
    for delta in deltas:
        if isinstance(delta, ToolCall):
            calls.append((delta.name, ""))
        elif isinstance(delta, ToolArguments):
            calls[-1] = (calls[-1][0], calls[-1][1] + delta.text)
    return calls


def finish_of(deltas: list[Delta]) -> Finish:
    assert isinstance(deltas[-1], Finish)
    return deltas[-1]
