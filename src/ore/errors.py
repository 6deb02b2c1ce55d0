"""Every exception that ORE raises on purpose.

    OreError
    ├── RequestError                the caller can mend it: an HTTP 4xx
    │   ├── InvalidRequest          400, the default: a value, a combination, a broken body
    │   ├── Unauthorized            401
    │   ├── Forbidden               403
    │   ├── NotFound                404
    │   ├── MethodNotAllowed        405
    │   ├── RequestTimeout          408
    │   ├── Conflict                409
    │   ├── PayloadTooLarge         413
    │   ├── UrlTooLong              414
    │   ├── UnsupportedMediaType    415
    │   ├── UpgradeRequired         426, WebSocket is off
    │   ├── TooManyRequests         429, with Retry-After
    │   │   └── QueueFull           429, a queue of ours has no place left
    │   └── HeadTooLarge            431
    ├── ServerFault                 the caller did nothing wrong: an HTTP 5xx
    │   ├── InternalFault           500, a bug of ours
    │   ├── ModelFailed             502, a model or its engine broke down
    │   ├── Unavailable             503, overloaded or draining, with Retry-After
    │   ├── StorageFailed           503, the store refused a write or a read
    │   └── DeadlineExceeded        504, a time limit of ours ran out
    └── StartupError                wrong settings, a missing file: one sentence with the fix, no traceback
        └── StoreTaken              another process has the store

Each class knows its HTTP status, `type` and `code` (wire contract, section 9); raise, never return. Only
`ore.server.errors` renders them. Messages say what is wrong and what to do next, and never name a path, a key, an
address or a query of ours.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

CONTEXT_TOO_LONG: Final = "context_length_exceeded"
"""The code of a 400 that a shorter context would mend."""

NO_QUOTA: Final = "insufficient_quota"
"""The code of a 429 that does not pass by itself."""


class OreError(Exception):
    """Base class. `message` is shown to the caller as it is."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class HTTPFault(OreError):
    """An error with a place on the wire."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str | None] = None

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code if code is not None else self.default_code
        self.param = param
        self.headers: dict[str, str] = dict(headers or {})

    def payload(self) -> dict[str, Any]:
        """The `error` object of section 9: four keys, always all of them."""
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}


class RequestError(HTTPFault):
    status = 400
    type = "invalid_request_error"


class InvalidRequest(RequestError):
    default_code = "invalid_value"


class Unauthorized(RequestError):
    status = 401
    default_code = "invalid_api_key"


class Forbidden(RequestError):
    status = 403
    type = "permission_error"


class NotFound(RequestError):
    status = 404


class MethodNotAllowed(RequestError):
    status = 405


class RequestTimeout(RequestError):
    status = 408


class Conflict(RequestError):
    status = 409


class PayloadTooLarge(RequestError):
    status = 413


class UrlTooLong(RequestError):
    status = 414


class UnsupportedMediaType(RequestError):
    status = 415


class UpgradeRequired(RequestError):
    status = 426


class TooManyRequests(RequestError):
    """`retry_after` is in seconds."""

    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after: float = 1.0, code: str | None = None) -> None:
        super().__init__(message, code=code, headers={"retry-after": str(max(1, round(retry_after)))})


class QueueFull(TooManyRequests):
    """Nobody beyond the queue was asked."""


class HeadTooLarge(RequestError):
    status = 431


class ServerFault(HTTPFault):
    default_code = "server_error"


class InternalFault(ServerFault):
    status = 500


class ModelFailed(ServerFault):
    status = 502


class Unavailable(ServerFault):
    """`retry_after` is in seconds."""

    status = 503
    type = "service_unavailable_error"
    default_code = "server_is_overloaded"

    def __init__(self, message: str, *, retry_after: float = 1.0, code: str | None = None) -> None:
        super().__init__(message, code=code, headers={"retry-after": str(max(1, round(retry_after)))})


class StorageFailed(ServerFault):
    status = 503


class DeadlineExceeded(ServerFault):
    status = 504


class StartupError(OreError):
    """Raised before the server listens; the command line prints the message alone and exits with status 2."""


class StoreTaken(StartupError):
    """The store is open in another process, which may be asked instead."""
