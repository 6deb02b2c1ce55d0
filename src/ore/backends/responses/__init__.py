"""The dialect of upstreams that speak Responses themselves."""

from ore.backends.responses.dialect import Responses

__all__ = ["Responses"]
