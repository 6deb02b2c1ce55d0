"""What `ore doctor` says about one thing."""

from typing import Literal, NamedTuple


class Finding(NamedTuple):
    """`fix` is what to do about a warn or a fail."""

    status: Literal["ok", "warn", "fail"]
    detail: str
    fix: str = ""
