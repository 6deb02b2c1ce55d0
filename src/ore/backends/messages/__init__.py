"""The dialect of Anthropic's Messages API."""

from ore.backends.messages.dialect import Messages

__all__ = ["Messages"]
