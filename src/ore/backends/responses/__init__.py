"""The dialect of upstreams that speak Responses themselves."""

from ore.backends.responses.requests import Responses

__all__ = ["Responses"]
