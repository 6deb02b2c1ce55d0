"""The last check of structured output: does the text really match the schema that the caller asked for?

Engines constrain their sampling, upstreams promise to; this is where ORE finds out (user pain T5). It fetches nothing:
a `$ref` that leaves the schema is an error.
"""

from functools import lru_cache
from typing import Any

import jsonschema_rs
import msgspec

from ore.protocol.decoding import JsonObject

MAX_REASON = 400
"""Characters of a reason: it goes into an error message."""


def mismatch(schema: JsonObject, text: str) -> str | None:
    """Why `text` is not JSON that matches `schema`; None when it is."""
    try:
        value = msgspec.json.decode(text)
    except RecursionError:
        return "it is nested too deeply"
    except (msgspec.DecodeError, UnicodeError) as problem:
        return f"it is not JSON ({problem})"
    try:
        validator = _validator(msgspec.json.encode(schema))
        if validator.is_valid(value):
            return None
        first = next(iter(validator.iter_errors(value)), None)
    except ValueError as problem:
        return f"the schema cannot be checked ({_short(str(problem))})"
    if first is None:
        return None
    place = "/".join(str(step) for step in first.instance_path) or "the root"
    return f"at {_short(place)}: {_short(first.message)}"


def schema_problem(schema: JsonObject) -> str | None:
    """Why nothing can be checked against a schema; None when it can."""
    try:
        _validator(msgspec.json.encode(schema))
    except ValueError as problem:
        return _short(str(problem))
    return None


def _short(problem: str) -> str:
    """The first line, without most of a long answer that it may quote."""
    line = problem.partition("\n")[0]
    return line if len(line) <= MAX_REASON else f"{line[: MAX_REASON // 2]} ... {line[-MAX_REASON // 2 :]}"


@lru_cache(maxsize=256)
def _validator(schema: bytes) -> Any:
    return jsonschema_rs.validator_for(msgspec.json.decode(schema), offline=True)
