"""The Chat Completions dialect: one that many servers speak, each in its way.

What a model cannot take is said in another way or left out, as its profile tells; nothing here knows a provider by
name. What is lost on the way is in `docs/providers/chat-completions.md`.
"""

from ore.backends.base import JsonObject, ModelRequest
from ore.backends.chat_completions.calls import Calls
from ore.backends.chat_completions.decoder import ChatCompletionsDecoder
from ore.backends.chat_completions.listing import read_listing
from ore.backends.chat_completions.requests import AnswerTool, answer_tool, request_body
from ore.backends.dialect import Asked, Listed, Unintelligible
from ore.backends.profiles import Profile
from ore.core.tool_choice import ToolPlan, plan
from ore.ids import NewId, new_id


class ChatCompletions:
    """See `ore.backends.dialect.Dialect`. `new_id` mints ids for calls that come without."""

    name = "Chat Completions"
    path = "chat/completions"
    models_path = "models"
    embeddings_path = "embeddings"

    def __init__(self, new_id: NewId = new_id) -> None:
        self._new_id = new_id

    def key_headers(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"} if key else {}

    def ask(self, request: ModelRequest, profile: Profile, origin: str) -> Asked:
        tools = request.tools if profile.tools else ()
        planned = plan(tools, request.tool_choice, parallel=request.parallel_tool_calls)
        answer = answer_tool(request, profile, planned)
        body = request_body(request, profile, planned, answer, origin)
        return Asked(body, self._decoder(request, planned, profile, origin, answer))

    def models(self, body: bytes) -> list[Listed]:
        return read_listing(body)

    def counting(
        self,
        request: ModelRequest,  # noqa: ARG002
        profile: Profile,  # noqa: ARG002
        origin: str,  # noqa: ARG002
    ) -> tuple[str, JsonObject] | None:
        """The dialect knows no way to count."""
        return None

    def counted(self, body: bytes) -> int:  # noqa: ARG002
        raise Unintelligible

    def _decoder(
        self, request: ModelRequest, planned: ToolPlan, profile: Profile, origin: str, answer: AnswerTool | None
    ) -> ChatCompletionsDecoder:
        calls = Calls(
            {tool.shown: tool for tool in planned.known},
            lambda: self._new_id("call"),
            origin=origin,
            taken={str(item["call_id"]) for item in request.items if item.get("call_id")},
            answer=answer.name if answer is not None else None,
        )
        return ChatCompletionsDecoder(
            calls,
            origin=origin,
            think_tags=profile.think_tags,
            summarised=profile.summarised,
            logprobs=request.top_logprobs is not None,
        )
