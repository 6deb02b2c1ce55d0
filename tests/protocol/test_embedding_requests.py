"""The forms of an embeddings request, and the two of a vector."""

import base64
import struct
from typing import Any

import pytest

from ore.errors import InvalidRequest
from ore.protocol.embeddings import MAX_INPUTS, check_embeddings, embedding_list, in_base64
from ore.protocol.events import encode


@pytest.mark.parametrize(
    ("sent", "inputs"),
    [
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ([1, 2.0], ((1, 2),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
        (["a", [3]], ("a", (3,))),
    ],
)
def test_four_forms_of_input(sent: Any, inputs: tuple[Any, ...]) -> None:
    """A text, texts, tokens, lists of tokens; and texts beside tokens."""
    assert check_embeddings({"input": sent}).inputs == inputs


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "input", "missing_required_parameter"),
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": {}}, "input", "invalid_type"),
        ({"input": ""}, "input", "invalid_value"),
        ({"input": []}, "input", "empty_array"),
        ({"input": ["a"] * (MAX_INPUTS + 1)}, "input", "array_above_max_length"),
        ({"input": ["a", ""]}, "input[1]", "invalid_value"),
        ({"input": ["a", []]}, "input[1]", "invalid_value"),
        ({"input": ["a", None]}, "input[1]", "invalid_type"),
        ({"input": [[1], [1] * (MAX_INPUTS + 1)]}, "input[1]", "array_above_max_length"),
        ({"input": [1, "a"]}, "input[1]", "invalid_type"),
        ({"input": [[1, -1]]}, "input[0][1]", "invalid_type"),
        ({"input": [[1, 2**31]]}, "input[0][1]", "invalid_type"),
        ({"input": [[True]]}, "input[0][0]", "invalid_type"),
        ({"input": "a", "model": 1}, "model", "invalid_type"),
        ({"input": "a", "dimensions": 0}, "dimensions", "integer_below_min_value"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "invalid_value"),
        ({"input": "a", "encoding_format": []}, "encoding_format", "invalid_value"),
    ],
)
def test_what_is_wrong_is_named(body: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_embeddings(body)
    assert (refused.value.param, refused.value.code) == (param, code)


def test_unknown_fields_are_refused_only_where_that_is_wanted() -> None:
    assert check_embeddings({"input": "a", "truncate": True}).dimensions is None
    with pytest.raises(InvalidRequest, match="truncate"):
        check_embeddings({"input": "a", "truncate": True}, strict_fields=True)


def test_vectors_as_numbers_and_as_base64() -> None:
    """Base64 is of little-endian single precision, whatever this machine has."""
    assert base64.b64decode(in_base64([0.5, -2.0])) == struct.pack("<2f", 0.5, -2.0)
    shown = encode(embedding_list([[0.5]], "m", 3, base64=False))
    assert shown == (
        b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5]}],"model":"m",'
        b'"usage":{"prompt_tokens":3,"total_tokens":3}}'
    )
