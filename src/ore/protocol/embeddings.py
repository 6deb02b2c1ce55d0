"""Embeddings, as OpenAI's API has them: the check of what clients send, and the objects they get.

What a model takes (how long a text, which lengths of a vector) is for its backend to say; no text is changed here.
"""

from array import array
from base64 import b64encode
from collections.abc import Sequence
from sys import byteorder
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from ore.errors import InvalidRequest
from ore.protocol.content import MAX_TEXT, check_string
from ore.protocol.decoding import JsonObject, convert, one_of, refuse_unknown, type_name, with_integers

MAX_INPUTS: Final = 2048
"""Inputs of one request, and tokens of one that is sent as tokens: OpenAI's bounds."""

FORMATS: Final = ("float", "base64")
LARGEST_TOKEN: Final = 2**31 - 1

Input = str | tuple[int, ...]
"""A text; or the tokens of one, in the model's own numbers."""


class EmbeddingsBody(Struct, kw_only=True):
    """The body of `POST /embeddings` as clients send it. `input` is looked at by hand, for it has four forms."""

    input: Any = None
    model: str | None = None
    encoding_format: Any = None
    dimensions: Annotated[int, Meta(ge=1, le=65536)] | None = None
    user: str | None = None


class Embed(Struct, frozen=True, kw_only=True):
    """A checked request."""

    inputs: tuple[Input, ...]
    model: str | None
    base64: bool
    dimensions: int | None
    user: str | None


class Embedding(Struct, frozen=True, kw_only=True):
    """One vector, as numbers or as base64 of single-precision floats, the lowest byte first."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: Sequence[float] | str


class EmbeddingsUsage(Struct, frozen=True):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Struct, frozen=True, kw_only=True):
    """The answer: the vectors in the order of the inputs."""

    object: Literal["list"] = "list"
    data: tuple[Embedding, ...]
    model: str
    usage: EmbeddingsUsage


def check_embeddings(body: JsonObject, *, strict_fields: bool = False) -> Embed:
    """Check a decoded body of `POST /embeddings`. Raises `InvalidRequest` that names the input at fault."""
    if strict_fields:
        refuse_unknown(body, EmbeddingsBody)
    sent = convert(with_integers(body, ("dimensions",)), EmbeddingsBody)
    wanted = one_of("float" if sent.encoding_format is None else sent.encoding_format, FORMATS, "encoding_format")
    return Embed(
        inputs=_inputs(sent.input),
        model=sent.model or None,
        base64=wanted == "base64",
        dimensions=sent.dimensions,
        user=sent.user,
    )


def embedding_list(vectors: Sequence[Sequence[float]], model: str, tokens: int, *, base64: bool) -> EmbeddingList:
    """The answer, its vectors in the form that was asked for."""
    shown = [in_base64(vector) if base64 else vector for vector in vectors]
    data = tuple(Embedding(index=index, embedding=vector) for index, vector in enumerate(shown))
    return EmbeddingList(data=data, model=model, usage=EmbeddingsUsage(tokens, tokens))


def in_base64(vector: Sequence[float]) -> str:
    """A vector as OpenAI's API encodes it."""
    packed = array("f", vector)
    if byteorder == "big":
        packed.byteswap()
    return b64encode(packed.tobytes()).decode()


def _inputs(sent: Any) -> tuple[Input, ...]:
    """The four forms (a text, texts, tokens, lists of tokens) as the inputs that they mean."""
    if sent is None:
        raise InvalidRequest(
            "Missing required parameter: 'input'. Send a text, or an array of texts.",
            code="missing_required_parameter",
            param="input",
        )
    if isinstance(sent, str):
        return (_text(sent, "input"),)
    if not isinstance(sent, list):
        raise _wrong_type(sent, "input")
    if not 1 <= len(sent) <= MAX_INPUTS:
        raise InvalidRequest(
            f"Invalid 'input': expected 1 to {MAX_INPUTS} inputs, but got {len(sent)}. Send them in several requests.",
            code="array_above_max_length" if sent else "empty_array",
            param="input",
        )
    if _is_integer(sent[0]):
        return (_tokens(sent, "input"),)
    return tuple(_input(entry, f"input[{index}]") for index, entry in enumerate(sent))


def _input(entry: Any, at: str) -> Input:
    if isinstance(entry, str):
        return _text(entry, at)
    if isinstance(entry, list):
        return _tokens(entry, at)
    raise _wrong_type(entry, at)


def _text(text: str, at: str) -> str:
    if not text:
        raise _empty(at)
    return check_string(text, at, MAX_TEXT)


def _tokens(entries: list[Any], at: str) -> tuple[int, ...]:
    if not entries:
        raise _empty(at)
    if len(entries) > MAX_INPUTS:
        message = f"Invalid '{at}': an input may have at most {MAX_INPUTS} tokens. Send it as text, or in parts."
        raise InvalidRequest(message, code="array_above_max_length", param=at)
    for index, entry in enumerate(entries):
        if not (_is_integer(entry) and 0 <= entry <= LARGEST_TOKEN):
            message = f"Invalid value for '{at}[{index}]': expected a token's number."
            raise InvalidRequest(message, code="invalid_type", param=f"{at}[{index}]")
    return tuple(map(int, entries))


def _is_integer(value: Any) -> bool:
    """JSON has one kind of number: `16.0` is an integer too."""
    return not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))


def _empty(at: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid '{at}': there is no embedding of nothing. Leave it out.", param=at)


def _wrong_type(value: Any, at: str) -> InvalidRequest:
    message = f"Invalid type for '{at}': expected a text or an array of tokens, but got {type_name(value)}."
    return InvalidRequest(message, code="invalid_type", param=at)
