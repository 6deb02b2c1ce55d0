"""From bytes to checked values: the one place where a broken body becomes a 400.

msgspec fails in five ways on bad JSON (a decode error, bad UTF-8, lone surrogates, numbers out of range, nesting that
is too deep); all of them are the same `invalid_json` to a caller. It does not repair, guess or coerce.
"""

import re
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from ore.errors import InvalidRequest

JsonObject = dict[str, Any]
T = TypeVar("T")

MAX_DEPTH = 128
"""Nesting of a body. Deeper ones are no requests; and every recursive walk over a request may rely on it."""

MAX_QUOTED = 128
"""Characters of a value that a message quotes."""

MAX_LISTED = 16
"""Names that a message lists."""

_NAMES = {"str": "a string", "int": "an integer", "float": "a number", "bool": "a boolean", "array": "an array"}
_NAMES |= {"object": "an object", "null": "null"}


def parse_json_object(body: bytes) -> JsonObject:
    """Decode a request body that has to be one JSON object. Raises `InvalidRequest` (`invalid_json`)."""
    try:
        if too_deep(body):
            raise RecursionError
        value = msgspec.json.decode(body)
        msgspec.json.encode(value)  # lone surrogates decode but cannot be sent on
    except RecursionError:
        raise _invalid_json(f"it is nested deeper than {MAX_DEPTH} levels") from None
    except UnicodeError:
        raise _invalid_json("it is not valid UTF-8") from None
    except msgspec.MsgspecError as error:
        raise _invalid_json(_why(str(error))) from None
    if not isinstance(value, dict):
        raise InvalidRequest('The request body must be a JSON object, such as {"input": "Hello"}.', code="invalid_json")
    return value


def too_deep(body: bytes) -> bool:
    """Whether brackets outside strings nest deeper than `MAX_DEPTH`; a cheap check first, for the usual body."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for found in _BRACKETS.finditer(body):
        token = found[0]
        if token in (b"[", b"{"):
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif token in (b"]", b"}"):
            depth -= 1
    return False


_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)


def convert(value: Any, kind: type[T], at: str = "") -> T:
    """Check `value` against a msgspec type. `at` is the parameter's path, used in `param` and in the message."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise explain(str(error), at) from None


def with_integers(body: JsonObject, names: Iterable[str]) -> JsonObject:
    """JSON has one kind of number: `16.0` is an integer too, and some languages write it so."""
    written = {key: int(body[key]) for key in names if isinstance(body.get(key), float) and body[key].is_integer()}
    return {**body, **written} if written else body


def refuse_unknown(body: JsonObject, kind: type[msgspec.Struct]) -> None:
    """Refuse the first key that is no field of `kind`."""
    for key in body:
        if key not in kind.__struct_fields__:
            raise InvalidRequest(f"Unknown parameter: '{key[:64]}'.", code="unknown_parameter", param=key[:64])


def explain(problem: str, at: str) -> InvalidRequest:
    """Turn msgspec's sentence about a value into ours, with `code` and `param` (wire contract, section 9)."""
    problem, _, path = problem.partition(" - at `$")
    param = at + path.rstrip("`") if at else path.rstrip("`").lstrip(".")
    if missing := re.match(r"Object missing required field `(.+)`", problem):
        param = f"{param}.{missing[1]}" if param else missing[1]
        return InvalidRequest(f"Missing required parameter: '{param}'.", code="missing_required_parameter", param=param)
    if wrong := re.match(r"Expected `(.+)`, got `(.+)`", problem):
        message = (
            f"Invalid type for '{param}': expected {_alternatives(wrong[1])}, but got {_NAMES.get(wrong[2], wrong[2])}."
        )
        return InvalidRequest(message, code="invalid_type", param=param)
    if bound := re.match(r"Expected `(\w+)` (of length )?(<=|>=|<|>) (\S+)", problem):
        return _out_of_bounds(param, bound)
    if pattern := re.match(r"Expected `str` matching regex '(.+)'", problem):
        message = f"Invalid value for '{param}': expected a string that matches {pattern[1]}."
        return InvalidRequest(message, param=param)
    return InvalidRequest(f"Invalid value for '{param}': {_plain(problem)}.", param=param)


def one_of(value: Any, allowed: tuple[str, ...], at: str) -> str:
    """A string out of a fixed list, or `InvalidRequest` that shows the list."""
    if not isinstance(value, str) or value not in allowed:
        message = f"Invalid value for '{at}': {quoted(value)}. Supported values are: {quoted_all(allowed)}."
        raise InvalidRequest(message, param=at)
    return value


def quoted(value: Any) -> str:
    """A decoded value as a message shows it: the beginning of a string, or what JSON calls it."""
    if not isinstance(value, str):
        return type_name(value)
    return f"'{value}'" if len(value) <= MAX_QUOTED else f"'{value[:MAX_QUOTED]}...'"


def quoted_all(values: Iterable[str]) -> str:
    """Names as a message lists them: the first ones, and how many more there are."""
    names = [quoted(value) for value in values]
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more or "none"


def type_name(value: Any) -> str:
    """What JSON calls a decoded value, for messages."""
    names = {bool: "a boolean", str: "a string", int: "an integer", float: "a number", list: "an array"}
    return "null" if value is None else names.get(type(value), "an object")


def _out_of_bounds(param: str, bound: re.Match[str]) -> InvalidRequest:
    kind, length, sign, limit = bound.groups()
    word = {"str": "string", "int": "integer", "float": "decimal", "array": "array", "object": "object"}.get(kind, kind)
    if length:
        code = f"{word}_{'above_max' if sign in ('<=', '<') else 'below_min'}_length"
        unit = {"str": "characters", "array": "entries", "object": "pairs"}.get(kind, "entries")
        text = f"Invalid '{param}': it may have at {'most' if sign == '<=' else 'least'} {limit} {unit}."
        return InvalidRequest(text, code=code, param=param)
    code = f"{word}_{'above_max' if sign in ('<=', '<') else 'below_min'}_value"
    return InvalidRequest(f"Invalid '{param}': expected a value {sign} {limit}.", code=code, param=param)


def _alternatives(union: str) -> str:
    names = [_NAMES.get(name.strip(), name.strip()) for name in union.split("|")]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _invalid_json(why: str) -> InvalidRequest:
    return InvalidRequest(f"The request body is not valid JSON: {why}. Send one JSON object.", code="invalid_json")


def _why(problem: str) -> str:
    """msgspec says that data "was truncated" of lone surrogates too."""
    if problem == "Input data was truncated":
        return "it ends too early, or holds half of a surrogate pair"
    return _plain(problem.partition(" - at `")[0])


def _plain(problem: str) -> str:
    problem = problem.removeprefix("JSON is malformed: ").rstrip(".")
    return problem[:1].lower() + problem[1:]
