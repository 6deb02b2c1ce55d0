"""What a fault says about the target that it came from: whether it will pass, and whether to leave the target alone.

It asks nobody, and does not know what is done next.
"""

from ore.errors import (
    CONTEXT_TOO_LONG,
    NO_QUOTA,
    HTTPFault,
    ModelFailed,
    NotFound,
    QueueFull,
    RequestError,
    ServerFault,
    TooManyRequests,
    Unavailable,
)
from ore.routing.breaker import Breaker


def remember(breaker: Breaker, fault: HTTPFault, now: float, *, local: bool) -> None:
    """What a fault says about a target. One of the request's says nothing: it may have been found on this side."""
    pause = fault.headers.get("retry-after")
    if isinstance(fault, QueueFull) or (local and pause is not None):  # it is full, and comes back by itself
        breaker.left_unknown()
        return
    if isinstance(fault, ServerFault) or fault.code == NO_QUOTA:
        breaker.failed(now)
    else:
        breaker.left_unknown()
    if pause is not None:
        breaker.asks_for_pause(now, float(pause))


def code_of(fault: HTTPFault) -> str:
    """A fault's code for metrics: of a request that was refused one of ours, for a provider may say anything."""
    ours = isinstance(fault, ServerFault | TooManyRequests) or fault.code == CONTEXT_TOO_LONG
    return (fault.code if ours else fault.default_code) or fault.type


def resting(name: str, seconds: float) -> Unavailable:
    """Everything that stands behind a name is to be left alone for so long."""
    return Unavailable(
        f"What serves the model '{name}' has failed or asked for a pause, and is left alone for {seconds:.0f} s. "
        "Send the request again then.",
        retry_after=seconds,
    )


def is_mendable(fault: HTTPFault, *, alias: bool) -> bool:
    """Whether a client can do something about it. That a target of an alias is not there is the operator's."""
    is_operators = isinstance(fault, TooManyRequests) or (isinstance(fault, NotFound) and alias)
    return isinstance(fault, RequestError) and not is_operators


def is_passing(fault: HTTPFault) -> bool:
    """Whether the same request may well succeed a moment later. What took too long would take as long again."""
    if isinstance(fault, TooManyRequests):
        return fault.code != NO_QUOTA
    return isinstance(fault, Unavailable | ModelFailed) and fault.code != "upstream_unauthorized"
