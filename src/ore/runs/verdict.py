"""What a request holds a model to, looked at before and after: schemas that can be held, calls that are allowed.

Backends enforce what they can while the model writes; this is the last word, whatever they did.
"""

from collections.abc import Sequence

from ore.core import structured
from ore.core.tool_choice import allows
from ore.errors import InvalidRequest
from ore.protocol.content import OutputText
from ore.protocol.decoding import JsonObject
from ore.protocol.items import Item, Message, as_object, awaits_client
from ore.protocol.responses import Create
from ore.protocol.tools import spread
from ore.runs.judge import Judge


def check_schema(create: Create) -> None:
    """Refuse a strict schema that nothing can be held to: afterwards would be too late."""
    wanted = create.text["format"]
    if wanted.get("strict") and (problem := structured.schema_problem(wanted["schema"])):
        message = f"Invalid schema for response_format '{wanted['name']}': {problem}. Mend that part of the schema."
        raise InvalidRequest(message, code="invalid_json_schema", param="text.format.schema")


async def output_problem(
    create: Create, choice: str | JsonObject, tools: Sequence[JsonObject], output: list[Item], judge: Judge
) -> str | None:
    """What the model was held to and did not keep, although it was told.

    `choice` is the `tool_choice` of the last turn, and `tools` are those of the whole context.
    """
    for item in map(as_object, output):
        if awaits_client(item) and (problem := await _call_problem(choice, tools, item, judge)):
            return problem
    return await _format_problem(create, output, judge)


async def _call_problem(
    choice: str | JsonObject, tools: Sequence[JsonObject], call: JsonObject, judge: Judge
) -> str | None:
    """`tool_choice` and strict arguments are held to, whatever the backend did (wire contract, 17.9)."""
    name, namespace = str(call.get("name") or call["type"]), call.get("namespace")
    if not allows(choice, call["type"], name, namespace):
        return f"The model called '{name}', which 'tool_choice' does not allow"
    tool = next((tool for space, tool in spread(tools) if (space, tool.get("name")) == (namespace, name)), {})
    if call["type"] != "function_call" or not tool.get("strict") or not isinstance(tool.get("parameters"), dict):
        return None
    problem = await judge.mismatch(tool["parameters"], call["arguments"])
    return f"The model's arguments for '{name}' do not match its parameters: {problem}" if problem else None


async def _format_problem(create: Create, output: list[Item], judge: Judge) -> str | None:
    """What is wrong with structured output. Refusals and calls are not held against the schema, nor is text beside."""
    wanted = create.text["format"]
    if wanted["type"] == "text" or any(awaits_client(as_object(item)) for item in output):
        return None
    parts = [part for item in output if isinstance(item, Message) for part in item.content]
    schema = wanted["schema"] if wanted.get("strict") else {"type": "object"} if wanted["type"] == "json_object" else {}
    problem = None if parts else "it has no text"
    for part in parts:
        problem = problem or (await judge.mismatch(schema, part.text) if isinstance(part, OutputText) else None)
    return f"The model's answer does not match 'text.format': {problem}" if problem else None
