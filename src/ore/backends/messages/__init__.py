"""The dialect of Anthropic's Messages API."""

from ore.backends.messages.requests import Messages

__all__ = ["Messages"]
