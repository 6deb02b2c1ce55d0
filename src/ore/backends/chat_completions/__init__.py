"""The Chat Completions dialect: OpenAI's API of that name, and the many servers that speak as it does."""

from ore.backends.chat_completions.dialect import ChatCompletions

__all__ = ["ChatCompletions"]
