"""Tools with an item type of their own that the client runs, each shown to a model as a function: one table.

For every dialect that knows nothing but functions. A row says which function a model sees, how its arguments become the
call item, and how that item and its output are shown to a model later. Nothing is run here, and tools that run on a
server are not in it.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Struct

from ore.core.deltas import CallKind
from ore.protocol.decoding import JsonObject


class Misfit(Exception):
    """Arguments that do not make a call item; the message says why."""


class NativeTool(Struct, frozen=True, kw_only=True):
    """One row. `fields` and `nothing` give what an item has beside `type`, `id`, `call_id` and `status`."""

    call: CallKind
    name: str
    description: str
    parameters: JsonObject
    fields: Callable[[Any], JsonObject]
    """From decoded arguments. Raises `msgspec.ValidationError`."""
    nothing: JsonObject | None
    """The fields of a call that was cut off, for which there is nothing to do; None when the type knows no such."""
    arguments: Callable[[JsonObject], JsonObject]
    """From a call item."""
    result: Callable[[JsonObject], str]
    """From the output item."""


class _Shell(Struct):
    commands: list[str]
    timeout_ms: int | None = None
    max_output_length: int | None = None


class _LocalShell(Struct):
    command: list[str]
    env: dict[str, str] | None = None
    working_directory: str | None = None
    timeout_ms: int | None = None


class _CreateFile(Struct, tag_field="type", tag="create_file"):
    path: str
    diff: str


class _UpdateFile(Struct, tag_field="type", tag="update_file"):
    path: str
    diff: str


class _DeleteFile(Struct, tag_field="type", tag="delete_file"):
    path: str


class _ApplyPatch(Struct):
    operation: _CreateFile | _UpdateFile | _DeleteFile


class _Outcome(Struct, frozen=True):
    type: str = ""
    exit_code: int | None = None


class _Ran(Struct):
    stdout: str = ""
    stderr: str = ""
    outcome: _Outcome = _Outcome()


def _object(**properties: JsonObject) -> JsonObject:
    """A strict object: every property is required; what may be left out is null."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _text(description: str) -> JsonObject:
    return {"type": "string", "description": description}


def _or_null(kind: str, description: str) -> JsonObject:
    return {"type": [kind, "null"], "description": description}


_MILLISECONDS: Final = _or_null("integer", "Milliseconds after which it is stopped, or null.")
_OPERATIONS: Final = [
    _object(type={"const": kind}, path=_text("Relative to the workspace."), **more)
    for kind, more in (
        ("create_file", {"diff": _text("The file's lines, each after a '+'.")}),
        ("update_file", {"diff": _text("A unified diff without file headers.")}),
        ("delete_file", {}),
    )
]
_SEARCH: Final = _object(query=_text("What the tool should be able to do."))


def _shell_fields(arguments: Any) -> JsonObject:
    return {"action": msgspec.to_builtins(msgspec.convert(arguments, _Shell))}


def _local_shell_fields(arguments: Any) -> JsonObject:
    given = msgspec.to_builtins(msgspec.convert(arguments, _LocalShell))
    rest = {key: value for key, value in given.items() if key != "env" and value is not None}
    return {"action": {"type": "exec", **rest, "env": given["env"] or {}}}


def _patch_fields(arguments: Any) -> JsonObject:
    fields: JsonObject = msgspec.to_builtins(msgspec.convert(arguments, _ApplyPatch))
    return fields


def _search_fields(arguments: Any) -> JsonObject:
    return {"execution": "client", "arguments": msgspec.convert(arguments, JsonObject)}


def _action(*keys: str) -> Callable[[JsonObject], JsonObject]:
    """The arguments that a shell call was made of."""

    def arguments(item: JsonObject) -> JsonObject:
        action = item.get("action")
        return {key: action.get(key) for key in keys} if isinstance(action, dict) else {}

    return arguments


def _shell_result(item: JsonObject) -> str:
    output = item.get("output")
    return "\n".join(map(_ran, output)) if isinstance(output, list) else _plain(output)


def _ran(entry: Any) -> str:
    """One command's output, and how it ended."""
    try:
        ran = msgspec.convert(entry, _Ran)
    except msgspec.ValidationError:
        return _plain(entry)
    ended = "timed out" if ran.outcome.type == "timeout" else f"exit code {ran.outcome.exit_code}"
    said = [ran.stdout.rstrip("\n"), ran.stderr.rstrip("\n"), f"[{ended}]" if ran.outcome.type else ""]
    return "\n".join(filter(None, said))


def _patch_result(item: JsonObject) -> str:
    output = item.get("output")
    return f"{item.get('status') or 'completed'}" + (f": {_plain(output)}" if output else "")


def _search_result(item: JsonObject) -> str:
    """Which tools were found; the tools themselves are among those that the model is shown."""
    names = [str(tool.get("name") or tool.get("type")) for tool in item.get("tools") or [] if isinstance(tool, dict)]
    return f"Found: {', '.join(names)}" if names else "Found nothing."


def _plain_result(item: JsonObject) -> str:
    return _plain(item.get("output"))


def _plain(output: Any) -> str:
    if isinstance(output, str):
        return output
    return "" if output is None else msgspec.json.encode(output).decode()


NATIVE_TOOLS: Final[dict[str, NativeTool]] = {
    "shell": NativeTool(
        call="shell_call",
        name="shell",
        description="Runs shell commands, each in a shell of its own, and gives back what they print.",
        parameters=_object(
            commands={"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 16},
            timeout_ms=_MILLISECONDS,
            max_output_length=_or_null("integer", "Characters of output to give back, or null."),
        ),
        fields=_shell_fields,
        nothing={"action": {"commands": [], "timeout_ms": None, "max_output_length": None}},
        arguments=_action("commands", "timeout_ms", "max_output_length"),
        result=_shell_result,
    ),
    "local_shell": NativeTool(
        call="local_shell_call",
        name="local_shell",
        description="Runs one program on the user's machine, without a shell around it.",
        parameters=_object(
            command={"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 64},
            working_directory=_or_null("string", "Where to run it, or null."),
            timeout_ms=_MILLISECONDS,
        ),
        fields=_local_shell_fields,
        nothing={"action": {"type": "exec", "command": [], "env": {}}},
        arguments=_action("command", "working_directory", "timeout_ms"),
        result=_plain_result,
    ),
    "apply_patch": NativeTool(
        call="apply_patch_call",
        name="apply_patch",
        description="Creates, updates or deletes one file.",
        parameters=_object(operation={"anyOf": _OPERATIONS}),
        fields=_patch_fields,
        nothing=None,
        arguments=lambda item: {"operation": item.get("operation")},
        result=_patch_result,
    ),
    "tool_search": NativeTool(
        call="tool_search_call",
        name="tool_search",
        description="Finds further tools.",
        parameters=_SEARCH,
        fields=_search_fields,
        nothing={"execution": "client", "arguments": {}},
        arguments=lambda item: item["arguments"] if isinstance(item.get("arguments"), dict) else {},
        result=_search_result,
    ),
}
"""Tool type -> its row. `env` of a local shell call is always empty: a strict schema knows no free keys."""

NATIVE_CALLS: Final[dict[str, NativeTool]] = {row.call: row for row in NATIVE_TOOLS.values()}
"""Type of the call item -> the same rows."""

NATIVE_OUTPUTS: Final = {
    "shell_call_output": NATIVE_TOOLS["shell"],
    "local_shell_call_output": NATIVE_TOOLS["local_shell"],
    "apply_patch_call_output": NATIVE_TOOLS["apply_patch"],
    "tool_search_output": NATIVE_TOOLS["tool_search"],
}
"""Type of the output item -> the same rows."""


def call_fields(kind: str, arguments: str) -> JsonObject:
    """What the arguments that a model wrote make of a call item. Raises `Misfit`."""
    try:
        return NATIVE_CALLS[kind].fields(msgspec.json.decode(arguments))
    except (msgspec.DecodeError, RecursionError) as problem:
        raise Misfit(str(problem)) from problem
