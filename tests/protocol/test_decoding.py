"""From bytes to values: the corpus of broken bodies (fault F21), and the words of a refusal."""

from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from json_values import ANY_JSON

from ore.errors import InvalidRequest
from ore.protocol.decoding import MAX_DEPTH, convert, explain, parse_json_object, too_deep

BROKEN: dict[str, bytes] = {
    "200,000 open brackets": b"[" * 200_000,
    "200,000 closed brackets": b"[" * 200_000 + b"]" * 200_000,
    "200,000 objects": b'{"a":' * 200_000,
    "brackets behind a string": b'{"a":"' + b"[" * 500 + b'","b":' + b"[" * 200_000,
    "one level too many": b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1),
    "a string that never ends": b'{"a":"' + b"[" * 200_000,
    "escapes without end": b'{"a":"' + b"\\" * 200_001,
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":Infinity}',
    "minus Infinity": b'{"a":-Infinity}',
    "1e999": b'{"a":1e999}',
    "-1e999": b'{"a":-1e999}',
    "an integer of 5,000 digits": b'{"a":' + b"9" * 5000 + b"}",
    "a number with a leading zero": b'{"a":01}',
    "a number with a plus": b'{"a":+1}',
    "half of a number": b'{"a":1.}',
    "high surrogate alone": rb'{"a":"\ud800"}',
    "low surrogate alone": rb'{"a":"\udc00"}',
    "surrogates the wrong way round": rb'{"a":"\udc00\ud800"}',
    "lone surrogate in a key": rb'{"\ud800":1}',
    "lone surrogate deep inside": rb'{"input":[{"role":"user","content":[{"type":"input_text","text":"\ud83d"}]}]}',
    "invalid UTF-8": b'{"a":"\xff"}',
    "UTF-8 cut in the middle": b'{"a":"\xe2\x82"}',
    "surrogate in UTF-8": b'{"a":"\xed\xa0\x80"}',
    "Latin-1": '{"a":"é"}'.encode("latin-1"),
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "UTF-32": '{"a":1}'.encode("utf-32"),
    "BOM": b'\xef\xbb\xbf{"a":1}',
    "NUL in a string": b'{"a":"\x00"}',
    "NUL after the end": b'{"a":1}\x00',
    "raw newline in a string": b'{"a":"\n"}',
    "bad escape": rb'{"a":"\q"}',
    "trailing garbage": b'{"a":1} x',
    "two objects": b"{}{}",
    "trailing comma": b'{"a":1,}',
    "single quotes": b"{'a':1}",
    "comment": b"{/* */}",
    "no value": b'{"a":}',
    "no colon": b'{"a" 1}',
    "key that is no string": b"{1:2}",
    "not closed": b'{"a":1',
    "word": b"hello",
    "form": b"input=hello&model=x",
    "empty": b"",
    "white space": b" \n\t ",
    "array": b"[]",
    "string": b'"text"',
    "number": b"1",
    "true": b"true",
    "null": b"null",
}

LEGAL: dict[str, tuple[bytes, Any]] = {
    "duplicate keys": (b'{"a":1,"a":2}', {"a": 2}),
    "a big integer": (b'{"a":18446744073709551616}', {"a": 2**64}),
    "an integer of 400 digits": (b'{"a":' + b"9" * 400 + b"}", {"a": 10**400 - 1}),
    "minus zero": (b'{"a":-0}', {"a": 0}),
    "escaped NUL": (rb'{"a":"\u0000"}', {"a": "\x00"}),
    "surrogate pair": (rb'{"a":"\ud83d\ude00"}', {"a": "😀"}),
    "white space around": (b' \n{"a":1}\r\n\t', {"a": 1}),
    "many brackets in a string": (b'{"a":"' + b"[{" * 500 + b'\\""}', {"a": "[{" * 500 + '"'}),
    "many brackets side by side": (b'{"a":[' + b"[]," * 500 + b"[]]}", {"a": [[]] * 501}),
    "empty object": (b"{}", {}),
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_every_broken_body_is_the_same_refusal(body: bytes) -> None:
    """Whatever is wrong with a body, it is a 400 `invalid_json` without a parameter, and says what to send."""
    with pytest.raises(InvalidRequest) as caught:
        parse_json_object(body)
    assert caught.value.status == 400
    assert caught.value.payload() | {"message": ""} == {
        "message": "",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_json",
    }
    assert "JSON object" in caught.value.message
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(("body", "value"), LEGAL.values(), ids=LEGAL)
def test_odd_but_legal_bodies_are_taken(body: bytes, value: Any) -> None:
    """JSON that is merely unusual is decoded as the standard says; of duplicate keys the last counts."""
    assert parse_json_object(body) == value


def test_nesting_up_to_the_limit_is_taken() -> None:
    """Exactly `MAX_DEPTH` levels pass, so every recursive walk over a request may rely on the limit."""
    assert parse_json_object(b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH)
    assert not too_deep(b"[" * MAX_DEPTH)
    assert too_deep(b"[" * (MAX_DEPTH + 1))


# Any bytes at all end as an object or as `invalid_json`, and never in another way.
@settings(deadline=None, max_examples=300)
@given(
    st.binary(max_size=60)
    | st.text(st.sampled_from('{}[]":,\\u0d8eE+-.19ntrfalse \n\x00\ufeff'), max_size=40).map(str.encode)
    | st.tuples(ANY_JSON, st.binary(max_size=2)).map(lambda pair: msgspec.json.encode({"a": pair[0]}) + pair[1])
)
@example(b'{"a":1e308}')
def test_any_bytes_are_an_object_or_a_refusal(body: bytes) -> None:
    """No body escapes the one decoder."""
    try:
        value = parse_json_object(body)
    except InvalidRequest as refusal:
        assert refusal.code == "invalid_json"
    else:
        assert isinstance(value, dict)
        assert parse_json_object(msgspec.json.encode(value)) == value


class Thing(msgspec.Struct):
    name: str
    count: int = 0


@pytest.mark.parametrize(
    ("value", "at", "code", "param"),
    [
        ({}, "", "missing_required_parameter", "name"),
        ({}, "things[2]", "missing_required_parameter", "things[2].name"),
        ({"name": 5}, "", "invalid_type", "name"),
        ({"name": 5}, "things[2]", "invalid_type", "things[2].name"),
        ({"name": "a", "count": 1.5}, "", "invalid_type", "count"),
        ([], "thing", "invalid_type", "thing"),
    ],
)
def test_what_msgspec_finds_becomes_a_code_and_a_path(value: Any, at: str, code: str, param: str) -> None:
    """A refusal of a typed field names its code and its path in the body, never msgspec's own words."""
    with pytest.raises(InvalidRequest) as caught:
        convert(value, Thing, at)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert "`" not in caught.value.message
    assert "$" not in caught.value.message


@pytest.mark.parametrize(
    ("problem", "code", "part"),
    [
        ("Expected `str` of length <= 64 - at `$.a`", "string_above_max_length", "at most 64 characters"),
        ("Expected `array` of length >= 1 - at `$.a`", "array_below_min_length", "at least 1 entries"),
        ("Expected `object` of length <= 16 - at `$.a`", "object_above_max_length", "at most 16 pairs"),
        ("Expected `int` >= 1 - at `$.a`", "integer_below_min_value", "a value >= 1"),
        ("Expected `float` <= 2.0 - at `$.a`", "decimal_above_max_value", "a value <= 2.0"),
        ("Expected `str` matching regex '^x$' - at `$.a`", "invalid_value", "matches ^x$"),
        ("Invalid enum value 'q' - at `$.a`", "invalid_value", "invalid enum value 'q'"),
    ],
)
def test_limits_have_codes_of_their_own(problem: str, code: str, part: str) -> None:
    """Each kind of limit has the code that OpenAI's clients know, and the limit stands in the message."""
    refusal = explain(problem, "")
    assert (refusal.code, refusal.param) == (code, "a")
    assert part in refusal.message
