"""What a request holds a model to, looked at before and after: schemas that can be held, calls that are allowed.

Backends enforce what they can while the model writes; this is the last word, whatever they did.
"""

from ore.core import structured
from ore.errors import InvalidRequest
from ore.protocol.content import OutputText
from ore.protocol.decoding import JsonObject
from ore.protocol.items import CustomToolCall, FunctionCall, Item, Message
from ore.protocol.responses import Create
from ore.runs.judge import Judge


def check_schema(create: Create) -> None:
    """Refuse a strict schema that nothing can be held to: afterwards would be too late."""
    wanted = create.text["format"]
    if wanted.get("strict") and (problem := structured.schema_problem(wanted["schema"])):
        message = f"Invalid schema for response_format '{wanted['name']}': {problem}. Mend that part of the schema."
        raise InvalidRequest(message, code="invalid_json_schema", param="text.format.schema")


async def output_problem(create: Create, output: list[Item], judge: Judge) -> str | None:
    """What the model was held to and did not keep, although it was told."""
    for item in output:
        if isinstance(item, FunctionCall) and (problem := await _call_problem(create, item, judge)):
            return problem
    return await _format_problem(create, output, judge)


async def _call_problem(create: Create, call: FunctionCall, judge: Judge) -> str | None:
    """`tool_choice` and strict arguments are held to, whatever the backend did (wire contract, 17.9)."""
    if not _may_call(create.tool_choice, call.name):
        return f"The model called '{call.name}', which 'tool_choice' does not allow"
    tool = next((tool for tool in create.tools if tool.get("name") == call.name), {})
    if not tool.get("strict") or not isinstance(tool.get("parameters"), dict):
        return None
    problem = await judge.mismatch(tool["parameters"], call.arguments)
    return f"The model's arguments for '{call.name}' do not match its parameters: {problem}" if problem else None


def _may_call(choice: str | JsonObject, name: str) -> bool:
    if isinstance(choice, str):
        return choice != "none"
    chosen = choice["tools"] if choice["type"] == "allowed_tools" else [choice]
    return choice.get("mode") != "none" and any(entry.get("name", name) == name for entry in chosen)


async def _format_problem(create: Create, output: list[Item], judge: Judge) -> str | None:
    """What is wrong with structured output. Refusals and calls are not held against the schema, nor is text beside."""
    wanted = create.text["format"]
    if wanted["type"] == "text" or any(isinstance(item, FunctionCall | CustomToolCall) for item in output):
        return None
    parts = [part for item in output if isinstance(item, Message) for part in item.content]
    schema = wanted["schema"] if wanted.get("strict") else {"type": "object"} if wanted["type"] == "json_object" else {}
    problem = None if parts else "it has no text"
    for part in parts:
        problem = problem or (await judge.mismatch(schema, part.text) if isinstance(part, OutputText) else None)
    return f"The model's answer does not match 'text.format': {problem}" if problem else None
