"""How a local model writes the call of a tool: as JSON, as JSON around one text, or as raw text.

Which tools there are and may be called is decided in `ore.core.tool_choice`.
"""

from ore.backends.base import ModelRequest
from ore.core.callable_tools import CallableTool
from ore.core.tool_choice import ToolPlan, plan


def plan_tools(request: ModelRequest) -> ToolPlan:
    """What the request's tools and its choice come to. Raises `InvalidRequest`."""
    return plan(request.tools, request.tool_choice, parallel=request.parallel_tool_calls)


def is_raw(tool: CallableTool) -> bool:
    """Whether the input is written as it is. What a Lark grammar describes cannot be escaped as it is written."""
    return tool.format.get("syntax") == "lark"
