"""Embeddings in the words of OpenAI's API, which every provider that makes some speaks. Pure, as a dialect is.

It asks for numbers and not for base64, which many servers do not know, and reads both.
"""

from array import array
from base64 import b64decode
from collections.abc import Iterator, Sequence
from sys import byteorder
from typing import Final

from msgspec import Struct, structs

from ore.backends.base import Embedded, EmbeddingRequest, JsonObject
from ore.backends.dialect import Unintelligible, told_as

TOGETHER: Final = 128
"""Inputs of one request to a provider: their vectors, in JSON, are well within what is read of an answer."""


class _Vector(Struct, frozen=True):
    embedding: list[float] | str
    index: int


class _Usage(Struct, frozen=True):
    prompt_tokens: int = 0


class _Vectors(Struct, frozen=True):
    data: list[_Vector]
    usage: _Usage | None = None


def portions(request: EmbeddingRequest) -> Iterator[EmbeddingRequest]:
    """The request as several, of a size that can be asked at once."""
    for at in range(0, len(request.inputs), TOGETHER):
        yield structs.replace(request, inputs=request.inputs[at : at + TOGETHER])


def joined(made: Sequence[Embedded]) -> Embedded:
    """The answers to the portions as one."""
    vectors = [vector for portion in made for vector in portion.vectors]
    return Embedded(vectors=vectors, input_tokens=sum(portion.input_tokens for portion in made))


def embedding_body(request: EmbeddingRequest) -> JsonObject:
    """The body of a request."""
    more = {"dimensions": request.dimensions, "user": request.user}
    told = {key: value for key, value in more.items() if value is not None}
    return {"model": request.model, "input": list(request.inputs), "encoding_format": "float", **told}


def read_embeddings(body: bytes, count: int) -> Embedded:
    """The vectors of an answer, in the order of the `count` inputs. Raises `Unintelligible`."""
    told = told_as(_Vectors, body)
    found = {vector.index: _numbers(vector.embedding) for vector in told.data}
    if sorted(found) != list(range(count)) or not all(found.values()):
        raise Unintelligible("it has not one vector for each input")
    usage = told.usage or _Usage()
    return Embedded(vectors=[found[index] for index in range(count)], input_tokens=usage.prompt_tokens)


def _numbers(vector: list[float] | str) -> list[float]:
    if isinstance(vector, list):
        return vector
    try:
        numbers = array("f", b64decode(vector, validate=True))
    except ValueError as error:
        raise Unintelligible(str(error)) from None
    if byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()
