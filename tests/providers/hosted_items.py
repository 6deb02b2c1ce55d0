"""Every family of items that OpenAI makes by itself (wire contract, 7.2), each with its events in order. Not a test."""

from typing import Any

from providers.responses_server import Telling

Json = dict[str, Any]

SEARCH: Json = {
    "type": "web_search_call",
    "id": "ws_1",
    "status": "completed",
    "action": {
        "type": "search",
        "query": "q",
        "queries": ["q"],
        "sources": [{"type": "url", "url": "https://a.example"}],
    },
}
FILES: Json = {
    "type": "file_search_call",
    "id": "fs_1",
    "status": "completed",
    "queries": ["q"],
    "results": [{"file_id": "file_1", "filename": "a.txt", "text": "t", "score": 0.5, "attributes": {}}],
}
CODE: Json = {
    "type": "code_interpreter_call",
    "id": "ci_1",
    "status": "completed",
    "container_id": "cntr_1",
    "code": "print(1)",
    "outputs": [{"type": "logs", "logs": "1\n"}],
}
IMAGE: Json = {
    "type": "image_generation_call",
    "id": "ig_1",
    "status": "completed",
    "result": "aW1hZ2U=",
    "size": "1024x1024",
}
MCP_TOOLS: Json = {
    "type": "mcp_list_tools",
    "id": "mcpl_1",
    "server_label": "docs",
    "tools": [{"name": "find", "input_schema": {"type": "object"}, "description": None, "annotations": None}],
}
MCP_CALL: Json = {
    "type": "mcp_call",
    "id": "mcp_1",
    "status": "completed",
    "server_label": "docs",
    "name": "find",
    "arguments": '{"q":1}',
    "output": "found",
    "error": None,
    "approval_request_id": None,
}
MCP_APPROVAL: Json = {
    "type": "mcp_approval_request",
    "id": "mcpr_1",
    "server_label": "docs",
    "name": "delete",
    "arguments": "{}",
}
SHELL: Json = {
    "type": "shell_call",
    "id": "sh_1",
    "status": "completed",
    "call_id": "call_sh",
    "action": {"commands": ["ls"], "timeout_ms": None, "max_output_length": None},
    "environment": {"type": "local"},
}
RAN: Json = {
    "type": "shell_call_output",
    "id": "sho_1",
    "status": "completed",
    "call_id": "call_sh",
    "max_output_length": None,
    "output": [{"stdout": "a\n", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}],
}
PATCH: Json = {
    "type": "apply_patch_call",
    "id": "apc_1",
    "status": "completed",
    "call_id": "call_ap",
    "operation": {"type": "delete_file", "path": "a.txt"},
}
COMPUTER: Json = {
    "type": "computer_call",
    "id": "cu_1",
    "status": "completed",
    "call_id": "call_cu",
    "pending_safety_checks": [],
    "action": {"type": "screenshot"},
}
LOCAL_SHELL: Json = {
    "type": "local_shell_call",
    "id": "lsh_1",
    "status": "completed",
    "call_id": "call_ls",
    "action": {"type": "exec", "command": ["ls"], "env": {}},
}
TOOL_SEARCH: Json = {
    "type": "tool_search_call",
    "id": "tsc_1",
    "status": "completed",
    "call_id": None,
    "execution": "server",
    "arguments": {"query": "mail"},
}
BY_PROGRAM: Json = {
    "type": "function_call",
    "id": "fc_program",
    "status": "completed",
    "call_id": "call_pr",
    "name": "f",
    "arguments": "{}",
    "caller": {"type": "program", "caller_id": "prog_1"},
}

FAMILIES: dict[str, tuple[Json, Json | None, list[tuple[str, Json]]]] = {
    "web search": (
        SEARCH,
        None,
        [(f"response.web_search_call.{step}", {}) for step in ("in_progress", "searching", "completed")],
    ),
    "file search": (
        FILES,
        {"results": None},
        [(f"response.file_search_call.{step}", {}) for step in ("in_progress", "searching", "completed")],
    ),
    "code interpreter": (
        CODE,
        {"code": "", "outputs": None},
        [
            ("response.code_interpreter_call.in_progress", {}),
            ("response.code_interpreter_call_code.delta", {"delta": "print"}),
            ("response.code_interpreter_call_code.delta", {"delta": "(1)"}),
            ("response.code_interpreter_call_code.done", {"code": "print(1)"}),
            ("response.code_interpreter_call.interpreting", {}),
            ("response.code_interpreter_call.completed", {}),
        ],
    ),
    "image generation": (
        IMAGE,
        {"result": None},
        [
            ("response.image_generation_call.in_progress", {}),
            ("response.image_generation_call.generating", {}),
            (
                "response.image_generation_call.partial_image",
                {"partial_image_b64": "aW0=", "partial_image_index": 0, "size": "1024x1024"},
            ),
            ("response.image_generation_call.completed", {}),
        ],
    ),
    "MCP list": (
        MCP_TOOLS,
        {"tools": []},
        [("response.mcp_list_tools.in_progress", {}), ("response.mcp_list_tools.completed", {})],
    ),
    "MCP call": (
        MCP_CALL,
        {"arguments": "", "output": None},
        [
            ("response.mcp_call.in_progress", {}),
            ("response.mcp_call_arguments.delta", {"delta": '{"q":1}'}),
            ("response.mcp_call_arguments.done", {"arguments": '{"q":1}'}),
            ("response.mcp_call.completed", {}),
        ],
    ),
    "MCP approval": (MCP_APPROVAL, None, []),
    "shell": (
        SHELL,
        None,
        [
            ("response.shell_call_command.added", {"command": "", "command_index": 0}),
            ("response.shell_call_command.delta", {"command_index": 0, "delta": "ls"}),
            ("response.shell_call_command.done", {"command": "ls", "command_index": 0}),
        ],
    ),
    "shell output": (
        RAN,
        {"output": []},
        [
            ("response.shell_call_output_content.delta", {"command_index": 0, "delta": {"stdout": "a\n"}}),
            ("response.shell_call_output_content.done", {"command_index": 0, "output": RAN["output"]}),
        ],
    ),
    "patch": (PATCH, None, []),
    "computer": (COMPUTER, None, []),
    "local shell": (LOCAL_SHELL, None, []),
    "tool search": (TOOL_SEARCH, None, []),
}
"""Name -> the item, what it has otherwise when it begins, and the events about it."""


def tell_all(telling: Telling) -> Telling:
    for item, begun, told in FAMILIES.values():
        telling.hosted(item, *told, begun=begun)
    return telling
